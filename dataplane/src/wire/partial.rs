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
/// apart by summing the packet up. What is left over is wrong with a probability of 2^-32 for
/// a damaged packet, which would leave the switch undamaged in its checksum only.
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
