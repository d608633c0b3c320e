//! Tags themselves: what stays of them on the way, what lies behind them, super-packets, and frames
//! that somebody has tampered with.

use dataplane::ids::{MacAddr, Mtu};
use dataplane::offload::{Checksum, Gso, Offload};
use proptest::prelude::*;

use crate::bench::{mac, v4};
use crate::frames::{tcp, udp};
use crate::vlan::{MACHINE, UPLINK, bench, bench_with, between, left, tagged, tags};

#[test]
fn a_priority_lasts_until_the_frame_leaves_untagged() {
    let mut bench = bench();
    let frame = udp(mac(70), MacAddr::BROADCAST, v4(3), 67);
    for (port, others) in [(3, [MACHINE, 5]), (MACHINE, [3, 5])] {
        let fate = left(bench.send(port, &tagged(&frame, 0xb000)));
        let untagged = others.map(|port| (port, frame.clone()));
        assert_eq!(fate[..2], untagged);
        assert_eq!(fate[2..], [(UPLINK, tagged(&frame, 0xb043))]);
    }
    // The mark is the frame's: the next one has none.
    let fate = left(bench.send(3, &frame));
    assert_eq!(fate[2..], [(UPLINK, tagged(&frame, 67))]);
    // An endpoint's identity is checked behind it.
    let spoofed = udp(mac(0), mac(1), v4(1), 67);
    assert_eq!(bench.send(0, &tagged(&spoofed, 0xe000)).dropped, ["spoofed_ip"]);
    let honest = udp(mac(0), mac(1), v4(0), 67);
    assert_eq!(bench.send(0, &tagged(&honest, 0xe000)).only(1), honest);
}

#[test]
fn a_tag_crosses_from_trunk_to_trunk_with_all_but_its_vlan() {
    let mut bench = bench();
    bench.send(MACHINE, &tagged(&between(70, 71), 100));
    let frame = between(72, 70);
    for (protocol, upper) in [(0x8100, 0x7000), (0x88a8, 0xf000), (0x88a8, 0)] {
        let inner = tags(&frame, &[(0x8100, 4095)]);
        for frame in [&frame, &inner] {
            let fate = bench.send(UPLINK, &tags(frame, &[(protocol, upper | 257)]));
            assert_eq!(fate.only(MACHINE), tags(frame, &[(protocol, upper | 100)]));
        }
    }
}

#[test]
fn further_tags_are_payload_as_far_as_they_are_looked_through() {
    let mut bench = bench();
    let frame = udp(mac(70), mac(1), v4(99), 67);
    for (inner, passes) in [
        (&[(0x8100, 20)][..], true),
        (&[(0x8100, 257)], true),
        (&[(0x88a8, 4095), (0x8100, 4095)], true),
        (&[(0x8100, 1), (0x8100, 2), (0x8100, 3)], false),
        (&[(0x8100, 1), (0x8100, 2), (0x8100, 3), (0x8100, 4)], false),
    ] {
        let inside = tags(&frame, inner);
        let fate = bench.send(UPLINK, &tagged(&inside, 257));
        if passes {
            assert_eq!(fate.only(1), inside);
        } else {
            assert_eq!(fate.dropped, ["malformed"], "{inner:?}");
        }
    }
}

#[test]
fn frames_that_end_within_their_tags_are_dropped() {
    let mut bench = bench();
    let frame = tags(&between(70, 71), &[(0x8100, 67), (0x8100, 1), (0x88a8, 2)]);
    for length in 0..frame.len() {
        for port in [UPLINK, MACHINE, 3] {
            let fate = bench.send(port, &frame[..length]);
            let reason = if length < 14 { "runt" } else { "malformed" };
            let expected = (vec![], &[reason][..]);
            assert_eq!((fate.ports(), &fate.dropped[..]), expected, "{length} bytes");
        }
    }
}

#[test]
fn a_tag_comes_on_top_of_the_mtu() {
    let mut bench = bench_with(|tables| {
        tables.ports.row_mut(UPLINK.into()).mtu = Mtu::new(257).unwrap();
    });
    bench.send(UPLINK, &tagged(&between(70, 71), 67));
    for inner in [&[][..], &[(0x8100, 20)], &[(0x88a8, 20), (0x8100, 21)]] {
        let fits = tags(&udp(mac(72), mac(70), v4(3), 257 - 28), inner);
        assert_eq!(bench.send(3, &fits).only(UPLINK), tagged(&fits, 67));
        let more = tags(&udp(mac(72), mac(70), v4(3), 258 - 28), inner);
        assert_eq!(bench.send(3, &more).dropped, ["too_big"]);
        // What is not IP has its length from the frame alone.
        let mut other = [&mac(70).0[..], &mac(72).0, &[0x88, 0xb5]].concat();
        other.resize(14 + 257, 7);
        let other = tags(&other, inner);
        assert_eq!(bench.send(3, &other).only(UPLINK), tagged(&other, 67));
        assert_eq!(bench.send(3, &[&other[..], &[7]].concat()).dropped, ["too_big"]);
    }
}

/// What a kernel says about a TCP super-packet, whose TCP header is at `csum_start`.
fn large(csum_start: u16) -> Offload {
    Offload {
        checksum: Checksum::Partial,
        gso: Gso::Tcp4,
        gso_size: 1_448,
        csum_start,
        csum_offset: 16,
    }
}

#[test]
fn a_super_packet_is_tagged_whole() {
    let mut bench = bench();
    // The machine and endpoint 1 both take super-packets.
    bench.send(MACHINE, &tagged(&between(70, 71), 100));
    let mut frame = tcp(1, 2, 60_000);
    frame[..6].copy_from_slice(&mac(70).0);
    let fate = bench.send_with(1, &frame, large(34));
    assert_eq!(fate.out, [(MACHINE, tagged(&frame, 100), large(38))]);
    let frame = tcp(70, 1, 60_000);
    let fate = bench.send_with(MACHINE, &tagged(&frame, 100), large(38));
    assert_eq!(fate.out, [(1, frame, large(34))]);
}

#[test]
fn a_super_packet_is_cut_into_tagged_segments() {
    let mut bench = bench();
    bench.send(UPLINK, &tagged(&between(71, 72), 257));
    let frame = tcp(70, 71, 60_000);
    let fate = bench.send_with(MACHINE, &tagged(&frame, 0xa064), large(38));
    assert_eq!(fate.out.len(), 60_000_usize.div_ceil(1_448));
    let mut payload = Vec::new();
    for (port, segment, offload) in &fate.out {
        assert_eq!((*port, &segment[12..18]), (UPLINK, &[0x81, 0, 0xa1, 1, 8, 0][..]));
        assert_ne!(offload.checksum, Checksum::Partial);
        assert!(segment.len() <= 1_500 + 18);
        let packet = etherparse::PacketHeaders::from_ethernet_slice(segment).unwrap();
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net else { panic!("no IPv4") };
        let tcp = packet.transport.unwrap().tcp().unwrap();
        let sum = tcp.calc_checksum_ipv4(&ip, packet.payload.slice()).unwrap();
        assert_eq!((ip.header_checksum, tcp.checksum), (ip.calc_header_checksum(), sum));
        payload.extend_from_slice(packet.payload.slice());
    }
    assert_eq!(payload, frame[54..]);
}

#[test]
fn a_checksum_that_starts_in_a_tag_is_refused() {
    let mut bench = bench();
    let partial = |csum_start| Offload { gso: Gso::None, gso_size: 0, ..large(csum_start) };
    for start in [0, 14, 17] {
        let fate = bench.send_with(MACHINE, &tagged(&tcp(70, 1, 67), 100), partial(start));
        assert_eq!((fate.ports(), &fate.dropped[..]), (vec![], &["bad_offload"][..]));
    }
    // At the other end of the range there is no room for the tag's length. It takes a port with
    // offloads to get so far, and a tag to leave by.
    bench.send(MACHINE, &tagged(&between(70, 71), 100));
    let mut frame = tcp(1, 2, 60_000);
    frame[..6].copy_from_slice(&mac(70).0);
    let fate = bench.send_with(1, &frame, Offload { csum_start: u16::MAX, ..large(34) });
    assert_eq!((fate.ports(), &fate.dropped[..]), (vec![], &["bad_offload"][..]));
}

/// Frames with any bytes behind their tags, from station 70 to nobody that is known.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::collection::vec(any::<u8>(), 1..1_500)
        .prop_map(|payload| [&mac(71).0[..], &mac(70).0, &[0x88, 0xb5], &payload].concat());
    let ip = (0usize..1_472).prop_map(|len| udp(mac(70), mac(71), v4(3), len));
    let frame = prop_oneof![plain, ip];
    let inner = prop::collection::vec((prop::bool::ANY, any::<u16>()), 0..3);
    (frame, inner).prop_map(|(frame, inner)| {
        let kind = |service| if service { 0x88a8 } else { 0x8100 };
        let inner: Vec<_> = inner.into_iter().map(|(s, control)| (kind(s), control)).collect();
        tags(&frame, &inner)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(67))]

    /// From a trunk to an endpoint, and from there to another trunk: only the VLAN differs. A tag
    /// of the endpoint's own must not look like a priority tag.
    #[test]
    fn a_frame_crosses_an_endpoint_unchanged(frame in any_frame(), inner in 1u16..4095) {
        let mut there = bench();
        let frame = if frame[12] == 0x81 || frame[12] == 0x88 && frame[13] == 0xa8 {
            let mut frame = frame;
            frame[14..16].copy_from_slice(&inner.to_be_bytes());
            frame
        } else {
            frame
        };
        let fate = there.send(UPLINK, &tagged(&frame, 257));
        prop_assert!(fate.dropped.is_empty(), "{fate:?}");
        let inside = fate.out.iter().find(|(port, ..)| *port == 0).unwrap();
        prop_assert_eq!(&inside.1, &frame);
        let mut back = bench();
        let fate = back.send(3, &inside.1);
        let outside = fate.out.iter().find(|(port, ..)| *port == UPLINK).unwrap();
        prop_assert_eq!(&outside.1, &tagged(&frame, 67));
    }

    /// From trunk to trunk.
    #[test]
    fn a_frame_crosses_from_trunk_to_trunk(frame in any_frame(), upper in 0u16..16, service: bool) {
        let kind = if service { 0x88a8 } else { 0x8100 };
        let mut bench = bench();
        let fate = bench.send(MACHINE, &tags(&frame, &[(kind, upper << 12 | 100)]));
        let outside = fate.out.iter().find(|(port, ..)| *port == UPLINK).unwrap();
        prop_assert_eq!(&outside.1, &tags(&frame, &[(kind, upper << 12 | 257)]));
    }
}
