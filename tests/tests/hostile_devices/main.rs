//! Hostile frames over real devices: a packet socket writes them into the kernel's end, with offload
//! requests, and the accounts must balance with the kernel's own counters.
//!
//! They need root; everything happens in a network namespace that ends with its thread.
//! `HEDDLE_HOSTILE_FRAMES` says how many frames; the default takes some seconds.
#![allow(unsafe_code)]

mod bench;
mod ends;
#[path = "../../../dataplane/tests/wire_end/mod.rs"]
mod wire_end;

use bench::Bench;
use dataplane::drops;
use ends::{End, Tap, VethPacket, VethXdp};
use wire_end::in_a_namespace;

/// Frames that are written into the kernel's end, and as many to another port: once whole, and once
/// with super-packets.
const FRAMES: usize = 20_011;

#[test]
fn a_tap_bears_hostile_frames() {
    bears::<Tap>(|bench| {
        assert!(bench.dropped(drops::PORT_FAILED) > 0, "the kernel refuses some");
    });
}

#[test]
fn a_veth_by_packet_sockets_bears_hostile_frames() {
    bears::<VethPacket>(|bench| {
        assert!(bench.dropped(drops::QUEUE_FULL) > 0, "bursts are longer than the queue");
        assert!(bench.dropped(drops::BAD_OFFLOAD) > 0, "the kernel asks for what can't be");
    });
}

#[test]
fn a_veth_by_af_xdp_bears_hostile_frames() {
    bears::<VethXdp>(|bench| {
        assert!(bench.lost_behind() > 0, "bursts are longer than the ring");
    });
}

fn bears<E: End>(has_met: impl FnOnce(&Bench<E>) + Send + 'static) {
    let more = std::env::var("HEDDLE_HOSTILE_FRAMES").ok();
    let frames = more.map_or(FRAMES, |frames| frames.parse().expect("a number of frames"));
    in_a_namespace(move || {
        let mut bench = Bench::<E>::new();
        // The kernel cuts a super-packet that it thinks the device can't take, so that only whole
        // frames can be counted one by one.
        let whole = bench.write(frames, |header| header.gso_type = 0);
        bench.has_all_of(whole.sent);
        let all = bench.write(frames, |_| ());
        let (kernel, lost) = (bench.balance(whole.sent + all.sent), bench.lost_behind());
        assert!(kernel.had - lost > 10_000, "{kernel:?}, {lost} lost behind it");
        println!(
            "figure: hostile frames over a {}: {whole:?} whole, {all:?} with super-packets; \
             {kernel:?}, {lost} more behind it",
            E::NAME
        );
        assert!(whole.refused > 0 && whole.sent > 1_000 && all.sent > 1_000);
        has_met(&bench);
    });
}
