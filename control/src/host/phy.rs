//! The device under a network's TCP/IP stack: one received frame, and the ring to worker 0.

use dataplane::drops;
use dataplane::engine::Errand;
use dataplane::ids::PortId;
use dataplane::memory::{Packet, Pool};
use rtrb::{Producer, PushError};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::Counters;

/// The way out, shared by all networks.
pub(super) struct Way {
    pub(super) pool: Pool,
    ring: Producer<Errand>,
    /// Whether anything was sent since this was last asked.
    sent: bool,
    /// A frame that is made without packet memory, or out of a super-packet.
    pub(super) scratch: Vec<u8>,
}

impl Way {
    pub(super) fn new(pool: Pool, ring: Producer<Errand>) -> Self {
        Self { pool, ring, sent: false, scratch: vec![0; SCRATCH] }
    }

    /// Whether the worker is to be woken; asking again answers no.
    pub(super) fn take_sent(&mut self) -> bool {
        std::mem::take(&mut self.sent)
    }

    fn send(&mut self, packet: Packet, counters: &Counters) {
        match self.ring.push(Errand::Walk(packet)) {
            Ok(()) => {
                counters.sent.add(1);
                self.sent = true;
            }
            Err(PushError::Full(Errand::Walk(packet) | Errand::Transmit(_, packet))) => {
                counters.drops.of(drops::HANDOFF_FULL).add(1);
                self.pool.give(packet.into_frame());
            }
        }
    }
}

/// Enough for any Ethernet frame that holds an IP packet.
const SCRATCH: usize = 65_535 + 64;

/// The device for one step of one network's stack.
pub(super) struct Phy<'a> {
    /// The frame that is received next, if any.
    pub(super) frame: Option<&'a [u8]>,
    pub(super) port: PortId,
    /// The largest frame that can be sent, Ethernet header included.
    pub(super) largest: usize,
    pub(super) counters: &'a Counters,
    pub(super) way: &'a mut Way,
}

impl Device for Phy<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let frame = self.frame.take()?;
        Some((Incoming(frame), self.outgoing()))
    }

    /// There is always a token, so that nothing is kept waiting for room: what finds none is a
    /// counted drop.
    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.largest;
        capabilities
    }
}

impl Phy<'_> {
    fn outgoing(&mut self) -> Outgoing<'_> {
        Outgoing { port: self.port, counters: self.counters, way: self.way }
    }
}

/// A received frame.
pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// The leave to send one frame.
pub(super) struct Outgoing<'a> {
    port: PortId,
    counters: &'a Counters,
    way: &'a mut Way,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { port, counters, way } = self;
        let mut packet = match Packet::with_room(&mut way.pool, port, len) {
            Ok(packet) => packet,
            Err(reason) => {
                counters.drops.of(reason).add(1);
                way.scratch.resize(way.scratch.len().max(len), 0);
                return f(&mut way.scratch[..len]);
            }
        };
        let fits = packet.set_len(len);
        debug_assert!(fits, "room was asked for");
        // What an earlier packet left there is nobody's business.
        packet.data_mut().fill(0);
        let result = f(packet.data_mut());
        way.send(packet, counters);
        result
    }
}
