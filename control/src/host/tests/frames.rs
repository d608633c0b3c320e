//! Frames by another stack.

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, PacketBuilder,
};

pub(super) const GATEWAY_MAC: [u8; 6] = [2, 0x42, 10, 0, 9, 1];
pub(super) const CLIENT_MAC: [u8; 6] = [2, 0x42, 10, 0, 9, 2];
pub(super) const CLIENT: [u8; 4] = [10, 0, 9, 2];
pub(super) const GATEWAY: [u8; 4] = [10, 0, 9, 1];
pub(super) const L3: usize = 14;

pub(super) fn v6(host: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[3], address[15]) = (0xfd, 9, host);
    address
}

fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(CLIENT_MAC, GATEWAY_MAC)
}

fn ip(version: u8) -> etherparse::PacketBuilderStep<IpHeaders> {
    match version {
        4 => ethernet().ipv4(CLIENT, GATEWAY, 64),
        _ => ethernet().ipv6(v6(2), v6(1), 64),
    }
}

/// A connection attempt to port 80, with sequence number 100.
pub(super) fn syn(version: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(version).tcp(40_000, 80, 100, 65_535).syn().write(&mut frame, &[]).unwrap();
    frame
}

pub(super) fn data_segment(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(4).tcp(40_000, 80, 100, 65_535).ack(1).write(&mut frame, payload).unwrap();
    frame
}

pub(super) fn datagram(version: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(version).udp(40_000, 5353).write(&mut frame, payload).unwrap();
    frame
}

/// A datagram from this address.
pub(super) fn datagram_from(source: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet().ipv4(source, GATEWAY, 64).udp(40_000, 53);
    builder.write(&mut frame, b"question").unwrap();
    frame
}

/// An echo request in fragments of `size` payload bytes, a multiple of eight.
pub(super) fn echo(payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut whole = Vec::new();
    ip(4).icmpv4_echo_request(7, 1).write(&mut whole, payload).unwrap();
    let message = &whole[L3 + Ipv4Header::MIN_LEN..];
    let pieces = message.chunks(size).enumerate();
    pieces.map(|(i, piece)| fragment(i * size, piece, (i + 1) * size < message.len())).collect()
}

/// An IPv4 fragment at `offset`.
pub(super) fn fragment(offset: usize, piece: &[u8], more_fragments: bool) -> Vec<u8> {
    let len = u16::try_from(piece.len()).unwrap();
    let mut header = Ipv4Header::new(len, 64, IpNumber::ICMP, CLIENT, GATEWAY).unwrap();
    (header.identification, header.more_fragments) = (67, more_fragments);
    header.fragment_offset = IpFragOffset::try_new(u16::try_from(offset / 8).unwrap()).unwrap();
    let mut frame = Vec::new();
    let builder = ethernet().ip(IpHeaders::Ipv4(header, Default::default()));
    builder.write(&mut frame, IpNumber::ICMP, piece).unwrap();
    frame
}

/// An IPv6 fragment, the first of more.
pub(super) fn fragment_v6(piece: &[u8]) -> Vec<u8> {
    let header =
        Ipv6Header { source: v6(2), destination: v6(1), hop_limit: 64, ..Default::default() };
    let extensions = etherparse::Ipv6Extensions {
        fragment: Some(Ipv6FragmentHeader::new(IpNumber::IPV6_ICMP, IpFragOffset::ZERO, true, 67)),
        ..Default::default()
    };
    let mut frame = Vec::new();
    let builder = ethernet().ip(IpHeaders::Ipv6(header, extensions));
    builder.write(&mut frame, IpNumber::IPV6_ICMP, piece).unwrap();
    frame
}
