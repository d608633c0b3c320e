//! The sockets of a device: made, bound, grouped, and only then opened for frames.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use thiserror::Error;

use super::{fanout, filter, system};
use crate::wire::vnet::HEADER_LEN;

/// Which frames of a device a port takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Frames {
    /// All, and it sends.
    #[default]
    All,
    /// All but those for the device's own address, which are the host's, and it sends.
    ForOthers,
    /// Those for a group address, and it does not send: the rest of a shared NIC's frames comes
    /// and goes by another port.
    Groups,
}

/// What the device is asked to let in that is not for its own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Membership {
    /// Nothing: a veth lets everything in by itself.
    #[default]
    None,
    /// Everything, for as long as the sockets are open.
    Promiscuous,
    /// All group addresses, for as long as the sockets are open.
    AllMulticast,
}

/// How sockets are to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How many: one for each worker, up to 256.
    pub sockets: usize,
    /// Which frames they take.
    pub frames: Frames,
    /// What the device is asked for.
    pub membership: Membership,
    /// Bytes of frames that may wait in each socket to be received, the kernel's overhead
    /// included: about 800 bytes for a small frame.
    pub receive_bytes: u32,
    /// Bytes of frames that each socket may have under way to their receivers, counted the same.
    pub send_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sockets: 1,
            frames: Frames::All,
            membership: Membership::None,
            receive_bytes: 8 << 20,
            send_bytes: 8 << 20,
        }
    }
}

/// Why a device's sockets can't be opened.
#[derive(Debug, Error)]
#[error("packet socket on device {index}: {step}: {source}")]
pub struct SocketError {
    /// The device's index.
    pub index: u32,
    /// What was tried.
    pub step: &'static str,
    /// The kernel's answer.
    pub source: Errno,
}

/// A packet socket bound to one device; a clone is the same socket.
///
/// To close one the kernel waits for a grace period, some milliseconds. Whoever keeps a clone until
/// the worker has let go of its own does that waiting in its place.
#[derive(Clone, Debug)]
pub struct Socket {
    fd: Arc<OwnedFd>,
    frames: Frames,
}

/// Opens sockets on the device with this index in the namespace of the calling thread. None of
/// them takes a frame before all can, and none ever takes another device's.
///
/// # Errors
///
/// [`SocketError`] names the step that the kernel refused.
pub fn open(index: u32, options: &Options) -> Result<Vec<Socket>, SocketError> {
    let failed = |step| move |source| SocketError { index, step, source };
    let sockets: Vec<Socket> =
        (0..options.sockets).map(|_| bound(index, options)).collect::<Result<_, _>>()?;
    if sockets.len() > 1 {
        fanout::join(&sockets).map_err(failed("PACKET_FANOUT"))?;
    }
    for socket in &sockets {
        system::attach_filter(socket, &filter::of(options.frames))
            .map_err(failed("SO_ATTACH_FILTER"))?;
    }
    Ok(sockets)
}

impl Socket {
    /// Which frames it takes.
    pub fn frames(&self) -> Frames {
        self.frames
    }

    /// Whether the device is still there, up or down: it may be deleted, or moved into another
    /// namespace.
    pub fn is_there(&self) -> bool {
        system::device_of(self).is_ok_and(|index| index > 0)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket that is bound, and takes nothing yet.
fn bound(index: u32, options: &Options) -> Result<Socket, SocketError> {
    let failed = |step| move |source| SocketError { index, step, source };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it hears nothing before it is bound.
    let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
        .map_err(failed("socket"))?;
    let socket = Socket { fd: Arc::new(fd), frames: options.frames };
    describe_frames(&socket).map_err(failed("PACKET_VNET_HDR"))?;
    system::set_packet_option(&socket, libc::PACKET_IGNORE_OUTGOING, 1)
        .map_err(failed("PACKET_IGNORE_OUTGOING"))?;
    system::set_receive_bytes(&socket, options.receive_bytes).map_err(failed("SO_RCVBUFFORCE"))?;
    system::set_send_bytes(&socket, options.send_bytes).map_err(failed("SO_SNDBUFFORCE"))?;
    system::attach_filter(&socket, &filter::CLOSED).map_err(failed("SO_ATTACH_FILTER"))?;
    system::bind(&socket, index).map_err(failed("bind"))?;
    join(&socket, index, options.membership).map_err(failed("PACKET_ADD_MEMBERSHIP"))?;
    Ok(socket)
}

/// Has frames come with their offload state and their tag, and leave with the first.
fn describe_frames(socket: &Socket) -> Result<(), Errno> {
    const _: () = assert!(HEADER_LEN == 10, "what PACKET_VNET_HDR stands for");
    system::set_packet_option(socket, libc::PACKET_VNET_HDR, 1)?;
    system::set_packet_option(socket, libc::PACKET_AUXDATA, 1)
}

fn join(socket: &Socket, index: u32, membership: Membership) -> Result<(), Errno> {
    match membership {
        Membership::None => Ok(()),
        Membership::Promiscuous => system::add_membership(socket, index, libc::PACKET_MR_PROMISC),
        Membership::AllMulticast => system::add_membership(socket, index, libc::PACKET_MR_ALLMULTI),
    }
}
