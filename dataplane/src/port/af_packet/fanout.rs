//! Several sockets on one device that share its frames: a fanout group (`PACKET_FANOUT`).
//!
//! Each flow belongs to one socket, in both directions, by the same hash that spreads the frames of a
//! TAP over its queues.

use std::ffi::c_int;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

use super::socket::Socket;
use super::system::{packet_option, set_packet_option};
use crate::port::steering::{self, Layer};

/// The group's program decides; the id is 16 bits, the kind another 16 (`linux/if_packet.h`).
const KIND: u32 = libc::PACKET_FANOUT_EBPF | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;

/// The kernel chooses an id that no group of the namespace has.
const NEW: u32 = libc::PACKET_FANOUT_FLAG_UNIQUEID;

const KIND_SHIFT: u32 = 16;
const ID_MASK: u32 = 0xffff;

/// Makes a group of sockets that are bound to the same device, in their order.
///
/// # Errors
///
/// The kernel's; before Linux 6.13 also when the device is down.
pub(super) fn join(sockets: &[Socket]) -> Result<(), Errno> {
    let [first, others @ ..] = sockets else { return Ok(()) };
    set(first, libc::PACKET_FANOUT, (KIND | NEW) << KIND_SHIFT)?;
    let id = packet_option(first, libc::PACKET_FANOUT)?.cast_unsigned() & ID_MASK;
    for socket in others {
        set(socket, libc::PACKET_FANOUT, KIND << KIND_SHIFT | id)?;
    }
    let program = steering::load(Layer::Network)?;
    set_packet_option(first, libc::PACKET_FANOUT_DATA, program.as_raw_fd())
}

fn set(socket: &Socket, option: c_int, value: u32) -> Result<(), Errno> {
    set_packet_option(socket, option, value.cast_signed())
}
