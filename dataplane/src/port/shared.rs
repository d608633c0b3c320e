//! A device that the host uses as well: what is for heddle's stations comes by one port, what is
//! for groups by another, which the host gets too.

use std::os::fd::BorrowedFd;

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::time::Nanos;

/// Two ports as one: both receive, the first sends.
#[derive(Debug)]
pub struct Shared<U, G> {
    unicast: U,
    groups: G,
}

impl<U: Port, G: Port> Shared<U, G> {
    /// One port of the two.
    pub fn new(unicast: U, groups: G) -> Self {
        Self { unicast, groups }
    }
}

impl<U: Port, G: Port> Port for Shared<U, G> {
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        now: Nanos,
        counters: &PortCounters,
    ) -> Intake {
        // Half of the budget each at first, so that neither keeps the other waiting.
        let before = batch.len();
        let groups = self.groups.receive(pool, batch, budget / 2, now, counters);
        let rest = budget.saturating_sub(batch.len() - before);
        let unicast = self.unicast.receive(pool, batch, rest, now, counters);
        match (unicast, groups) {
            (Intake::Gone, Intake::Gone) => Intake::Gone,
            (Intake::More, _) | (_, Intake::More) => Intake::More,
            _ => Intake::Empty,
        }
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        self.unicast.transmit(pool, packets)
    }

    fn capabilities(&self) -> Capabilities {
        self.unicast.capabilities()
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        [self.unicast.readiness(), self.groups.readiness()].concat()
    }

    fn close(self: Box<Self>, pool: &mut Pool) {
        let Self { unicast, groups } = *self;
        Box::new(unicast).close(pool);
        Box::new(groups).close(pool);
    }
}
