//! heddle itself in a network: what is for the gateway is answered in place, without a host stack,
//! where an answer is the request rewritten (ARP, neighbour discovery, echo).

use std::net::{IpAddr, Ipv6Addr};
use std::ops::ControlFlow::{Break, Continue};

use dataplane::drops::NO_HOST_STACK;
use dataplane::ids::MacAddr;
use dataplane::memory::{Kind, Packet};
use dataplane::offload::{Checksum, Offload};
use dataplane::pipeline::{Egress, Step, Trace, Verdict};
use dataplane::wire::checksum::{self, Sum};
use dataplane::wire::{arp, ethernet, icmp, icmpv6, ipv4, ipv6, protocol};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::classify::Addresses;
use crate::drops;
use crate::guard::{layer3, layer4};
use crate::origin::Origin;
use crate::state::WorkerState;
use crate::tables::Identity;
use crate::trace::Told;

/// Ends the walk of what is for the gateway: with a reply, a punt to the host stack, or a drop
/// where it would have to route and can't. Everything else goes on.
#[inline(always)]
pub fn answer<T: Trace>(
    state: &mut WorkerState,
    from: &Origin<'_>,
    addresses: Addresses,
    packet: &mut Packet,
) -> Step {
    let mine = addresses.destination == from.gateway_mac;
    if !mine && !addresses.is_to_group() {
        return Continue(());
    }
    let Some(gateway) = from.gateway else { return Continue(()) };
    if reply(gateway, packet).is_some() {
        let kind = packet.layers.kind;
        state.tell::<T>(|| Told::Answered(kind));
        return Break(Verdict::Reply(Egress { port: from.id, segment: from.segment }));
    }
    if mine { Break(receive(state, from, gateway, packet)) } else { Continue(()) }
}

/// What becomes of a packet for the gateway's station that has no answer in place.
fn receive(state: &WorkerState, from: &Origin<'_>, gateway: &Identity, packet: &Packet) -> Verdict {
    let destination = match packet.layers.kind {
        Kind::Ipv4 => layer3::<ipv4::Header>(packet).map(|(ip, _)| IpAddr::V4(ip.destination())),
        Kind::Ipv6 => layer3::<ipv6::Header>(packet).map(|(ip, _)| IpAddr::V6(ip.destination())),
        Kind::Arp => return punt(state, from),
        Kind::Other | Kind::Malformed => None,
    };
    match destination {
        Some(address) if gateway.owns(address) => punt(state, from),
        _ => Verdict::Drop(drops::NO_ROUTE),
    }
}

/// Gives the packet to the host stack, within the network's limit.
fn punt(state: &WorkerState, from: &Origin<'_>) -> Verdict {
    match from.host {
        Some(host) if host.limit.admits(state.now) => Verdict::Punt(host.port),
        Some(_) => Verdict::Drop(drops::PUNT_LIMIT),
        None => Verdict::Drop(NO_HOST_STACK),
    }
}

/// Rewrites a request to the gateway into its answer; `None`, and nothing changed, if it is not
/// one that can be answered so.
fn reply(gateway: &Identity, packet: &mut Packet) -> Option<()> {
    match packet.layers.kind {
        Kind::Arp => reply_arp(gateway, packet),
        Kind::Ipv4 => reply_echo(gateway, packet),
        Kind::Ipv6 if packet.layers.protocol == protocol::ICMPV6 => {
            match layer4::<icmpv6::Header>(packet)?.0.kind {
                icmpv6::NEIGHBOR_SOLICITATION => reply_solicitation(gateway, packet),
                icmpv6::ECHO_REQUEST => reply_echo_v6(gateway, packet),
                _ => None,
            }
        }
        Kind::Ipv6 | Kind::Other | Kind::Malformed => None,
    }
}

/// RFC 826: the answer is the request with the sides swapped.
fn reply_arp(gateway: &Identity, packet: &mut Packet) -> Option<()> {
    let l3 = packet.layers.l3;
    let request: &mut arp::Packet = at(packet, l3)?;
    if request.operation != arp::REQUEST || !gateway.v4.contains(&request.target()) {
        return None;
    }
    *request = request.reply(gateway.mac);
    turn_around(gateway, packet)
}

/// RFC 792: an echo reply is the echo with the addresses swapped and another type.
fn reply_echo(gateway: &Identity, packet: &mut Packet) -> Option<()> {
    let (ip, _) = layer3::<ipv4::Header>(packet)?;
    let asked = packet.layers.protocol == protocol::ICMP
        && gateway.v4.contains(&ip.destination())
        && !ip.is_fragment();
    let (echo, _) = layer4::<icmp::Header>(packet)?;
    if !asked || echo.kind != icmp::ECHO || echo.code != 0 {
        return None;
    }
    let (l3, l4) = (packet.layers.l3, packet.layers.l4);
    let header: &mut ipv4::Header = at(packet, l3)?;
    (header.source_address, header.destination_address) =
        (header.destination_address, header.source_address);
    header.time_to_live = HOPS;
    let bytes = packet.data_mut().get_mut(usize::from(l3)..usize::from(l4))?;
    ipv4::fill_checksum(bytes);
    let partial = packet.offload.checksum == Checksum::Partial;
    let echo: &mut icmp::Header = at(packet, l4)?;
    retype(&mut echo.kind, icmp::ECHO_REPLY, &mut echo.checksum, partial);
    turn_around(gateway, packet)
}

/// RFC 4443, 4.2: as for IPv4. Swapped addresses leave the pseudo-header's sum as it is.
fn reply_echo_v6(gateway: &Identity, packet: &mut Packet) -> Option<()> {
    let (l3, l4) = (packet.layers.l3, packet.layers.l4);
    let partial = packet.offload.checksum == Checksum::Partial;
    let header: &mut ipv6::Header = at(packet, l3)?;
    if !gateway.v6.contains(&header.destination()) {
        return None;
    }
    (header.source_address, header.destination_address) =
        (header.destination_address, header.source_address);
    header.hop_limit = HOPS;
    let echo: &mut icmpv6::Header = at(packet, l4)?;
    retype(&mut echo.kind, icmpv6::ECHO_REPLY, &mut echo.checksum, partial);
    turn_around(gateway, packet)
}

/// RFC 4861, 7.2.4: a solicitation for the gateway becomes its advertisement, in the same frame.
fn reply_solicitation(gateway: &Identity, packet: &mut Packet) -> Option<()> {
    let (l3, l4) = (usize::from(packet.layers.l3), usize::from(packet.layers.l4));
    let (ip, _) = layer3::<ipv6::Header>(packet)?;
    let (asker, hop_limit) = (ip.source(), ip.hop_limit);
    let (icmp, body) = layer4::<icmpv6::Header>(packet)?;
    let (solicitation, _) = icmpv6::Neighbor::ref_from_prefix(body).ok()?;
    let target = solicitation.target();
    // RFC 4861, 7.1.1: anything else did not come from this link.
    let valid = hop_limit == icmpv6::NEIGHBOR_HOP_LIMIT && icmp.code == 0;
    let direct = l4 == l3 + ipv6::HEADER_LEN;
    if !valid || !direct || !gateway.v6.contains(&target) {
        return None;
    }
    let advertisement = Advertisement::new(gateway.mac, asker, target);
    if !packet.set_len(l3 + size_of::<Advertisement>()) {
        return None;
    }
    advertisement.write_to(packet.data_mut().get_mut(l3..)?).ok()?;
    packet.offload = Offload { checksum: Checksum::Verified, ..Offload::PLAIN };
    turn_around(gateway, packet)?;
    if asker.is_unspecified() {
        let l2: &mut ethernet::Header = at(packet, 0)?;
        l2.destination = ipv6::multicast_mac(ALL_NODES);
    }
    Some(())
}

/// A neighbour advertisement from its IPv6 header on, without extension headers.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Advertisement {
    ip: ipv6::Header,
    icmp: icmpv6::Header,
    neighbor: icmpv6::Neighbor,
    option: icmpv6::LinkLayerAddress,
}

impl Advertisement {
    /// Says that `target` is at `mac`, to whom has asked; to all nodes if that had no address.
    fn new(mac: MacAddr, asker: Ipv6Addr, target: Ipv6Addr) -> Self {
        let (destination, solicited) =
            if asker.is_unspecified() { (ALL_NODES, 0) } else { (asker, icmpv6::SOLICITED) };
        let flags = icmpv6::ROUTER | icmpv6::OVERRIDE | solicited;
        let mut this = Self {
            ip: ipv6::Header {
                version_class_flow: (6 << 28).into(),
                payload_length: PAYLOAD.into(),
                next_header: protocol::ICMPV6,
                hop_limit: icmpv6::NEIGHBOR_HOP_LIMIT,
                source_address: target.octets(),
                destination_address: destination.octets(),
            },
            icmp: icmpv6::Header {
                kind: icmpv6::NEIGHBOR_ADVERTISEMENT,
                code: 0,
                checksum: 0.into(),
            },
            neighbor: icmpv6::Neighbor { flags: flags.into(), target_address: target.octets() },
            option: icmpv6::LinkLayerAddress::new(icmpv6::TARGET_LINK_LAYER_ADDRESS, mac),
        };
        let pseudo = checksum::pseudo_v6(
            &this.ip.source_address,
            &this.ip.destination_address,
            protocol::ICMPV6,
            u32::from(PAYLOAD),
        );
        let body = Sum::of(&this.as_bytes()[ipv6::HEADER_LEN..]);
        this.icmp.checksum = pseudo.combine(body).checksum();
        this
    }
}

const PAYLOAD: u16 = 32;
const _: () = assert!(size_of::<Advertisement>() == ipv6::HEADER_LEN + PAYLOAD as usize);

/// The hop limit of what the gateway sends (RFC 1700).
const HOPS: u8 = 64;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Changes an ICMP type and takes that into the checksum, unless that is still to be computed.
fn retype(kind: &mut u8, to: u8, sum: &mut U16, partial: bool) {
    let (old, new) = (Sum::word(u16::from(*kind) << 8), Sum::word(u16::from(to) << 8));
    *kind = to;
    if !partial {
        *sum = checksum::update(*sum, old, new);
    }
}

/// Sends the frame back to its source.
fn turn_around(gateway: &Identity, packet: &mut Packet) -> Option<()> {
    let header: &mut ethernet::Header = at(packet, 0)?;
    header.destination = header.source;
    header.source = gateway.mac;
    Some(())
}

fn at<T>(packet: &mut Packet, offset: u8) -> Option<&mut T>
where
    T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
{
    let bytes = packet.data_mut().get_mut(usize::from(offset)..)?;
    T::mut_from_prefix(bytes).ok().map(|(header, _)| header)
}
