//! What may reach a TCP/IP stack: whole headers, and a source that can be answered.

use std::net::IpAddr;

use ipnet::IpNet;
use smoltcp::wire::{
    ArpPacket, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet,
};

use super::Site;
use super::quota::Class;

/// Who sent a frame, and what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The sender's station.
    pub(super) mac: EthernetAddress,
    /// The sender's address; `None` in ARP, where the sender introduces itself.
    pub(super) address: Option<IpAddr>,
    /// What it asks for.
    pub(super) class: Class,
}

/// Looks at a frame; `None` if the stack is not to see it.
pub(super) fn inspect(site: &Site, frame: &[u8]) -> Option<Visitor> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let mac = ethernet.src_addr();
    let (address, class) = match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            ArpPacket::new_checked(ethernet.payload()).ok()?;
            (None, Class::Neighbor)
        }
        EthernetProtocol::Ipv4 => inspect_ipv4(ethernet.payload())?,
        EthernetProtocol::Ipv6 => inspect_ipv6(ethernet.payload())?,
        EthernetProtocol::Unknown(_) => return None,
    };
    let answerable = address.is_none_or(|address| is_on_link(site, address));
    (mac.is_unicast() && answerable).then_some(Visitor { mac, address, class })
}

fn inspect_ipv4(packet: &[u8]) -> Option<(Option<IpAddr>, Class)> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let fragment = ip.more_frags() || ip.frag_offset() != 0;
    // Its datagram would be longer than IPv4 has (RFC 791, 3.2): no sender makes such a fragment.
    let end = usize::from(ip.frag_offset()) + ip.payload().len() + usize::from(ip.header_len());
    if end > usize::from(u16::MAX) {
        return None;
    }
    let class = match ip.next_header() {
        _ if fragment => Class::Fragment,
        IpProtocol::Icmp => Class::Icmp,
        IpProtocol::Tcp => Class::Tcp,
        IpProtocol::Udp => Class::Udp,
        _ => Class::Other,
    };
    Some((Some(ip.src_addr().into()), class))
}

fn inspect_ipv6(packet: &[u8]) -> Option<(Option<IpAddr>, Class)> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    let class = match ip.next_header() {
        IpProtocol::Icmpv6 => match ip.payload().first() {
            Some(133..=137) => Class::Neighbor,
            _ => Class::Icmp,
        },
        IpProtocol::Tcp => Class::Tcp,
        IpProtocol::Udp => Class::Udp,
        IpProtocol::Ipv6Frag => Class::Fragment,
        _ => Class::Other,
    };
    Some((Some(ip.src_addr().into()), class))
}

/// Whether an address is another host's on the network. In what follows, the stack relies on it.
fn is_on_link(site: &Site, address: IpAddr) -> bool {
    let own = site.addresses.iter().any(|net| net.addr() == address);
    let names_all = |net: &IpNet| {
        let is_host_route = net.max_prefix_len() - net.prefix_len() < 2;
        net.addr().is_ipv4() && !is_host_route && address == net.broadcast()
    };
    let mut nets = site.addresses.iter();
    let in_subnet = nets.any(|net| net.contains(&address) && !names_all(net));
    !own && !address.is_multicast() && !address.is_unspecified() && in_subnet
}
