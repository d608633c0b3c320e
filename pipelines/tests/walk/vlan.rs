//! Trunks, uplinks and tags: two networks that meet a wire as VLANs, and a virtual machine that gets
//! both of them.

use std::sync::Arc;
use std::time::Duration;

use dataplane::ids::{MacAddr, PortId, SegmentId};
use dataplane::memory::Kind;
use dataplane::pipeline::{Egress, Verdict};
use dataplane::wire::vlan::Vid;
use etherparse::{ArpOperation, NetSlice, SlicedPacket};
use pipelines::drops;
use pipelines::fdb::Learned;
use pipelines::storm::Storm;
use pipelines::tables::{Port, Role, Tables};
use pipelines::trace::Told;
use pipelines::trunk::{Tagging, Trunk};

use crate::bench::{
    Bench, Fate, GATEWAY, GUARDED, LONELY, MAC_LIMIT, OPEN, V4_GATEWAY, V6_GATEWAY, mac, v4, v6,
};
use crate::frames::{Neighbor, arp, echo, udp};

/// A virtual machine that takes every offload: the open network untagged, the guarded one as
/// VLAN 100.
pub(crate) const MACHINE: u16 = 4;
/// A parent device without offloads: the open network as VLAN 67, the guarded one as VLAN 257.
pub(crate) const UPLINK: u16 = 8;

pub(crate) fn vid(number: u16) -> Vid {
    Vid::new(number).unwrap()
}

pub(crate) fn trunk<const N: usize>(segments: [(SegmentId, Tagging); N]) -> Role {
    let trunk = segments
        .into_iter()
        .try_fold(Trunk::default(), |trunk, (segment, tagging)| trunk.with(segment, tagging));
    Role::Trunk(Arc::new(trunk.unwrap()))
}

/// Makes a port a trunk, and a member of its segments.
pub(crate) fn plug(tables: &mut Tables, port: u16, role: Role) {
    for segment in [GUARDED, OPEN, LONELY].into_iter().filter(|&segment| role.carries(segment)) {
        let members = Arc::make_mut(&mut tables.segments.row_mut(segment.index()).members);
        members.push(PortId(port));
        members.sort();
        members.dedup();
    }
    let row = tables.ports.row_mut(port.into());
    *row = Port { role, learns: true, mac_limit: MAC_LIMIT, ..Port::default() };
}

pub(crate) fn bench_with(change: impl FnOnce(&mut Tables)) -> Bench {
    Bench::with(|tables| {
        let native = (OPEN, Tagging::Native(Some(vid(5))));
        plug(tables, MACHINE, trunk([native, (GUARDED, Tagging::Tagged(vid(100)))]));
        let vlans = [(OPEN, Tagging::Tagged(vid(67))), (GUARDED, Tagging::Tagged(vid(257)))];
        plug(tables, UPLINK, trunk(vlans));
        change(tables);
    })
}

pub(crate) fn bench() -> Bench {
    bench_with(|_| ())
}

/// The frame behind tags, the outermost first, each with its type.
pub(crate) fn tags(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let words = tags.iter().flat_map(|&(protocol, control)| [protocol, control]);
    let words: Vec<u8> = words.flat_map(u16::to_be_bytes).collect();
    [&frame[..12], &words, &frame[12..]].concat()
}

/// The frame in a VLAN.
pub(crate) fn tagged(frame: &[u8], control: u16) -> Vec<u8> {
    tags(frame, &[(0x8100, control)])
}

/// From one station to another, of which nothing is configured.
pub(crate) fn between(from: u8, to: u8) -> Vec<u8> {
    udp(mac(from), mac(to), v4(3), 67)
}

/// What left, by port.
pub(crate) fn left(fate: Fate) -> Vec<(u16, Vec<u8>)> {
    assert_eq!((&fate.dropped[..], fate.punted), (&[][..], 0));
    fate.out.into_iter().map(|(port, frame, _)| (port, frame)).collect()
}

/// Two stations, and an ethertype for experiments (IEEE 802, 9.2.3) with two bytes.
const KNOWN: [u8; 16] = [
    0x02, 0, 0, 0, 9, 77, 0x02, 0, 0, 0, 9, 88, //
    0x88, 0xb5, 0xca, 0xfe,
];
/// The same in VLAN 67 with priority 5.
const KNOWN_IN_67: [u8; 20] = [
    0x02, 0, 0, 0, 9, 77, 0x02, 0, 0, 0, 9, 88, //
    0x81, 0x00, 0xa0, 0x43, 0x88, 0xb5, 0xca, 0xfe,
];
/// The same in VLAN 67 without a priority.
const KNOWN_IN_67_AT_ZERO: [u8; 20] = [
    0x02, 0, 0, 0, 9, 77, 0x02, 0, 0, 0, 9, 88, //
    0x81, 0x00, 0x00, 0x43, 0x88, 0xb5, 0xca, 0xfe,
];

#[test]
fn known_frames_lose_their_tag_and_get_one() {
    let mut bench = bench();
    let inside = [3, MACHINE, 5].map(|port| (port, KNOWN.to_vec()));
    assert_eq!(left(bench.send(UPLINK, &KNOWN_IN_67)), inside);
    let outside = [(MACHINE, KNOWN.to_vec()), (5, KNOWN.to_vec())];
    let fate = left(bench.send(3, &KNOWN));
    assert_eq!(fate[..2], outside);
    assert_eq!(fate[2..], [(UPLINK, KNOWN_IN_67_AT_ZERO.to_vec())]);
}

#[test]
fn a_network_is_untagged_for_endpoints_and_a_vlan_for_trunks() {
    let mut bench = bench();
    let frame = udp(mac(0), MacAddr::BROADCAST, v4(0), 67);
    let expected = [(1, frame.clone()), (2, frame.clone())];
    let trunks = [(MACHINE, tagged(&frame, 100)), (UPLINK, tagged(&frame, 257))];
    assert_eq!(left(bench.send(0, &frame)), [&expected[..], &trunks].concat());
    // Whoever is outside may claim any address: identities are the endpoints'.
    let frame = udp(mac(70), mac(1), v4(99), 67);
    assert_eq!(bench.send(UPLINK, &tagged(&frame, 257)).only(1), frame);
    assert_eq!(bench.send(MACHINE, &tagged(&frame, 100)).only(1), frame);
    // The native VLAN may come with its identifier as well.
    let expected = [(3, &frame), (5, &frame)].map(|(port, frame)| (port, frame.clone()));
    for frame in [frame.clone(), tagged(&frame, 5)] {
        let fate = left(bench.send(MACHINE, &frame));
        assert_eq!(fate[..2], expected);
    }
}

#[test]
fn a_station_is_learned_in_each_vlan_by_itself() {
    let mut bench = bench();
    // One machine behind the uplink, with both VLANs on one address.
    bench.send(UPLINK, &tagged(&between(70, 71), 67));
    bench.send(UPLINK, &tagged(&between(70, 71), 257));
    assert_eq!(bench.learning.learned.read(), 2);
    let open = between(72, 70);
    assert_eq!(bench.send(3, &open).only(UPLINK), tagged(&open, 67));
    let guarded = udp(mac(0), mac(70), v4(0), 67);
    assert_eq!(bench.send(0, &guarded).only(UPLINK), tagged(&guarded, 257));
    // It moves to the other trunk in one of them.
    bench.send(MACHINE, &tagged(&between(70, 71), 100));
    assert_eq!(bench.learning.moved.read(), 1);
    assert_eq!(bench.send(0, &guarded).only(MACHINE), tagged(&guarded, 100));
    assert_eq!(bench.send(3, &open).only(UPLINK), tagged(&open, 67));
    let fate = bench.send(UPLINK, &tagged(&between(73, 70), 257));
    assert_eq!(fate.only(MACHINE), tagged(&between(73, 70), 100));
}

#[test]
fn nothing_leaves_by_the_trunk_that_it_came_by() {
    let mut bench = bench();
    bench.send(UPLINK, &tagged(&between(70, 71), 67));
    bench.send(UPLINK, &tagged(&between(71, 70), 257));
    // In its own VLAN.
    assert_eq!(bench.send(UPLINK, &tagged(&between(72, 70), 67)).dropped, ["hairpin"]);
    // In another: what is known there is not known here, and a flood is of one network.
    let fate = bench.send(UPLINK, &tagged(&between(72, 71), 67));
    assert_eq!((fate.ports(), &fate.dropped[..]), (vec![3, MACHINE, 5], &[][..]));
    let fate = bench.send(UPLINK, &tagged(&between(72, 70), 257));
    assert_eq!((fate.ports(), &fate.dropped[..]), (vec![0, 1, 2, MACHINE], &[][..]));
    let broadcast = udp(mac(70), MacAddr::BROADCAST, v4(3), 67);
    assert_eq!(bench.send(UPLINK, &tagged(&broadcast, 67)).ports(), [3, MACHINE, 5]);
}

#[test]
fn vlans_that_a_trunk_does_not_carry_are_dropped() {
    let mut bench = bench();
    let frame = between(70, 71);
    for (port, frame, reason) in [
        (UPLINK, tagged(&frame, 100), "unknown_vlan"),
        (UPLINK, tagged(&frame, 5), "unknown_vlan"),
        (UPLINK, tagged(&frame, 4095), "unknown_vlan"),
        (MACHINE, tagged(&frame, 67), "unknown_vlan"),
        (MACHINE, tagged(&frame, 0xffff), "unknown_vlan"),
        (UPLINK, frame.clone(), "untagged"),
        (UPLINK, tagged(&frame, 0xe000), "untagged"),
        // Only the outermost tag counts.
        (UPLINK, tags(&frame, &[(0x8100, 0), (0x8100, 67)]), "untagged"),
        (UPLINK, tags(&frame, &[(0x88a8, 68), (0x8100, 67)]), "unknown_vlan"),
    ] {
        let fate = bench.send(port, &frame);
        assert_eq!((fate.ports(), &fate.dropped[..]), (vec![], &[reason][..]), "{frame:02x?}");
    }
    assert_eq!(bench.learning.learned.read(), 0);
}

#[test]
fn an_endpoint_sends_its_own_vlan_untagged() {
    let mut bench = bench_with(|tables| tables.ports.row_mut(3).vlan = Some(vid(67)));
    let frame = between(70, 71);
    assert_eq!(bench.send(3, &tagged(&frame, 67)).dropped, ["own_vlan"]);
    assert_eq!(bench.send(3, &tagged(&frame, 0xe043)).dropped, ["own_vlan"]);
    // Another is a customer's, and goes as it is; so does its own further in.
    for inner in [vec![(0x8100, 68)], vec![(0x8100, 68), (0x8100, 67)], vec![(0x8100, 4095)]] {
        let frame = tags(&frame, &inner);
        let fate = bench.send(3, &frame);
        assert_eq!((fate.ports(), &fate.dropped[..]), (vec![5, UPLINK], &["native_tag"][..]));
        assert_eq!(fate.out[0].1, frame);
        assert_eq!(fate.out[1].1, tagged(&frame, 67));
    }
}

#[test]
fn packets_of_a_batch_find_their_networks_each_by_itself() {
    let mut bench = bench();
    bench.send(3, &between(73, 99));
    for (port, vlan, own) in [(UPLINK, 67, 70), (UPLINK, 257, 71), (MACHINE, 100, 72)] {
        bench.send(port, &tagged(&between(own, 99), vlan));
    }
    let fate = bench.send_all(&[
        (UPLINK, tagged(&between(71, 72), 257)),
        (UPLINK, tagged(&between(70, 73), 67)),
        (UPLINK, tagged(&between(70, 73), 68)),
        (MACHINE, tagged(&between(72, 71), 100)),
        (MACHINE, between(74, 73)),
        (3, between(73, 74)),
        (3, between(73, 70)),
        (UPLINK, tagged(&between(71, 72), 257)),
    ]);
    let out: Vec<_> = fate.out.into_iter().map(|(port, frame, _)| (port, frame)).collect();
    let expected = [
        (3, between(70, 73)),
        (3, between(74, 73)),
        (MACHINE, tagged(&between(71, 72), 100)),
        (MACHINE, between(73, 74)),
        (MACHINE, tagged(&between(71, 72), 100)),
        (UPLINK, tagged(&between(72, 71), 257)),
        (UPLINK, tagged(&between(73, 70), 67)),
    ];
    assert_eq!((&out[..], &fate.dropped[..]), (&expected[..], &["unknown_vlan"][..]));
}

/// Double tagging: the native VLAN loses nothing on its way out, so that a tag of the sender would
/// be taken for the trunk's.
#[test]
fn nobody_gets_into_another_vlan_through_the_native_one() {
    let mut bench = bench();
    bench.send(MACHINE, &between(70, 71));
    for protocol in [0x8100, 0x88a8] {
        let into_guarded = tags(&between(72, 70), &[(protocol, 100)]);
        assert_eq!(bench.send(3, &into_guarded).dropped, ["native_tag"]);
        // With a priority tag in front, which is taken off.
        let hidden = tagged(&into_guarded, 0xe000);
        assert_eq!(bench.send(3, &hidden).dropped, ["native_tag"]);
        assert_eq!(bench.send(UPLINK, &tagged(&into_guarded, 67)).dropped, ["native_tag"]);
    }
}

#[test]
fn the_gateway_answers_hosts_outside_in_their_vlan() {
    let mut bench = bench();
    let request = arp(ArpOperation::REQUEST, mac(70), (mac(70), [0; 4]), V4_GATEWAY);
    let solicitation = Neighbor {
        kind: 135,
        source: mac(70),
        from: v6(70),
        target: V6_GATEWAY,
        option: Some((1, mac(70))),
        hop_limit: 255,
    };
    let ping = echo(mac(70), GATEWAY, (v4(70), V4_GATEWAY), 67);
    for (port, vlan) in [(UPLINK, 0xa043), (UPLINK, 0x0101), (MACHINE, 0xf064)] {
        let reply = bench.send(port, &tagged(&request, vlan)).only(port);
        assert_eq!(reply[12..16], tagged(&request, vlan)[12..16]);
        let packet = SlicedPacket::from_ethernet(&reply).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP in {reply:02x?}") };
        assert_eq!(arp.operation(), ArpOperation::REPLY);
        assert_eq!((arp.sender_hw_addr(), arp.target_hw_addr()), (&GATEWAY.0[..], &mac(70).0[..]));
        let reply = bench.send(port, &tagged(&solicitation.frame(), vlan)).only(port);
        assert_eq!((&reply[..6], &reply[14..16]), (&mac(70).0[..], &vlan.to_be_bytes()[..]));
        assert_eq!((reply[58], &reply[66..82]), (136, &V6_GATEWAY[..]));
        let reply = bench.send(port, &tagged(&ping, vlan)).only(port);
        assert_eq!((reply.len(), reply[38]), (ping.len() + 4, 0));
    }
    // And untagged where that is the network.
    let reply = bench.send(MACHINE, &request).only(MACHINE);
    assert_eq!((reply.len(), &reply[12..14]), (request.len(), &[8, 6][..]));
    let mut fragment = ping;
    fragment[20] = 0x20;
    assert_eq!(
        bench.send(UPLINK, &tagged(&fragment, 67)).punted,
        1,
        "the rest is the host stack's"
    );
}

#[test]
fn a_trunk_that_lost_a_segment_is_no_way_out_of_it() {
    let mut bench = bench();
    bench.send(UPLINK, &tagged(&between(70, 71), 257));
    let to_the_station = udp(mac(0), mac(70), v4(0), 67);
    assert_eq!(bench.send(0, &to_the_station).ports(), [UPLINK]);
    // Members are those of the tables before: as if the number had been given again.
    bench.change(|tables| {
        let only = trunk([(OPEN, Tagging::Tagged(vid(67)))]);
        tables.ports.row_mut(UPLINK.into()).role = only;
    });
    for frame in [to_the_station, udp(mac(0), MacAddr::BROADCAST, v4(0), 67)] {
        let fate = bench.send(0, &frame);
        assert_eq!(fate.ports(), [1, 2, MACHINE]);
        assert_eq!(fate.dropped, ["stale_egress"]);
    }
    assert_eq!(bench.send(UPLINK, &tagged(&between(70, 71), 257)).dropped, ["unknown_vlan"]);
}

#[test]
fn an_uplink_has_the_limits_of_a_port() {
    let mut bench = bench_with(|tables| {
        tables.ports.row_mut(UPLINK.into()).storm = Some(Arc::new(Storm::new(20)));
    });
    let broadcast = udp(mac(70), MacAddr::BROADCAST, v4(3), 67);
    assert_eq!(bench.send(UPLINK, &tagged(&broadcast, 67)).ports(), [3, MACHINE, 5]);
    assert_eq!(bench.send(UPLINK, &tagged(&between(70, 71), 257)).ports(), [0, 1, 2, MACHINE]);
    assert_eq!(bench.send(UPLINK, &tagged(&broadcast, 67)).dropped, ["storm"], "of both VLANs");
    bench.wait(Duration::from_millis(50));
    assert_eq!(bench.send(UPLINK, &tagged(&broadcast, 257)).ports(), [0, 1, 2, MACHINE]);
    for station in 0..u8::try_from(MAC_LIMIT).unwrap() {
        bench.send(UPLINK, &tagged(&between(100 + station, 1), 257));
    }
    assert_eq!(bench.learning.refused.read(), 2, "70 is known in both VLANs");
}

#[test]
fn an_isolated_network_reaches_its_uplink() {
    let mut bench = bench_with(|tables| {
        plug(tables, UPLINK, trunk([(LONELY, Tagging::Tagged(vid(67)))]));
    });
    let frame = udp(mac(6), MacAddr::BROADCAST, v4(6), 67);
    assert_eq!(bench.send(6, &frame).only(UPLINK), tagged(&frame, 67));
    let reply = udp(mac(70), mac(6), v4(70), 67);
    assert_eq!(bench.send(UPLINK, &tagged(&reply, 67)).only(6), reply);
}

#[test]
fn an_uplink_without_tags_carries_no_vlan_of_the_wire() {
    let mut bench = bench_with(|tables| {
        plug(tables, UPLINK, trunk([(OPEN, Tagging::Native(None))]));
        Arc::make_mut(&mut tables.segments.row_mut(GUARDED.index()).members).pop();
    });
    let frame = between(70, 71);
    for frame in [&frame, &tagged(&frame, 0xe000)] {
        assert_eq!(bench.send(UPLINK, frame).ports(), [3, MACHINE, 5]);
    }
    assert_eq!(bench.send(UPLINK, &tagged(&frame, 67)).dropped, ["unknown_vlan"]);
    let frame = between(71, 70);
    assert_eq!(bench.send(3, &frame).only(UPLINK), frame);
    assert_eq!(bench.send(3, &tagged(&frame, 67)).dropped, ["native_tag"]);
}

#[test]
fn a_walk_tells_what_became_of_tags() {
    let mut bench = bench();
    bench.send(MACHINE, &tagged(&between(70, 71), 100));
    let way = Egress { port: PortId(MACHINE), segment: GUARDED };
    let told = bench.told(UPLINK, &tagged(&between(72, 70), 257));
    let Told::Entered { layers, head, .. } = told[0] else { panic!("{told:?}") };
    assert_eq!((layers.kind, layers.l3, &head[12..16]), (Kind::Ipv4, 18, &[0x81, 0, 1, 1][..]));
    assert_eq!(
        told[1..],
        [
            Told::Vlan { vid: 257, segment: GUARDED },
            Told::Admitted,
            Told::Learned(Learned::New),
            Told::Heard(PortId(MACHINE)),
            Told::Decided(Verdict::Forward(way)),
            Told::Tagged(Tagging::Tagged(vid(100))),
            Told::Emitted(way),
        ]
    );
    let told = bench.told(MACHINE, &tagged(&between(70, 71), 67));
    assert_eq!(told[1..], [Told::Decided(Verdict::Drop(drops::UNKNOWN_VLAN))]);
    let told = bench.told(3, &tagged(&between(73, 74), 0xe000));
    assert_eq!(told[1], Told::Vlan { vid: 0, segment: OPEN });
    assert!(told.contains(&Told::Tagged(Tagging::Native(Some(vid(5))))));
    let told = bench.told(3, &tagged(&between(73, 74), 100));
    let native = Egress { port: PortId(MACHINE), segment: OPEN };
    assert!(told.contains(&Told::Refused(native, Verdict::Drop(drops::NATIVE_TAG))));
}
