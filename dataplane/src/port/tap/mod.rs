//! TAP queues: the port of a container. The device lives in the container's network namespace, heddle holds
//! its queues.
//!
//! Every frame carries a virtio-net header, so super-packets of up to 64 KiB cross whole and
//! checksums stay partial for as long as nobody needs them. One system call moves one frame; the header lies in
//! the packet's headroom, so a frame is written from where it is.

pub mod device;

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::landing::{BATCH_BYTES, Landing};
use super::{Intake, Port, Refused, coalesce};
use crate::counters::PortCounters;
use crate::drops::Reason;
use crate::ids::PortId;
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::time::Nanos;

/// One queue of a TAP device.
pub struct Tap {
    port: PortId,
    queue: OwnedFd,
}

impl Tap {
    /// The port on one queue that [`device::open`] has answered.
    pub fn new(port: PortId, queue: OwnedFd) -> Self {
        Self { port, queue }
    }

    /// Reads one frame.
    fn take(&self, pool: &mut Pool) -> Result<Packet, Miss> {
        let landing = Landing::new(pool, self.port);
        let mut landing = landing.ok_or(Miss::System(Errno::NOBUFS))?;
        match rustix::io::readv(&self.queue, &mut landing.vectors()) {
            Ok(read) => landing.settle(read, pool).map_err(Miss::Lost),
            Err(error) => {
                landing.abandon(pool);
                Err(Miss::System(error))
            }
        }
    }
}

/// Why a read gave no packet.
enum Miss {
    /// The device said so.
    System(Errno),
    /// The frame is lost, for this reason.
    Lost(Reason),
}

impl Port for Tap {
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        _now: Nanos,
        counters: &PortCounters,
    ) -> Intake {
        let mut bytes = 0;
        for _ in 0..budget {
            match self.take(pool) {
                Ok(packet) => {
                    bytes += packet.len();
                    batch.push(packet);
                }
                Err(Miss::Lost(reason)) => {
                    counters.rx_packets.add(1);
                    counters.drops.of(reason).add(1);
                }
                Err(Miss::System(error)) => return intake_after(error),
            }
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Intake::More
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        let queue = self.queue.as_fd();
        coalesce::transmit(pool, packets, |messages| write(queue, messages))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::VNET
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.queue.as_fd()]
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {}
}

/// Writes the first of some messages: a TAP takes one with each call.
fn write(queue: BorrowedFd<'_>, messages: &[&[IoSlice<'_>]]) -> Result<usize, Errno> {
    let first = messages.first().copied().unwrap_or_default();
    rustix::io::writev(queue, first).map(|_| 1)
}

/// What an error of a read means: nothing there, or the device is gone.
fn intake_after(error: Errno) -> Intake {
    match error {
        Errno::INTR | Errno::NOBUFS => Intake::More,
        // The namespace and the device with it are deleted, or the queue was detached.
        Errno::BADFD | Errno::BADF | Errno::NODEV => Intake::Gone,
        // Nothing to read; also a device that is down.
        _ => Intake::Empty,
    }
}
