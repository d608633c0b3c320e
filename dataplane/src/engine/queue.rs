//! What the engine keeps for each port.

use std::sync::Arc;

use crate::counters::PortCounters;
use crate::drops;
use crate::ids::{PortId, WorkerId};
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::port::Port;

use super::{BATCH, Place};

/// A port's place and counters.
pub(super) struct Slot {
    pub(super) counters: Arc<PortCounters>,
    pub(super) place: Sender,
}

/// Who sends by the port.
pub(super) enum Sender {
    Queue(Box<Queue>),
    At(WorkerId),
    Host,
}

impl From<Place> for Sender {
    fn from(place: Place) -> Self {
        match place {
            Place::Here(port) => Self::Queue(Box::new(Queue::new(port))),
            Place::At(worker) => Self::At(worker),
            Place::Host => Self::Host,
        }
    }
}

/// A port's queue of this worker, with what waits to be sent by it.
pub(super) struct Queue {
    pub(super) port: Box<dyn Port>,
    pub(super) takes: Capabilities,
    pub(super) transmit: Vec<Packet>,
    /// Bytes in `transmit`.
    pub(super) bytes: u64,
    /// Whether the port is listed as dirty.
    pub(super) dirty: bool,
}

impl Queue {
    fn new(port: Box<dyn Port>) -> Self {
        let takes = port.capabilities();
        Self { port, takes, transmit: Vec::with_capacity(BATCH), bytes: 0, dirty: false }
    }

    /// Appends a packet; answers where it is now.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        packet: Packet,
        port: PortId,
        dirty: &mut Vec<PortId>,
    ) -> &mut Packet {
        if !self.dirty {
            self.dirty = true;
            dirty.push(port);
        }
        self.transmit.push_mut(packet)
    }

    pub(super) fn flush(&mut self, pool: &mut Pool, counters: &PortCounters) {
        let packets = self.transmit.len() as u64;
        let refused = self.port.transmit(pool, &mut self.transmit);
        counters.tx_packets.add(packets - refused.full - refused.failed);
        counters.tx_bytes.add(std::mem::take(&mut self.bytes) - refused.bytes);
        if refused.full + refused.failed > 0 {
            counters.drops.of(drops::PORT_FULL).add(refused.full);
            counters.drops.of(drops::PORT_FAILED).add(refused.failed);
        }
    }
}
