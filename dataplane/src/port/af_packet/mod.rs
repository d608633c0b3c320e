//! Packet sockets: the port of a veth or another device that must stay as it is
//! (`AF_PACKET`, packet(7)).
//!
//! Every frame carries a virtio-net header, so super-packets cross whole and checksums stay
//! partial, as with a [TAP](super::tap). A tag that the kernel took out of a frame is put back, so that
//! frames are what they were on the wire.

mod fanout;
mod filter;
mod receive;
pub mod socket;
mod system;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::landing::BATCH_BYTES;
use super::{Intake, Port, Refused, coalesce};
use crate::counters::PortCounters;
use crate::drops;
use crate::ids::PortId;
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::time::Nanos;
use receive::{Landings, Taken};
use socket::{Frames, Socket};

/// Frames between two questions for the kernel's own drops, at least. To lose any a socket must be
/// full, and more than these wait in it then; where fewer do, they are counted a little later.
const AUDIT: usize = 64;

/// One worker's socket on a device.
#[derive(Debug)]
pub struct Queue {
    port: PortId,
    socket: Socket,
    landings: Landings,
    /// Frames received since the kernel was last asked how many it had no room for.
    unaudited: usize,
    link: Link,
}

/// What is known of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Up,
    /// It went down or is gone; frames from before may still wait.
    Falling,
    /// None wait any more: the next frame says that it is up again.
    Down,
}

impl Queue {
    /// The port on one socket that [`socket::open`] has answered.
    pub fn new(port: PortId, socket: Socket) -> Self {
        Self { port, socket, landings: Landings::new(), unaudited: 0, link: Link::Up }
    }

    /// Takes some frames, and counts those that are lost.
    fn take(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        most: usize,
        counters: &PortCounters,
    ) -> Result<Taken, Errno> {
        let Self { port, socket, landings, .. } = self;
        let lost = |reason| {
            counters.rx_packets.add(1);
            counters.drops.of(reason).add(1);
        };
        let taken = landings.take(socket.as_fd(), *port, most, pool, batch, lost)?;
        self.unaudited += taken.frames;
        if self.link == Link::Down {
            self.link = Link::Up;
        }
        Ok(taken)
    }

    /// Counts the frames that the kernel had no room for since it was last asked.
    fn audit(&mut self, counters: &PortCounters) {
        let lost = system::take_drops(self.socket.as_fd()).unwrap_or(0);
        counters.rx_packets.add(u64::from(lost));
        counters.drops.of(drops::QUEUE_FULL).add(u64::from(lost));
        self.unaudited = 0;
    }

    /// What an error of a read means: nothing there, or the device is gone.
    fn intake_after(&mut self, error: Errno, counters: &PortCounters) -> Intake {
        match error {
            Errno::INTR | Errno::NOBUFS => Intake::More,
            // A frame is gone from the socket that is to be cut in a way that no header tells.
            Errno::INVAL => {
                counters.rx_packets.add(1);
                counters.drops.of(drops::BAD_OFFLOAD).add(1);
                Intake::More
            }
            // Said once, in front of the frames that still wait.
            Errno::NETDOWN => {
                self.link = Link::Falling;
                Intake::More
            }
            _ if self.link == Link::Up => Intake::Empty,
            // A device that goes is down first, and of its end the socket says nothing.
            _ => {
                self.link = Link::Down;
                if self.socket.is_there() { Intake::Empty } else { Intake::Gone }
            }
        }
    }
}

impl Port for Queue {
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        _now: Nanos,
        counters: &PortCounters,
    ) -> Intake {
        let (mut sum, mut intake) = (Taken::default(), Intake::More);
        while sum.frames < budget && sum.bytes < BATCH_BYTES {
            match self.take(pool, batch, budget - sum.frames, counters) {
                Ok(Taken { frames, bytes }) => {
                    sum = Taken { frames: sum.frames + frames, bytes: sum.bytes + bytes };
                }
                Err(error) => {
                    intake = self.intake_after(error, counters);
                    break;
                }
            }
        }
        if self.unaudited >= AUDIT {
            self.audit(counters);
        }
        intake
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        if self.socket.frames() == Frames::Groups {
            return refuse_all(pool, packets);
        }
        let Self { socket, link, .. } = self;
        coalesce::transmit(pool, packets, |messages| {
            let sent = system::send(socket.as_fd(), messages);
            if matches!(sent, Err(Errno::NETDOWN | Errno::NXIO)) {
                *link = Link::Falling;
            }
            sent
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::VNET
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.socket.as_fd()]
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {}
}

/// Sends nothing: frames of a socket that only listens leave by the device's other port.
fn refuse_all(pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
    let mut refused = Refused::default();
    for packet in packets.drain(..) {
        refused.failed(&packet);
        pool.give(packet.into_frame());
    }
    refused
}
