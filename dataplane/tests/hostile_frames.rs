//! Bytes from outside: whatever they are, nothing in `wire` panics, and what was planned can be
//! written.

mod packets;

use dataplane::offload::{Checksum, Gso, Offload};
use dataplane::wire::gro::Run;
use dataplane::wire::gso::{Cut, Finish};
use dataplane::wire::layers::Layers;
use dataplane::wire::{checksum, vnet};
use packets::{Shape, any_shape};
use proptest::prelude::*;

proptest! {
    #[test]
    fn bytes_from_outside_never_cause_a_panic(
        shape in any_shape(),
        changes in prop::collection::vec((0usize..120, any::<u8>()), 0..4),
        keep in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..200],
        header in any::<[u8; vnet::HEADER_LEN]>(),
        own_state in any::<bool>(),
    ) {
        let (mut frame, mut offload) = Shape { payload: shape.payload.min(4000), ..shape }.build();
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(keep);
        if !own_state {
            let header: vnet::Header = zerocopy::transmute!(header);
            offload = header.to_offload(frame.len()).unwrap_or(Offload { gso: Gso::Udp, ..offload });
        }
        survive(frame, offload);
    }

    #[test]
    fn garbage_never_causes_a_panic(
        frame in prop::collection::vec(any::<u8>(), 0..257), ethertype in 0usize..4,
    ) {
        let mut frame = frame;
        if frame.len() > 14 {
            let starts = [[0x08, 0, 0x45], [0x86, 0xdd, 0x60], [0x81, 0, 0], [0x88, 0xa8, 0]];
            frame[12..15].copy_from_slice(&starts[ethertype]);
        }
        for gso in [Gso::None, Gso::Tcp4, Gso::Tcp6, Gso::Udp] {
            for checksum in [Checksum::Unverified, Checksum::Verified] {
                survive(frame.clone(), Offload { checksum, gso, gso_size: 67, ..Offload::PLAIN });
            }
        }
    }
}

/// Does everything that can be done with a frame, twice over.
fn survive(mut frame: Vec<u8>, mut offload: Offload) {
    if let Some(layers) = Layers::of(&frame) {
        assert!(layers.l3 < layers.l4 && layers.l4 <= layers.end && layers.end <= frame.len());
        checksum::verify(&frame, &layers);
    }
    if let Ok(plan) = Cut::plan(&frame, offload) {
        let mut slot = vec![0; plan.segment_len()];
        for index in 0..plan.count() {
            plan.write(index, &frame, &mut slot, Finish::Complete).unwrap();
            plan.write(index, &frame, &mut slot, Finish::Partial).unwrap();
        }
    }
    if let Some(mut run) = Run::start(&frame, offload) {
        let _ = (0..257).all(|_| run.is_open() && run.accept(&frame, offload).is_some());
        let length = run.frame_len();
        assert!(length <= 65_535);
        run.finish(&mut frame);
    }
    vnet::Header::from_offload(offload, &frame);
    if checksum::complete(&mut frame, &mut offload).is_ok() {
        assert_ne!(offload.checksum, Checksum::Partial);
    }
}
