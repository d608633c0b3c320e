//! What the gateway answers in place, read and checked by etherparse.

use dataplane::ids::MacAddr;
use dataplane::offload::{Checksum, Offload};
use etherparse::{
    ArpOperation, Icmpv4Type, Icmpv6Type, LinkSlice, NetSlice, SlicedPacket, TransportSlice,
};

use crate::bench::{Bench, GATEWAY, V4_GATEWAY, V6_GATEWAY, mac, v4, v6};
use crate::frames::{Neighbor, arp, counting, echo, echo6, tagged};

/// Payloads of an echo, in bytes: odd ones and even ones.
const LENGTHS: [usize; 9] = [0, 1, 2, 3, 56, 67, 257, 1_471, 1_472];

/// The stations that a frame goes between: source, destination.
fn stations(packet: &SlicedPacket<'_>) -> (MacAddr, MacAddr) {
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { panic!("no Ethernet") };
    (MacAddr(ethernet.source()), MacAddr(ethernet.destination()))
}

#[test]
fn arp_requests_are_answered() {
    let mut bench = Bench::new();
    for sender in [v4(0), [0; 4]] {
        let request = arp(ArpOperation::REQUEST, mac(0), (mac(0), sender), V4_GATEWAY);
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            let reply = bench.send(0, &tagged(&request, tags)).only(0);
            assert_eq!(
                reply[12..12 + 4 * tags.len()],
                tagged(&request, tags)[12..12 + 4 * tags.len()]
            );
            let packet = SlicedPacket::from_ethernet(&reply).unwrap();
            assert_eq!(stations(&packet), (GATEWAY, mac(0)));
            let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP in {reply:02x?}") };
            assert_eq!(arp.operation(), ArpOperation::REPLY);
            assert_eq!(
                (arp.sender_hw_addr(), arp.sender_protocol_addr()),
                (&GATEWAY.0[..], &V4_GATEWAY[..])
            );
            assert_eq!(
                (arp.target_hw_addr(), arp.target_protocol_addr()),
                (&mac(0).0[..], &sender[..])
            );
        }
    }
}

#[test]
fn arp_that_asks_for_nothing_of_the_gateway_goes_on() {
    let mut bench = Bench::new();
    let reply = arp(ArpOperation::REPLY, mac(0), (mac(0), v4(0)), V4_GATEWAY);
    assert_eq!(bench.send(0, &reply).ports(), [1, 2]);
    let mut to_the_gateway = reply;
    to_the_gateway[..6].copy_from_slice(&GATEWAY.0);
    assert_eq!(bench.send(0, &to_the_gateway).punted, 1);
}

/// The advertisement in a frame: its IPv6 addresses, flags, target and target's station.
fn advertisement(frame: &[u8]) -> ([u8; 16], [u8; 16], u8, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6") };
    let header = ip.header();
    assert_eq!(header.hop_limit(), 255);
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("no ICMPv6") };
    assert!(icmp.is_checksum_valid(header.source(), header.destination()));
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (136, 0));
    let body = icmp.slice();
    (header.source(), header.destination(), body[4], body[8..].to_vec())
}

#[test]
fn solicitations_are_answered() {
    let mut bench = Bench::new();
    let ask = |option| Neighbor {
        kind: 135,
        source: mac(0),
        from: v6(0),
        target: V6_GATEWAY,
        option,
        hop_limit: 255,
    };
    let expected = [&V6_GATEWAY[..], &[2, 1], &GATEWAY.0].concat();
    for option in [Some((1, mac(0))), None] {
        let reply = bench.send(0, &ask(option).frame()).only(0);
        assert_eq!(stations(&SlicedPacket::from_ethernet(&reply).unwrap()), (GATEWAY, mac(0)));
        // Router, solicited, override.
        assert_eq!(advertisement(&reply), (V6_GATEWAY, v6(0), 0xe0, expected.clone()));
    }
    // Who looks for a duplicate has no address yet: all nodes are told (RFC 4861, 7.2.4).
    let probe = Neighbor { from: [0; 16], ..ask(None) };
    let reply = bench.send(0, &probe.frame()).only(0);
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(advertisement(&reply), (V6_GATEWAY, all_nodes, 0xa0, expected));
    let station = stations(&SlicedPacket::from_ethernet(&reply).unwrap()).1;
    assert_eq!(station, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    // A hop limit below 255 says that it was routed here: nobody answers.
    let routed = Neighbor { hop_limit: 254, ..ask(None) };
    assert_eq!(bench.send(0, &routed.frame()).ports(), [1, 2]);
}

#[test]
fn echoes_over_ipv4_are_answered() {
    let mut bench = Bench::new();
    for len in LENGTHS {
        let request = echo(mac(0), GATEWAY, (v4(0), V4_GATEWAY), len);
        let partial = Offload {
            checksum: Checksum::Partial,
            csum_start: 34,
            csum_offset: 2,
            ..Offload::PLAIN
        };
        let mut unfinished = request.clone();
        unfinished[36..38].fill(0);
        for (frame, offload) in [(&request, Offload::PLAIN), (&unfinished, partial)] {
            let reply = bench.send_with(0, frame, offload).only(0);
            let packet = SlicedPacket::from_ethernet(&reply).unwrap();
            assert_eq!(stations(&packet), (GATEWAY, mac(0)));
            let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
            let header = ip.header().to_header();
            assert_eq!((header.source, header.destination), (V4_GATEWAY, v4(0)));
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(header.time_to_live, 64);
            let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("no ICMP") };
            assert!(matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(echo)
                if (echo.id, echo.seq) == (67, 257)));
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()), "{len}");
            assert_eq!(icmp.payload(), counting(len));
        }
    }
}

#[test]
fn echoes_over_ipv6_are_answered() {
    let mut bench = Bench::new();
    for len in LENGTHS.into_iter().filter(|&len| len <= 1_452) {
        let request = echo6(mac(0), GATEWAY, (v6(0), V6_GATEWAY), len);
        let reply = bench.send(0, &request).only(0);
        let packet = SlicedPacket::from_ethernet(&reply).unwrap();
        assert_eq!(stations(&packet), (GATEWAY, mac(0)));
        let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6") };
        let (source, destination) = (ip.header().source(), ip.header().destination());
        assert_eq!((source, destination, ip.header().hop_limit()), (V6_GATEWAY, v6(0), 64));
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("no ICMPv6") };
        assert!(icmp.is_checksum_valid(source, destination), "of {len} bytes");
        assert!(matches!(icmp.icmp_type(), Icmpv6Type::EchoReply(echo)
            if (echo.id, echo.seq) == (67, 257)));
        assert_eq!(icmp.payload(), counting(len));
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut bench = Bench::new();
    let mut request = echo(mac(0), GATEWAY, (v4(0), V4_GATEWAY), 67);
    request[50] ^= 1;
    let reply = bench.send(0, &request).only(0);
    let packet = SlicedPacket::from_ethernet(&reply).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("no ICMP") };
    assert_ne!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
}

#[test]
fn what_the_gateway_cant_answer_in_place_is_punted() {
    let mut bench = Bench::new();
    let mut fragment = echo(mac(0), GATEWAY, (v4(0), V4_GATEWAY), 67);
    fragment[20] = 0x20;
    let mut reply = echo(mac(0), GATEWAY, (v4(0), V4_GATEWAY), 67);
    reply[34] = 0;
    let mut code = echo6(mac(0), GATEWAY, (v6(0), V6_GATEWAY), 67);
    code[54] = 129;
    for frame in [fragment, reply, code] {
        let fate = bench.send(0, &frame);
        assert_eq!((fate.punted, fate.out.len(), fate.dropped.len()), (1, 0, 0));
    }
}
