//! Cutting and coalescing, as properties: segments are what another stack reads, and coalescing
//! gives back what was cut.

mod packets;

use dataplane::offload::{Checksum, Gso, Offload};
use dataplane::wire::gro::Run;
use dataplane::wire::gso::{Cut, CutError, Finish, WriteError};
use dataplane::wire::layers::Version;
use dataplane::wire::{checksum, ipv4, tcp};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use packets::{Shape, any_shape, naive_sum};
use proptest::prelude::*;

/// Datagrams that coalesce at most.
const UDP_SEGMENTS: usize = 64;

/// All segments of a super-packet, with what each owes.
fn cut(frame: &[u8], offload: Offload, finish: Finish) -> Vec<(Vec<u8>, Offload)> {
    let plan = Cut::plan(frame, offload).unwrap();
    let mut slot = vec![0xee; plan.segment_len()];
    (0..plan.count())
        .map(|index| {
            let (length, offload) = plan.write(index, frame, &mut slot, finish).unwrap();
            (slot[..length].to_vec(), offload)
        })
        .collect()
}

/// Coalesces what belongs together; gives each packet with its state.
fn coalesce(segments: &[(Vec<u8>, Offload)]) -> Vec<(Vec<u8>, Offload)> {
    let mut packets = Vec::new();
    let mut rest = segments.iter().peekable();
    while let Some((frame, offload)) = rest.next() {
        let mut packet = frame.clone();
        let Some(mut run) = Run::start(frame, *offload) else {
            packets.push((packet, *offload));
            continue;
        };
        let mut payloads = Vec::new();
        while let Some((next, offload)) = rest.peek() {
            let Some(payload) = run.accept(next, *offload) else { break };
            payloads.extend_from_slice(&next[payload]);
            rest.next();
        }
        assert_eq!(run.frame_len(), packet.len() + payloads.len());
        let offload = run.finish(&mut packet);
        packet.extend_from_slice(&payloads);
        packets.push((packet, offload));
    }
    packets
}

/// A segment as another stack reads it: identification, sequence number, flags and payload.
/// Panics if a checksum or a length is wrong.
fn read(frame: &[u8]) -> (u16, u32, u8, Vec<u8>) {
    let sliced = LaxSlicedPacket::from_ethernet(frame).unwrap();
    assert!(sliced.stop_err.is_none(), "{:?}", sliced.stop_err);
    let (identification, pseudo, layer4) = match sliced.net.unwrap() {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let pseudo = [header.source, header.destination].concat();
            (header.identification, pseudo, ip.payload().clone())
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (0, [header.source, header.destination].concat(), ip.payload().clone())
        }
        other => panic!("not IP: {other:?}"),
    };
    assert!(!layer4.incomplete);
    let length = u16::try_from(layer4.payload.len()).unwrap().to_be_bytes();
    let summed = [&pseudo[..], &[0, layer4.ip_number.0], &length, layer4.payload].concat();
    assert_eq!(naive_sum(&summed), 0xffff, "layer 4 checksum");
    match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let flags = tcp.header_slice()[13];
            (identification, tcp.sequence_number(), flags, tcp.payload().to_vec())
        }
        TransportSlice::Udp(udp) => {
            assert_ne!(udp.checksum(), 0);
            assert_eq!(usize::from(udp.length()), layer4.payload.len());
            (identification, 0, 0, udp.payload().to_vec())
        }
        other => panic!("not TCP or UDP: {other:?}"),
    }
}

/// A shape that is often used: `segments` full segments and 67 bytes.
fn bulk(udp: bool, v6: bool, segments: usize) -> Shape {
    Shape {
        v6,
        udp,
        vlan: None,
        options: 3,
        flags: tcp::ACK | tcp::PSH,
        identification: 0xfffe,
        dont_fragment: true,
        sequence_number: u32::MAX - 2000,
        payload: 1448 * segments + 67,
        seed: 257,
        gso_size: 1448,
    }
}

fn bulk_segments(udp: bool, v6: bool) -> Vec<(Vec<u8>, Offload)> {
    let (frame, offload) = bulk(udp, v6, 3).build();
    cut(&frame, offload, Finish::Complete)
}

proptest! {
    #[test]
    fn segments_are_what_another_stack_reads(shape in any_shape()) {
        let (frame, offload) = shape.build();
        let segments = cut(&frame, offload, Finish::Complete);
        let count = shape.payload.div_ceil(usize::from(shape.gso_size));
        prop_assert_eq!(segments.len(), count);
        let mut payload = Vec::new();
        for (index, (segment, _)) in segments.iter().enumerate() {
            let (identification, sequence, flags, bytes) = read(segment);
            let nth = u16::try_from(index).unwrap();
            let expected = if shape.v6 { 0 } else { shape.identification.wrapping_add(nth) };
            prop_assert_eq!(identification, expected);
            if !shape.udp {
                let passed = u32::try_from(payload.len()).unwrap();
                prop_assert_eq!(sequence, shape.sequence_number.wrapping_add(passed));
                let first = if index == 0 { 0 } else { tcp::CWR };
                let last = if index + 1 == count { 0 } else { tcp::PSH | tcp::FIN };
                prop_assert_eq!(flags, shape.flags & !first & !last);
            }
            payload.extend_from_slice(&bytes);
        }
        prop_assert_eq!(&payload, &frame[frame.len() - shape.payload..]);
    }

    #[test]
    fn partial_segments_complete_to_the_same_bytes(shape in any_shape()) {
        let (frame, offload) = shape.build();
        let complete = cut(&frame, offload, Finish::Complete);
        let partial = cut(&frame, offload, Finish::Partial);
        for ((complete, state), (mut partial, mut owed)) in complete.into_iter().zip(partial) {
            prop_assert_eq!(owed.checksum, Checksum::Partial);
            checksum::complete(&mut partial, &mut owed).unwrap();
            prop_assert_eq!(partial, complete);
            prop_assert_eq!(owed, state);
        }
    }

    #[test]
    fn coalescing_gives_back_what_was_cut(shape in any_shape(), trusted in 0u8..3) {
        let shape = Shape { flags: shape.flags & !tcp::CWR, ..shape };
        let (frame, offload) = shape.build();
        let finish = if trusted == 0 { Finish::Partial } else { Finish::Complete };
        let mut segments = cut(&frame, offload, finish);
        if trusted == 2 {
            segments.iter_mut().for_each(|(_, offload)| *offload = Offload::PLAIN);
        }
        let packets = coalesce(&segments);
        let again = packets.iter().flat_map(|(packet, offload)| match offload.is_super() {
            true => cut(packet, *offload, finish),
            false => vec![(packet.clone(), *offload)],
        });
        prop_assert!(again.map(|(frame, _)| frame).eq(segments.iter().map(|(frame, _)| frame.clone())));
        let at_most = if shape.udp { UDP_SEGMENTS } else { usize::MAX };
        prop_assert_eq!(packets.len(), segments.len().div_ceil(at_most));
        if (2..=at_most).contains(&segments.len()) {
            prop_assert_eq!(&packets[0], &(frame, offload));
        }
    }

    #[test]
    fn super_packets_coalesce_too(shape in any_shape(), pieces in 1usize..20) {
        let size = usize::from(shape.gso_size) * pieces;
        prop_assume!(size < 60_000 && shape.payload <= UDP_SEGMENTS * usize::from(shape.gso_size));
        let shape = Shape { flags: shape.flags & !tcp::CWR, ..shape };
        let (frame, offload) = shape.build();
        // Cut into super-packets, each of which is `pieces` segments, whose state we know.
        let large = Offload { gso_size: u16::try_from(size).unwrap(), ..offload };
        let mut parts = cut(&frame, large, Finish::Partial);
        let headers = frame.len() - shape.payload;
        let l3 = usize::from(offload.csum_start) - 20;
        for (nth, (part, state)) in parts.iter_mut().enumerate() {
            if part.len() - headers > usize::from(shape.gso_size) {
                *state = offload;
            }
            if !shape.v6 {
                let passed = u16::try_from(nth * pieces).unwrap();
                let identification = shape.identification.wrapping_add(passed);
                part[l3 + 4..l3 + 6].copy_from_slice(&identification.to_be_bytes());
                ipv4::fill_checksum(&mut part[l3..l3 + 20]);
            }
        }
        let packets = coalesce(&parts);
        prop_assert_eq!(packets.len(), 1);
        prop_assert_eq!(&packets[0].0, &frame);
        if shape.payload > usize::from(shape.gso_size) {
            prop_assert_eq!(packets[0].1, offload);
        }
    }
}

#[test]
fn what_is_no_super_packet_is_refused() {
    let (frame, offload) = bulk(false, false, 3).build();
    let plan = |offload| Cut::plan(&frame, offload).map(|_| ()).unwrap_err();
    assert_eq!(plan(Offload { gso: Gso::None, ..offload }), CutError::NotSuper);
    assert_eq!(plan(Offload { gso_size: 0, ..offload }), CutError::NoSize);
    let mismatch = |gso| CutError::Mismatch { gso, version: Version::V4, protocol: 6 };
    assert_eq!(plan(Offload { gso: Gso::Tcp6, ..offload }), mismatch(Gso::Tcp6));
    assert_eq!(plan(Offload { gso: Gso::Udp, ..offload }), mismatch(Gso::Udp));
    let elsewhere = CutError::Checksum { start: 34, offset: 6, l4: 34 };
    assert_eq!(plan(Offload { csum_offset: 6, ..offload }), elsewhere);
    let short = &frame[..frame.len() - 1];
    assert_eq!(Cut::plan(short, offload).map(|_| ()), Err(CutError::NotIp(short.len())));
}

#[test]
fn bad_headers_are_refused() {
    let refuse = |at: usize, value: u8, udp| {
        let (mut frame, offload) = bulk(udp, false, 3).build();
        frame[at] = value;
        Cut::plan(&frame, offload).map(|_| ()).unwrap_err()
    };
    let layer4 = |udp| if udp { 8 + 1448 * 3 + 67 } else { 32 + 1448 * 3 + 67 };
    assert_eq!(refuse(20, 0x20, false), CutError::Fragment);
    assert_eq!(refuse(46, 0x40, false), CutError::BadHeader(layer4(false)));
    assert_eq!(refuse(39, 9, true), CutError::BadHeader(layer4(true)), "UDP's own length");
    let (frame, offload) = Shape { payload: 0, ..bulk(true, true, 0) }.build();
    assert_eq!(Cut::plan(&frame, offload).map(|_| ()), Err(CutError::Empty));
}

#[test]
fn a_segment_that_cant_be_written_leaves_the_slot_alone() {
    let (frame, offload) = bulk(false, true, 3).build();
    let plan = Cut::plan(&frame, offload).unwrap();
    let needed = 14 + 40 + 32 + 1448;
    assert_eq!((plan.count(), plan.segment_len()), (4, needed));
    let mut slot = vec![0xee; needed - 1];
    let mut write = |index, frame: &[u8]| {
        plan.write(index, frame, &mut slot, Finish::Complete).map(|_| ()).unwrap_err()
    };
    assert_eq!(write(4, &frame), WriteError::NoSegment { index: 4, count: 4 });
    let available = needed - 1;
    assert_eq!(write(0, &frame), WriteError::TooSmall { needed, available });
    assert_eq!(write(3, &frame[..frame.len() - 1]), WriteError::Shrank(frame.len() - 1));
    assert!(slot.iter().all(|byte| *byte == 0xee));
}

/// Whether the second of two segments is still accepted after this change to it, which leaves
/// its checksums right.
fn still_accepted(udp: bool, v6: bool, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut segments = bulk_segments(udp, v6);
    let state = segments[1].1;
    change(&mut segments[1].0);
    if !v6 {
        ipv4::fill_checksum(&mut segments[1].0[14..34]);
    }
    let mut run = Run::start(&segments[0].0, segments[0].1).unwrap();
    run.accept(&segments[1].0, state).is_some()
}

#[test]
fn only_equal_headers_coalesce() {
    assert!(still_accepted(false, false, |_| ()) && still_accepted(true, true, |_| ()));
    // Offsets into frames of Ethernet, IP without options, and layer 4.
    let link = [0, 6, 12];
    let ipv4 = [14 + 1, 14 + 4, 14 + 8, 14 + 12, 14 + 16];
    let ipv6 = [14, 14 + 3, 14 + 7, 14 + 8, 14 + 24];
    let tcp = [0, 2, 4, 8, 14, 18, 20];
    for at in link.into_iter().chain(ipv4).chain(tcp.map(|at| 34 + at)) {
        assert!(!still_accepted(false, false, |frame| frame[at] ^= 1), "IPv4, TCP, byte {at}");
    }
    for at in link.into_iter().chain(ipv6).chain([54, 56]) {
        assert!(!still_accepted(true, true, |frame| frame[at] ^= 1), "IPv6, UDP, byte {at}");
    }
    assert!(!still_accepted(false, false, |frame| frame[14 + 6] ^= 0x40), "DF");
    for flag in [tcp::SYN, tcp::RST, tcp::URG, tcp::ECE, tcp::CWR, tcp::ACK] {
        assert!(!still_accepted(false, true, |frame| frame[54 + 13] ^= flag), "flag {flag:#04x}");
    }
    for flag in [tcp::PSH, tcp::FIN] {
        assert!(still_accepted(false, true, |frame| frame[54 + 13] ^= flag), "flag {flag:#04x}");
    }
}

/// Whether the first of several segments still starts a run after this change to it.
fn still_starts(udp: bool, change: impl FnOnce(&mut Vec<u8>, &mut Offload)) -> bool {
    let (mut frame, mut state) = bulk_segments(udp, false).swap_remove(0);
    change(&mut frame, &mut state);
    ipv4::fill_checksum(&mut frame[14..34]);
    Run::start(&frame, state).is_some()
}

#[test]
fn some_segments_always_go_alone() {
    assert!(still_starts(false, |_, _| ()) && still_starts(true, |_, _| ()));
    for flag in [tcp::SYN, tcp::RST, tcp::URG, tcp::CWR, tcp::PSH, tcp::FIN, tcp::ACK] {
        assert!(!still_starts(false, |frame, _| frame[34 + 13] ^= flag), "flag {flag:#04x}");
    }
    assert!(!still_starts(true, |frame, _| frame[20] |= 0x20), "a fragment");
    assert!(!still_starts(true, |frame, _| frame[40..42].fill(0)), "no UDP checksum");
    let elsewhere = |_: &mut Vec<u8>, state: &mut Offload| {
        (state.checksum, state.csum_start, state.csum_offset) = (Checksum::Partial, 34, 6);
    };
    assert!(still_starts(true, elsewhere));
    assert!(!still_starts(false, elsewhere), "a partial checksum of another layer");
    let unverified = |checksum| {
        move |_: &mut Vec<u8>, state: &mut Offload| {
            (state.checksum, state.gso, state.gso_size) = (checksum, Gso::Tcp4, 724);
        }
    };
    assert!(still_starts(false, unverified(Checksum::Verified)));
    assert!(!still_starts(false, unverified(Checksum::Unverified)), "an unverified super-packet");
}

#[test]
fn only_super_packets_of_the_same_size_follow() {
    let follows = |gso_size, rising: bool| {
        let mut segments = bulk_segments(false, false);
        let (mut next, mut state) = segments.swap_remove(1);
        if !rising {
            next[18..20].copy_from_slice(&segments[0].0[18..20]);
            ipv4::fill_checksum(&mut next[14..34]);
        }
        (state.gso, state.gso_size) = (Gso::Tcp4, gso_size);
        let mut run = Run::start(&segments[0].0, segments[0].1).unwrap();
        run.accept(&next, state).is_some()
    };
    assert!(follows(1448, true) && follows(1448, false));
    assert!(!follows(724, true), "smaller segments");
}

#[test]
fn identifications_of_a_super_packet_rise() {
    let (head, state) = Shape { payload: 67, flags: tcp::ACK, ..bulk(false, false, 0) }.build();
    let state = Offload { gso: Gso::None, gso_size: 0, ..state };
    let sequence_number = bulk(false, false, 0).sequence_number.wrapping_add(67);
    let next = |identification| {
        let shape = Shape {
            payload: 670,
            gso_size: 67,
            identification,
            sequence_number,
            ..bulk(false, false, 0)
        };
        let (next, of_next) = shape.build();
        Run::start(&head, state).unwrap().accept(&next, of_next).is_some()
    };
    assert!(next(0xffff) && !next(0xfffe), "the head's is 0xfffe");
}

#[test]
fn a_wrong_checksum_goes_alone() {
    for (udp, v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut segments = bulk_segments(udp, v6);
        segments.iter_mut().for_each(|(_, offload)| *offload = Offload::PLAIN);
        *segments[1].0.last_mut().unwrap() ^= 1;
        let before = segments[1].clone();
        let packets = coalesce(&segments);
        assert_eq!(packets.len(), 3);
        assert_eq!(packets[1], before);
        assert_eq!(packets[0].0, segments[0].0);
        assert_eq!(packets[0].1.checksum, Checksum::Verified);
    }
}

#[test]
fn a_wrong_ip_header_goes_alone_even_if_layer_4_is_right() {
    let mut segments = bulk_segments(false, false);
    segments[1].0[14 + 10] ^= 1;
    assert_eq!(coalesce(&segments).len(), 3);
}

#[test]
fn identifications_rise_or_stay_with_dont_fragment() {
    let with = |ids: [u16; 4], dont_fragment| {
        let mut segments = bulk_segments(false, false);
        for ((frame, _), id) in segments.iter_mut().zip(ids) {
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            frame[20] = if dont_fragment { 0x40 } else { 0 };
            ipv4::fill_checksum(&mut frame[14..34]);
        }
        coalesce(&segments).len()
    };
    assert_eq!(with([0xfffe, 0xffff, 0, 1], false), 1);
    assert_eq!(with([7, 7, 7, 7], true), 1);
    assert_eq!(with([7, 7, 7, 7], false), 4);
    assert_eq!(with([7, 8, 8, 9], true), 2, "rising, then the same");
    assert_eq!(with([7, 7, 8, 9], true), 2, "the same, then rising");
    assert_eq!(with([7, 9, 11, 13], true), 4);
}

#[test]
fn push_and_short_segments_end_a_run() {
    let mut segments = bulk_segments(false, true);
    segments[1].0[54 + 13] |= tcp::PSH;
    let packets = coalesce(&segments);
    assert_eq!(
        packets.iter().map(|(frame, _)| frame.len()).collect::<Vec<_>>(),
        [86 + 2 * 1448, 86 + 1448 + 67]
    );
    assert_eq!(packets[0].0[54 + 13], tcp::ACK | tcp::PSH);
    let mut segments = bulk_segments(true, false);
    segments.swap(2, 3);
    assert_eq!(coalesce(&segments).len(), 3, "identifications out of order");
    let mut segments = bulk_segments(true, true);
    segments.swap(2, 3);
    let lengths = coalesce(&segments).iter().map(|(frame, _)| frame.len()).collect::<Vec<_>>();
    assert_eq!(lengths, [62 + 2 * 1448 + 67, 62 + 1448], "short in the middle");
}

#[test]
fn a_run_never_outgrows_sixteen_bits() {
    let (frame, offload) = Shape { payload: 60_000, ..bulk(false, false, 0) }.build();
    let segments = cut(&frame, offload, Finish::Complete);
    let mut run = Run::start(&segments[0].0, segments[0].1).unwrap();
    let mut sequence = u32::from_be_bytes(segments[0].0[38..42].try_into().unwrap());
    let mut identification = 0xfffe_u16;
    let mut next = segments[1].0.clone();
    let mut accepted = 1;
    for _ in 0..67 {
        sequence = sequence.wrapping_add(1448);
        identification = identification.wrapping_add(1);
        next[38..42].copy_from_slice(&sequence.to_be_bytes());
        next[18..20].copy_from_slice(&identification.to_be_bytes());
        ipv4::fill_checksum(&mut next[14..34]);
        if run.accept(&next, segments[1].1).is_none() {
            break;
        }
        accepted += 1;
    }
    assert_eq!(accepted, (65_535 - 66) / 1448);
    assert_eq!(run.frame_len(), 66 + accepted * 1448);
}

#[test]
fn nothing_follows_a_super_packet_with_a_short_tail() {
    let (frame, offload) = bulk(true, true, 2).build();
    assert!(Run::start(&frame, offload).is_none());
    let (frame, offload) = Shape { payload: 1448 * 2, ..bulk(true, true, 0) }.build();
    assert!(Run::start(&frame, offload).is_some());
}

#[test]
fn padding_of_a_short_segment_is_left_out() {
    let shape = Shape { payload: 48, gso_size: 40, vlan: None, options: 0, ..bulk(true, false, 0) };
    let (frame, offload) = shape.build();
    let mut segments = cut(&frame, offload, Finish::Complete);
    segments[1].0.resize(60, 0xaa);
    assert_eq!(coalesce(&segments), [(frame, offload)]);
    let (padded, state) = (segments[1].0.clone(), segments[1].1);
    assert!(Run::start(&padded, state).is_none());
}
