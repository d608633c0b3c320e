//! Loop one: finds the layers of a frame, and prefetches the rows that its walk will read.

use std::ops::ControlFlow::{Break, Continue};

use dataplane::ids::GROUP_BIT;
use dataplane::memory::{Kind, Layers, Packet};
use dataplane::pipeline::{Step, Verdict};
use dataplane::wire::vlan::Marking;
use dataplane::wire::{arp, ethernet, ipv4, ipv6, protocol};
use zerocopy::FromBytes;

use crate::drops;
use crate::fdb::Key;
use crate::origin::Origin;
use crate::state::WorkerState;
use crate::tables::{Port, Role, Tables};

/// VLAN tags of a segment's frame that are stepped over: a service and a customer tag.
const MAX_TAGS: usize = 2;

/// Where a frame comes from and where it goes, as words: see [`MacAddr::to_u64`](dataplane::ids::MacAddr::to_u64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// The destination MAC.
    pub destination: u64,
    /// The source MAC.
    pub source: u64,
}

/// Ends the walk of a packet with damaged headers, or with less than an Ethernet header.
#[inline(always)]
pub fn complete(packet: &Packet) -> Step {
    if packet.layers.kind != Kind::Malformed {
        return Continue(());
    }
    let runt = packet.len() < ethernet::HEADER_LEN;
    Break(Verdict::Drop(if runt { drops::RUNT } else { drops::MALFORMED }))
}

impl Addresses {
    #[inline(always)]
    fn of(header: &ethernet::Header) -> Self {
        let (destination, source) = (header.destination.to_u64(), header.source.to_u64());
        Self { destination, source }
    }

    /// Whether the destination is a group.
    #[inline(always)]
    pub const fn is_to_group(self) -> bool {
        self.destination & GROUP_BIT != 0
    }
}

/// The layers of a frame that is on no walk, behind as many tags as an endpoint may send.
pub fn parse(frame: &[u8]) -> Layers {
    match split::<ethernet::Header>(frame) {
        Some((header, _)) => layers(frame, header.ethertype.get(), &Port::default()),
        None => MALFORMED,
    }
}

/// Classifies one packet of the batch; answers its addresses, zero if it has none.
#[inline(always)]
pub fn classify(
    state: &WorkerState,
    tables: &Tables,
    from: &Origin<'_>,
    packet: &mut Packet,
) -> Addresses {
    let Some((header, _)) = split::<ethernet::Header>(packet.data()) else {
        packet.layers = MALFORMED;
        return Addresses::default();
    };
    let addresses = Addresses::of(header);
    if let Some(key) = Key::of_word(from.segment, addresses.destination) {
        tables.stations.prefetch(key);
        // Where addresses are configured, none will be looked for among the learned ones.
        if from.port.learns {
            state.fdb.prefetch(key);
        }
    }
    if from.port.learns
        && let Some(key) = Key::of_word(from.segment, addresses.source)
    {
        state.fdb.prefetch(key);
    }
    let ethertype = header.ethertype.get();
    // Nearly every frame is one of these, and then the offsets are constants.
    packet.layers = match plain_ipv4(packet.data(), ethertype) {
        Some(layers) => layers,
        None => layers(packet.data(), ethertype, from.port),
    };
    addresses
}

/// The layers of `frame`, whose Ethernet header is complete and says `ethertype`.
#[inline(always)]
fn layers(frame: &[u8], ethertype: u16, port: &Port) -> Layers {
    match ethertype {
        ethernet::IPV4 => of_ipv4(frame, ethernet::HEADER_LEN),
        ethernet::IPV6 => of_ipv6(frame, ethernet::HEADER_LEN),
        ethernet::ARP => of_arp(frame, ethernet::HEADER_LEN),
        tag if ethernet::is_tag(tag) => behind_tags(frame, port),
        _ => found(Kind::Other, ethernet::HEADER_LEN, 0, 0),
    }
}

/// The layers of an untagged IPv4 packet without options that is not a later fragment.
#[inline(always)]
fn plain_ipv4(frame: &[u8], ethertype: u16) -> Option<Layers> {
    const L3: usize = ethernet::HEADER_LEN;
    let (header, rest) = split::<ipv4::Header>(frame.get(L3..)?)?;
    let total = usize::from(header.total_length.get());
    let plain = ethertype == ethernet::IPV4
        && header.version_ihl == 0x45
        && (ipv4::HEADER_LEN..=ipv4::HEADER_LEN + rest.len()).contains(&total)
        && header.fragment_offset_bytes() == 0;
    plain.then(|| found(Kind::Ipv4, L3, L3 + ipv4::HEADER_LEN, header.protocol))
}

#[inline(never)]
fn behind_tags(frame: &[u8], port: &Port) -> Layers {
    // A trunk's own comes on top.
    let most = MAX_TAGS + usize::from(matches!(port.role, Role::Trunk(_)));
    let mut offset = ethernet::HEADER_LEN;
    for _ in 0..most {
        let Some((tag, _)) = frame.get(offset..).and_then(split::<ethernet::Tag>) else {
            return MALFORMED;
        };
        offset += ethernet::TAG_LEN;
        match tag.ethertype.get() {
            ethernet::IPV4 => return of_ipv4(frame, offset),
            ethernet::IPV6 => return of_ipv6(frame, offset),
            ethernet::ARP => return of_arp(frame, offset),
            tag if ethernet::is_tag(tag) => {}
            _ => return found(Kind::Other, offset, 0, 0),
        }
    }
    // Kernels strip any number of priority tags: what is behind more of them can't be let by.
    MALFORMED
}

#[inline(always)]
fn of_ipv4(frame: &[u8], l3: usize) -> Layers {
    let Some((header, rest)) = split::<ipv4::Header>(&frame[l3..]) else { return MALFORMED };
    let Some(options) = header.length().map(|length| length - ipv4::HEADER_LEN) else {
        return MALFORMED;
    };
    let total = usize::from(header.total_length.get());
    if total > ipv4::HEADER_LEN + rest.len() || total < ipv4::HEADER_LEN + options {
        return MALFORMED;
    }
    // A later fragment begins in the middle of a payload.
    if header.fragment_offset_bytes() != 0 {
        return found(Kind::Ipv4, l3, 0, 0);
    }
    found(Kind::Ipv4, l3, l3 + ipv4::HEADER_LEN + options, header.protocol)
}

#[inline(always)]
fn of_ipv6(frame: &[u8], l3: usize) -> Layers {
    let Some((header, rest)) = split::<ipv6::Header>(&frame[l3..]) else { return MALFORMED };
    let length = usize::from(header.payload_length.get());
    if !header.is_version_6() || length > rest.len() {
        return MALFORMED;
    }
    match header.next_header {
        next @ (protocol::TCP | protocol::UDP | protocol::ICMPV6) => {
            found(Kind::Ipv6, l3, l3 + ipv6::HEADER_LEN, next)
        }
        _ => behind_extensions(&frame[l3..l3 + ipv6::HEADER_LEN + length], l3),
    }
}

#[inline(never)]
fn behind_extensions(packet: &[u8], l3: usize) -> Layers {
    match ipv6::upper_layer(packet) {
        None => MALFORMED,
        Some(upper) if upper.fragment || upper.protocol == protocol::NO_NEXT_HEADER => {
            found(Kind::Ipv6, l3, 0, 0)
        }
        Some(upper) => found(Kind::Ipv6, l3, l3 + upper.offset, upper.protocol),
    }
}

#[inline(always)]
fn of_arp(frame: &[u8], l3: usize) -> Layers {
    match split::<arp::Packet>(&frame[l3..]) {
        Some((packet, _)) if packet.is_ethernet_ipv4() => found(Kind::Arp, l3, 0, 0),
        _ => MALFORMED,
    }
}

/// Layers at these offsets. A transport header so far behind that nobody can check it is refused:
/// receivers would read it.
#[inline(always)]
fn found(kind: Kind, l3: usize, l4: usize, protocol: u8) -> Layers {
    let layers = |l3, l4, protocol| Layers { kind, l3, l4, protocol, marking: Marking::NONE };
    match (u8::try_from(l3), u8::try_from(l4)) {
        (Ok(l3), Ok(l4)) if l4 > 0 => layers(l3, l4, protocol),
        (Ok(l3), Ok(_)) => layers(l3, 0, 0),
        _ => MALFORMED,
    }
}

const MALFORMED: Layers =
    Layers { kind: Kind::Malformed, l3: 0, l4: 0, protocol: 0, marking: Marking::NONE };

#[inline(always)]
fn split<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned>(
    bytes: &[u8],
) -> Option<(&T, &[u8])> {
    T::ref_from_prefix(bytes).ok()
}
