//! Learning, ageing, moves, floods, MTU and super-packets.

use std::time::Duration;

use dataplane::ids::{MacAddr, Mtu, PortId};
use dataplane::offload::{Checksum, Gso, Offload};
use pipelines::tables::Role;

use crate::bench::{AGEING, Bench, LONELY, MAC_LIMIT, OPEN, mac, v4};
use crate::frames::{tagged, tcp, udp};

/// From one station of the open network to another.
fn between(from: u8, to: u8) -> Vec<u8> {
    udp(mac(from), mac(to), v4(3), 67)
}

#[test]
fn a_station_that_spoke_is_found() {
    let mut bench = Bench::new();
    assert_eq!(bench.send(3, &between(70, 71)).ports(), [4, 5], "nobody knows 71");
    assert_eq!(bench.send(4, &between(71, 70)).ports(), [3]);
    assert_eq!(bench.send(3, &between(70, 71)).ports(), [4]);
    assert_eq!(bench.learning.learned.read(), 2);
    // Not in another network, though.
    let frame = udp(mac(0), mac(70), v4(0), 67);
    assert_eq!(bench.send(0, &frame).ports(), [1, 2]);
}

#[test]
fn a_station_that_moves_is_found_at_its_new_place() {
    let mut bench = Bench::new();
    bench.send(3, &between(70, 71));
    assert_eq!(bench.send(5, &between(71, 70)).ports(), [3]);
    bench.send(4, &between(70, 71));
    assert_eq!(bench.send(5, &between(71, 70)).ports(), [4]);
    assert_eq!(bench.learning.moved.read(), 1);
    // It hears nothing of its own port any more.
    assert_eq!(bench.send(4, &between(71, 70)).dropped, ["hairpin"]);
}

#[test]
fn a_silent_station_is_forgotten() {
    let mut bench = Bench::new();
    bench.send(3, &between(70, 71));
    bench.wait(Duration::from_secs(AGEING));
    assert_eq!(bench.send(4, &between(71, 70)).ports(), [3]);
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.send(4, &between(71, 70)).ports(), [3, 5]);
    bench.send(3, &between(70, 71));
    assert_eq!(bench.send(4, &between(71, 70)).ports(), [3]);
}

#[test]
fn a_port_has_no_more_stations_than_it_may() {
    let mut bench = Bench::new();
    let limit = u8::try_from(MAC_LIMIT).unwrap();
    (70..70 + limit).for_each(|station| drop(bench.send(3, &between(station, 99))));
    assert_eq!(bench.learning.refused.read(), 0);
    bench.send(3, &between(99, 98));
    assert_eq!(bench.learning.refused.read(), 1);
    assert_eq!(bench.send(4, &between(71, 99)).ports(), [3, 5], "99 was not learned");
    assert_eq!(bench.send(5, &between(71, 70)).ports(), [3], "70 was");
}

#[test]
fn what_was_heard_of_an_earlier_owner_of_a_port_is_outdated() {
    let mut bench = Bench::new();
    bench.send(3, &between(70, 71));
    bench.change(|tables| {
        let row = tables.ports.row_mut(3);
        row.generation = row.generation.next();
    });
    assert_eq!(bench.send(4, &between(71, 70)).ports(), [3, 5], "flooded, not sent to its place");
    bench.send(3, &between(70, 71));
    bench.change(|tables| tables.ports.row_mut(3).role = Role::Endpoint(LONELY));
    let fate = bench.send(4, &between(71, 70));
    assert_eq!((fate.ports(), &fate.dropped[..]), (vec![5], &["stale_egress"][..]));
}

#[test]
fn a_flood_reaches_everyone_else() {
    let mut bench = Bench::new();
    let frame = udp(mac(3), MacAddr::BROADCAST, v4(3), 67);
    for (port, others) in [(3, [4, 5]), (4, [3, 5]), (5, [3, 4])] {
        let fate = bench.send(port, &frame);
        assert_eq!((fate.ports(), &fate.dropped[..]), (others.to_vec(), &[][..]));
        assert!(fate.out.iter().all(|(_, copy, _)| *copy == frame));
    }
    // Endpoints of an isolated network have no one else.
    let frame = udp(mac(6), MacAddr::BROADCAST, v4(6), 67);
    assert_eq!(bench.send(6, &frame).dropped, ["no_receiver"]);
    bench.change(|tables| {
        tables.segments.row_mut(OPEN.index()).members = vec![PortId(3), PortId(77)].into();
    });
    let fate = bench.send(3, &udp(mac(3), MacAddr::BROADCAST, v4(3), 67));
    assert_eq!((fate.ports(), &fate.dropped[..]), (vec![], &["no_queue"][..]));
}

#[test]
fn the_mtu_is_that_of_the_way_out() {
    let mut bench = Bench::with(|tables| {
        tables.ports.row_mut(1).mtu = Mtu::new(257).unwrap();
        tables.ports.row_mut(2).mtu = Mtu::new(9_000).unwrap();
    });
    for (to, mtu) in [(1, 257), (2, 9_000), (0, 1_500)] {
        let from = if to == 2 { 1 } else { 2 };
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            let fits = tagged(&udp(mac(from), mac(to), v4(from), mtu - 28), tags);
            assert_eq!(bench.send(from.into(), &fits).only(to.into()), fits);
            let more = tagged(&udp(mac(from), mac(to), v4(from), mtu - 27), tags);
            assert_eq!(bench.send(from.into(), &more).dropped, ["too_big"]);
        }
    }
}

/// A super-packet of TCP segments, as a kernel hands it over.
fn large(from: u8, to: u8, len: usize, gso_size: u16) -> (Vec<u8>, Offload) {
    let offload = Offload {
        checksum: Checksum::Partial,
        gso: Gso::Tcp4,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
    };
    (tcp(from, to, len), offload)
}

#[test]
fn a_super_packet_goes_whole_where_it_can() {
    let mut bench = Bench::new();
    let (frame, offload) = large(0, 1, 60_000, 1_448);
    let fate = bench.send_with(0, &frame, offload);
    assert_eq!(fate.out, [(1, frame, offload)]);
    let (frame, offload) = large(0, 1, 60_000, 1_461);
    assert_eq!(bench.send_with(0, &frame, offload).dropped, ["too_big"], "its segments are");
}

#[test]
fn a_super_packet_is_cut_where_it_must() {
    let mut bench = Bench::new();
    let (frame, offload) = large(1, 2, 60_000, 1_448);
    let fate = bench.send_with(1, &frame, offload);
    assert_eq!(fate.out.len(), 60_000_usize.div_ceil(1_448));
    assert!(fate.out.iter().all(|(port, ..)| *port == 2));
    let payload: Vec<u8> = fate.out.iter().flat_map(|(_, out, _)| out[54..].to_vec()).collect();
    assert_eq!(payload, frame[54..]);
    for (_, segment, offload) in &fate.out {
        assert_ne!(offload.checksum, Checksum::Partial);
        let packet = etherparse::PacketHeaders::from_ethernet_slice(segment).unwrap();
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net else { panic!("no IPv4") };
        let tcp = packet.transport.unwrap().tcp().unwrap();
        let sum = tcp.calc_checksum_ipv4(&ip, packet.payload.slice()).unwrap();
        assert_eq!((ip.header_checksum, tcp.checksum), (ip.calc_header_checksum(), sum));
    }
    let (frame, offload) = large(1, 2, 60_000, 1_461);
    assert_eq!(bench.send_with(1, &frame, offload).dropped, ["too_big"]);
}

#[test]
fn a_request_that_contradicts_its_headers_is_refused() {
    let mut bench = Bench::new();
    let (frame, offload) = large(1, 2, 3_000, 1_448);
    for wrong in [
        Offload { gso: Gso::Tcp6, ..offload },
        Offload { gso: Gso::Udp, ..offload },
        Offload { csum_start: 30, ..offload },
        Offload { gso_size: 0, ..offload },
    ] {
        let fate = bench.send_with(1, &frame, wrong);
        assert_eq!((fate.ports(), &fate.dropped[..]), (vec![], &["bad_offload"][..]), "{wrong:?}");
    }
    let (tiny, offload) = large(1, 2, 60_000, 7);
    assert_eq!(bench.send_with(1, &tiny, offload).dropped, ["bad_offload"], "8,572 segments");
    let outside = Offload {
        checksum: Checksum::Partial,
        csum_start: 60_000,
        csum_offset: 6,
        ..Offload::PLAIN
    };
    assert_eq!(
        bench.send_with(1, &udp(mac(1), mac(2), v4(1), 67), outside).dropped,
        ["bad_offload"]
    );
}
