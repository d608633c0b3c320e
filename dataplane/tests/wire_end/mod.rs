//! The kernel's end of a TAP, for tests: a packet socket that sends frames into it as they are, with
//! a virtio-net header in front of each. The workspace's end-to-end tests use it as well.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

/// Runs `test` on a thread in a network namespace of its own, which ends with the thread. Needs
/// root.
pub(crate) fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        // SAFETY: only this thread's network namespace changes, which nothing else relies on.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .expect("a network namespace needs root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A raw packet socket that receives nothing and sends into the device with virtio-net headers.
pub(crate) fn packet_socket(device: &str) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (on, length) = (1i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap());
    let value = (&raw const on).cast();
    // SAFETY: the option takes an int, and `value` points to one.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, value, length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    bind(&socket, rustix::net::netdevice::name_to_index(&socket, device)?)?;
    Ok(socket)
}

/// Makes the interface the one that the socket sends into.
fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: all zeroes is a value of this plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET.try_into().unwrap();
    address.sll_ifindex = index.try_into().unwrap();
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    let pointer = (&raw const address).cast();
    // SAFETY: `pointer` points to an address of `length` bytes.
    let result = unsafe { libc::bind(socket.as_raw_fd(), pointer, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
