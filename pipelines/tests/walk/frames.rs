//! Frames, made by etherparse.

use dataplane::ids::MacAddr;
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv6Type, PacketBuilder,
    PacketBuilderStep,
};

use crate::bench::{v4, v6};

fn ethernet(source: MacAddr, destination: MacAddr) -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(source.0, destination.0)
}

/// A UDP datagram over IPv4.
pub(crate) fn udp(source: MacAddr, destination: MacAddr, from: [u8; 4], len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet(source, destination).ipv4(from, v4(1), 64).udp(67, 257);
    builder.write(&mut frame, &vec![7; len]).unwrap();
    frame
}

/// A TCP segment over IPv4 from one port's endpoint to another's.
pub(crate) fn tcp(from: u8, to: u8, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = ethernet(crate::bench::mac(from), crate::bench::mac(to));
    let builder = ethernet.ipv4(v4(from), v4(to), 64).tcp(67, 257, 1, 2);
    builder.write(&mut frame, &vec![7; len]).unwrap();
    frame
}

/// An IPv6 packet with this source, and UDP in it.
pub(crate) fn udp6(source: MacAddr, destination: MacAddr, from: [u8; 16]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet(source, destination).ipv6(from, v6(1), 64).udp(67, 257);
    builder.write(&mut frame, &[7; 67]).unwrap();
    frame
}

/// A DHCP request, or what looks like one: without an address, from port 68 to `to`.
pub(crate) fn dhcp(source: MacAddr, to: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet(source, MacAddr::BROADCAST).ipv4([0; 4], [255; 4], 64).udp(68, to);
    builder.write(&mut frame, &[7; 67]).unwrap();
    frame
}

/// An ARP packet for all.
pub(crate) fn arp(
    operation: ArpOperation,
    source: MacAddr,
    sender: (MacAddr, [u8; 4]),
    target: [u8; 4],
) -> Vec<u8> {
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender.0.0,
        &sender.1,
        &[0; 6],
        &target,
    );
    let mut frame = Vec::new();
    ethernet(source, MacAddr::BROADCAST).arp(arp.unwrap()).write(&mut frame).unwrap();
    frame
}

/// An echo request over IPv4.
pub(crate) fn echo(
    source: MacAddr,
    gateway: MacAddr,
    ip: ([u8; 4], [u8; 4]),
    len: usize,
) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet(source, gateway).ipv4(ip.0, ip.1, 17).icmpv4_echo_request(67, 257);
    builder.write(&mut frame, &counting(len)).unwrap();
    frame
}

/// An echo request over IPv6.
pub(crate) fn echo6(
    source: MacAddr,
    gateway: MacAddr,
    ip: ([u8; 16], [u8; 16]),
    len: usize,
) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet(source, gateway).ipv6(ip.0, ip.1, 17).icmpv6_echo_request(67, 257);
    builder.write(&mut frame, &counting(len)).unwrap();
    frame
}

/// A payload in which no byte is like its neighbours.
pub(crate) fn counting(len: usize) -> Vec<u8> {
    (0..len).map(|byte| u8::try_from(byte % 251).unwrap()).collect()
}

/// A message of neighbour discovery: type, flags, target and one option with a MAC address, if any.
pub(crate) struct Neighbor {
    pub(crate) kind: u8,
    pub(crate) source: MacAddr,
    pub(crate) from: [u8; 16],
    pub(crate) target: [u8; 16],
    pub(crate) option: Option<(u8, MacAddr)>,
    pub(crate) hop_limit: u8,
}

impl Neighbor {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut body = self.target.to_vec();
        if let Some((kind, mac)) = self.option {
            body.extend([kind, 1]);
            body.extend(mac.0);
        }
        let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, self.target[15]];
        let kind = Icmpv6Type::Unknown { type_u8: self.kind, code_u8: 0, bytes5to8: [0; 4] };
        let station = MacAddr([0x33, 0x33, 0xff, 0, 0, self.target[15]]);
        let mut frame = Vec::new();
        let builder = ethernet(self.source, station).ipv6(self.from, group, self.hop_limit);
        builder.icmpv6(kind).write(&mut frame, &body).unwrap();
        frame
    }
}

/// The frame behind VLAN tags of these types.
pub(crate) fn tagged(frame: &[u8], types: &[u16]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for tag in types {
        tagged.extend(tag.to_be_bytes());
        tagged.extend([0, 7]);
    }
    tagged.extend(&frame[12..]);
    tagged
}

/// The IPv6 frame behind a destination options header of `units` times eight bytes (RFC 8200, 4.6),
/// which says what an unknown option that may be skipped does: nothing.
pub(crate) fn behind_options(frame: &[u8], units: u8) -> Vec<u8> {
    let bytes = 8 * usize::from(units);
    let mut longer = frame[..54].to_vec();
    let length = u16::from_be_bytes([frame[18], frame[19]]) + u16::from(units) * 8;
    longer[18..20].copy_from_slice(&length.to_be_bytes());
    longer[20] = 60;
    longer.extend([frame[20], units - 1, 0x1e, u8::try_from(bytes - 4).unwrap()]);
    longer.resize(54 + bytes, 0);
    longer.extend(&frame[54..]);
    longer
}
