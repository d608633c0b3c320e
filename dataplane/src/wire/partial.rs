//! Partial checksums that nobody has told us of.
//!
//! A kernel that sends into a veth leaves the layer 4 checksum to the device, and the veth leaves it
//! undone: the field holds the sum of the pseudo-header only. A virtio-net header would say so;
//! AF_XDP says nothing. So the field is compared with that sum.

use super::checksum::{pseudo, verify};
use super::layers::Layers;
use super::{protocol, tcp, udp};
use crate::offload::{Checksum, Offload};

/// The state of a frame whose sender may have left the checksum of TCP or UDP to the device.
///
/// A complete checksum equals the sum of the pseudo-header once in 65,536 packets; it is told
/// apart by summing the packet up. Fragments are complete, since a kernel completes before it
/// cuts. Checksums that are left open inside a tunnel, and those of SCTP, are not seen: whoever
/// sends such by a veth has to turn their offload off.
#[inline]
pub fn recognise(frame: &[u8]) -> Offload {
    let Some(layers) = Layers::of(frame).filter(|layers| !layers.fragment) else {
        return Offload::PLAIN;
    };
    let Some((csum_offset, length)) = field(frame, &layers) else { return Offload::PLAIN };
    let at = layers.l4 + usize::from(csum_offset);
    let found = frame.get(at..).and_then(|rest| rest.first_chunk());
    if found != Some(&pseudo(frame, &layers, length).fold().to_bytes()) {
        return Offload::PLAIN;
    }
    if verify(frame, &layers) {
        return Offload { checksum: Checksum::Verified, ..Offload::PLAIN };
    }
    let Ok(csum_start) = u16::try_from(layers.l4) else { return Offload::PLAIN };
    Offload { checksum: Checksum::Partial, csum_start, csum_offset, ..Offload::PLAIN }
}

/// Where the checksum of layer 4 is in it, and the length that its pseudo-header has.
#[inline(always)]
fn field(frame: &[u8], layers: &Layers) -> Option<(u16, u16)> {
    let layer4 = frame.get(layers.l4..layers.end)?;
    let length = u16::try_from(layer4.len()).ok()?;
    match layers.protocol {
        protocol::TCP if layer4.len() >= tcp::HEADER_LEN => Some((tcp::CHECKSUM_OFFSET, length)),
        // UDP has a length of its own; a kernel that leaves the sum open has made both the same.
        protocol::UDP if layer4.len() >= udp::HEADER_LEN => Some((udp::CHECKSUM_OFFSET, length)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SingleVlanHeader, VlanHeader};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum;

    /// What other stacks send: a frame with a right checksum.
    #[derive(Clone, Debug)]
    struct Shape {
        v6: bool,
        tcp: bool,
        tagged: bool,
        payload: Vec<u8>,
    }

    impl Shape {
        fn complete(&self) -> Vec<u8> {
            let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let tag = VlanHeader::Single(SingleVlanHeader::default());
            let ip = match (self.tagged, self.v6) {
                (false, false) => ethernet.ipv4([10, 0, 9, 65], [10, 0, 9, 66], 9),
                (false, true) => ethernet.ipv6([1; 16], [2; 16], 9),
                (true, false) => ethernet.vlan(tag).ipv4([10, 0, 9, 65], [10, 0, 9, 66], 9),
                (true, true) => ethernet.vlan(tag).ipv6([1; 16], [2; 16], 9),
            };
            let mut bytes = Vec::new();
            if self.tcp {
                ip.tcp(67, 257, 3, 4).write(&mut bytes, &self.payload).unwrap();
            } else {
                ip.udp(67, 257).write(&mut bytes, &self.payload).unwrap();
            }
            bytes
        }

        /// The same frame as a kernel leaves it to a device.
        fn partial(&self) -> (Vec<u8>, Offload) {
            let mut frame = self.complete();
            let layers = Layers::of(&frame).unwrap();
            let (csum_offset, length) = field(&frame, &layers).unwrap();
            let sum = pseudo(&frame, &layers, length).fold().to_bytes();
            let at = layers.l4 + usize::from(csum_offset);
            frame[at..at + 2].copy_from_slice(&sum);
            let csum_start = u16::try_from(layers.l4).unwrap();
            let checksum = Checksum::Partial;
            (frame, Offload { checksum, csum_start, csum_offset, ..Offload::PLAIN })
        }
    }

    fn any_shape() -> impl Strategy<Value = Shape> {
        let payload = prop::collection::vec(any::<u8>(), 0..1500);
        (any::<bool>(), any::<bool>(), any::<bool>(), payload)
            .prop_map(|(v6, tcp, tagged, payload)| Shape { v6, tcp, tagged, payload })
    }

    /// Two bytes of payload with which the complete checksum is the sum of the pseudo-header.
    fn coincidence(shape: &Shape) -> Vec<u8> {
        let mut shape = shape.clone();
        (0..=u16::MAX)
            .find_map(|word| {
                shape.payload = word.to_be_bytes().to_vec();
                let (complete, (partial, _)) = (shape.complete(), shape.partial());
                (complete == partial).then_some(complete)
            })
            .unwrap()
    }

    #[test]
    fn a_complete_checksum_that_looks_partial_is_told_apart() {
        for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
            let frame = coincidence(&Shape { v6, tcp, tagged: false, payload: Vec::new() });
            let verified = Offload { checksum: Checksum::Verified, ..Offload::PLAIN };
            assert_eq!(recognise(&frame), verified, "v6 {v6}, tcp {tcp}");
        }
    }

    #[test]
    fn what_has_no_checksum_to_complete_is_left_alone() {
        let udp = Shape { v6: false, tcp: false, tagged: false, payload: vec![7; 67] };
        let (frame, _) = udp.partial();
        let mut fragment = frame.clone();
        fragment[20] |= 0x20;
        assert_eq!(recognise(&fragment), Offload::PLAIN);
        let mut none = frame.clone();
        none[40..42].fill(0);
        assert_eq!(recognise(&none), Offload::PLAIN);
        for length in 0..frame.len() {
            assert_eq!(recognise(&frame[..length]), Offload::PLAIN, "cut to {length} bytes");
        }
    }

    proptest! {
        #[test]
        fn partial_ones_are_recognised_and_complete_to_what_they_were(shape in any_shape()) {
            let (mut frame, expected) = shape.partial();
            let mut found = recognise(&frame);
            // Equal by chance, then it is both.
            prop_assume!(frame != shape.complete());
            prop_assert_eq!(found, expected);
            checksum::complete(&mut frame, &mut found).unwrap();
            prop_assert_eq!(frame, shape.complete());
        }

        #[test]
        fn complete_ones_are_not_partial(shape in any_shape()) {
            prop_assert_ne!(recognise(&shape.complete()).checksum, Checksum::Partial);
        }

        #[test]
        fn nothing_makes_it_point_out_of_the_frame(
            mut frame in prop::collection::vec(any::<u8>(), 0..200), v6 in any::<bool>(),
        ) {
            if frame.len() > 24 {
                frame[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
                frame[if v6 { 20 } else { 23 }] = 17;
            }
            let offload = recognise(&frame);
            let end = usize::from(offload.csum_start) + usize::from(offload.csum_offset) + 2;
            prop_assert!(offload.checksum != Checksum::Partial || end <= frame.len());
        }
    }
}
