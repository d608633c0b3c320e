//! Packet memory as AF_XDP knows it: the arena, registered with the kernel (`XDP_UMEM_REG`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::xdp::{SocketAddrXdpFlags, XdpUmemReg, XdpUmemRegFlags};

use super::metadata::METADATA;
use super::{Error, Queue, socket};
use crate::memory::{Ledger, SMALL_BYTES};

/// The device of the anchor: `lo`, which has index 1 in every namespace.
const LOOPBACK: Queue = Queue { device: 1, number: 0 };

/// Says that [`XdpUmemReg::tx_metadata_len`] is given (`XDP_UMEM_TX_METADATA_LEN`).
const TX_METADATA_LEN: XdpUmemRegFlags = XdpUmemRegFlags::from_bits_retain(1 << 2);

/// How a registration cuts the arena, and what the kernel takes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Bytes of a chunk: of one piece of a received frame with the kernel's headroom, and, less
    /// the metadata, of one piece of a sent one.
    pub(super) chunk: usize,
    /// Whether pieces may lie across the borders of chunks.
    pub(super) unaligned: bool,
    /// Whether there are bytes of metadata in front of each sent piece.
    pub(super) metadata: bool,
    /// Whether a frame may have several pieces.
    pub(super) pieces: bool,
}

/// The arena, registered once for all ports whose kernel side copies.
///
/// A socket on `lo` holds the registration; the ports' sockets share it. They also inherit from it
/// that they copy: zero-copy and copying sockets can't share one registration, so a device that
/// might do without copies registers the same memory [on its own](super::AfXdp::open_native).
///
/// Chunks may lie anywhere (`XDP_UMEM_UNALIGNED_CHUNK_FLAG`). With aligned ones a super-slot could
/// not be sent from where it is: no piece may cross a border then, and with metadata none may
/// begin in the 24 bytes behind one either.
///
/// Registering pins all pages of the arena. The kernel keeps some 128 bytes per chunk for each
/// socket: 3 % of the arena.
#[derive(Debug)]
pub struct Umem {
    anchor: OwnedFd,
    ledger: Arc<Ledger>,
    layout: Layout,
}

impl Umem {
    /// Registers the arena of `ledger` by an anchor in the namespace of the calling thread. One
    /// namespace has one anchor at a time.
    ///
    /// # Errors
    ///
    /// [`struct@Error`] of the step that the kernel refuses.
    pub fn register(ledger: Arc<Ledger>) -> Result<Self, Error> {
        let flags = SocketAddrXdpFlags::XDP_COPY | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
        let several = flags | SocketAddrXdpFlags::XDP_USE_SG;
        let full = Layout { chunk: SMALL_BYTES, unaligned: true, metadata: true, pieces: true };
        // Older kernels know no metadata (before 6.8), and no frames of several pieces (before
        // 6.6), and say EINVAL to both.
        let plain = Layout { metadata: false, ..full };
        let single = Layout { pieces: false, ..plain };
        let mut refused = None;
        for (layout, flags) in [(full, several), (plain, several), (single, flags)] {
            match socket::anchor(LOOPBACK, layout.registration(&ledger), flags) {
                Ok(anchor) => return Ok(Self { anchor, ledger, layout }),
                Err(error) if error.source == Errno::INVAL => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or(Error { queue: LOOPBACK, step: "bind", source: Errno::INVAL }))
    }

    /// Who has borrowed what.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn anchor(&self) -> BorrowedFd<'_> {
        self.anchor.as_fd()
    }
}

impl Layout {
    /// Of a device that may read and write the memory itself: it wants chunks on their borders,
    /// and what it makes of metadata can't be asked.
    pub(super) const NATIVE: Self =
        Self { chunk: SMALL_BYTES, unaligned: false, metadata: false, pieces: true };

    pub(super) fn registration(self, ledger: &Ledger) -> XdpUmemReg {
        let (addr, len) = ledger.arena().span();
        let mut flags = XdpUmemRegFlags::empty();
        flags.set(XdpUmemRegFlags::XDP_UMEM_UNALIGNED_CHUNK_FLAG, self.unaligned);
        flags.set(TX_METADATA_LEN, self.metadata);
        #[expect(clippy::cast_possible_truncation, reason = "a chunk and less")]
        let (chunk_size, tx_metadata_len) = (self.chunk as u32, self.metadata_bytes() as u32);
        XdpUmemReg { addr, len, chunk_size, headroom: 0, flags, tx_metadata_len }
    }

    /// Bytes that must be free in front of a sent frame.
    #[inline(always)]
    pub(super) const fn metadata_bytes(self) -> usize {
        if self.metadata { METADATA } else { 0 }
    }

    /// The pieces of a frame of `length` bytes, `start` bytes into its slot: where each begins in
    /// the slot, and its bytes.
    #[inline(always)]
    pub(super) fn pieces(self, start: usize, length: usize) -> Pieces {
        Pieces { layout: self, at: start, left: length }
    }
}

/// What [`Layout::pieces`] answers.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    layout: Layout,
    at: usize,
    left: usize,
}

impl Iterator for Pieces {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        let Layout { chunk, unaligned, .. } = self.layout;
        let most =
            if unaligned { chunk - self.layout.metadata_bytes() } else { chunk - self.at % chunk };
        let piece = (self.at, self.left.min(most));
        self.at += piece.1;
        self.left -= piece.1;
        (piece.1 > 0).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::RUN_BYTES;

    const COPYING: Layout =
        Layout { chunk: SMALL_BYTES, unaligned: true, metadata: true, pieces: true };

    proptest! {
        /// Pieces follow each other, cover the frame, and are what the kernel takes
        /// (`xp_aligned_validate_desc`, `xp_unaligned_validate_desc`).
        #[test]
        fn pieces_cover_the_frame(
            start in METADATA..SMALL_BYTES, length in 1usize..65_600, native in any::<bool>(),
        ) {
            let length = length.min(RUN_BYTES - start);
            let layout = if native { Layout::NATIVE } else { COPYING };
            let mut next = start;
            for (at, bytes) in layout.pieces(start, length) {
                prop_assert_eq!(at, next);
                next += bytes;
                let metadata = layout.metadata_bytes();
                let inside = if native { at % layout.chunk } else { 0 };
                prop_assert!(bytes > 0 && inside + metadata + bytes <= layout.chunk);
            }
            prop_assert_eq!(next, start + length);
            // As many as an skb takes: its head and 17 fragments.
            prop_assert!(layout.pieces(start, length).count() <= 18);
        }
    }
}
