//! The in-memory port: two rings of packets between a worker and whoever holds the far end.
//!
//! Tests and measurements drive the switch through it, and heddle's own host stack sends through
//! one. Packets cross it without a copy.

use std::os::fd::BorrowedFd;

use rtrb::{Consumer, Producer, RingBuffer};

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::ids::PortId;
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::time::Nanos;

/// The switch's end of an in-memory port.
#[derive(Debug)]
pub struct Memory {
    port: PortId,
    capabilities: Capabilities,
    rx: Consumer<Packet>,
    tx: Producer<Packet>,
}

/// The far end: what it pushes, the switch receives.
#[derive(Debug)]
pub struct FarEnd {
    /// Towards the switch.
    pub tx: Producer<Packet>,
    /// From the switch.
    pub rx: Consumer<Packet>,
}

impl Memory {
    /// An in-memory port and its far end, with rings of `depth` packets. What the far end can't
    /// take as it is, by `capabilities`, is settled before it is sent.
    pub fn pair(port: PortId, depth: usize, capabilities: Capabilities) -> (Self, FarEnd) {
        let (to_switch, rx) = RingBuffer::new(depth);
        let (tx, from_switch) = RingBuffer::new(depth);
        (Self { port, capabilities, rx, tx }, FarEnd { tx: to_switch, rx: from_switch })
    }
}

impl Port for Memory {
    fn receive(
        &mut self,
        _pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        _now: Nanos,
        _counters: &PortCounters,
    ) -> Intake {
        let waiting = self.rx.slots();
        let taken = waiting.min(budget);
        if let Ok(chunk) = self.rx.read_chunk(taken) {
            let port = self.port;
            batch.extend(chunk.into_iter().map(|mut packet| {
                packet.in_port = port;
                packet
            }));
        }
        if taken > 0 { Intake::More } else { Intake::Empty }
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        let mut refused = Refused::default();
        for packet in packets.drain(..) {
            if let Err(rtrb::PushError::Full(packet)) = self.tx.push(packet) {
                refused.full(&packet);
                pool.give(packet.into_frame());
            }
        }
        refused
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) {
        while let Ok(packet) = self.rx.pop() {
            pool.give(packet.into_frame());
        }
    }
}
