//! AF_XDP sockets: made, bound to a queue, their rings mapped (`linux/if_xdp.h`).
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING,
    XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpOptionsFlags,
    XdpRingOffset, XdpUmemReg,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::ring::{Backing, Consumer, Descriptor, Producer, Ring};
use super::{Error, Queue};
use crate::sync::{AtomicU32, AtomicU64};

/// Descriptors that one call sends, where the kernel lets us choose (6.17 and later): a batch.
const TX_BUDGET: u32 = 256;

/// Bytes that may wait in sent packets that the device still has. The kernel's default holds
/// fewer than a batch of full frames.
const SEND_BUFFER: usize = 4 << 20;

/// Sizes of a socket's rings, in slots: powers of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Of the receive and the fill ring.
    pub(super) receive: u32,
    /// Of the transmit and the completion ring.
    pub(super) transmit: u32,
}

/// Where a socket's packet memory is registered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory<'a> {
    /// By this socket itself, with these flags of the bind.
    Own(XdpUmemReg, SocketAddrXdpFlags),
    /// By another socket, which is bound and lends its flags.
    Shared(BorrowedFd<'a>),
}

/// A bound socket with its rings.
///
/// The rings are declared first: a mapping holds the socket, and with it the queue, so all have to
/// go before the descriptor does.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) rx: Consumer<Mapping<Descriptor>>,
    pub(super) tx: Producer<Mapping<Descriptor>>,
    pub(super) fill: Producer<Mapping<AtomicU64>>,
    pub(super) completion: Consumer<Mapping<AtomicU64>>,
    pub(super) fd: Arc<OwnedFd>,
    /// Whether the device reads and writes packet memory itself.
    pub(super) zero_copy: bool,
}

impl Socket {
    /// A socket bound to `queue`, in the namespace of the calling thread.
    pub(super) fn bind(queue: Queue, sizes: Sizes, memory: Memory<'_>) -> Result<Self, Error> {
        let failed = |step| move |source| Error { queue, step, source };
        let fd = open(queue)?;
        if let Memory::Own(registration, _) = memory {
            sockopt::set_xdp_umem_reg(&fd, registration).map_err(failed("XDP_UMEM_REG"))?;
        }
        sockopt::set_xdp_rx_ring_size(&fd, sizes.receive).map_err(failed("XDP_RX_RING"))?;
        sockopt::set_xdp_tx_ring_size(&fd, sizes.transmit).map_err(failed("XDP_TX_RING"))?;
        set_umem_rings(&fd, sizes).map_err(failed("the rings of packet memory"))?;
        let offsets = sockopt::xdp_mmap_offsets(&fd).map_err(failed("XDP_MMAP_OFFSETS"))?;
        let mapped = failed("mapping a ring");
        let (rx, tx) = (XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING);
        let (fr, cr) = (XDP_UMEM_PGOFF_FILL_RING, XDP_UMEM_PGOFF_COMPLETION_RING);
        let socket = Self {
            rx: Consumer::new(map(&fd, rx, offsets.rx, sizes.receive).map_err(mapped)?),
            tx: Producer::new(map(&fd, tx, offsets.tx, sizes.transmit).map_err(mapped)?),
            fill: Producer::new(map(&fd, fr, offsets.fr, sizes.receive).map_err(mapped)?),
            completion: Consumer::new(map(&fd, cr, offsets.cr, sizes.transmit).map_err(mapped)?),
            zero_copy: false,
            fd: Arc::new(fd),
        };
        bind(socket.fd.as_fd(), queue, memory).map_err(failed("bind"))?;
        socket.tuned().map_err(failed("XDP_OPTIONS"))
    }

    /// Sets what may be set, and reads back what the device does.
    fn tuned(mut self) -> Result<Self, Errno> {
        // Older kernels have no such option, and 32 as the only value.
        let _ = set_tx_budget(self.fd.as_fd(), TX_BUDGET);
        // Without the right to it the default stays, and longer batches take more calls.
        let _ = sockopt::set_socket_send_buffer_size_force(&self.fd, SEND_BUFFER);
        let options = sockopt::xdp_options(&self.fd)?;
        self.zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(self)
    }
}

/// A socket without rings of its own that registers packet memory and keeps it registered.
pub(super) fn anchor(
    queue: Queue,
    registration: XdpUmemReg,
    flags: SocketAddrXdpFlags,
) -> Result<OwnedFd, Error> {
    let failed = |step| move |source| Error { queue, step, source };
    let fd = open(queue)?;
    sockopt::set_xdp_umem_reg(&fd, registration).map_err(failed("XDP_UMEM_REG"))?;
    sockopt::set_xdp_rx_ring_size(&fd, 1).map_err(failed("XDP_RX_RING"))?;
    set_umem_rings(&fd, Sizes { receive: 1, transmit: 1 })
        .map_err(failed("the rings of packet memory"))?;
    bind(fd.as_fd(), queue, Memory::Own(registration, flags)).map_err(failed("bind"))?;
    Ok(fd)
}

fn open(queue: Queue) -> Result<OwnedFd, Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)
        .map_err(|source| Error { queue, step: "socket", source })
}

fn set_umem_rings(fd: &OwnedFd, sizes: Sizes) -> Result<(), Errno> {
    sockopt::set_xdp_umem_fill_ring_size(fd, sizes.receive)?;
    sockopt::set_xdp_umem_completion_ring_size(fd, sizes.transmit)
}

fn bind(fd: BorrowedFd<'_>, queue: Queue, memory: Memory<'_>) -> Result<(), Errno> {
    let address = |flags| SocketAddrXdp::new(flags, queue.device, queue.number);
    match memory {
        Memory::Own(_, flags) => rustix::net::bind(fd, &address(flags)),
        Memory::Shared(shared_umem_fd) => {
            // The flags are those of the other socket, and may not be given again.
            let addr = address(SocketAddrXdpFlags::XDP_SHARED_UMEM);
            rustix::net::bind(fd, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd })
        }
    }
}

fn set_tx_budget(fd: BorrowedFd<'_>, descriptors: u32) -> Result<(), Errno> {
    /// `XDP_MAX_TX_SKB_BUDGET`.
    const OPTION: libc::c_int = 9;
    #[expect(clippy::cast_possible_truncation, reason = "four bytes")]
    let length = size_of::<u32>() as libc::socklen_t;
    let value = (&raw const descriptors).cast();
    // SAFETY: the kernel reads four bytes, which outlive the call.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, OPTION, value, length) } {
        0 => Ok(()),
        _ => Err(Errno::NOPROTOOPT),
    }
}

/// The pages of one ring, shared with the kernel.
#[derive(Debug)]
pub(super) struct Mapping<T> {
    base: NonNull<u8>,
    bytes: usize,
    offsets: Offsets,
    slots: usize,
    slot: PhantomData<T>,
}

/// Where the parts of a ring lie in its mapping, in bytes.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    producer: usize,
    consumer: usize,
    flags: usize,
    slots: usize,
}

// SAFETY: the pages are reached by shared references to atomics only, at an address that no
// thread owns.
unsafe impl<T: Sync> Send for Mapping<T> {}

impl Offsets {
    /// `None` if the kernel's numbers are not addresses of atomics inside `bytes`; the slots have
    /// `slots` bytes.
    fn new(of: XdpRingOffset, bytes: usize, slots: usize) -> Option<Self> {
        let within = |offset: u64, align: usize, length: usize| {
            let at = usize::try_from(offset).ok()?;
            let inside = at.checked_add(length).is_some_and(|end| end <= bytes);
            (at.is_multiple_of(align) && inside).then_some(at)
        };
        let index = |offset| within(offset, align_of::<AtomicU32>(), size_of::<AtomicU32>());
        Some(Self {
            producer: index(of.producer)?,
            consumer: index(of.consumer)?,
            // Kernels that know no flags (before 5.4) know no need for a wake-up either.
            flags: index(of.flags?)?,
            slots: within(of.desc, align_of::<AtomicU64>(), slots)?,
        })
    }
}

/// Maps a ring of `slots` slots, of which one is a `T`.
fn map<T>(fd: &OwnedFd, page: u64, of: XdpRingOffset, slots: u32) -> Result<Mapping<T>, Errno> {
    let slots = usize::try_from(slots).map_err(|_| Errno::INVAL)?;
    let array = slots.checked_mul(size_of::<T>()).ok_or(Errno::INVAL)?;
    let start = usize::try_from(of.desc).map_err(|_| Errno::INVAL)?;
    let bytes = start.checked_add(array).ok_or(Errno::INVAL)?;
    let offsets = Offsets::new(of, bytes, array).ok_or(Errno::INVAL)?;
    let (protection, flags) =
        (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let base =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, page) }?;
    let base = NonNull::new(base.cast()).ok_or(Errno::INVAL)?;
    Ok(Mapping { base, bytes, offsets, slots, slot: PhantomData })
}

impl<T> Backing for Mapping<T> {
    type Slot = T;

    #[inline(always)]
    fn ring(&self) -> Ring<'_, T> {
        let Offsets { producer, consumer, flags, slots } = self.offsets;
        // SAFETY: the offsets were checked to be aligned and inside the mapping, which lives as
        // long as `self`; the slots are atomics, for which all bytes are values, and so is all
        // that the kernel does with them.
        unsafe {
            Ring {
                producer: self.base.add(producer).cast::<AtomicU32>().as_ref(),
                consumer: self.base.add(consumer).cast::<AtomicU32>().as_ref(),
                flags: self.base.add(flags).cast::<AtomicU32>().as_ref(),
                slots: std::slice::from_raw_parts(self.base.add(slots).cast().as_ptr(), self.slots),
            }
        }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and no reference outlives `self`. An error would leave the
        // range mapped, which harms nothing but the queue.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
