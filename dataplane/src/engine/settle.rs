//! Sending that takes more than one step: super-packets that are cut, floods that are copied.

use crate::drops::{self, Reason};
use crate::ids::{PortId, SegmentId};
use crate::memory::{Packet, Pool};
use crate::offload::Checksum;
use crate::pipeline::{Egress, Pipeline, Trace};
use crate::wire::checksum;
use crate::wire::gso::{Cut, Finish};

use super::Engine;
use super::queue::{Sender, Slot};

/// Segments of one super-packet at most. Kernels send none of less than 8 bytes (`TCP_MIN_GSO_SIZE`
/// of `net/tcp.h`), which comes to fewer; whoever asks for more wants this worker's time.
const MOST_SEGMENTS: usize = 8192;

impl<P: Pipeline> Engine<P> {
    /// Settles what the port can't: cuts a super-packet, or completes a checksum.
    pub(super) fn settle<T: Trace>(&mut self, egress: Egress, mut packet: Packet) {
        if packet.offload.is_super() {
            return self.cut::<T>(egress, packet);
        }
        let mut offload = packet.offload;
        if checksum::complete(packet.data_mut(), &mut offload).is_err() {
            return self.lose::<T>(drops::BAD_OFFLOAD, packet);
        }
        // Verified now, so that the port takes it: this can't come back here.
        packet.offload = offload;
        debug_assert!(packet.offload.checksum != Checksum::Partial);
        self.send::<T>(egress, packet);
    }

    /// Cuts a super-packet into segments that the port takes, and sends them in order.
    fn cut<T: Trace>(&mut self, egress: Egress, packet: Packet) {
        let cut = match Cut::plan(packet.data(), packet.offload) {
            Ok(cut) if cut.count() <= MOST_SEGMENTS => cut,
            _ => return self.lose::<T>(drops::BAD_OFFLOAD, packet),
        };
        let finish = if self.completes(egress.port) { Finish::Partial } else { Finish::Complete };
        let count = cut.count();
        if let Some(counters) = self.counters(packet.in_port) {
            counters.segments.add(count.saturating_sub(1) as u64);
        }
        for index in 0..count {
            let (in_port, len) = (packet.in_port, cut.segment_len());
            let room = self.with_memory(|pool| Packet::with_room(pool, in_port, len));
            let mut segment = match room {
                Ok(segment) => segment,
                Err(reason) => {
                    self.pipeline.lost::<T>(reason, &packet);
                    self.miss(reason, packet.in_port);
                    continue;
                }
            };
            segment.layers = packet.layers;
            match cut.write(index, packet.data(), segment.room(), finish) {
                Ok((len, offload)) if segment.set_len(len) => {
                    segment.offload = offload;
                    self.send::<T>(egress, segment);
                }
                _ => self.lose::<T>(drops::BAD_OFFLOAD, segment),
            }
        }
        self.pool.give(packet.into_frame());
    }

    /// Sends a copy by each way out of a flood; the last takes the packet itself.
    #[cold]
    #[inline(never)]
    pub(super) fn replicate<T: Trace>(&mut self, segment: SegmentId, packet: Packet) {
        let mut last = None;
        for index in 0..self.pipeline.copies(segment) {
            let Some(egress) = self.pipeline.copy(segment, index, &packet) else { continue };
            if let Some(earlier) = last.replace(egress) {
                self.send_copy::<T>(earlier, &packet);
            }
        }
        match last {
            Some(egress) => self.send::<T>(egress, packet),
            None => self.lose::<T>(drops::NO_RECEIVER, packet),
        }
    }

    fn send_copy<T: Trace>(&mut self, egress: Egress, packet: &Packet) {
        if let Some(counters) = self.counters(packet.in_port) {
            counters.copies.add(1);
        }
        match self.with_memory(|pool| pool.duplicate(packet)) {
            Ok(copy) => self.send::<T>(egress, copy),
            Err(reason) => {
                self.pipeline.lost::<T>(reason, packet);
                self.miss(reason, packet.in_port);
            }
        }
    }

    /// Takes from the pool; when that is empty, sends what waits and takes what comes home first.
    fn with_memory<R>(
        &mut self,
        take: impl Fn(&mut Pool) -> Result<R, Reason>,
    ) -> Result<R, Reason> {
        take(&mut self.pool).or_else(|_| {
            self.flush();
            self.pool.collect();
            take(&mut self.pool)
        })
    }

    fn completes(&self, port: PortId) -> bool {
        matches!(
            self.slots.get(port.index()),
            Some(Some(Slot { place: Sender::Queue(queue), .. })) if queue.takes.checksum
        )
    }
}
