//! What a traced walk tells: fixed-size records on a bounded ring, turned into text by control.

use dataplane::ids::{MacAddr, PortId, SegmentId};
use dataplane::memory::{Kind, Layers, Packet};
use dataplane::pipeline::{Egress, Verdict};
use dataplane::time::Nanos;
use rtrb::Producer;

use crate::fdb::Learned;
use crate::filter::Filter;
use crate::trunk::Tagging;

/// One thing that a walk says about a packet. Records of one packet follow each other on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A packet begins its walk.
    Entered {
        /// When.
        at: Nanos,
        /// Through which port.
        port: PortId,
        /// Its bytes, super-packets whole.
        len: u32,
        /// What parsing found.
        layers: Layers,
        /// Its first bytes; zeroes beyond its end.
        head: [u8; HEAD],
    },
    /// The outermost tag has told the segment, and is taken off.
    Vlan {
        /// The VLAN that the frame came in with, zero for none.
        vid: u16,
        /// Which segment that is at the port.
        segment: SegmentId,
    },
    /// The endpoint may send this.
    Admitted,
    /// The source address was learned, or not.
    Learned(Learned),
    /// The destination is a configured endpoint.
    Station(PortId),
    /// The destination was learned behind this port.
    Heard(PortId),
    /// Nobody knows the destination.
    Unknown(MacAddr),
    /// The gateway answers in place.
    Answered(Kind),
    /// The walk has ended.
    Decided(Verdict),
    /// A copy, or a segment of one, looks like this on the trunk that it leaves by.
    Tagged(Tagging),
    /// A copy, or a segment of one, is on its way out.
    Emitted(Egress),
    /// A copy, or a segment of one, goes no further.
    Refused(Egress, Verdict),
}

/// Bytes of a packet's head in [`Told::Entered`]: Ethernet, a tag, IPv6, TCP.
pub const HEAD: usize = 80;

/// The teller of one worker while packets are followed.
#[derive(Debug)]
pub struct Teller {
    filter: Filter,
    ring: Producer<Told>,
    /// Whether the packet on its walk is followed.
    following: bool,
}

impl Teller {
    /// Follows the packets that meet `filter`. What the ring does not take is not told.
    pub fn new(filter: Filter, ring: Producer<Told>) -> Self {
        Self { filter, ring, following: false }
    }

    /// Whether someone still listens.
    pub fn is_heard(&self) -> bool {
        !self.ring.is_abandoned()
    }

    /// What is told from now on is not of the packet that was followed last.
    pub fn pause(&mut self) {
        self.following = false;
    }

    /// A packet begins its walk.
    pub fn enter(&mut self, packet: &Packet, at: Nanos) {
        self.following = self.filter.matches(packet);
        let mut head = [0; HEAD];
        let shown = packet.len().min(HEAD);
        head[..shown].copy_from_slice(&packet.data()[..shown]);
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        self.tell(Told::Entered { at, port: packet.in_port, len, layers: packet.layers, head });
    }

    /// Tells, if the packet is followed.
    pub fn tell(&mut self, told: Told) {
        // A packet whose story has a gap is not followed further: its rest would be taken for
        // another's.
        self.following = self.following && self.ring.push(told).is_ok();
    }
}
