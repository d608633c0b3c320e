//! Takes frames from a packet socket, several with one call.
//!
//! A call costs as much as half of what a small frame costs besides. How many frames are asked
//! for follows what the last calls gave: one from a socket that is mostly empty, so that no slots
//! are taken in vain, and of super-packets only what stays in the second-level cache.

use std::array;
use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::system::{self, MESSAGES, Received};
use crate::drops::{self, Reason};
use crate::ids::PortId;
use crate::memory::{Packet, Pool};
use crate::port::landing::{BATCH_BYTES, Landing};
use crate::wire::vlan;

/// Where the next frames land.
#[derive(Debug)]
pub(super) struct Landings {
    /// Empty between calls.
    waiting: Vec<Landing>,
    /// How many frames to ask for.
    depth: usize,
}

/// What a call gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Taken {
    /// Frames that the socket had.
    pub(super) frames: usize,
    /// Bytes of those that are packets now.
    pub(super) bytes: usize,
}

impl Landings {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::with_capacity(MESSAGES), depth: 1 }
    }

    /// Takes at most `most` frames, appends them to `batch`, and tells `lost` of those that can't
    /// be packets.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when the pool has no slots; else the socket's: it has given nothing.
    pub(super) fn take(
        &mut self,
        socket: BorrowedFd<'_>,
        port: PortId,
        most: usize,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        mut lost: impl FnMut(Reason),
    ) -> Result<Taken, Errno> {
        let wanted = self.depth.min(most);
        self.waiting.extend((0..wanted).map_while(|_| Landing::new(pool, port)));
        let mut received = [Received::default(); MESSAGES];
        let result = self.read(socket, &mut received);
        let count = result.unwrap_or(0);
        let mut taken = Taken { frames: count, bytes: 0 };
        for (landing, received) in self.waiting.drain(..count).zip(&received) {
            match settle(landing, received, pool) {
                Ok(packet) => {
                    taken.bytes += packet.len();
                    batch.push(packet);
                }
                Err(reason) => lost(reason),
            }
        }
        self.waiting.drain(..).for_each(|landing| landing.abandon(pool));
        self.depth = depth_after(wanted, taken);
        result.map(|_| taken)
    }

    fn read(
        &mut self,
        socket: BorrowedFd<'_>,
        received: &mut [Received; MESSAGES],
    ) -> Result<usize, Errno> {
        if self.waiting.is_empty() {
            return Err(Errno::NOBUFS);
        }
        let count = self.waiting.len();
        let mut vectors: [[IoSliceMut<'_>; 2]; MESSAGES] =
            array::from_fn(|_| array::from_fn(|_| IoSliceMut::new(&mut [])));
        for (vectors, landing) in vectors.iter_mut().zip(&mut self.waiting) {
            *vectors = landing.vectors();
        }
        system::receive(socket, &mut vectors[..count], received)
    }
}

/// The packet that has landed, with its tag.
fn settle(landing: Landing, received: &Received, pool: &mut Pool) -> Result<Packet, Reason> {
    let mut packet = landing.settle(received.len, pool)?;
    match received.tag.map_or(Some(()), |tag| vlan::push(&mut packet, tag)) {
        Some(()) => Ok(packet),
        None => {
            pool.give(packet.into_frame());
            Err(drops::BAD_OFFLOAD)
        }
    }
}

/// How many frames to ask for next: twice as many while all that were asked for come, else fewer.
fn depth_after(wanted: usize, Taken { frames, bytes }: Taken) -> usize {
    let next = if frames == wanted { 2 * frames } else { frames.max(wanted / 2) };
    let mean = bytes / frames.max(1);
    next.min(BATCH_BYTES / mean.max(1)).clamp(1, MESSAGES)
}
