//! One worker's engine: takes a batch through the pipeline and disposes of it.
//!
//! Steps decide, the engine disposes: `Engine::dispatch` is the only place where a frame changes
//! owner. It hands packets to transmit arrays, to other workers, to the host stack and back to
//! the pool; it copies floods and cuts super-packets. The worker loop around it does the waiting.

mod neighbours;
mod queue;
mod settle;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::counters::PortCounters;
use crate::drops::{self, Reason};
use crate::ids::{PortId, WorkerId};
use crate::memory::{Packet, Pool, drain_each};
use crate::pipeline::{Egress, Pipeline, Trace, Traced, Untraced, Verdict};
use crate::port::{Intake, Port};
use crate::time::Nanos;

pub use neighbours::{Errand, Neighbours, Way};
use queue::{Sender, Slot};

/// Packets of one batch at most, and of one transmit array before it is flushed.
pub const BATCH: usize = 256;

/// Packets that are classified before they are walked: with their rows they fit into a
/// first-level cache of 32 KiB.
const PART: usize = 64;

/// Who sends by a port.
pub enum Place {
    /// This worker, by this queue.
    Here(Box<dyn Port>),
    /// The one worker that has the port's only queue.
    At(WorkerId),
    /// heddle's own host stack: the gateway's port of a network.
    Host,
}

/// A pipeline with the memory and the ports of one worker.
pub struct Engine<P> {
    pipeline: P,
    pool: Pool,
    slots: Vec<Option<Slot>>,
    /// Ports whose transmit array is not empty.
    dirty: Vec<PortId>,
    neighbours: Neighbours,
    /// Of the batch at hand, in its order; empty between batches.
    verdicts: Vec<Verdict>,
}

impl<P: Pipeline> Engine<P> {
    /// An engine without ports.
    pub fn new(pipeline: P, pool: Pool, neighbours: Neighbours) -> Self {
        Self {
            pipeline,
            pool,
            slots: Vec::new(),
            dirty: Vec::with_capacity(BATCH),
            neighbours,
            verdicts: Vec::with_capacity(BATCH),
        }
    }

    /// Puts a port in its place. An earlier holder of the number must have been detached.
    pub fn attach(&mut self, port: PortId, place: Place, counters: Arc<PortCounters>) {
        if self.slots.len() <= port.index() {
            self.slots.resize_with(port.index() + 1, || None);
        }
        self.slots[port.index()] = Some(Slot { counters, place: place.into() });
    }

    /// Takes a port out and closes its queue; what waits in its transmit array is sent first.
    pub fn detach(&mut self, port: PortId) {
        self.flush();
        let slot = self.slots.get_mut(port.index()).and_then(Option::take);
        if let Some(Slot { place: Sender::Queue(queue), .. }) = slot {
            queue.port.close(&mut self.pool);
        }
    }

    /// The queue of a port that is ours.
    pub fn queue(&self, port: PortId) -> Option<&dyn Port> {
        match self.slots.get(port.index())? {
            Some(Slot { place: Sender::Queue(queue), .. }) => Some(&*queue.port),
            _ => None,
        }
    }

    /// The decisions.
    pub fn pipeline(&mut self) -> &mut P {
        &mut self.pipeline
    }

    /// The packet memory.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Takes up to `budget` frames from one of our ports into `batch`.
    pub fn receive(
        &mut self,
        port: PortId,
        batch: &mut Vec<Packet>,
        budget: usize,
        now: Nanos,
    ) -> Intake {
        match self.slots.get_mut(port.index()) {
            Some(Some(Slot { counters, place: Sender::Queue(queue) })) => {
                queue.port.receive(&mut self.pool, batch, budget, now, counters)
            }
            _ => Intake::Gone,
        }
    }

    /// Takes a batch that came in by `port` through the pipeline; afterwards `batch` is empty, and
    /// what is to leave waits in transmit arrays for [`Engine::flush`].
    #[inline]
    pub fn process(&mut self, port: PortId, batch: &mut Vec<Packet>, now: Nanos) {
        self.pipeline.begin(now);
        if let Some(counters) = self.counters(port) {
            counters.rx_packets.add(batch.len() as u64);
            counters.rx_bytes.add(batch.iter().map(|packet| packet.len() as u64).sum());
        }
        self.run(batch);
    }

    /// Does what other workers have asked for. Answers whether there was anything.
    pub fn run_errands(&mut self, batch: &mut Vec<Packet>, now: Nanos) -> bool {
        let mut busy = false;
        for index in 0..self.neighbours.from.len() {
            self.pipeline.begin(now);
            let traced = self.pipeline.tracing();
            for _ in 0..BATCH {
                let Ok(errand) = self.neighbours.from[index].pop() else { break };
                busy = true;
                match errand {
                    Errand::Walk(packet) => batch.push(packet),
                    Errand::Transmit(egress, packet) if traced => {
                        self.send::<Traced>(egress, packet);
                    }
                    Errand::Transmit(egress, packet) => self.send::<Untraced>(egress, packet),
                }
            }
            self.run(batch);
        }
        busy
    }

    /// Hands every transmit array to its port, and wakes the host stack if it got packets.
    #[inline]
    pub fn flush(&mut self) {
        while let Some(port) = self.dirty.pop() {
            if let Some(Some(Slot { counters, place: Sender::Queue(queue) })) =
                self.slots.get_mut(port.index())
            {
                queue.dirty = false;
                queue.flush(&mut self.pool, counters);
            }
        }
        self.neighbours.ring();
    }

    #[inline(always)]
    fn run(&mut self, batch: &mut Vec<Packet>) {
        if self.pipeline.tracing() {
            return self.run_traced(batch);
        }
        self.run_untraced(batch);
    }

    /// On its own, so that the walk's registers are not shared with what is around it.
    #[inline(never)]
    fn run_untraced(&mut self, batch: &mut Vec<Packet>) {
        self.decide::<Untraced>(batch);
        self.dispose::<Untraced>(batch);
    }

    /// Packet by packet, so that what is told of one is not mixed with what is told of another.
    #[cold]
    #[inline(never)]
    fn run_traced(&mut self, batch: &mut Vec<Packet>) {
        drain_each(batch, |mut packet| {
            self.decide::<Traced>(std::slice::from_mut(&mut packet));
            let verdict = self.verdicts.pop().unwrap_or(Verdict::Drop(drops::NO_QUEUE));
            self.dispatch::<Traced>(verdict, packet);
        });
    }

    /// Decides, in parts whose prefetched lines stay in the first-level cache. Packets are walked
    /// where they are and moved once, when it is known where to.
    #[inline(always)]
    fn decide<T: Trace>(&mut self, batch: &mut [Packet]) {
        for part in batch.chunks_mut(PART) {
            self.pipeline.decide::<T>(part, &mut self.verdicts);
        }
    }

    #[inline(always)]
    fn dispose<T: Trace>(&mut self, batch: &mut Vec<Packet>) {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        let mut index = 0;
        drain_each(batch, |packet| {
            self.dispatch::<T>(verdicts[index], packet);
            index += 1;
        });
        verdicts.clear();
        self.verdicts = verdicts;
    }

    #[inline(always)]
    fn dispatch<T: Trace>(&mut self, verdict: Verdict, packet: Packet) {
        // By far the most frequent verdict is asked for first: a jump table costs more.
        match verdict {
            Verdict::Forward(egress) => self.send::<T>(egress, packet),
            other => self.dispatch_other::<T>(other, packet),
        }
    }

    #[inline(never)]
    fn dispatch_other<T: Trace>(&mut self, verdict: Verdict, packet: Packet) {
        match verdict {
            Verdict::Forward(egress) | Verdict::Reply(egress) => self.send::<T>(egress, packet),
            Verdict::Flood(segment) => self.replicate::<T>(segment, packet),
            Verdict::Punt(port) => self.punt::<T>(port, packet),
            Verdict::Handoff(worker) => self.hand_off::<T>(worker, Errand::Walk(packet)),
            Verdict::Drop(reason) => self.discard(reason, packet),
        }
    }

    /// Sends a packet by one port: as it is where the port takes it, else settled before.
    #[inline(always)]
    fn send<T: Trace>(&mut self, egress: Egress, packet: Packet) {
        if let Some(Some(Slot { counters, place: Sender::Queue(queue) })) =
            self.slots.get_mut(egress.port.index())
            && queue.takes.takes(packet.offload)
        {
            if queue.transmit.len() == BATCH {
                queue.flush(&mut self.pool, counters);
            }
            let packet = queue.push(packet, egress.port, &mut self.dirty);
            let step = self.pipeline.emit::<T>(egress, packet);
            queue.bytes += packet.len() as u64;
            if let ControlFlow::Break(verdict) = step {
                self.retract(egress.port, verdict);
            }
        } else {
            self.send_elsewhere::<T>(egress, packet);
        }
    }

    /// Takes the last packet of a transmit array out again: it can't leave.
    #[cold]
    #[inline(never)]
    fn retract(&mut self, port: PortId, verdict: Verdict) {
        if let Some(Some(Slot { place: Sender::Queue(queue), .. })) =
            self.slots.get_mut(port.index())
            && let Some(packet) = queue.transmit.pop()
        {
            queue.bytes -= packet.len() as u64;
            self.discard(reason_of(verdict), packet);
        }
    }

    /// Sends what has no queue of ours, or one that does not take it as it is.
    #[cold]
    #[inline(never)]
    fn send_elsewhere<T: Trace>(&mut self, egress: Egress, packet: Packet) {
        let Some(Some(slot)) = self.slots.get(egress.port.index()) else {
            return self.lose::<T>(drops::NO_QUEUE, packet);
        };
        match slot.place {
            Sender::Queue(_) => self.settle::<T>(egress, packet),
            Sender::At(worker) => self.hand_off::<T>(worker, Errand::Transmit(egress, packet)),
            Sender::Host => self.punt::<T>(egress.port, packet),
        }
    }

    /// Gives a packet to the host stack, whose port in the network is `to`: from there on that
    /// number says which network the packet belongs to.
    fn punt<T: Trace>(&mut self, to: PortId, mut packet: Packet) {
        let Some(host) = &mut self.neighbours.host else {
            return self.lose::<T>(drops::NO_HOST_STACK, packet);
        };
        let in_port = std::mem::replace(&mut packet.in_port, to);
        if let Err(mut packet) = host.push(packet) {
            packet.in_port = in_port;
            return self.lose::<T>(drops::NO_HOST_STACK, packet);
        }
        if let Some(counters) = self.counters(in_port) {
            counters.punted.add(1);
        }
    }

    fn hand_off<T: Trace>(&mut self, worker: WorkerId, errand: Errand) {
        let refused = self.neighbours.hand_off(worker, errand);
        if let Err(Errand::Walk(packet) | Errand::Transmit(_, packet)) = refused {
            self.lose::<T>(drops::HANDOFF_FULL, packet);
        }
    }

    /// Discards a packet for a reason that the pipeline does not know yet.
    #[cold]
    #[inline(never)]
    fn lose<T: Trace>(&mut self, reason: Reason, packet: Packet) {
        self.pipeline.lost::<T>(reason, &packet);
        self.discard(reason, packet);
    }

    #[cold]
    #[inline(never)]
    fn discard(&mut self, reason: Reason, packet: Packet) {
        self.miss(reason, packet.in_port);
        self.pool.give(packet.into_frame());
    }

    /// Counts a packet that goes no further.
    fn miss(&mut self, reason: Reason, in_port: PortId) {
        if let Some(counters) = self.counters(in_port) {
            counters.drops.of(reason).add(1);
        }
    }

    #[inline(always)]
    fn counters(&self, port: PortId) -> Option<&PortCounters> {
        self.slots.get(port.index())?.as_ref().map(|slot| &*slot.counters)
    }
}

/// The reason in a verdict that ended an emission.
fn reason_of(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::Drop(reason) => reason,
        _ => drops::NO_QUEUE,
    }
}
