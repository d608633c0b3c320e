//! Admission: what an endpoint may send, and how much of it.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::ControlFlow::{Break, Continue};

use dataplane::drops::Reason;
use dataplane::ids::GROUP_BIT;
use dataplane::memory::{Kind, Packet};
use dataplane::pipeline::{Step, Trace, Verdict};
use dataplane::wire::{arp, icmpv6, ipv4, ipv6, protocol, udp};
use zerocopy::FromBytes;

use crate::classify::Addresses;
use crate::drops;
use crate::state::WorkerState;
use crate::tables::{Identity, Port};
use crate::trace::Told;

/// Ends the walk of a packet that its endpoint may not send: addresses that are not its own (in
/// Ethernet, IP, ARP and neighbour discovery), a role that is not its own, or more broadcast and
/// multicast than its storm limit.
#[inline(always)]
pub fn admit<T: Trace>(
    state: &mut WorkerState,
    port: &Port,
    addresses: Addresses,
    packet: &Packet,
) -> Step {
    if addresses.source & GROUP_BIT != 0 || addresses.source == 0 {
        return drop(drops::GROUP_SOURCE);
    }
    if let Some(identity) = &port.identity {
        check_identity(identity, addresses.source, packet)?;
    }
    if addresses.is_to_group() {
        calm(state, port)?;
    }
    state.tell::<T>(|| Told::Admitted);
    Continue(())
}

/// Ends the walk of a frame that would be flooded beyond the port's storm limit.
#[inline(always)]
pub fn calm(state: &WorkerState, port: &Port) -> Step {
    match &port.storm {
        Some(storm) if !storm.admits(state.now) => drop(drops::STORM),
        _ => Continue(()),
    }
}

/// Every address that the packet claims for its sender must be the endpoint's.
#[inline(always)]
fn check_identity(identity: &Identity, source: u64, packet: &Packet) -> Step {
    if source != identity.mac.to_u64() {
        return drop(drops::SPOOFED_MAC);
    }
    match packet.layers.kind {
        Kind::Ipv4 => check_ipv4(identity, packet),
        Kind::Ipv6 => check_ipv6(identity, packet),
        Kind::Arp => check_arp(identity, packet),
        Kind::Other | Kind::Malformed => Continue(()),
    }
}

#[inline(always)]
fn check_ipv4(identity: &Identity, packet: &Packet) -> Step {
    let Some((header, _)) = layer3::<ipv4::Header>(packet) else {
        return drop(drops::MALFORMED);
    };
    if identity.owns(header.source().into()) || is_dhcp_request(header, packet) {
        Continue(())
    } else {
        drop(drops::SPOOFED_IP)
    }
}

/// A client without an address asks for one (RFC 2131, 4.1): from 0.0.0.0, port 68, to port 67.
fn is_dhcp_request(header: &ipv4::Header, packet: &Packet) -> bool {
    header.source().is_unspecified()
        && packet.layers.protocol == protocol::UDP
        && layer4::<udp::Header>(packet)
            .is_some_and(|(udp, _)| udp.source_port == 68 && udp.destination_port == 67)
}

/// An ARP sender is the endpoint; a probe (RFC 5227, 2.1.1) has no sender address yet.
fn check_arp(identity: &Identity, packet: &Packet) -> Step {
    let Some((arp, _)) = layer3::<arp::Packet>(packet) else { return drop(drops::MALFORMED) };
    let sender = arp.sender();
    let own = arp.sender_hardware_address == identity.mac
        && (sender.is_unspecified() || identity.owns(sender.into()));
    if own { Continue(()) } else { drop(drops::SPOOFED_ARP) }
}

#[inline(always)]
fn check_ipv6(identity: &Identity, packet: &Packet) -> Step {
    let Some((header, _)) = layer3::<ipv6::Header>(packet) else {
        return drop(drops::MALFORMED);
    };
    let (source, icmp) = (header.source(), packet.layers.protocol == protocol::ICMPV6);
    // Without an address yet, an endpoint detects duplicates and reports its groups (RFC 4862,
    // 5.4.2; RFC 3810, 5.2.13).
    let own =
        identity.owns(source.into()) || source.is_unspecified() && (icmp || packet.layers.l4 == 0);
    if !own {
        return drop(drops::SPOOFED_IP);
    }
    if icmp { check_neighbor(identity, source, packet) } else { Continue(()) }
}

/// Neighbour discovery (RFC 4861): the link-layer addresses and the target that a message claims
/// for its sender are the endpoint's; routers' messages are the gateway's to send.
fn check_neighbor(identity: &Identity, source: Ipv6Addr, packet: &Packet) -> Step {
    let Some((header, body)) = layer4::<icmpv6::Header>(packet) else {
        return drop(drops::MALFORMED);
    };
    match header.kind {
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => drop(drops::ROGUE_ROUTER),
        icmpv6::NEIGHBOR_SOLICITATION => {
            let Some((_, options)) = view::<icmpv6::Neighbor>(body) else {
                return drop(drops::MALFORMED);
            };
            // A probe for a duplicate asks for an address that is to become the sender's.
            let claimed = icmpv6::link_layer_address(options, icmpv6::SOURCE_LINK_LAYER_ADDRESS);
            let honest = claimed.is_none_or(|mac| mac == identity.mac)
                && !(source.is_unspecified() && claimed.is_some());
            if honest { Continue(()) } else { drop(drops::SPOOFED_ND) }
        }
        icmpv6::NEIGHBOR_ADVERTISEMENT => {
            let Some((neighbor, options)) = view::<icmpv6::Neighbor>(body) else {
                return drop(drops::MALFORMED);
            };
            let claimed = icmpv6::link_layer_address(options, icmpv6::TARGET_LINK_LAYER_ADDRESS);
            let honest = identity.owns(IpAddr::V6(neighbor.target()))
                && claimed.is_none_or(|mac| mac == identity.mac);
            if honest { Continue(()) } else { drop(drops::SPOOFED_ND) }
        }
        _ => Continue(()),
    }
}

#[inline(always)]
fn drop(reason: Reason) -> Step {
    Break(Verdict::Drop(reason))
}

/// The header at the packet's layer 3, and what follows it.
#[inline(always)]
pub fn layer3<T>(packet: &Packet) -> Option<(&T, &[u8])>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    view(packet.data().get(usize::from(packet.layers.l3)..)?)
}

/// The header at the packet's layer 4, if it has one, and what follows it.
#[inline(always)]
pub fn layer4<T>(packet: &Packet) -> Option<(&T, &[u8])>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    match packet.layers.l4 {
        0 => None,
        offset => view(packet.data().get(usize::from(offset)..)?),
    }
}

#[inline(always)]
fn view<T>(bytes: &[u8]) -> Option<(&T, &[u8])>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    T::ref_from_prefix(bytes).ok()
}
