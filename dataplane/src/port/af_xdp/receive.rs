//! The way in: descriptors become packets, and the fill ring is kept supplied.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::ring::{Descriptor, Piece};
use super::{AfXdp, Peer, is_gone};
use crate::counters::PortCounters;
use crate::drops::{self, Reason};
use crate::memory::{Packet, Pool, Purpose, Return, SMALL_BYTES, Size, TAILROOM};
use crate::port::Intake;
use crate::sync::Ordering;
use crate::wire::partial;

/// Says that the frame goes on in the next descriptor (`XDP_PKT_CONTD`).
pub(super) const CONTINUES: u32 = 1;

/// In an address, where the bytes to be added to it begin (`XSK_UNALIGNED_BUF_OFFSET_SHIFT`).
const OFFSET_SHIFT: u32 = 48;

/// A frame of several pieces, of which some have come.
#[derive(Debug)]
pub(super) enum Chain {
    /// They were copied here.
    Landed(Packet),
    /// The frame is lost, for this reason; the rest of it is still to come.
    Lost(Reason),
}

impl AfXdp {
    /// Takes up to `budget` descriptors. Answers whether there were any.
    pub(super) fn take(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        counters: &PortCounters,
    ) -> bool {
        let budget = u32::try_from(budget).unwrap_or(u32::MAX);
        let ready = self.socket.rx.ready(budget).min(budget);
        for _ in 0..ready {
            let piece = self.socket.rx.pop(Descriptor::load);
            let Some(packet) = self.land(piece, pool) else { continue };
            let continues = piece.options & CONTINUES != 0;
            // The kernel fills chunks to their end; what lacks the tailroom moves, too.
            if continues || self.chain.is_some() || packet.capacity() < packet.len() + TAILROOM {
                self.chain(packet, continues, pool, batch, counters);
            } else {
                batch.push(self.known(packet));
            }
        }
        self.socket.rx.release();
        ready > 0
    }

    /// Puts frames into the fill ring until as many as were asked for are in the kernel's hands.
    pub(super) fn refill(&mut self, pool: &mut Pool) {
        let wanted = self.depth.saturating_sub(self.filled);
        let wanted = wanted.min(self.socket.fill.free(wanted));
        let mut lent = 0;
        while lent < wanted {
            let Some(frame) = pool.take(Size::Small) else { break };
            match self.ledger.lend(frame, &mut self.borrower, Purpose::Fill, 1) {
                Ok(at) => self.socket.fill.push(|slot| slot.store(at as u64, Ordering::Relaxed)),
                // Never: worker and ledger have the same arena.
                Err(frame) => {
                    pool.give(frame);
                    break;
                }
            }
            lent += 1;
        }
        if lent > 0 {
            self.filled += lent;
            self.socket.fill.publish();
        }
    }

    /// Looks after an empty ring: the call makes a zero-copy driver look at the fill ring again,
    /// and tells whether the device is still there, which nothing else does.
    pub(super) fn look(&mut self) -> Intake {
        let mut nothing = [0; 0];
        match rustix::net::recv(self.socket.fd.as_fd(), &mut nothing, RecvFlags::DONTWAIT) {
            Err(error) if is_gone(error) => Intake::Gone,
            Err(Errno::INTR) => Intake::More,
            // Also when the device is down: it may come up again.
            _ => Intake::Empty,
        }
    }

    /// The packet in one descriptor, in the frame that was lent for it.
    #[inline(always)]
    fn land(&mut self, piece: Piece, pool: &mut Pool) -> Option<Packet> {
        let at = (piece.address & ((1 << OFFSET_SHIFT) - 1)) + (piece.address >> OFFSET_SHIFT);
        let (at, length) = (usize::try_from(at).ok()?, usize::try_from(piece.length).ok()?);
        match self.ledger.reclaim(&mut self.borrower, Purpose::Fill, at) {
            Return::Frame(frame) => {
                self.filled -= 1;
                match Packet::received(frame, self.port, at % SMALL_BYTES, length) {
                    Ok(packet) => return Some(packet),
                    Err(frame) => pool.give(frame),
                }
            }
            Return::Part | Return::Foreign => {}
        }
        self.meter.foreign.add(1);
        None
    }

    /// Adds a piece to the frame that it is part of, and finishes that with its last one.
    #[cold]
    #[inline(never)]
    fn chain(
        &mut self,
        piece: Packet,
        continues: bool,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        counters: &PortCounters,
    ) {
        let chain = self.chain.take().unwrap_or_else(|| match pool.take(Size::Run) {
            Some(run) => Chain::Landed(Packet::new(run, self.port)),
            None => Chain::Lost(drops::NO_MEMORY),
        });
        let chain = chain.with(piece.data(), pool);
        pool.give(piece.into_frame());
        match chain {
            chain if continues => self.chain = Some(chain),
            Chain::Landed(packet) => batch.push(self.known(packet)),
            Chain::Lost(reason) => {
                counters.rx_packets.add(1);
                counters.drops.of(reason).add(1);
            }
        }
    }

    /// A whole frame, with what is known of its checksum.
    #[inline(always)]
    fn known(&self, mut packet: Packet) -> Packet {
        if self.peer == Peer::Veth {
            packet.offload = partial::recognise(packet.data());
        }
        packet
    }
}

impl Chain {
    fn with(self, bytes: &[u8], pool: &mut Pool) -> Self {
        let Self::Landed(mut packet) = self else { return self };
        let (from, to) = (packet.len(), packet.len() + bytes.len());
        if to + TAILROOM <= packet.capacity() && packet.set_len(to) {
            packet.data_mut()[from..].copy_from_slice(bytes);
            return Self::Landed(packet);
        }
        pool.give(packet.into_frame());
        Self::Lost(drops::OVERSIZED)
    }

    /// Gives back what it has.
    pub(super) fn abandon(self, pool: &mut Pool) {
        if let Self::Landed(packet) = self {
            pool.give(packet.into_frame());
        }
    }
}
