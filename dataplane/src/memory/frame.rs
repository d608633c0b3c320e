//! The token that owns one slot of the arena.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;

use crate::ids::WorkerId;

/// Bytes of a small slot: one chunk, the largest that AF_XDP takes.
pub const SMALL_BYTES: usize = 4096;

/// Bytes of a run: adjacent chunks that hold a super-packet of 64 KiB with its head- and tailroom.
pub const RUN_BYTES: usize = 17 * SMALL_BYTES;

/// The two classes of slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// [`SMALL_BYTES`].
    Small,
    /// [`RUN_BYTES`].
    Run,
}

impl Size {
    /// Bytes of a slot of this class.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL_BYTES,
            Self::Run => RUN_BYTES,
        }
    }
}

/// An owned slot of packet memory, in 8 bytes.
///
/// The word is the slot's address; slots start on 4 KiB, so the low bits carry the worker that
/// the slot comes home to and its class. A frame that is forgotten is a slot lost, never memory
/// freed in use: the arena stays mapped while any frame is abroad.
#[must_use = "a frame that is dropped is a slot lost: give it back to a pool"]
pub struct Frame(NonNull<u8>);

const HOME_MASK: usize = 0xff;
const RUN_FLAG: usize = 0x100;
const TAG_MASK: usize = SMALL_BYTES - 1;

const _: () = assert!(size_of::<Frame>() == 8);

// SAFETY: a frame owns its slot as a `Box<[u8]>` would; nothing else reads or writes it.
unsafe impl Send for Frame {}
// SAFETY: shared access gives `&[u8]` only.
unsafe impl Sync for Frame {}

impl Frame {
    /// The token for the slot at `start`.
    ///
    /// # Safety
    ///
    /// `start` is aligned to [`SMALL_BYTES`], begins `size.bytes()` initialised bytes that stay
    /// mapped while the frame lives, and no other frame exists for any of them.
    pub(super) unsafe fn new(start: NonNull<u8>, size: Size, home: WorkerId) -> Self {
        let class = if size == Size::Run { RUN_FLAG } else { 0 };
        // SAFETY: the tag only sets bits below the alignment, so the address stays non-null.
        Self(unsafe {
            NonNull::new_unchecked(start.as_ptr().map_addr(|a| a | home.index() | class))
        })
    }

    /// The token for the slot at `start`, from the tag of its last one.
    ///
    /// # Safety
    ///
    /// As [`Frame::new`], and `tag` is what [`Frame::tag`] said of a token of this slot.
    #[inline(always)]
    pub(super) unsafe fn tagged(start: NonNull<u8>, tag: u16) -> Self {
        // SAFETY: the tag only sets bits below the alignment, so the address stays non-null.
        Self(unsafe { NonNull::new_unchecked(start.as_ptr().map_addr(|a| a | usize::from(tag))) })
    }

    /// The low bits of the word, below 512: whose it is and its class.
    #[inline(always)]
    pub(super) fn tag(&self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "masked to twelve bits")]
        let tag = (self.0.as_ptr().addr() & TAG_MASK) as u16;
        tag
    }

    /// The worker whose pool the frame comes home to.
    #[inline(always)]
    pub fn home(&self) -> WorkerId {
        #[expect(clippy::cast_possible_truncation, reason = "masked to eight bits")]
        WorkerId((self.0.as_ptr().addr() & HOME_MASK) as u8)
    }

    /// The class of the slot.
    #[inline(always)]
    pub fn size(&self) -> Size {
        if self.0.as_ptr().addr() & RUN_FLAG == 0 { Size::Small } else { Size::Run }
    }

    /// The slot's first byte.
    #[inline(always)]
    pub(super) fn start(&self) -> *mut u8 {
        self.0.as_ptr().map_addr(|a| a & !TAG_MASK)
    }

    /// The whole slot.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the constructor's promise: the slot is ours, initialised and mapped.
        unsafe { std::slice::from_raw_parts(self.start(), self.size().bytes()) }
    }

    /// The whole slot, writable.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the token is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.size().bytes()) }
    }

    /// `length` bytes from `offset` on.
    ///
    /// # Safety
    ///
    /// `offset + length` is at most `self.size().bytes()`.
    #[inline(always)]
    pub(super) unsafe fn window(&self, offset: usize, length: usize) -> &[u8] {
        // SAFETY: within the slot by the caller's promise; else as in `bytes`.
        unsafe { std::slice::from_raw_parts(self.start().add(offset), length) }
    }

    /// `length` bytes from `offset` on, writable.
    ///
    /// # Safety
    ///
    /// `offset + length` is at most `self.size().bytes()`.
    #[inline(always)]
    pub(super) unsafe fn window_mut(&mut self, offset: usize, length: usize) -> &mut [u8] {
        // SAFETY: within the slot by the caller's promise; else as in `bytes_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.start().add(offset), length) }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?} at {:p}, home {})", self.size(), self.start(), self.home())
    }
}
