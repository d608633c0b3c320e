//! Tables in shared memory: cache lines of atomic words on a memfd, which a successor process can map again.
//!
//! The first page is a header that says what lies behind it; the rest is lines, all zero at
//! first, which cost memory only once they are touched. There are no pointers inside, only
//! indices. The file is sealed against resizing, so that no mapping can lose its pages.
//!
//! Who writes which line, and when, is the business of the table on top; the words are atomic,
//! so even a process that breaks that table's rules makes wrong values and nothing worse.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(not(loom))]
pub use mapped::SharedError;

use crate::sync::AtomicU64;

/// One cache line: eight words, in the host's byte order.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; 8]);

/// What the lines hold: chosen by the table on top, checked when a successor maps them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Eight letters that name the table.
    pub name: [u8; 8],
    /// To be raised when the meaning of a word changes.
    pub version: u32,
}

/// A slice of lines, on a memfd or, for tests, on the heap.
pub struct SharedLines {
    lines: NonNull<Line>,
    count: usize,
    backing: Backing,
}

/// Keeps the lines where they are until it is dropped.
enum Backing {
    Heap {
        notes: Box<Line>,
        _lines: Box<[Line]>,
    },
    #[cfg(not(loom))]
    Mapped(mapped::Mapping),
}

// SAFETY: the lines are atomics, reached by shared reference only, at an address that no thread
// owns; the backing is a boxed slice or a file and a range of addresses.
unsafe impl Send for SharedLines {}
// SAFETY: as above.
unsafe impl Sync for SharedLines {}

impl SharedLines {
    /// `count` zeroed lines in this process's memory.
    pub fn heap(count: usize) -> Self {
        let boxed: Box<[Line]> = (0..count).map(|_| Line::default()).collect();
        let lines = NonNull::from(&*boxed).cast();
        Self { lines, count, backing: Backing::Heap { notes: Box::default(), _lines: boxed } }
    }

    /// Eight words that travel with the lines, for the table's own parameters.
    pub fn notes(&self) -> &Line {
        match &self.backing {
            Backing::Heap { notes, .. } => notes,
            #[cfg(not(loom))]
            Backing::Mapped(mapping) => mapping.notes(),
        }
    }
}

impl Deref for SharedLines {
    type Target = [Line];

    #[inline(always)]
    fn deref(&self) -> &[Line] {
        // SAFETY: `lines` and `count` describe initialised memory (zero is a valid word) that
        // the backing keeps mapped at this address for as long as `self`, and all access is by
        // shared reference to atomics.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr(), self.count) }
    }
}

impl fmt::Debug for SharedLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedLines({} lines)", self.count)
    }
}

#[cfg(not(loom))]
impl SharedLines {
    /// `count` zeroed lines on a new memfd; `name` is for people, in `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// [`SharedError::TooLarge`] if the size in bytes overflows, [`SharedError::System`] if the
    /// kernel refuses.
    pub fn create(name: &str, layout: Layout, count: usize) -> Result<Self, SharedError> {
        mapped::Mapping::create(name, layout, count).map(|mapping| Self::over(mapping, count))
    }

    /// The lines that another process, or this one, created with the same layout.
    ///
    /// # Errors
    ///
    /// The variant of [`SharedError`] for whatever in the file is not as
    /// [`SharedLines::create`] left it.
    pub fn map(file: OwnedFd, layout: Layout) -> Result<Self, SharedError> {
        mapped::Mapping::open(file, layout).map(|(mapping, count)| Self::over(mapping, count))
    }

    /// The file that a successor maps; `None` for lines on the heap.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Heap { .. } => None,
            Backing::Mapped(mapping) => Some(mapping.file.as_fd()),
        }
    }

    fn over(mapping: mapped::Mapping, count: usize) -> Self {
        Self { lines: mapping.lines(), count, backing: Backing::Mapped(mapping) }
    }
}

#[cfg(not(loom))]
mod mapped;
