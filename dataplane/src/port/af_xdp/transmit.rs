//! The way out: packets become descriptors, the kernel is told, and frames come back.

use std::os::fd::AsFd;

use rustix::net::SendFlags;

use super::AfXdp;
use super::metadata::{self, METADATA};
use super::receive::CONTINUES;
use super::ring::{Descriptor, Piece};
use super::umem::Pieces;
use crate::memory::{Packet, Pool, Purpose, Return, drain_each};
use crate::offload::Checksum;
use crate::port::Refused;
use crate::sync::Ordering;
use crate::wire::{checksum, ethernet};

/// Says that there is metadata in front of the frame (`XDP_TX_METADATA`).
const HAS_METADATA: u32 = 1 << 1;

/// Calls that one flush may make: enough for a batch at 32 descriptors per call.
const KICKS: u32 = 16;

/// Why a packet can't be sent.
enum Refusal {
    Full,
    Failed,
}

impl AfXdp {
    /// Sends packets, in order; afterwards `packets` is empty.
    pub(super) fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        let mut refused = Refused::default();
        let mut kicks = KICKS;
        drain_each(packets, |packet| {
            if let Err((packet, refusal)) = self.enqueue(packet, pool, &mut kicks) {
                match refusal {
                    Refusal::Full => refused.full(&packet),
                    Refusal::Failed => refused.failed(&packet),
                }
                pool.give(packet.into_frame());
            }
        });
        self.kick(pool, &mut kicks);
        refused
    }

    /// Lends one packet to the transmit ring, if it has room for it.
    #[inline(always)]
    fn enqueue(
        &mut self,
        packet: Packet,
        pool: &mut Pool,
        kicks: &mut u32,
    ) -> Result<(), (Packet, Refusal)> {
        let (packet, metadata) = self.prepare(packet, pool)?;
        let pieces = self.layout.pieces(packet.headroom(), packet.len());
        let Ok(count) = u8::try_from(pieces.clone().count()) else {
            return Err((packet, Refusal::Failed));
        };
        if count > 1 && !self.layout.pieces {
            return Err((packet, Refusal::Failed));
        }
        if !self.has_room(count.into(), pool, kicks) {
            return Err((packet, Refusal::Full));
        }
        let (port, frame) = (packet.in_port, packet.into_frame());
        match self.ledger.lend(frame, &mut self.borrower, Purpose::Transmit, count) {
            Ok(slot) => {
                self.describe(slot, pieces, count, metadata);
                Ok(())
            }
            // Never: worker and ledger have the same arena.
            Err(frame) => Err((Packet::new(frame, port), Refusal::Failed)),
        }
    }

    /// Whether so many descriptors can be written, if need be after the kernel has taken some.
    #[inline(always)]
    fn has_room(&mut self, count: u32, pool: &mut Pool, kicks: &mut u32) -> bool {
        self.socket.tx.free(count) >= count || {
            self.kick(pool, kicks);
            self.socket.tx.free(count) >= count
        }
    }

    /// Writes the descriptors of the packet in the slot that begins at `slot`.
    #[inline(always)]
    fn describe(&mut self, slot: usize, pieces: Pieces, count: u8, metadata: bool) {
        self.unfinished += 1;
        for (index, (at, bytes)) in (1..=count).zip(pieces) {
            let mut options = if index < count { CONTINUES } else { 0 };
            if metadata && index == 1 {
                options |= HAS_METADATA;
            }
            #[expect(clippy::cast_possible_truncation, reason = "a piece is at most a chunk")]
            let length = bytes as u32;
            let piece = Piece { address: (slot + at) as u64, length, options };
            self.socket.tx.push(|descriptor| descriptor.store(piece));
        }
    }

    /// Makes a packet what the kernel takes: with room for metadata in front, and with its
    /// checksum asked for there, or completed. Answers whether metadata is there.
    #[inline(always)]
    fn prepare(
        &self,
        mut packet: Packet,
        pool: &mut Pool,
    ) -> Result<(Packet, bool), (Packet, Refusal)> {
        if packet.len() < ethernet::HEADER_LEN {
            return Err((packet, Refusal::Failed));
        }
        if self.layout.metadata && packet.headroom() < METADATA {
            // Only after more headers than any encapsulation of ours has.
            let Ok(copy) = pool.duplicate(&packet) else { return Err((packet, Refusal::Full)) };
            pool.give(packet.into_frame());
            packet = copy;
        }
        if packet.offload.checksum != Checksum::Partial {
            return Ok((packet, false));
        }
        let first = self.layout.pieces(packet.headroom(), packet.len()).next();
        if self.layout.metadata && metadata::request(&mut packet, first.map_or(0, |piece| piece.1))
        {
            return Ok((packet, true));
        }
        let mut offload = packet.offload;
        match checksum::complete(packet.data_mut(), &mut offload) {
            Ok(()) => Ok((packet, false)),
            Err(_) => Err((packet, Refusal::Failed)),
        }
    }

    /// Hands over what was written, and has the kernel send while it makes progress and `kicks`
    /// are left. What it does not take now stays in the ring for the next time.
    pub(super) fn kick(&mut self, pool: &mut Pool, kicks: &mut u32) {
        self.socket.tx.publish();
        while *kicks > 0 && self.socket.tx.needs_wakeup() {
            let waiting = self.socket.tx.waiting();
            if waiting == 0 {
                break;
            }
            *kicks -= 1;
            // What it answers matters little: EAGAIN after as many as one call sends, or when too
            // many are with the device; EBUSY when the device dropped one; ENETDOWN while it is
            // down. Whether the ring moved is what counts.
            let _ = rustix::net::send(self.socket.fd.as_fd(), &[], SendFlags::DONTWAIT);
            if self.reap(pool) == 0 && self.socket.tx.waiting() == waiting {
                break;
            }
        }
    }

    /// Takes home what the kernel is done with. Answers how many pieces that were.
    #[inline]
    pub(super) fn reap(&mut self, pool: &mut Pool) -> u32 {
        if self.unfinished == 0 {
            return 0;
        }
        let done = self.socket.completion.ready(u32::MAX);
        for _ in 0..done {
            let address = self.socket.completion.pop(|slot| slot.load(Ordering::Relaxed));
            self.finish(address, pool);
        }
        if done > 0 {
            self.socket.completion.release();
        }
        done
    }

    /// Takes home what the kernel has not begun to send. Nothing else may make it begin.
    pub(super) fn withdraw(&mut self, pool: &mut Pool) {
        for piece in self.socket.tx.unconsumed(Descriptor::load) {
            self.finish(piece.address, pool);
        }
    }

    fn finish(&mut self, address: u64, pool: &mut Pool) {
        let address = usize::try_from(address).unwrap_or(usize::MAX);
        match self.ledger.reclaim(&mut self.borrower, Purpose::Transmit, address) {
            Return::Frame(frame) => {
                self.unfinished -= 1;
                pool.give(frame);
            }
            Return::Part => {}
            Return::Foreign => self.meter.foreign.add(1),
        }
    }
}
