//! What can be asked of the kernel for a frame that is sent: the 24 bytes in front of it
//! (`struct xsk_tx_metadata` of `linux/if_xdp.h`).

use crate::memory::Packet;
use crate::offload::Checksum;

/// Bytes of the metadata.
pub(super) const METADATA: usize = 24;

/// Completes the checksum (`XDP_TXMD_FLAGS_CHECKSUM`).
const CHECKSUM: u64 = 1 << 1;

/// Writes the request to complete the packet's partial checksum into its headroom. Answers false,
/// and has written nothing, when the packet owes no checksum or the request can't be made: the
/// field must lie in the `first` bytes of the frame, or the kernel would try again for ever.
#[inline]
pub(super) fn request(packet: &mut Packet, first: usize) -> bool {
    let offload = packet.offload;
    let field = usize::from(offload.csum_start) + usize::from(offload.csum_offset);
    if offload.checksum != Checksum::Partial || field + 2 > first {
        return false;
    }
    let Some(header) = packet.data_behind(METADATA).and_then(|bytes| bytes.first_chunk_mut())
    else {
        return false;
    };
    *header = [0; METADATA];
    header[..8].copy_from_slice(&CHECKSUM.to_ne_bytes());
    header[8..10].copy_from_slice(&offload.csum_start.to_ne_bytes());
    header[10..12].copy_from_slice(&offload.csum_offset.to_ne_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PortId;
    use crate::memory::{Arena, Geometry};
    use crate::offload::Offload;

    #[test]
    fn a_request_lies_in_front_of_the_frame() {
        let mut pool = Arena::create(Geometry { owners: 1, small: 1, runs: 1 }).unwrap().remove(0);
        let mut packet = Packet::holding(&mut pool, PortId(0), &[7; 67]).unwrap();
        assert!(!request(&mut packet, 67), "nothing is owed");
        packet.offload = Offload {
            checksum: Checksum::Partial,
            csum_start: 34,
            csum_offset: 16,
            ..Offload::PLAIN
        };
        assert!(!request(&mut packet, 51) && request(&mut packet, 52));
        let written = packet.data_behind(METADATA).unwrap();
        let expected = [2u64.to_ne_bytes(), [34, 0, 16, 0, 0, 0, 0, 0], [0; 8]].concat();
        // The offsets are in the host's order.
        if cfg!(target_endian = "little") {
            assert_eq!(written[..METADATA], expected);
        }
        assert!(written[METADATA..].iter().all(|&byte| byte == 7));
        let headroom = u16::try_from(packet.headroom()).unwrap();
        packet.push_front(headroom - 23).unwrap();
        assert!(!request(&mut packet, 67), "no room in front");
        pool.give(packet.into_frame());
    }
}
