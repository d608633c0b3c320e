//! TAP queues: the port of a container. The device lives in the container's network namespace, heddle holds
//! its queues.
//!
//! Every frame carries a virtio-net header, so super-packets of up to 64 KiB cross whole and
//! checksums stay partial for as long as nobody needs them. One system call moves one frame; the header lies in
//! the packet's headroom, so a frame is written from where it is.

pub mod device;
mod steering;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::drops::{self, Reason};
use crate::ids::PortId;
use crate::memory::{Packet, Pool, Size, TAILROOM};
use crate::offload::Capabilities;
use crate::time::Nanos;
use crate::wire::gro::Run;
use crate::wire::vnet::Header;

/// Bytes of the virtio-net header in front of each frame.
const VNET: usize = size_of::<Header>();

/// Bytes after which a batch is handed on: what was read is then still in the second-level cache
/// when it is written.
const BATCH_BYTES: usize = 256 << 10;

/// Packets that one write carries as one super-packet.
const RUN: usize = 48;

/// A longer packet begins no run: it is a super-packet already.
const RUN_HEAD: usize = 16 << 10;

/// One queue of a TAP device.
pub struct Tap {
    port: PortId,
    queue: OwnedFd,
}

/// Two slots for one read: short frames land in the small one; a longer one fills that and goes
/// on in the run, behind a gap as long as what the small slot holds of it.
struct Landing {
    small: Packet,
    run: Packet,
}

/// Why a read gave no packet.
enum Miss {
    /// The device said so.
    System(Errno),
    /// The frame is lost, for this reason.
    Lost(Reason),
}

impl Tap {
    /// The port on one queue that [`device::open`] has answered.
    pub fn new(port: PortId, queue: OwnedFd) -> Self {
        Self { port, queue }
    }

    /// Reads one frame. An idle port holds no slots: there may be thousands.
    fn take(&self, pool: &mut Pool) -> Result<Packet, Miss> {
        let mut landing = Landing::new(pool, self.port).ok_or(Miss::System(Errno::NOBUFS))?;
        match landing.read(self.queue.as_fd()) {
            Ok(len) => Ok(landing.packet(len, pool)),
            Err(miss) => {
                landing.abandon(pool);
                Err(miss)
            }
        }
    }
}

impl Landing {
    fn new(pool: &mut Pool, port: PortId) -> Option<Self> {
        let small = pool.take(Size::Small)?;
        let Some(run) = pool.take(Size::Run) else {
            pool.give(small);
            return None;
        };
        Some(Self { small: Packet::new(small, port), run: Packet::new(run, port) })
    }

    fn abandon(self, pool: &mut Pool) {
        pool.give(self.small.into_frame());
        pool.give(self.run.into_frame());
    }

    /// Bytes of a frame that land in the small slot.
    fn first(&self) -> usize {
        self.small.capacity() - TAILROOM
    }

    /// Reads a frame with its virtio-net header, which ends up as the offload state of the small
    /// slot's packet. Answers the frame's length.
    fn read(&mut self, queue: BorrowedFd<'_>) -> Result<usize, Miss> {
        let first = self.first();
        let Self { small, run } = self;
        let oversized = Miss::Lost(drops::OVERSIZED);
        if !small.set_len(first) {
            return Err(oversized);
        }
        let head = small.data_behind(VNET).ok_or(Miss::System(Errno::INVAL))?;
        let rest = &mut run.room()[first..];
        let longest = first + rest.len() - TAILROOM;
        let mut vectors = [IoSliceMut::new(head), IoSliceMut::new(rest)];
        let read = rustix::io::readv(queue, &mut vectors).map_err(Miss::System)?;
        let len = read.checked_sub(VNET).filter(|&len| len <= longest).ok_or(oversized)?;
        let header = Header::read_from_bytes(&head[..VNET]).ok();
        let offload = header.and_then(|header| header.to_offload(len).ok());
        small.offload = offload.ok_or(Miss::Lost(drops::BAD_OFFLOAD))?;
        Ok(len)
    }

    /// The packet of `len` bytes that was read, in the slot that holds it; the other goes home.
    fn packet(self, len: usize, pool: &mut Pool) -> Packet {
        let first = self.first();
        let Self { mut small, mut run } = self;
        if len <= first {
            let fits = small.set_len(len);
            debug_assert!(fits, "shorter than before");
            pool.give(run.into_frame());
            return small;
        }
        run.room()[..first].copy_from_slice(small.data());
        let fits = run.set_len(len);
        debug_assert!(fits, "checked against the longest");
        run.offload = small.offload;
        pool.give(small.into_frame());
        run
    }
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
        let mut refused = Refused::default();
        let mut waiting = packets.as_mut_slice();
        while !waiting.is_empty() {
            let (count, sent) = send(self.queue.as_fd(), waiting);
            let (done, rest) = waiting.split_at_mut(count);
            if sent.is_err() {
                done.iter().for_each(|packet| refused.failed(packet));
            }
            waiting = rest;
        }
        packets.drain(..).for_each(|packet| pool.give(packet.into_frame()));
        refused
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::VNET
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.as_fd())
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {}
}

/// Sends the first packet, and with it in one super-packet those that follow it in its flow.
/// Answers how many packets that were.
fn send(queue: BorrowedFd<'_>, packets: &mut [Packet]) -> (usize, Result<(), Errno>) {
    let Some((head, rest)) = packets.split_first_mut() else { return (0, Ok(())) };
    match first_of_run(head, rest) {
        Some(run) => send_run(queue, run, head, rest),
        None => (1, with_header(head).and_then(|bytes| write(queue, &[IoSlice::new(bytes)]))),
    }
}

/// Sends a run: the payloads behind its head are written from where they are.
fn send_run(
    queue: BorrowedFd<'_>,
    mut run: Run,
    head: &mut Packet,
    rest: &[Packet],
) -> (usize, Result<(), Errno>) {
    let mut slices = [IoSlice::new(&[]); RUN];
    let mut count = 1;
    for (slice, packet) in slices[1..].iter_mut().zip(rest) {
        let payload = run.accept(packet.data(), packet.offload);
        let Some(payload) = payload.and_then(|range| packet.data().get(range)) else { break };
        *slice = IoSlice::new(payload);
        count += 1;
    }
    head.offload = run.finish(head.data_mut());
    match with_header(head) {
        Ok(bytes) => slices[0] = IoSlice::new(bytes),
        Err(error) => return (count, Err(error)),
    }
    (count, write(queue, &slices[..count]))
}

/// The run that a packet begins, if another packet follows that could be part of it.
fn first_of_run(head: &Packet, rest: &[Packet]) -> Option<Run> {
    if rest.is_empty() || head.len() > RUN_HEAD {
        return None;
    }
    Run::start(head.data(), head.offload)
}

/// The packet behind its virtio-net header, which is written to its headroom.
fn with_header(packet: &mut Packet) -> Result<&[u8], Errno> {
    let header = Header::from_offload(packet.offload, packet.data());
    let bytes = packet.data_behind(VNET).ok_or(Errno::INVAL)?;
    header.write_to_prefix(bytes).map_err(|_| Errno::INVAL)?;
    Ok(bytes)
}

fn write(queue: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> Result<(), Errno> {
    loop {
        match rustix::io::writev(queue, slices) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
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
