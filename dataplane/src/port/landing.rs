//! Where a frame lands that a kernel device gives with a virtio-net header and of unknown length:
//! short ones in a small slot, super-packets in a run.

use std::io::IoSliceMut;

use zerocopy::FromBytes;

use crate::drops::{self, Reason};
use crate::ids::PortId;
use crate::memory::{Packet, Pool, Size, TAILROOM};
use crate::wire::vnet::{HEADER_LEN, Header};

/// Bytes after which a batch is handed on: what was read is then still in the second-level cache
/// when it is written.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// Two slots for one read: short frames land in the small one; a longer one fills that and goes
/// on in the run, behind a gap as long as what the small slot holds of it.
#[derive(Debug)]
pub(super) struct Landing {
    small: Packet,
    run: Packet,
}

impl Landing {
    /// A place for one frame of `port`, or `None` when the pool has none. An idle port holds no
    /// slots, since there may be thousands: what is not used is [abandoned](Self::abandon).
    #[inline]
    pub(super) fn new(pool: &mut Pool, port: PortId) -> Option<Self> {
        let small = pool.take(Size::Small)?;
        let Some(run) = pool.take(Size::Run) else {
            pool.give(small);
            return None;
        };
        let mut this = Self { small: Packet::new(small, port), run: Packet::new(run, port) };
        let fits = this.small.set_len(this.first());
        debug_assert!(fits, "less than the capacity");
        Some(this)
    }

    /// Gives the slots back.
    #[inline]
    pub(super) fn abandon(self, pool: &mut Pool) {
        pool.give(self.small.into_frame());
        pool.give(self.run.into_frame());
    }

    /// Where the virtio-net header and the frame go.
    #[inline]
    pub(super) fn vectors(&mut self) -> [IoSliceMut<'_>; 2] {
        let first = self.first();
        let head = self.small.data_behind(HEADER_LEN).unwrap_or_default();
        [IoSliceMut::new(head), IoSliceMut::new(&mut self.run.room()[first..])]
    }

    /// The packet in the slot that holds it, after header and frame of `read` bytes together, or
    /// longer than the vectors, were put there; the other slot goes home.
    ///
    /// # Errors
    ///
    /// Why the frame is lost; both slots are home.
    #[inline]
    pub(super) fn settle(mut self, read: usize, pool: &mut Pool) -> Result<Packet, Reason> {
        match self.describe(read) {
            Ok(len) => Ok(self.choose(len, pool)),
            Err(reason) => {
                self.abandon(pool);
                Err(reason)
            }
        }
    }

    /// Bytes of a frame that land in the small slot.
    #[inline(always)]
    fn first(&self) -> usize {
        self.small.capacity() - TAILROOM
    }

    /// Takes the offload state from the virtio-net header. Answers the frame's length.
    #[inline]
    fn describe(&mut self, read: usize) -> Result<usize, Reason> {
        let longest = self.run.capacity() - TAILROOM;
        let len = read.checked_sub(HEADER_LEN).filter(|&len| len <= longest);
        let len = len.ok_or(drops::OVERSIZED)?;
        let bytes = self.small.data_behind(HEADER_LEN).unwrap_or_default();
        let header = Header::read_from_prefix(bytes).ok();
        let offload = header.and_then(|(header, _)| header.to_offload(len).ok());
        self.small.offload = offload.ok_or(drops::BAD_OFFLOAD)?;
        Ok(len)
    }

    #[inline]
    fn choose(self, len: usize, pool: &mut Pool) -> Packet {
        let first = self.first();
        let Self { mut small, mut run } = self;
        if len <= first {
            let fits = small.set_len(len);
            debug_assert!(fits, "shorter than before");
            pool.give(run.into_frame());
            return small;
        }
        run.room()[..first].copy_from_slice(small.data());
        let fits = run.set_len(len);
        debug_assert!(fits, "checked against the longest");
        run.offload = small.offload;
        pool.give(small.into_frame());
        run
    }
}
