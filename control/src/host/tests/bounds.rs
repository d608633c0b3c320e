//! What bounds the host stack: quotas, full rings, networks that go, bytes from strangers.

use std::sync::mpsc::channel;

use dataplane::engine::BATCH;
use dataplane::ids::PortId;
use dataplane::memory::Packet;
use dataplane::offload::{Checksum, Gso, Offload};
use pipelines::drops;
use proptest::prelude::*;

use super::{Command, GATEWAY, Rig, frames};

const OTHER: PortId = PortId(9);

#[test]
fn a_flood_of_one_class_or_network_leaves_the_others_their_answers() {
    let mut rig = Rig::new();
    rig.join(OTHER);
    for _ in 0..257 {
        rig.punt(GATEWAY, &frames::syn(4), Offload::PLAIN);
    }
    // A tenth of a second's worth at once.
    assert_eq!(rig.sent().len(), 200);
    assert_eq!(rig.dropped(drops::PUNT_LIMIT), 57);
    assert_eq!(rig.ask(&frames::syn(6)).len(), 0);
    assert_eq!(rig.ask(&frames::datagram(4, b"")).len(), 1);
    rig.punt(OTHER, &frames::syn(4), Offload::PLAIN);
    assert_eq!(rig.sent()[0].0, OTHER);
    rig.now.0 += 1_000_000_000;
    assert_eq!(rig.ask(&frames::syn(4)).len(), 1);
    rig.all_home();
}

#[test]
fn a_super_packet_of_single_bytes_costs_no_more_than_its_quota() {
    let mut rig = Rig::new();
    let frame = frames::data_segment(&[9; 60_000]);
    let (gso, csum_start, csum_offset) = (Gso::Tcp4, 34, 16);
    let checksum = Checksum::Partial;
    rig.punt(GATEWAY, &frame, Offload { checksum, gso, gso_size: 1, csum_start, csum_offset });
    assert_eq!(rig.sent().len(), 200);
    assert_eq!(rig.dropped(drops::PUNT_LIMIT), 1);
    rig.all_home();
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut rig = Rig::new();
    for _ in 0..150 {
        rig.punt(GATEWAY, &frames::syn(4), Offload::PLAIN);
        rig.punt(GATEWAY, &frames::syn(6), Offload::PLAIN);
        rig.punt(GATEWAY, &frames::datagram(4, b"x"), Offload::PLAIN);
    }
    assert_eq!(rig.sent().len(), BATCH);
    assert_eq!(rig.dropped(dataplane::drops::HANDOFF_FULL), 300 - BATCH as u64);
    rig.all_home();
}

#[test]
fn without_packet_memory_nothing_is_sent_and_that_is_counted() {
    let mut rig = Rig::new();
    let kept: Vec<Packet> = std::iter::from_fn(|| rig.stack.hold()).collect();
    assert_eq!(rig.ask(&frames::syn(4)).len(), 0);
    assert_eq!(rig.dropped(dataplane::drops::NO_MEMORY), 1);
    kept.into_iter().for_each(|packet| rig.pool.give(packet.into_frame()));
    rig.sent();
    assert_eq!(rig.ask(&frames::syn(4)).len(), 1);
    rig.all_home();
}

#[test]
fn a_network_that_goes_is_answered_to_the_last_and_then_never() {
    let mut rig = Rig::new();
    for _ in 0..300 {
        rig.punt(GATEWAY, &frames::fragment(0, &[8, 0, 0, 0, 0, 0, 0, 0], true), Offload::PLAIN);
    }
    rig.punt(GATEWAY, &frames::syn(4), Offload::PLAIN);
    let (done, gone) = channel();
    rig.commands.send(Command::Leave(GATEWAY, done)).unwrap();
    rig.stack.turn(rig.now);
    gone.try_recv().expect("everything that waited is dealt with in the turn that says so");
    assert_eq!(rig.sent().len(), 1);
    assert_eq!(rig.ask(&frames::syn(4)).len(), 0);
    rig.join(GATEWAY);
    assert_eq!(rig.ask(&frames::syn(4)).len(), 1);
    rig.all_home();
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = frames::echo(&[1; 67], 16);
    seeds.extend([frames::fragment_v6(&[128; 64]), frames::data_segment(&[2; 257])]);
    seeds.extend([4, 6].map(frames::syn));
    seeds.extend([4, 6].map(|version| frames::datagram(version, &[3; 67])));
    seeds.push(vec![0; 67]);
    seeds
}

fn offload() -> impl Strategy<Value = Offload> {
    let checksum = prop::sample::select(vec![Checksum::Unverified, Checksum::Partial]);
    let gso = prop::sample::select(vec![Gso::None, Gso::None, Gso::Tcp4, Gso::Tcp6, Gso::Udp]);
    (checksum, gso, 0..80_u16, 0..80_u16, 0..20_u16).prop_map(
        |(checksum, gso, gso_size, csum_start, csum_offset)| Offload {
            checksum,
            gso,
            gso_size,
            csum_start,
            csum_offset,
        },
    )
}

proptest! {
    /// Damaged frames with any offload state never panic, and no frame is lost over them.
    #[test]
    fn hostile_frames_cost_nothing(
        hostile in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..9),
                any::<prop::sample::Index>(),
                offload(),
            ),
            1..67,
        )
    ) {
        let mut rig = Rig::new();
        let seeds = seeds();
        for (seed, damages, end, offload) in hostile {
            let mut frame = seed.get(&seeds).clone();
            for (at, byte) in damages {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if offload.csum_start % 3 == 0 {
                frame.truncate(end.index(frame.len()));
            }
            rig.now.0 += 100_000_000;
            rig.punt(GATEWAY, &frame, offload);
            for (port, answer) in rig.sent() {
                prop_assert_eq!(port, GATEWAY);
                prop_assert!(answer.len() <= 1514);
            }
        }
        rig.all_home();
    }
}
