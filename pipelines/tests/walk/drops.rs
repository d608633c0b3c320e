//! Every reason for which the walk drops a frame is provoked, and its neighbour that passes is sent
//! as well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dataplane::ids::{MacAddr, PortId};
use etherparse::ArpOperation;
use pipelines::drops::OF_THE_WALK;
use pipelines::fdb::Key;
use pipelines::storm::Storm;

use crate::bench::{Bench, GATEWAY, GUARDED, PUNTS, V4_GATEWAY, V6_GATEWAY, mac, v4, v6};
use crate::frames::{Neighbor, arp, behind_options, dhcp, echo, tagged, tcp, udp, udp6};

/// A frame that is dropped, with the port that it comes in by and the reason.
type Case = (&'static str, u16, Vec<u8>);

/// An honest message of the endpoint of port 0.
fn neighbor(kind: u8) -> Neighbor {
    let option = Some((if kind == 136 { 2 } else { 1 }, mac(0)));
    let target = if kind == 136 { v6(0) } else { v6(1) };
    Neighbor { kind, source: mac(0), from: v6(0), target, option, hop_limit: 255 }
}

fn damaged(at: usize, value: u8) -> Vec<u8> {
    let mut frame = udp(mac(0), mac(1), v4(0), 67);
    frame[at] = value;
    frame
}

fn spoofed() -> Vec<Case> {
    let (own, other) = ((mac(0), v4(0)), (mac(1), v4(1)));
    let request = ArpOperation::REQUEST;
    let advertisement = Neighbor { target: V6_GATEWAY, ..neighbor(136) }.frame();
    vec![
        ("group_source", 0, udp(MacAddr::BROADCAST, mac(1), v4(0), 67)),
        ("group_source", 0, udp(MacAddr([0; 6]), mac(1), v4(0), 67)),
        ("spoofed_mac", 0, udp(mac(1), mac(2), v4(0), 67)),
        ("spoofed_ip", 0, udp(mac(0), mac(1), v4(1), 67)),
        ("spoofed_ip", 0, tagged(&udp(mac(0), mac(1), v4(1), 67), &[0x88a8, 0x8100])),
        ("spoofed_ip", 0, udp6(mac(0), mac(1), v6(1))),
        ("spoofed_ip", 0, udp6(mac(0), mac(1), [0; 16])),
        ("spoofed_ip", 0, dhcp(mac(0), 68)),
        ("spoofed_arp", 0, arp(request, mac(0), (own.0, other.1), V4_GATEWAY)),
        ("spoofed_arp", 0, arp(request, mac(0), (other.0, own.1), V4_GATEWAY)),
        ("spoofed_arp", 0, arp(ArpOperation::REPLY, mac(0), (own.0, V4_GATEWAY), v4(1))),
        ("spoofed_nd", 0, Neighbor { option: Some((1, mac(1))), ..neighbor(135) }.frame()),
        ("spoofed_nd", 0, Neighbor { from: [0; 16], ..neighbor(135) }.frame()),
        ("spoofed_nd", 0, Neighbor { target: V6_GATEWAY, ..neighbor(136) }.frame()),
        ("spoofed_nd", 0, behind_options(&advertisement, 3)),
        ("spoofed_nd", 0, Neighbor { option: Some((2, mac(1))), ..neighbor(136) }.frame()),
        ("rogue_router", 0, neighbor(134).frame()),
        ("rogue_router", 0, neighbor(137).frame()),
    ]
}

fn refused() -> Vec<Case> {
    let mut arp_of_another_kind = arp(ArpOperation::REQUEST, mac(0), (mac(0), v4(0)), V4_GATEWAY);
    arp_of_another_kind[18] = 8;
    let control = |last: u8| {
        let mut frame = udp(mac(0), MacAddr([1, 0x80, 0xc2, 0, 0, last]), v4(0), 67);
        frame[12..14].copy_from_slice(&0x88cc_u16.to_be_bytes());
        frame
    };
    vec![
        ("no_network", 8, udp(mac(8), mac(0), v4(8), 67)),
        ("runt", 0, udp(mac(0), mac(1), v4(0), 67)[..13].to_vec()),
        ("runt", 0, Vec::new()),
        ("malformed", 0, damaged(14, 0x44)),
        ("malformed", 0, damaged(14, 0x65)),
        ("malformed", 0, damaged(16, 0xff)),
        ("malformed", 0, udp(mac(0), mac(1), v4(0), 67)[..60].to_vec()),
        ("malformed", 0, arp_of_another_kind),
        ("malformed", 0, tagged(&udp(mac(0), mac(1), v4(1), 67), &[0x8100; 3])),
        ("malformed", 0, behind_options(&neighbor(136).frame(), 26)),
        ("malformed", 0, tagged(&[&mac(1).0[..], &mac(0).0].concat(), &[0x8100])[..15].to_vec()),
        ("hairpin", 0, udp(mac(0), mac(0), v4(0), 67)),
        ("isolated", 6, tcp(6, 7, 67)),
        ("reserved_group", 0, control(0)),
        ("reserved_group", 0, control(0x0e)),
        ("no_route", 0, echo(mac(0), GATEWAY, (v4(0), [192, 0, 2, 1]), 67)),
        ("no_route", 0, [&GATEWAY.0[..], &mac(0).0, &[0x88, 0xb5, 7]].concat()),
        ("too_big", 0, udp(mac(0), mac(1), v4(0), 1_473)),
        ("too_big", 0, tagged(&udp(mac(0), mac(1), v4(0), 1_473), &[0x8100])),
    ]
}

#[test]
fn every_reason_is_met_by_a_frame() {
    let mut bench = Bench::new();
    // These have tests of their own: below, and in `vlan`.
    let mut met: BTreeSet<&str> = ["storm", "stale_egress", "punt_limit"].into();
    met.extend(["unknown_vlan", "untagged", "own_vlan", "native_tag"]);
    for (reason, port, frame) in spoofed().into_iter().chain(refused()) {
        let fate = bench.send(port, &frame);
        assert_eq!(fate.dropped, [reason], "{frame:02x?}");
        assert!(fate.out.is_empty() && fate.punted == 0, "{reason}: {fate:?}");
        met.insert(reason);
    }
    let all: BTreeSet<&str> = OF_THE_WALK.iter().map(|known| known.symbol).collect();
    assert_eq!(met, all);
}

#[test]
fn the_host_stack_takes_so_much_from_one_network() {
    let mut bench = Bench::new();
    let fragment = |port: u8| {
        let mut fragment = echo(mac(port), GATEWAY, (v4(port), V4_GATEWAY), 67);
        fragment[20] = 0x20;
        fragment
    };
    for _ in 0..PUNTS / 10 {
        assert_eq!(bench.send(0, &fragment(0)).punted, 1);
    }
    assert_eq!(bench.send(0, &fragment(0)).dropped, ["punt_limit"]);
    assert_eq!(bench.send(1, &fragment(1)).dropped, ["punt_limit"]);
    assert_eq!(bench.send(3, &fragment(3)).punted, 1, "another network");
    bench.wait(Duration::from_millis(10));
    assert_eq!(bench.send(0, &fragment(0)).punted, 1);
}

#[test]
fn what_is_honest_passes() {
    let mut bench = Bench::new();
    let own = (mac(0), v4(0));
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 9, 0];
    for (frame, ports) in [
        (udp(mac(0), mac(1), v4(0), 1_472), vec![1]),
        (tagged(&udp(mac(0), mac(1), v4(0), 1_472), &[0x8100]), vec![1]),
        (udp6(mac(0), mac(1), v6(0)), vec![1]),
        (udp6(mac(0), mac(1), link_local), vec![1]),
        (dhcp(mac(0), 67), vec![1, 2]),
        (arp(ArpOperation::REQUEST, mac(0), own, v4(1)), vec![1, 2]),
        // A probe for a duplicate of the own address.
        (arp(ArpOperation::REQUEST, mac(0), (mac(0), [0; 4]), v4(0)), vec![1, 2]),
        (neighbor(135).frame(), vec![1, 2]),
        (neighbor(136).frame(), vec![1, 2]),
        (Neighbor { from: [0; 16], option: None, ..neighbor(135) }.frame(), vec![1, 2]),
    ] {
        let fate = bench.send(0, &frame);
        assert_eq!((fate.ports(), &fate.dropped[..]), (ports, &[][..]), "{frame:02x?}");
        assert!(fate.out.iter().all(|(_, out, _)| *out == frame), "changed: {fate:?}");
    }
}

#[test]
fn a_storm_is_cut_off_and_calms_down() {
    let mut bench = Bench::with(|tables| {
        tables.ports.row_mut(3).storm = Some(Arc::new(Storm::new(20)));
    });
    let broadcast = udp(mac(3), MacAddr::BROADCAST, v4(3), 67);
    let unknown = udp(mac(3), mac(77), v4(3), 67);
    // A tenth of a second's frames may come at once, of both kinds together.
    assert_eq!(bench.send(3, &broadcast).ports(), [4, 5]);
    assert_eq!(bench.send(3, &unknown).ports(), [4, 5]);
    assert_eq!(bench.send(3, &unknown).dropped, ["storm"]);
    assert_eq!(bench.send(3, &broadcast).dropped, ["storm"]);
    assert_eq!(bench.send(4, &udp(mac(4), mac(3), v4(4), 67)).ports(), [3], "of another port");
    bench.wait(Duration::from_millis(50));
    assert_eq!(bench.send(3, &broadcast).ports(), [4, 5]);
    assert_eq!(bench.send(3, &broadcast).dropped, ["storm"]);
}

#[test]
fn a_port_of_another_network_is_never_a_way_out() {
    let mut bench = Bench::with(|tables| {
        // As if the number had been given again since the tables were read.
        tables.stations.insert(Key::new(GUARDED, mac(99)).unwrap(), PortId(3));
        Arc::make_mut(&mut tables.segments.row_mut(GUARDED.index()).members).push(PortId(4));
    });
    let fate = bench.send(0, &udp(mac(0), mac(99), v4(0), 67));
    assert_eq!((fate.ports(), &fate.dropped[..]), (vec![], &["stale_egress"][..]));
    let fate = bench.send(0, &udp(mac(0), MacAddr::BROADCAST, v4(0), 67));
    assert_eq!((fate.ports(), &fate.dropped[..]), (vec![1, 2], &["stale_egress"][..]));
}
