//! The device behind TAP queues: `/dev/net/tun` and its ioctls (`linux/if_tun.h`).
//!
//! A device is persistent: when heddle dies it stays in its namespace with its addresses and
//! routes, without carrier, and the next heddle opens its queues again. The namespace of a device is that of
//! the thread at the moment in which it opens `/dev/net/tun`, so a device that has moved into a
//! container is opened on a thread inside that container's namespace.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_ulong};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::port::steering::{self, Layer};
use crate::wire::vnet::HEADER_LEN;

/// Why a TAP device can't be opened or set up.
#[derive(Debug, Error)]
#[error("TAP device `{device}`: {step}: {source}")]
pub struct TapError {
    /// The device's name.
    pub device: String,
    /// What was tried.
    pub step: &'static str,
    /// The kernel's answer.
    pub source: Errno,
}

/// Opens `queues` queues of the device `name` in the namespace of the calling thread, and makes
/// the device if it is not there. It has every offload, our own steering, and no carrier yet. A
/// new one goes with its queues unless it is [made persistent](set_persistent).
///
/// # Errors
///
/// [`TapError`] names the step that the kernel refused.
pub fn open(name: &str, queues: usize) -> Result<Vec<OwnedFd>, TapError> {
    let failed = |step| move |source| TapError { device: name.to_owned(), step, source };
    let queues: Vec<OwnedFd> = (0..queues).map(|_| open_queue(name)).collect::<Result<_, _>>()?;
    if let Some(first) = queues.first() {
        set(first, libc::TUNSETOFFLOAD, offloads()).map_err(failed("TUNSETOFFLOAD"))?;
        let program =
            steering::load(Layer::Ethernet).map_err(failed("loading the steering program"))?;
        set_by_pointer(first, libc::TUNSETSTEERINGEBPF, program.as_raw_fd())
            .map_err(failed("TUNSETSTEERINGEBPF"))?;
    }
    Ok(queues)
}

/// Tells the device that all its queues are served, or no longer: its carrier.
///
/// # Errors
///
/// The kernel's, when the device is gone.
pub fn set_carrier(queue: BorrowedFd<'_>, up: bool) -> Result<(), Errno> {
    set_by_pointer(queue, libc::TUNSETCARRIER, c_int::from(up))
}

/// Whether the device behind a queue is still there: its namespace may be gone, or somebody has
/// deleted it.
pub fn is_there(queue: BorrowedFd<'_>) -> bool {
    // SAFETY: `ifreq` is plain old data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one `ifreq`, which outlives the call.
    let answer = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    answer >= 0
}

/// Lets the device stay without queues, for a successor.
///
/// # Errors
///
/// The kernel's, when the device is gone.
pub fn set_persistent(queue: BorrowedFd<'_>) -> Result<(), Errno> {
    set(queue, libc::TUNSETPERSIST, 1)
}

fn open_queue(name: &str) -> Result<OwnedFd, TapError> {
    let failed = |step| move |source| TapError { device: name.to_owned(), step, source };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let queue = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
        .map_err(failed("opening /dev/net/tun"))?;
    attach(&queue, name).map_err(failed("TUNSETIFF"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "ten bytes")]
    set_by_pointer(&queue, libc::TUNSETVNETHDRSZ, HEADER_LEN as c_int)
        .map_err(failed("TUNSETVNETHDRSZ"))?;
    Ok(queue)
}

/// Makes an open `/dev/net/tun` a queue of the device `name`.
fn attach(queue: &OwnedFd, name: &str) -> Result<(), Errno> {
    // SAFETY: `ifreq` is plain old data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let space = request.ifr_name.len();
    if name.is_empty() || name.len() >= space {
        return Err(Errno::NAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP
        | libc::IFF_NO_PI
        | libc::IFF_VNET_HDR
        | libc::IFF_MULTI_QUEUE
        | libc::IFF_NO_CARRIER;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| Errno::INVAL)?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    let answer = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    outcome(answer)
}

/// What the kernel may leave to us in frames that we read.
fn offloads() -> c_ulong {
    c_ulong::from(
        libc::TUN_F_CSUM
            | libc::TUN_F_TSO4
            | libc::TUN_F_TSO6
            | libc::TUN_F_TSO_ECN
            | libc::TUN_F_USO4
            | libc::TUN_F_USO6,
    )
}

/// An ioctl whose argument is the value itself.
fn set(queue: impl AsFd, request: libc::Ioctl, value: c_ulong) -> Result<(), Errno> {
    // SAFETY: the request takes its argument by value and touches no memory of ours.
    outcome(unsafe { libc::ioctl(queue.as_fd().as_raw_fd(), request, value) })
}

/// An ioctl whose argument is the address of an int that the kernel reads.
fn set_by_pointer(queue: impl AsFd, request: libc::Ioctl, value: c_int) -> Result<(), Errno> {
    // SAFETY: the kernel reads one int from the address, which outlives the call.
    outcome(unsafe { libc::ioctl(queue.as_fd().as_raw_fd(), request, &raw const value) })
}

fn outcome(answer: c_int) -> Result<(), Errno> {
    if answer >= 0 {
        return Ok(());
    }
    let code = std::io::Error::last_os_error().raw_os_error();
    Err(code.map_or(Errno::IO, Errno::from_raw_os_error))
}
