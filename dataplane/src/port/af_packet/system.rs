//! The system calls of packet sockets that have no safe wrapper (packet(7), `linux/if_packet.h`).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::{sock_filter, sock_fprog, sockaddr_ll, socklen_t};
use rustix::io::Errno;

use crate::port::coalesce;
use crate::wire::ethernet;
use crate::wire::vlan::Tag;

/// Frames that one call moves.
pub(super) const MESSAGES: usize = coalesce::MESSAGES;

/// What a receive gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Received {
    /// Bytes of the virtio-net header and the frame, also of what the vectors did not hold.
    pub(super) len: usize,
    /// The tag that was taken out of the frame.
    pub(super) tag: Option<Tag>,
}

/// Receives frames without waiting, one into each pair of vectors, and says how many. After fewer
/// than there are vectors none may be left, or an error comes with the next call.
///
/// # Errors
///
/// The kernel's; `EINVAL` if the virtio-net header can't describe a frame, which is lost then.
#[inline]
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    vectors: &mut [[IoSliceMut<'_>; 2]],
    received: &mut [Received; MESSAGES],
) -> Result<usize, Errno> {
    let mut controls = [const { Control::EMPTY }; MESSAGES];
    let mut messages = [const { NO_MESSAGE }; MESSAGES];
    let wanted = vectors.len().min(MESSAGES);
    for ((message, vectors), control) in messages.iter_mut().zip(vectors).zip(&mut controls) {
        message.msg_hdr.msg_iov = vectors.as_mut_ptr().cast();
        message.msg_hdr.msg_iovlen = vectors.len();
        message.msg_hdr.msg_control = (&raw mut *control).cast();
        message.msg_hdr.msg_controllen = size_of::<Control>();
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let (fd, timeout) = (socket.as_raw_fd(), std::ptr::null_mut());
    #[expect(clippy::cast_possible_truncation, reason = "at most `MESSAGES`")]
    let wanted = wanted as u32;
    // SAFETY: an `IoSliceMut` is an `iovec` whose bytes are ours to write; each control buffer is
    // as long as is said; all outlive the call.
    let count = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), wanted, flags, timeout) };
    let count = usize::try_from(count).map_err(|_| last_error())?;
    for ((received, message), control) in
        received.iter_mut().zip(&messages).zip(&controls).take(count)
    {
        *received = Received { len: message.msg_len as usize, tag: control.tag() };
    }
    Ok(count)
}

/// Sends messages without waiting, and says how many: those before the first that is refused.
///
/// # Errors
///
/// Why the first was refused.
#[inline]
pub(super) fn send(socket: BorrowedFd<'_>, slices: &[&[IoSlice<'_>]]) -> Result<usize, Errno> {
    let mut messages = [const { NO_MESSAGE }; MESSAGES];
    let wanted = slices.len().min(MESSAGES);
    for (message, slices) in messages.iter_mut().zip(slices) {
        // The kernel only reads what a message that is sent points to.
        message.msg_hdr.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_iovlen = slices.len();
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most `MESSAGES`")]
    let wanted = wanted as u32;
    // SAFETY: an `IoSlice` is an `iovec` whose bytes may be read; all outlive the call.
    let count = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), wanted, libc::MSG_DONTWAIT)
    };
    usize::try_from(count).map_err(|_| last_error())
}

// SAFETY: all zeroes is a value of this plain C struct.
const NO_MESSAGE: libc::mmsghdr = unsafe { std::mem::zeroed() };

/// The one control message of a frame: `struct cmsghdr`, then what `PACKET_AUXDATA` gives.
#[repr(C)]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    data: libc::tpacket_auxdata,
}

impl Control {
    const EMPTY: Self = Self {
        len: 0,
        level: 0,
        kind: 0,
        data: libc::tpacket_auxdata {
            tp_status: 0,
            tp_len: 0,
            tp_snaplen: 0,
            tp_mac: 0,
            tp_net: 0,
            tp_vlan_tci: 0,
            tp_vlan_tpid: 0,
        },
    };

    /// The tag, if the kernel took one out; of an older kernel that does not say which kind, a
    /// customer's.
    #[inline(always)]
    fn tag(&self) -> Option<Tag> {
        let libc::tpacket_auxdata { tp_status, tp_vlan_tci, tp_vlan_tpid, .. } = self.data;
        let ours = self.level == libc::SOL_PACKET && self.kind == libc::PACKET_AUXDATA;
        if !ours || tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let known = tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        let protocol = if known { tp_vlan_tpid } else { ethernet::VLAN };
        Some(Tag { protocol, control: tp_vlan_tci })
    }
}

/// Takes the count of frames that found no room in the socket since the last call.
///
/// # Errors
///
/// The kernel's.
pub(super) fn take_drops(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    // SAFETY: the struct is plain integers.
    unsafe { get(socket, libc::PACKET_STATISTICS, &mut statistics) }?;
    Ok(statistics.tp_drops)
}

/// Sets an option of `SOL_PACKET` whose value is an int.
///
/// # Errors
///
/// The kernel's.
pub(super) fn set_packet_option(
    socket: impl AsFd,
    option: c_int,
    value: c_int,
) -> Result<(), Errno> {
    // SAFETY: an int holds no address.
    unsafe { set(socket, libc::SOL_PACKET, option, &value) }
}

/// Reads an option of `SOL_PACKET` whose value is an int.
///
/// # Errors
///
/// The kernel's.
pub(super) fn packet_option(socket: impl AsFd, option: c_int) -> Result<c_int, Errno> {
    let mut value = 0;
    // SAFETY: an int has no bytes that could be wrong.
    unsafe { get(socket, option, &mut value) }?;
    Ok(value)
}

/// Sets how much may wait to be received, beyond the system's usual limit.
///
/// # Errors
///
/// The kernel's, without `CAP_NET_ADMIN`.
pub(super) fn set_receive_bytes(socket: impl AsFd, bytes: u32) -> Result<(), Errno> {
    set_buffer(socket, libc::SO_RCVBUFFORCE, bytes)
}

/// Sets how much may be on its way to a receiver, beyond the system's usual limit.
///
/// # Errors
///
/// The kernel's, without `CAP_NET_ADMIN`.
pub(super) fn set_send_bytes(socket: impl AsFd, bytes: u32) -> Result<(), Errno> {
    set_buffer(socket, libc::SO_SNDBUFFORCE, bytes)
}

/// The kernel doubles what it is given, and counts its overhead.
fn set_buffer(socket: impl AsFd, option: c_int, bytes: u32) -> Result<(), Errno> {
    let half = c_int::try_from(bytes / 2).map_err(|_| Errno::INVAL)?;
    // SAFETY: an int holds no address.
    unsafe { set(socket, libc::SOL_SOCKET, option, &half) }
}

/// Attaches a classic filter in place of the one before.
///
/// # Errors
///
/// The kernel's, when it refuses the program.
pub(super) fn attach_filter(socket: impl AsFd, program: &[sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    // The kernel only reads what `filter` points to.
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `filter` points to `len` instructions that outlive the call.
    unsafe { set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program) }
}

/// Asks the device for frames that are not for its own address, until the socket goes.
///
/// # Errors
///
/// The kernel's.
pub(super) fn add_membership(socket: impl AsFd, index: u32, kind: c_int) -> Result<(), Errno> {
    let request = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: u16::try_from(kind).map_err(|_| Errno::INVAL)?,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the request holds no address of memory.
    unsafe { set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request) }
}

/// Binds to the device with this index, for frames of all protocols.
///
/// # Errors
///
/// The kernel's; `ENODEV` if there is no such device.
pub(super) fn bind(socket: impl AsFd, index: u32) -> Result<(), Errno> {
    let mut address = no_address();
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::INVAL)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(|_| Errno::INVAL)?.to_be();
    address.sll_ifindex = index.cast_signed();
    let (fd, len) = (socket.as_fd().as_raw_fd(), length_of(&address));
    // SAFETY: the kernel reads `len` bytes of the address, which outlives the call.
    outcome(unsafe { libc::bind(fd, (&raw const address).cast(), len) })
}

/// The index of the device that the socket is bound to; -1 once that is gone.
///
/// # Errors
///
/// The kernel's.
pub(super) fn device_of(socket: impl AsFd) -> Result<i32, Errno> {
    let mut address = no_address();
    let (fd, mut len) = (socket.as_fd().as_raw_fd(), length_of(&address));
    // SAFETY: the kernel writes at most `len` bytes of the address; both outlive the call.
    outcome(unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut len) })?;
    Ok(address.sll_ifindex)
}

fn no_address() -> sockaddr_ll {
    // SAFETY: all zeroes is a value of this plain C struct.
    unsafe { std::mem::zeroed() }
}

/// Sets an option from the bytes of `value`.
///
/// # Safety
///
/// If the option reads through an address in `value`, what it reads there outlives the call.
unsafe fn set<T>(socket: impl AsFd, level: c_int, option: c_int, value: &T) -> Result<(), Errno> {
    let (fd, pointer) = (socket.as_fd().as_raw_fd(), (&raw const *value).cast());
    // SAFETY: the kernel reads at most the length that it is given, which is that of `value`.
    outcome(unsafe { libc::setsockopt(fd, level, option, pointer, length_of(value)) })
}

/// Reads an option of `SOL_PACKET` into the bytes of `value`.
///
/// # Safety
///
/// Whatever bytes the kernel writes are a `T`.
unsafe fn get<T>(socket: impl AsFd, option: c_int, value: &mut T) -> Result<(), Errno> {
    let (fd, mut len) = (socket.as_fd().as_raw_fd(), length_of(value));
    let pointer = (&raw mut *value).cast();
    // SAFETY: the kernel writes at most `len` bytes, which are `value`'s.
    outcome(unsafe { libc::getsockopt(fd, libc::SOL_PACKET, option, pointer, &raw mut len) })
}

/// The size of a value whose type is a few dozen bytes at most.
fn length_of<T>(value: &T) -> socklen_t {
    socklen_t::try_from(size_of_val(value)).unwrap_or(0)
}

fn outcome(answer: c_int) -> Result<(), Errno> {
    if answer >= 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    code.map_or(Errno::IO, Errno::from_raw_os_error)
}
