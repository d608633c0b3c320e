//! What a capture shows of frames: as they came in, as they left, and why they did not.

use dataplane::alloc::{allocations, is_counting};
use dataplane::drops::{NO_RECEIVER, Reason};
use dataplane::ids::{MacAddr, PortId};
use dataplane::offload::{Checksum, Gso, Offload};
use etherparse::ArpOperation;
use pipelines::capture::{Event, Recording, Wanted};
use pipelines::drops::{SPOOFED_IP, STALE_EGRESS, TOO_BIG};
use pipelines::filter::Filter;

use crate::bench::{Bench, OPEN, V4_GATEWAY, mac, v4};
use crate::frames::{arp, tcp, udp};
use crate::vlan::{self, MACHINE, UPLINK, tagged};

/// Every frame, whole.
const ALL: Wanted = Wanted { port: None, filter: Filter::ANY, snaplen: usize::MAX };

/// A record: its port, what was seen, the frame's length, and the bytes that were taken.
type Seen = (u16, Event, usize, Vec<u8>);

fn seen(recording: &mut Recording) -> Vec<Seen> {
    let mut frame = Vec::new();
    let next = || {
        let record = recording.take(&mut frame)?;
        Some((record.port.0, record.event, record.len.try_into().unwrap(), frame.clone()))
    };
    std::iter::from_fn(next).collect()
}

fn whole(port: u16, event: Event, frame: &[u8]) -> Seen {
    (port, event, frame.len(), frame.to_vec())
}

fn dropped(port: u16, reason: Reason, frame: &[u8]) -> [Seen; 2] {
    [whole(port, Event::Received, frame), whole(port, Event::Lost(reason), frame)]
}

#[test]
fn a_frame_is_seen_on_its_way_in_and_out() {
    let mut bench = Bench::new();
    let mut recording = bench.capture(ALL);
    let frame = udp(mac(0), mac(1), v4(0), 67);
    bench.send(0, &frame);
    let expected = [whole(0, Event::Received, &frame), whole(1, Event::Sent, &frame)];
    assert_eq!(seen(&mut recording), expected);
}

#[test]
fn an_answer_in_place_does_not_change_the_question() {
    let mut bench = Bench::new();
    let mut recording = bench.capture(ALL);
    let request = arp(ArpOperation::REQUEST, mac(0), (mac(0), v4(0)), V4_GATEWAY);
    let reply = bench.send(0, &request).only(0);
    let expected = [whole(0, Event::Received, &request), whole(0, Event::Sent, &reply)];
    assert_eq!(seen(&mut recording), expected);
}

#[test]
fn every_copy_of_a_flood_is_seen() {
    let mut bench = Bench::new();
    let mut recording = bench.capture(ALL);
    let frame = udp(mac(3), MacAddr::BROADCAST, v4(3), 67);
    bench.send(3, &frame);
    let received = whole(3, Event::Received, &frame);
    let expected = [received.clone(), whole(4, Event::Sent, &frame), whole(5, Event::Sent, &frame)];
    assert_eq!(seen(&mut recording), expected);
    // One copy has lost its way.
    bench.change(|tables| *tables.ports.row_mut(4) = Default::default());
    bench.send(3, &frame);
    let lost = whole(3, Event::Lost(STALE_EGRESS), &frame);
    assert_eq!(seen(&mut recording), [received, lost, whole(5, Event::Sent, &frame)]);
}

#[test]
fn a_drop_is_seen_with_its_reason() {
    let mut bench = Bench::new();
    let mut recording = bench.capture(ALL);
    let spoofed = udp(mac(0), mac(1), v4(1), 67);
    assert_eq!(bench.send(0, &spoofed).dropped, ["spoofed_ip"]);
    assert_eq!(seen(&mut recording), [whole(0, Event::Dropped(SPOOFED_IP), &spoofed)]);
    // The walk has found a way, and it ends there.
    let long = udp(mac(0), mac(1), v4(0), 1_473);
    assert_eq!(bench.send(0, &long).dropped, ["too_big"]);
    assert_eq!(seen(&mut recording), dropped(0, TOO_BIG, &long));
    bench.change(|tables| tables.segments.row_mut(OPEN.index()).members = vec![PortId(3)].into());
    let alone = udp(mac(3), MacAddr::BROADCAST, v4(3), 67);
    assert_eq!(bench.send(3, &alone).dropped, ["no_receiver"]);
    assert_eq!(seen(&mut recording), dropped(3, NO_RECEIVER, &alone));
}

#[test]
fn a_super_packet_comes_whole_and_leaves_in_segments() {
    let mut bench = Bench::new();
    let mut recording = bench.capture(Wanted { snaplen: 67, ..ALL });
    let offload = Offload {
        checksum: Checksum::Partial,
        gso: Gso::Tcp4,
        gso_size: 1_448,
        csum_start: 34,
        csum_offset: 16,
    };
    let frame = tcp(1, 2, 4_000);
    let out = bench.send_with(1, &frame, offload).out;
    let mut bytes = Vec::new();
    let record = recording.take(&mut bytes).unwrap();
    assert_eq!((record.event, record.offload), (Event::Received, offload));
    assert_eq!((record.len, &bytes[..]), (54 + 4_000, &frame[..67]));
    let sent: Vec<Seen> =
        out.iter().map(|(_, s, _)| (2, Event::Sent, s.len(), s[..67].to_vec())).collect();
    assert_eq!(sent.len(), 3);
    assert_eq!(seen(&mut recording), sent);
    // Whole, where it leaves whole.
    let frame = tcp(0, 1, 60_000);
    bench.send_with(0, &frame, offload);
    let lengths: Vec<usize> = seen(&mut recording).iter().map(|(_, _, len, _)| *len).collect();
    assert_eq!(lengths, [54 + 60_000; 2]);
}

#[test]
fn tags_are_seen_as_they_are_on_each_wire() {
    let mut bench = vlan::bench();
    let mut recording = bench.capture(ALL);
    let frame = udp(mac(70), MacAddr::BROADCAST, v4(3), 67);
    bench.send(UPLINK, &tagged(&frame, 67));
    let received = whole(UPLINK, Event::Received, &tagged(&frame, 67));
    let mut expected = vec![received];
    expected.extend([3, MACHINE, 5].map(|port| whole(port, Event::Sent, &frame)));
    assert_eq!(seen(&mut recording), expected);
    bench.send(3, &frame);
    let sent = seen(&mut recording).pop();
    assert_eq!(sent, Some(whole(UPLINK, Event::Sent, &tagged(&frame, 67))));
}

#[test]
fn a_capture_of_one_port_with_a_filter_shows_nothing_else() {
    let mut bench = Bench::new();
    let filter = Filter { l4_port: Some(257), protocol: Some(6), ..Filter::ANY };
    let mut recording = bench.capture(Wanted { port: Some(PortId(1)), filter, ..ALL });
    bench.send(0, &udp(mac(0), mac(1), v4(0), 67));
    bench.send(0, &tcp(0, 2, 67));
    bench.send(0, &udp(mac(0), mac(1), v4(1), 67));
    assert_eq!(seen(&mut recording), []);
    let (there, back) = (tcp(0, 1, 67), tcp(1, 0, 67));
    bench.send(0, &there);
    bench.send(1, &back);
    assert_eq!(
        seen(&mut recording),
        [whole(1, Event::Sent, &there), whole(1, Event::Received, &back)]
    );
}

#[test]
fn a_capture_takes_no_memory_and_ends_when_it_is_told() {
    assert!(is_counting());
    let mut bench = Bench::new();
    let mut recording = bench.capture(ALL);
    let frame = udp(mac(0), mac(1), v4(0), 67);
    let mut walk = |bench: &mut Bench| {
        let mut batch = bench.batch(0, &frame, 67);
        let before = allocations();
        bench.walk(&mut batch);
        assert_eq!(allocations() - before, 0);
        bench.forget();
        seen(&mut recording).len()
    };
    // The first batch makes the room that later ones find.
    assert_eq!(walk(&mut bench), 2 * 67);
    assert_eq!(walk(&mut bench), 2 * 67);
    assert!(bench.stop_capturing());
    assert_eq!(walk(&mut bench), 0);
    assert!(!bench.stop_capturing());
}
