//! The data plane as control holds it: packet memory, workers, published tables, and the devices
//! of all endpoints.

mod backstage;
mod device;
mod drive;
mod gateways;
mod port;
mod ports;
mod tags;
mod tap;
mod veth;
mod wish;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::PortCounters;
use dataplane::engine::{BATCH, Errand, Neighbours, Way};
use dataplane::ids::{PortId, WorkerId};
use dataplane::memory::{Arena, ArenaError, Geometry, Pool};
use dataplane::publish::{Generation, Publication};
use dataplane::shared::{SharedError, SharedLines};
use dataplane::time::Nanos;
use dataplane::worker::{Handle, Policy, Seat, WorkerError};
use pipelines::fdb::{self, Sweeper};
use pipelines::state::{Learning, WorkerState};
use pipelines::switch::Switch;
use pipelines::tables::Tables;
use rtrb::{Producer, RingBuffer};
use thiserror::Error;

pub use backstage::{Backstage, BackstageError};
pub use device::{DeviceError, Site};
pub use drive::Drive;
pub use port::{Device, Owner, Port};
pub use ports::{Ports, site, sum};
pub use tap::remove_strays;

use crate::host::{Host, Wiring};

/// How large the data plane is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The core of each worker; `None` leaves the choice to the scheduler.
    pub cores: Vec<Option<usize>>,
    /// The budget for packets and learned addresses, in bytes.
    pub memory: usize,
    /// How long a worker polls before it sleeps.
    pub linger: Duration,
    /// The name of heddle's own namespace.
    pub netns: String,
}

/// Why there is no data plane, or why it can't do what it is asked.
#[derive(Debug, Error)]
pub enum PlaneError {
    /// No packet memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// No memory for learned addresses.
    #[error("memory for learned addresses: {0}")]
    Fdb(#[from] SharedError),
    /// A table of a size that can't be.
    #[error(transparent)]
    FdbSize(#[from] fdb::BadSize),
    /// A worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The tables have more subscribers than workers.
    #[error(transparent)]
    Subscribe(#[from] dataplane::publish::SubscribeError),
    /// No thread or descriptor for the host stack.
    #[error("the host stack can't start: {0}")]
    Host(std::io::Error),
    /// A worker has not taken up tables in time.
    #[error("a worker has not taken up generation {0} within {GRACE:?}")]
    Stuck(Generation),
}

/// Packet memory, workers and tables.
pub struct Plane {
    workers: Vec<Handle<Switch>>,
    host: Host,
    /// What the host stack's port in each network has counted, by worker.
    gateways: BTreeMap<PortId, CountersByWorker>,
    tables: Publication<Tables>,
    fdb: Arc<fdb::Table>,
    sweeper: Sweeper,
    learning: Vec<Arc<Learning>>,
    backstage: Backstage,
    origin: Instant,
}

/// The learned addresses' part of the memory: at 512 MiB, room for 400,000 addresses.
const FDB_PART: usize = 32;
/// Port numbers that there can be.
const PORTS: usize = 1 << 16;
/// Errands that may wait for one worker from one other.
const ERRANDS: usize = BATCH;
/// A worker takes up new tables with its next batch; longer than this it is stuck.
const GRACE: Duration = Duration::from_secs(5);

impl Plane {
    /// Starts workers that decide by `tables`.
    ///
    /// # Errors
    ///
    /// [`PlaneError`] when memory, threads or descriptors can't be had.
    pub fn start(settings: &Settings, tables: Tables, seed: [u64; 2]) -> Result<Self, PlaneError> {
        let count = settings.cores.len();
        let owners = u16::try_from(count + 1).unwrap_or(u16::MAX);
        let (fdb, mut pools) = memory(settings.memory, owners, seed)?;
        let arena = pools.first().map(|pool| Arc::clone(pool.arena()));
        let arena = arena.ok_or(ArenaError::Owners(owners))?;
        let backstage = Backstage::new(settings.netns.clone(), arena);
        let host_pool = pools.pop().ok_or(ArenaError::Owners(owners))?;
        let seats = pools.iter().map(|pool| Seat::new(pool.owner()));
        let seats: Vec<Seat> = seats.collect::<Result<_, _>>()?;
        let first = seats.first().map(|seat| Arc::clone(seat.bell()));
        let first = first.ok_or(ArenaError::Owners(0))?;
        let mut wiring = Wiring::new().map_err(PlaneError::Host)?;
        let (neighbours, from_host) = neighbours(&seats, &mut wiring);
        let tables = Publication::new(Arc::new(tables), count);
        let origin = Instant::now();
        let mut workers = Vec::new();
        let mut learning = Vec::new();
        for (((seat, pool), neighbours), &core) in
            seats.into_iter().zip(pools).zip(neighbours).zip(&settings.cores)
        {
            let state = WorkerState::new(Arc::clone(&fdb));
            learning.push(Arc::clone(&state.learning));
            let switch = Switch::new(state, tables.subscribe(pool.owner())?);
            let policy = Policy { core, linger: settings.linger };
            workers.push(Handle::start(seat, switch, pool, neighbours, policy, origin)?);
        }
        let sweeper = Sweeper::new(Arc::clone(&fdb));
        let host = Host::start(wiring, host_pool, from_host, first, origin);
        let host = host.map_err(PlaneError::Host)?;
        let gateways = BTreeMap::new();
        Ok(Self { workers, host, gateways, tables, fdb, sweeper, learning, backstage, origin })
    }

    /// The workers, by number.
    pub fn workers(&self) -> &[Handle<Switch>] {
        &self.workers
    }

    /// What ports share that are driven by sockets.
    pub fn backstage(&self) -> &Backstage {
        &self.backstage
    }

    /// The same, to end it.
    pub fn backstage_mut(&mut self) -> &mut Backstage {
        &mut self.backstage
    }

    /// The learned addresses.
    pub fn fdb(&self) -> &fdb::Table {
        &self.fdb
    }

    /// What learning came to, by worker.
    pub fn learning(&self) -> &[Arc<Learning>] {
        &self.learning
    }

    /// The tables in force.
    pub fn tables(&self) -> Arc<Tables> {
        self.tables.current()
    }

    /// The workers' time.
    pub fn now(&self) -> Nanos {
        Nanos::from(self.origin.elapsed())
    }

    /// Puts tables in force, and waits until every worker has taken them up: from then on nothing
    /// refers to what they no longer contain.
    ///
    /// # Errors
    ///
    /// [`PlaneError::Stuck`] when a worker does not come round.
    pub fn publish(&mut self, tables: Tables) -> Result<(), PlaneError> {
        let generation = self.tables.publish(Arc::new(tables));
        self.settle(generation)
    }

    /// Removes learned addresses that are old, or whose port has another owner, and gives their
    /// slots back. To be called every second or so.
    ///
    /// # Errors
    ///
    /// [`PlaneError::Stuck`] when a worker does not come round.
    pub fn sweep(&mut self) -> Result<(), PlaneError> {
        self.tables.collect();
        if self.fdb.is_empty() {
            return Ok(());
        }
        let (tables, now) = (self.tables.current(), self.now().tick());
        let keep = |row: &fdb::Row| tables.remembers(row, now);
        let retired = self.sweeper.sweep(self.sweeper.buckets(), keep);
        if !retired.is_empty() {
            let generation = self.tables.advance();
            self.settle(generation)?;
            self.sweeper.recycle(retired);
        }
        Ok(())
    }

    /// Waits until every worker has reported `generation` or is offline.
    fn settle(&self, generation: Generation) -> Result<(), PlaneError> {
        let deadline = Instant::now() + GRACE;
        while !self.tables.quiesced(generation) {
            if Instant::now() > deadline {
                return Err(PlaneError::Stuck(generation));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

/// What a port has counted so far, by worker.
pub type CountersByWorker = Vec<Arc<PortCounters>>;

/// Divides the budget: a part for learned addresses, the rest for the packets of `owners`.
pub(crate) fn memory(
    bytes: usize,
    owners: u16,
    seed: [u64; 2],
) -> Result<(Arc<fdb::Table>, Vec<Pool>), PlaneError> {
    let fdb = learned_table(bytes / FDB_PART, seed)?;
    let pools = Arena::create(Geometry::within(bytes / FDB_PART * (FDB_PART - 1), owners))?;
    Ok((fdb, pools))
}

fn learned_table(bytes: usize, seed: [u64; 2]) -> Result<Arc<fdb::Table>, PlaneError> {
    let lines = (bytes / 64).max(64);
    let lines = SharedLines::create("heddle-fdb", fdb::LAYOUT, lines)?;
    Ok(Arc::new(fdb::Table::new(lines, PORTS, seed)?))
}

/// Hand-off rings from every worker to every other and to the host stack, and from that to the
/// first worker.
fn neighbours(seats: &[Seat], host: &mut Wiring) -> (Vec<Neighbours>, Producer<Errand>) {
    let mut all: Vec<Neighbours> = seats
        .iter()
        .map(|_| Neighbours { host: Some(host.way()), ..Neighbours::default() })
        .collect();
    for from in 0..seats.len() {
        for (to, seat) in seats.iter().enumerate() {
            let (producer, consumer) = RingBuffer::<Errand>::new(ERRANDS);
            let way = Way::new(producer, Some(Arc::clone(seat.bell())));
            all[from].to.push((to != from).then_some(way));
            if to != from {
                all[to].from.push(consumer);
            }
        }
    }
    // No deeper than a worker empties at once: see its `detach`.
    let (from_host, consumer) = RingBuffer::new(BATCH);
    if let Some(first) = all.first_mut() {
        first.from.push(consumer);
    }
    (all, from_host)
}

/// The worker that serves a port whose device has only one queue.
pub(crate) fn only_owner(port: PortId, workers: usize) -> WorkerId {
    WorkerId(u8::try_from(port.index() % workers.max(1)).unwrap_or(0))
}
