//! What one worker keeps between packets.

use std::sync::Arc;

use dataplane::counters::Counter;
use dataplane::engine::BATCH;
use dataplane::pipeline::Trace;
use dataplane::time::{Nanos, Tick};

use crate::classify::Addresses;
use crate::fdb;
use crate::trace::Told;
use crate::watch::Watch;

/// The state of one worker: written by it alone, but for the tables that all workers share.
pub struct WorkerState {
    /// The learned addresses, shared by all workers.
    pub fdb: Arc<fdb::Table>,
    /// The time of the batch.
    pub now: Nanos,
    /// The time of the batch, for ageing.
    pub tick: Tick,
    /// What learning came to.
    pub learning: Arc<Learning>,
    /// The addresses of the packets at hand: what classifying leaves to walking.
    pub addresses: Vec<Addresses>,
    /// Whoever watches at the moment.
    pub watch: Option<Box<Watch>>,
}

/// How often each outcome of learning other than "known" came up.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Learning {
    /// Addresses inserted.
    pub learned: Counter,
    /// Addresses that appeared behind another port.
    pub moved: Counter,
    /// Entries that gave way to a port with fewer.
    pub evicted: Counter,
    /// Addresses not learned: the port has as many as it may have.
    pub refused: Counter,
    /// Addresses not learned: no room.
    pub full: Counter,
}

impl WorkerState {
    /// The state of a worker that has seen nothing.
    pub fn new(fdb: Arc<fdb::Table>) -> Self {
        let learning = Arc::new(Learning::default());
        Self {
            fdb,
            now: Nanos(0),
            tick: Tick(0),
            learning,
            addresses: Vec::with_capacity(BATCH),
            watch: None,
        }
    }

    /// Tells what a step did, in walks that are watched.
    #[inline(always)]
    pub fn tell<T: Trace>(&mut self, told: impl FnOnce() -> Told) {
        self.watched::<T>(|watch, _| watch.tell(told));
    }

    /// Lets whoever watches see something, in walks that are watched.
    #[inline(always)]
    pub fn watched<T: Trace>(&mut self, see: impl FnOnce(&mut Watch, Nanos)) {
        if T::ON
            && let Some(watch) = &mut self.watch
        {
            see(watch, self.now);
        }
    }
}
