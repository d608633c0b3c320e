//! The walk as the worker loop's pipeline: one worker's state and its view of the tables.

use dataplane::sync::Arc;
use std::ops::ControlFlow;

use dataplane::drops::Reason;
use dataplane::ids::{PortId, SegmentId};
use dataplane::memory::Packet;
use dataplane::pipeline::{Egress, Pipeline, Step, Trace, Verdict};
use dataplane::publish::Subscriber;
use dataplane::time::Nanos;

use crate::capture::Recorder;
use crate::classify;
use crate::origin::Origin;
use crate::state::WorkerState;
use crate::tables::Tables;
use crate::trace::Teller;
use crate::watch::Watch;
use crate::{bridge, walk};

/// The decisions of one worker.
pub struct Switch {
    state: WorkerState,
    tables: Subscriber<Tables>,
}

impl Switch {
    /// Decides by `tables` from now on.
    pub fn new(state: WorkerState, tables: Subscriber<Tables>) -> Self {
        Self { state, tables }
    }

    /// What the worker keeps.
    pub fn state(&self) -> &WorkerState {
        &self.state
    }

    /// Follows packets, or no longer.
    pub fn follow(&mut self, teller: Option<Teller>) {
        self.watch(|watch| watch.teller = teller);
    }

    /// Takes copies of packets, or no longer; gives back what took them before, so that its memory
    /// is freed elsewhere.
    pub fn record(&mut self, recorder: Option<Recorder>) -> Option<Recorder> {
        self.watch(|watch| std::mem::replace(&mut watch.recorder, recorder))
    }

    fn watch<R>(&mut self, change: impl FnOnce(&mut Watch) -> R) -> R {
        let watch = self.state.watch.get_or_insert_default();
        let result = change(watch);
        self.state.watch.take_if(|watch| watch.is_empty());
        result
    }

    /// The tables that the last batch was walked with.
    pub fn tables(&self) -> &Arc<Tables> {
        self.tables.current()
    }
}

impl Pipeline for Switch {
    #[inline(always)]
    fn begin(&mut self, now: Nanos) {
        self.tables.refresh();
        self.state.now = now;
        self.state.tick = now.tick();
        if let Some(watch) = &mut self.state.watch {
            watch.begin();
            self.state.watch.take_if(|watch| watch.is_empty());
        }
    }

    #[inline(always)]
    fn tracing(&self) -> bool {
        self.state.watch.is_some()
    }

    #[inline(always)]
    fn decide<T: Trace>(&mut self, part: &mut [Packet], verdicts: &mut Vec<Verdict>) {
        let Some(first) = part.first() else { return };
        let (state, tables) = (&mut self.state, &**self.tables.current());
        let mut origin = Origin::of(tables, first);
        part.iter().for_each(Packet::prefetch);
        let mut addresses = std::mem::take(&mut state.addresses);
        addresses.clear();
        addresses.extend(part.iter_mut().map(|packet| {
            origin.follow(tables, packet);
            classify::classify(state, tables, &origin, packet)
        }));
        verdicts.extend(part.iter_mut().zip(&addresses).map(|(packet, &addresses)| {
            origin.follow(tables, packet);
            state.watched::<T>(|watch, now| watch.enter(packet, now));
            let end = walk::walk::<T>(state, tables, &origin, addresses, packet);
            let (ControlFlow::Continue(verdict) | ControlFlow::Break(verdict)) = end;
            state.watched::<T>(|watch, _| watch.decided(verdict));
            verdict
        }));
        state.addresses = addresses;
    }

    #[inline(always)]
    fn emit<T: Trace>(&mut self, egress: Egress, packet: &mut Packet) -> Step {
        let (state, tables) = (&mut self.state, &**self.tables.current());
        let step = walk::emit::<T>(state, tables, egress, packet);
        state.watched::<T>(|watch, now| watch.emitted(egress, step, packet, now));
        step
    }

    fn lost<T: Trace>(&mut self, reason: Reason, packet: &Packet) {
        self.state.watched::<T>(|watch, now| watch.lost(reason, packet, now));
    }

    fn copies(&self, segment: SegmentId) -> usize {
        self.tables.current().segment(segment).map_or(0, |row| row.members.len())
    }

    fn copy(&self, segment: SegmentId, index: usize, packet: &Packet) -> Option<Egress> {
        let tables = self.tables.current();
        let port: PortId = *tables.segment(segment)?.members.get(index)?;
        bridge::reaches(tables, port, packet).then_some(Egress { port, segment })
    }

    fn offline<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        self.tables.offline(wait)
    }
}
