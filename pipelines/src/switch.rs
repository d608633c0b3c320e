//! The walk as the worker loop's pipeline: one worker's state and its view of the tables.

use dataplane::sync::Arc;
use std::ops::ControlFlow;

use dataplane::ids::{PortId, SegmentId};
use dataplane::memory::Packet;
use dataplane::pipeline::{Egress, Pipeline, Step, Trace, Verdict};
use dataplane::publish::Subscriber;
use dataplane::time::Nanos;

use crate::classify;
use crate::origin::Origin;
use crate::state::WorkerState;
use crate::tables::Tables;
use crate::trace::{Teller, Told};
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
        self.state.teller = teller;
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
        if let Some(teller) = &self.state.teller
            && !teller.is_heard()
        {
            self.state.teller = None;
        }
    }

    #[inline(always)]
    fn tracing(&self) -> bool {
        self.state.teller.is_some()
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
            state.enter::<T>(packet);
            let end = walk::walk::<T>(state, tables, &origin, addresses, packet);
            let (ControlFlow::Continue(verdict) | ControlFlow::Break(verdict)) = end;
            state.tell::<T>(|| Told::Decided(verdict));
            verdict
        }));
        state.addresses = addresses;
    }

    #[inline(always)]
    fn emit<T: Trace>(&mut self, egress: Egress, packet: &mut Packet) -> Step {
        let (state, tables) = (&mut self.state, &**self.tables.current());
        let step = walk::emit::<T>(state, tables, egress, packet);
        state.tell::<T>(|| match step {
            ControlFlow::Continue(()) => Told::Emitted(egress),
            ControlFlow::Break(verdict) => Told::Refused(egress, verdict),
        });
        step
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
