//! The frame by which a stack learns the station of a sender, so that its answer is not held up by
//! a question first.
//!
//! A stack that does not know a neighbour's station asks for it, and forgets what it wanted to
//! send. The sender's frame holds both its addresses, and admission has checked them where that
//! is configured; what it says counts as much as an ARP reply would.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::ids::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};

/// Longer than either kind of introduction: Ethernet, IPv6, and an advertisement with its option.
const LONGEST: usize = 14 + 40 + 32;

/// A frame, made up here, in which a sender says where it is.
pub(super) struct Introduction {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Introduction {
    /// That `address` is at `mac`, said to the host at `own`; `None` if the families differ.
    pub(super) fn new(
        (mac, address): (EthernetAddress, IpAddr),
        (own_mac, own): (MacAddr, IpAddr),
    ) -> Option<Self> {
        let mut this = Self { bytes: [0; LONGEST], len: 0 };
        let own_mac = EthernetAddress(own_mac.0);
        let mut frame = EthernetFrame::new_unchecked(&mut this.bytes[..]);
        frame.set_src_addr(mac);
        frame.set_dst_addr(own_mac);
        let payload = match (address, own) {
            (IpAddr::V4(address), IpAddr::V4(own)) => {
                frame.set_ethertype(EthernetProtocol::Arp);
                write_arp(frame.payload_mut(), (mac, address), (own_mac, own))
            }
            (IpAddr::V6(address), IpAddr::V6(own)) => {
                frame.set_ethertype(EthernetProtocol::Ipv6);
                write_advertisement(frame.payload_mut(), (mac, address), own)
            }
            _ => return None,
        };
        this.len = EthernetFrame::<&[u8]>::header_len() + payload;
        Some(this)
    }

    pub(super) fn frame(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An ARP reply; answers its length.
fn write_arp(
    bytes: &mut [u8],
    (mac, address): (EthernetAddress, Ipv4Addr),
    (own_mac, own): (EthernetAddress, Ipv4Addr),
) -> usize {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_hardware_addr: own_mac,
        target_protocol_addr: own,
    };
    reply.emit(&mut ArpPacket::new_unchecked(bytes));
    reply.buffer_len()
}

/// A neighbour advertisement; answers its length.
fn write_advertisement(
    bytes: &mut [u8],
    (mac, address): (EthernetAddress, Ipv6Addr),
    own: Ipv6Addr,
) -> usize {
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: address,
        lladdr: Some(mac.into()),
    });
    let ip = Ipv6Repr {
        src_addr: address,
        dst_addr: own,
        next_header: IpProtocol::Icmpv6,
        payload_len: advertisement.buffer_len(),
        hop_limit: 255,
    };
    let mut packet = Ipv6Packet::new_unchecked(bytes);
    ip.emit(&mut packet);
    let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
    advertisement.emit(&address, &own, &mut icmp, &ChecksumCapabilities::default());
    ip.buffer_len() + ip.payload_len
}
