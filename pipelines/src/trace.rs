//! What a traced walk tells: fixed-size records on a bounded ring, turned into text by control.

use std::net::IpAddr;

use dataplane::ids::{MacAddr, PortId, SegmentId};
use dataplane::memory::{Kind, Layers, Packet};
use dataplane::pipeline::{Egress, Verdict};
use dataplane::time::Nanos;
use dataplane::wire::{arp, ipv4, ipv6, protocol, udp};
use rtrb::Producer;

use crate::fdb::Learned;
use crate::guard::{layer3, layer4};
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

/// Which packets are told of: all conditions that are given must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Came in by this port.
    pub port: Option<PortId>,
    /// Has this source or destination MAC.
    pub mac: Option<MacAddr>,
    /// Is of this kind.
    pub kind: Option<Kind>,
    /// Carries this IP protocol.
    pub protocol: Option<u8>,
    /// Has this source or destination address, in IP or in ARP.
    pub host: Option<IpAddr>,
    /// Has this source or destination port, in TCP or in UDP.
    pub l4_port: Option<u16>,
}

impl Filter {
    /// Whether a classified packet meets all conditions.
    pub fn matches(&self, packet: &Packet) -> bool {
        let has_mac = |mac: MacAddr| {
            packet.data().get(..12).is_some_and(|both| both[..6] == mac.0 || both[6..] == mac.0)
        };
        self.port.is_none_or(|port| packet.in_port == port)
            && self.kind.is_none_or(|kind| packet.layers.kind == kind)
            && self.protocol.is_none_or(|protocol| packet.layers.protocol == protocol)
            && self.mac.is_none_or(has_mac)
            && self.host.is_none_or(|host| hosts(packet).is_some_and(|both| both.contains(&host)))
            && self
                .l4_port
                .is_none_or(|port| l4_ports(packet).is_some_and(|both| both.contains(&port)))
    }
}

/// Source and destination address.
fn hosts(packet: &Packet) -> Option<[IpAddr; 2]> {
    match packet.layers.kind {
        Kind::Ipv4 => layer3::<ipv4::Header>(packet)
            .map(|(ip, _)| [ip.source().into(), ip.destination().into()]),
        Kind::Ipv6 => layer3::<ipv6::Header>(packet)
            .map(|(ip, _)| [ip.source().into(), ip.destination().into()]),
        Kind::Arp => {
            layer3::<arp::Packet>(packet).map(|(arp, _)| [arp.sender().into(), arp.target().into()])
        }
        Kind::Other | Kind::Malformed => None,
    }
}

/// Source and destination port. TCP and UDP have them in the same place.
fn l4_ports(packet: &Packet) -> Option<[u16; 2]> {
    if !matches!(packet.layers.protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let (udp, _) = layer4::<udp::Header>(packet)?;
    Some([udp.source_port.get(), udp.destination_port.get()])
}

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
