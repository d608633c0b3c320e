//! Tables in shared memory: cache lines of atomic words on a memfd, which a successor process can
//! map again.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::Ordering;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

    use super::*;

    const LAYOUT: Layout = Layout { name: *b"unittest", version: 3 };

    fn duplicate(lines: &SharedLines) -> OwnedFd {
        lines.fd().unwrap().try_clone_to_owned().unwrap()
    }

    #[test]
    fn a_successor_maps_the_same_words() {
        let ours = SharedLines::create("heddle-test", LAYOUT, 257).unwrap();
        ours[256].0[7].store(67, Ordering::Relaxed);
        ours.notes().0[0].store(5, Ordering::Relaxed);
        let theirs = SharedLines::map(duplicate(&ours), LAYOUT).unwrap();
        assert_eq!(theirs.len(), 257);
        assert_eq!(theirs[256].0[7].load(Ordering::Relaxed), 67);
        assert_eq!(theirs.notes().0[0].load(Ordering::Relaxed), 5);
        theirs[0].0[0].store(1, Ordering::Relaxed);
        assert_eq!(ours[0].0[0].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn lines_cost_memory_only_when_touched() {
        let lines = SharedLines::create("heddle-test", LAYOUT, 1 << 24).unwrap();
        assert_eq!(std::ptr::from_ref(&lines[0]).addr() % 64, 0);
        // In units of 512 bytes; a huge page may have come for the header.
        assert!(fstat(lines.fd().unwrap()).unwrap().st_blocks <= (2 << 20) / 512);
    }

    #[test]
    fn heap_lines_begin_zeroed_and_have_no_file() {
        let lines = SharedLines::heap(67);
        assert!(lines.iter().flat_map(|line| &line.0).all(|w| w.load(Ordering::Relaxed) == 0));
        assert!(lines.len() == 67 && lines.fd().is_none());
    }

    #[test]
    fn another_table_is_refused() {
        let lines = SharedLines::create("heddle-test", LAYOUT, 1).unwrap();
        for expected in [Layout { version: 4, ..LAYOUT }, Layout { name: *b"another!", ..LAYOUT }] {
            let error = SharedLines::map(duplicate(&lines), expected).unwrap_err();
            assert!(
                matches!(error, SharedError::Layout { found: LAYOUT, expected: e } if e == expected)
            );
        }
    }

    /// A sealed file of `bytes` that begins with `words`.
    fn sealed(bytes: u64, words: &[u64]) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("heddle-test", flags).unwrap();
        let contents: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        rustix::io::pwrite(&file, &contents, 0).unwrap();
        ftruncate(&file, bytes).unwrap();
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        file
    }

    #[test]
    fn a_file_that_create_did_not_make_is_refused() {
        let magic = u64::from_be_bytes(*b"hdlLINES");
        let name = u64::from_be_bytes(LAYOUT.name);
        let refusal = |file| SharedLines::map(file, LAYOUT).unwrap_err();

        let open = memfd_create("heddle-test", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(matches!(refusal(open), SharedError::Unsealed { found: 0 }));
        assert!(matches!(refusal(sealed(4095, &[])), SharedError::Short(4095)));
        assert!(matches!(refusal(sealed(4096, &[7])), SharedError::Magic(7)));
        let old = refusal(sealed(4096, &[magic, 0]));
        assert!(matches!(old, SharedError::HeaderVersion { found: 0 }));
        for lines in [0, 2, u64::MAX, u64::MAX / 64] {
            let error = refusal(sealed(4096 + 64, &[magic, 1, name, 3, lines]));
            assert!(matches!(error, SharedError::Geometry { lines: l, bytes: 4160 } if l == lines));
        }
        assert!(SharedLines::map(sealed(4096 + 64, &[magic, 1, name, 3, 1]), LAYOUT).is_ok());
    }

    #[test]
    fn a_size_beyond_the_address_space_is_refused() {
        for count in [usize::MAX, usize::MAX / 64, isize::MAX.unsigned_abs() / 64] {
            let error = SharedLines::create("heddle-test", LAYOUT, count).unwrap_err();
            assert!(matches!(error, SharedError::TooLarge(c) if c == count));
        }
    }
}
