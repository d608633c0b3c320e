//! The arena: one mapping that holds the slots of all workers.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use thiserror::Error;

use super::frame::{Frame, RUN_BYTES, SMALL_BYTES, Size};
use super::pool::Pool;
use crate::ids::WorkerId;

/// Bytes of a huge page (x86-64 and, with pages of 4 KiB, arm64).
const HUGE_PAGE: usize = 2 << 20;

/// How many slots the arena has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Owners of slots, at most 256: workers, and the host stack where there is one.
    pub owners: u16,
    /// Small slots for each owner.
    pub small: usize,
    /// Runs for each owner.
    pub runs: usize,
}

impl Geometry {
    /// The geometry that fits `budget` bytes: a third of it in small slots, the rest in runs.
    pub fn within(budget: usize, owners: u16) -> Self {
        let each = budget / usize::from(owners.max(1));
        Self { owners, small: each / 3 / SMALL_BYTES, runs: each / 3 * 2 / RUN_BYTES }
    }

    /// Bytes of the mapping.
    pub const fn bytes(self) -> usize {
        self.owners as usize * (self.small * SMALL_BYTES + self.runs * RUN_BYTES)
    }
}

/// Why there is no arena.
#[derive(Debug, Error)]
pub enum ArenaError {
    /// More owners than a frame's tag can name, or none.
    #[error("packet memory for {0} workers: from 1 to 256 can own frames")]
    Owners(u16),
    /// Not a single slot.
    #[error("packet memory of {0:?} has no slots: raise `host.memory`")]
    Empty(Geometry),
    /// The kernel refused.
    #[error("packet memory of {bytes} bytes: {step}: {source}")]
    System {
        /// Bytes asked for.
        bytes: usize,
        /// The call that failed.
        step: &'static str,
        /// Its error.
        source: rustix::io::Errno,
    },
}

/// The mapping on a memfd, shared by the pools that it was cut into. It lies in huge pages where
/// the host has set enough of them aside (`/proc/sys/vm/nr_hugepages`). Other pages are touched on
/// first use, so that an arena which is never filled costs little.
///
/// It is unmapped when its pools are gone and every slot has come home; if a frame is still
/// abroad, the mapping stays for the rest of the process.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    /// Bytes of the mapping: those of the slots, up to the end of the last page.
    mapped: usize,
    geometry: Geometry,
    memfd: OwnedFd,
    /// Slots that dropped pools had in their free lists.
    home: AtomicUsize,
}

// SAFETY: the base pointer is only used to cut frames at creation and to unmap at the end.
unsafe impl Send for Arena {}
// SAFETY: as above; shared access reads plain numbers and an atomic.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps an arena and cuts it into one pool per owner, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when the geometry is empty or too wide, or the kernel refuses the memory.
    pub fn create(geometry: Geometry) -> Result<Vec<Pool>, ArenaError> {
        if geometry.owners == 0 || geometry.owners > 256 {
            return Err(ArenaError::Owners(geometry.owners));
        }
        if geometry.small == 0 || geometry.runs == 0 {
            return Err(ArenaError::Empty(geometry));
        }
        let arena = Arc::new(Self::map(geometry)?);
        let frames = (0..geometry.owners).map(|owner| arena.cut(owner)).collect();
        Ok(Pool::family(&arena, frames))
    }

    /// How many slots there are.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The memfd behind the mapping.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// The mapping, as a device is told of it: its address in this process, and its bytes.
    pub fn span(&self) -> (u64, u64) {
        (self.base.as_ptr().addr() as u64, self.geometry.bytes() as u64)
    }

    /// How many slots there are, small ones and runs.
    pub(super) fn slots(&self) -> usize {
        usize::from(self.geometry.owners) * (self.geometry.small + self.geometry.runs)
    }

    /// Where the slot of `frame` begins, in bytes from the start of the mapping; `None` if it is
    /// a slot of another arena.
    #[inline(always)]
    pub(super) fn offset_of(&self, frame: &Frame) -> Option<usize> {
        let offset = frame.start().addr().wrapping_sub(self.base.as_ptr().addr());
        (offset < self.geometry.bytes()).then_some(offset)
    }

    /// The number of the slot around a byte, counted from zero: small ones first, then runs.
    #[inline(always)]
    pub(super) fn slot_at(&self, offset: usize) -> Option<usize> {
        let chunk = offset / SMALL_BYTES;
        let small = self.small();
        if chunk < small {
            return Some(chunk);
        }
        let slot = small + (chunk - small) / (RUN_BYTES / SMALL_BYTES);
        (slot < self.slots()).then_some(slot)
    }

    /// Where the slot with this number begins: what [`Arena::slot_at`] inverts.
    #[inline(always)]
    pub(super) fn start_of(&self, slot: usize) -> usize {
        let small = self.small();
        slot.min(small) * SMALL_BYTES + slot.saturating_sub(small) * RUN_BYTES
    }

    /// The token of the slot around a byte.
    ///
    /// # Safety
    ///
    /// `offset` lies in a slot of this arena, `tag` is [`Frame::tag`] of its token, and that
    /// token is gone.
    #[inline(always)]
    pub(super) unsafe fn frame_at(&self, offset: usize, tag: u16) -> Frame {
        let start = self.slot_at(offset).map_or(0, |slot| self.start_of(slot));
        // SAFETY: a slot's start lies inside the mapping, on a chunk's border; the rest is the
        // caller's promise.
        unsafe { Frame::tagged(self.base.add(start), tag) }
    }

    #[inline(always)]
    fn small(&self) -> usize {
        usize::from(self.geometry.owners) * self.geometry.small
    }

    /// Notes slots that are home for good, since their pool goes.
    pub(super) fn retire(&self, slots: usize) {
        self.home.fetch_add(slots, Ordering::AcqRel);
    }

    fn map(geometry: Geometry) -> Result<Self, ArenaError> {
        let bytes = geometry.bytes();
        let huge = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        Self::map_pages(geometry, bytes.next_multiple_of(HUGE_PAGE), huge)
            .or_else(|_| Self::map_pages(geometry, bytes, MemfdFlags::empty()))
    }

    /// Maps pages of one kind. Huge ones are reserved by it, or refused.
    fn map_pages(geometry: Geometry, bytes: usize, kind: MemfdFlags) -> Result<Self, ArenaError> {
        let failed = |step| move |source| ArenaError::System { bytes, step, source };
        let memfd = rustix::fs::memfd_create("heddle-packets", MemfdFlags::CLOEXEC | kind)
            .map_err(failed("memfd_create"))?;
        rustix::fs::ftruncate(&memfd, bytes as u64).map_err(failed("ftruncate"))?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, flags, &memfd, 0) }
                .map_err(failed("mmap"))?;
        // SAFETY: the range was mapped above. Where huge pages for shared memory are off this
        // does nothing, and nothing depends on it.
        let _ = unsafe { rustix::mm::madvise(base, bytes, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast()).ok_or(ArenaError::Empty(geometry))?;
        Ok(Self { base, mapped: bytes, geometry, memfd, home: AtomicUsize::new(0) })
    }

    /// Makes the one frame of each slot of `owner`: small ones first, then runs.
    fn cut(&self, owner: u16) -> (Vec<Frame>, Vec<Frame>) {
        let Geometry { owners, small, runs } = self.geometry;
        #[expect(clippy::cast_possible_truncation, reason = "owners were checked against 256")]
        let (owner, home) = (usize::from(owner), WorkerId(owner as u8));
        let runs_area = usize::from(owners) * small * SMALL_BYTES;
        let make = |offset: usize, size| {
            // SAFETY: every (owner, class, index) names its own range inside the mapping, a
            // memfd is zeroed, and `cut` runs once per owner.
            unsafe { Frame::new(self.base.add(offset), size, home) }
        };
        let small_frames =
            (0..small).map(|i| make((owner * small + i) * SMALL_BYTES, Size::Small)).collect();
        let run_frames = (0..runs)
            .map(|i| make(runs_area + (owner * runs + i) * RUN_BYTES, Size::Run))
            .collect();
        (small_frames, run_frames)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let Geometry { owners, small, runs } = self.geometry;
        if *self.home.get_mut() == usize::from(owners) * (small + runs) {
            // SAFETY: every frame is home in a pool that is gone, so no token to the range is
            // left. An error would leave the range mapped, which harms nothing.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) };
        }
    }
}
