//! The VLAN tag that the kernel takes out of a frame before a socket sees it.

use crate::memory::Packet;
use crate::offload::Checksum;
use crate::wire::ethernet::TAG_LEN;

/// Bytes of both addresses: the tag follows them.
const ADDRESSES: usize = 12;

/// A tag beside its frame, in host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stripped {
    /// The tag's ethertype (TPID).
    pub(super) ethertype: u16,
    /// Priority, drop eligible, VLAN identifier (TCI).
    pub(super) control: u16,
}

impl Stripped {
    /// Puts the tag back between addresses and ethertype, and moves the offsets of what the packet
    /// owes. `None` if the frame has no addresses, or the offsets have no room.
    #[inline]
    pub(super) fn restore(self, packet: &mut Packet) -> Option<()> {
        #[expect(clippy::cast_possible_truncation, reason = "four bytes")]
        const LEN: u16 = TAG_LEN as u16;
        packet.push_front(LEN)?;
        let head = packet.data_mut().first_chunk_mut::<{ TAG_LEN + ADDRESSES }>()?;
        head.copy_within(TAG_LEN.., 0);
        head[ADDRESSES..ADDRESSES + 2].copy_from_slice(&self.ethertype.to_be_bytes());
        head[ADDRESSES + 2..].copy_from_slice(&self.control.to_be_bytes());
        if packet.offload.checksum == Checksum::Partial {
            packet.offload.csum_start = packet.offload.csum_start.checked_add(LEN)?;
        }
        Some(())
    }
}
