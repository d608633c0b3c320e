//! Which packets somebody who watches wants to see.

use std::net::IpAddr;

use dataplane::ids::{MacAddr, PortId};
use dataplane::memory::{Kind, Packet};
use dataplane::wire::{arp, ipv4, ipv6, protocol, udp};

use crate::guard::{layer3, layer4};

/// Which packets are meant: all conditions that are given must hold.
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
    /// Every packet.
    pub const ANY: Self =
        Self { port: None, mac: None, kind: None, protocol: None, host: None, l4_port: None };

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
