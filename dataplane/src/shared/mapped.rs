//! The memfd behind [`SharedLines`](super::SharedLines): its header, mapping and seals.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use thiserror::Error;

use super::{Layout, Line};

/// Bytes of the header, a page; the lines begin behind it.
const HEADER_BYTES: usize = 4096;
/// The first word of every header.
const MAGIC: u64 = u64::from_be_bytes(*b"hdlLINES");
/// The version of the header itself.
const HEADER_VERSION: u64 = 1;

/// A file's size can't change any more, and neither can that.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Why shared memory could not be made or mapped.
#[derive(Debug, Error)]
pub enum SharedError {
    /// The kernel refused a call.
    #[error("{call} of {bytes} bytes of shared memory: {source}")]
    System {
        /// The system call.
        call: &'static str,
        /// The size of the whole file, header included.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The size in bytes is beyond what an address space holds.
    #[error("{0} lines of shared memory are more than an address space holds")]
    TooLarge(usize),
    /// The file's size could change under its mapping.
    #[error("shared memory is not sealed against resizing (seals {found:#x})")]
    Unsealed {
        /// The seals that the file has.
        found: u32,
    },
    /// The file is shorter than a header.
    #[error("a file of {0} bytes is too short for shared memory")]
    Short(u64),
    /// The file does not begin with the header's magic.
    #[error("the file is not heddle's shared memory: it begins with {0:#018x}")]
    Magic(u64),
    /// The header is of another version.
    #[error("shared memory has a header of version {found}, expected {HEADER_VERSION}")]
    HeaderVersion {
        /// The version in the file.
        found: u64,
    },
    /// The lines hold another table, or another version of it.
    #[error("shared memory holds {found:?}, expected {expected:?}")]
    Layout {
        /// What the file says that it holds.
        found: Layout,
        /// What the caller can read.
        expected: Layout,
    },
    /// The number of lines in the header does not fit the file's size.
    #[error("shared memory claims {lines} lines in {bytes} bytes")]
    Geometry {
        /// The number of lines in the header.
        lines: u64,
        /// The file's size.
        bytes: u64,
    },
}

/// A mapped file, unmapped when dropped.
pub(super) struct Mapping {
    pub(super) file: OwnedFd,
    base: NonNull<u8>,
    bytes: usize,
}

/// The header's first two lines, as they lie in the file.
#[repr(C)]
struct Header {
    /// Magic, header version, layout name, layout version, number of lines.
    identity: Line,
    notes: Line,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES && size_of::<Line>() == 64);

impl Mapping {
    pub(super) fn create(name: &str, layout: Layout, count: usize) -> Result<Self, SharedError> {
        let bytes = file_bytes(count).ok_or(SharedError::TooLarge(count))?;
        let size = u64::try_from(bytes).map_err(|_| SharedError::TooLarge(count))?;
        let refused = |call| move |source| system(call, bytes, source);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create(name, flags).map_err(refused("memfd_create"))?;
        ftruncate(&file, size).map_err(refused("ftruncate"))?;
        fcntl_add_seals(&file, SEALS).map_err(refused("fcntl(F_ADD_SEALS)"))?;
        let mapping = Self::map(file, bytes)?;
        mapping.header().write(layout, count as u64);
        Ok(mapping)
    }

    pub(super) fn open(file: OwnedFd, layout: Layout) -> Result<(Self, usize), SharedError> {
        let refused = |call| move |source| system(call, 0, source);
        let seals = fcntl_get_seals(&file).map_err(refused("fcntl(F_GET_SEALS)"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(SharedError::Unsealed { found: seals.bits() });
        }
        let size = fstat(&file).map_err(refused("fstat"))?.st_size;
        let size = u64::try_from(size).unwrap_or(0);
        let bytes = usize::try_from(size).ok().filter(|&bytes| bytes >= HEADER_BYTES);
        let mapping = Self::map(file, bytes.ok_or(SharedError::Short(size))?)?;
        let lines = mapping.header().check(layout)?;
        let count = usize::try_from(lines).ok().filter(|&n| file_bytes(n) == Some(mapping.bytes));
        let count = count.ok_or(SharedError::Geometry { lines, bytes: size })?;
        Ok((mapping, count))
    }

    /// Maps the whole file, to be populated lazily, with huge pages where shared memory has
    /// them (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`).
    fn map(file: OwnedFd, bytes: usize) -> Result<Self, SharedError> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe { mmap(ptr::null_mut(), bytes, protection, flags, &file, 0) }
            .map_err(|source| system("mmap", bytes, source))?;
        // SAFETY: the range was just mapped, and the advice changes no contents. A kernel
        // without huge pages refuses it, which is as good.
        let _ = unsafe { madvise(address, bytes, Advice::LinuxHugepage) };
        let base = NonNull::new(address.cast())
            .ok_or_else(|| system("mmap", bytes, rustix::io::Errno::NOMEM))?;
        Ok(Self { file, base, bytes })
    }

    /// Where the lines begin.
    pub(super) fn lines(&self) -> NonNull<Line> {
        // SAFETY: every mapping has at least `HEADER_BYTES`, checked before it is made.
        unsafe { self.base.add(HEADER_BYTES) }.cast()
    }

    pub(super) fn notes(&self) -> &Line {
        &self.header().notes
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, has at least `HEADER_BYTES`, is sealed against
        // shrinking and lives as long as `self`; any bytes are a valid `Header` of atomics.
        unsafe { self.base.cast().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and references into it borrow from the owner
        // of this mapping. Failure would leave the range mapped, which harms nobody.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl Header {
    fn write(&self, layout: Layout, count: u64) {
        let name = u64::from_be_bytes(layout.name);
        let words = [HEADER_VERSION, name, u64::from(layout.version), count];
        let [magic, rest @ ..] = &self.identity.0;
        for (word, value) in rest.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        magic.store(MAGIC, Ordering::Release);
    }

    /// The number of lines, if everything before it is as expected.
    fn check(&self, expected: Layout) -> Result<u64, SharedError> {
        let [magic, version, name, layout_version, count, ..] =
            self.identity.0.each_ref().map(|word| word.load(Ordering::Acquire));
        if magic != MAGIC {
            return Err(SharedError::Magic(magic));
        }
        if version != HEADER_VERSION {
            return Err(SharedError::HeaderVersion { found: version });
        }
        let version = u32::try_from(layout_version).unwrap_or(u32::MAX);
        let found = Layout { name: name.to_be_bytes(), version };
        if found != expected {
            return Err(SharedError::Layout { found, expected });
        }
        Ok(count)
    }
}

/// The size of a file of `count` lines and a header.
fn file_bytes(count: usize) -> Option<usize> {
    let bytes = count.checked_mul(size_of::<Line>())?.checked_add(HEADER_BYTES)?;
    isize::try_from(bytes).is_ok().then_some(bytes)
}

fn system(call: &'static str, bytes: usize, source: rustix::io::Errno) -> SharedError {
    SharedError::System { call, bytes, source: source.into() }
}
