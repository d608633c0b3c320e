//! Ports: the ways in and out, behind one trait, called once per batch.

pub mod af_packet;
#[cfg(not(loom))]
pub mod af_xdp;
mod coalesce;
pub mod impaired;
mod landing;
pub mod memory;
pub mod pcap;
pub mod shared;
mod steering;
pub mod tap;

// The model checker has no kernel: of AF_XDP it checks the rings, on the heap.
#[cfg(loom)]
#[path = "af_xdp/ring.rs"]
#[expect(dead_code, reason = "most of the rings' users are not there")]
mod ring;

use std::os::fd::BorrowedFd;

use crate::counters::PortCounters;
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::time::Nanos;

/// One worker's queue of one port.
///
/// A port never waits: it takes what its device has and gives what its device takes.
pub trait Port: Send {
    /// Takes frames from the device and appends them to `batch`, at most `budget` of them. Frames
    /// that the device had and the switch can't take are counted as drops there and then.
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        now: Nanos,
        counters: &PortCounters,
    ) -> Intake;

    /// Hands all of `packets` to the device, in order, and returns to the pool the frames that it
    /// is done with. Afterwards `packets` is empty; what the device did not take is the answer.
    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused;

    /// What the device settles by itself.
    fn capabilities(&self) -> Capabilities;

    /// What becomes readable when frames arrive; nothing if only the doorbell tells.
    fn readiness(&self) -> Vec<BorrowedFd<'_>>;

    /// Closes the queue and returns to the pool the frames that it holds.
    fn close(self: Box<Self>, pool: &mut Pool);
}

/// What is left after a [`Port::receive`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intake {
    /// There may be more: ask again.
    More,
    /// Nothing is left: wait until the device says that it is readable.
    Empty,
    /// The device is gone; nothing will ever come.
    Gone,
}

/// What a [`Port::transmit`] could not hand over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refused {
    /// Packets for which there was no room.
    pub full: u64,
    /// Packets that the device refused.
    pub failed: u64,
    /// The bytes of both.
    pub bytes: u64,
}

impl Refused {
    /// Notes a packet for which there was no room.
    pub fn full(&mut self, packet: &Packet) {
        self.full += 1;
        self.bytes += packet.len() as u64;
    }

    /// Notes a packet that the device refused.
    pub fn failed(&mut self, packet: &Packet) {
        self.failed += 1;
        self.bytes += packet.len() as u64;
    }
}
