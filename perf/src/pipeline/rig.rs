//! The bench: one worker's engine with the product's walk, between a generator and a sink.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use dataplane::counters::PortCounters;
use dataplane::engine::{Engine, Neighbours, Place};
use dataplane::ids::{PortId, WorkerId};
use dataplane::memory::{Arena, Frame, Geometry, Packet, Pool, Size};
use dataplane::offload::Capabilities;
use dataplane::port::{Intake, Port, Refused};
use dataplane::publish::Publication;
use dataplane::time::Nanos;
use dataplane::wire::vlan;
use pipelines::filter::Filter;
use pipelines::state::WorkerState;
use pipelines::switch::Switch;
use pipelines::trace::{Teller, Told};
use rtrb::RingBuffer;

use super::Error;
use super::traffic::Traffic;
use super::workload::{Frames, Network, Workload};

/// Slots that frames are copied into in turn, so that none is met again while it is in a cache.
pub const SLOTS: usize = 16_384;

/// Slots that stay with the pool, for copies and segments.
const RESERVE: usize = 4096;

/// Slots for super-packets.
const RUNS: usize = 512;

/// The time that passes per packet: a worker at 20 million packets per second.
const PACKET_TIME: u64 = 50;

/// An engine, its traffic, and its memory.
pub struct Rig {
    engine: Engine<Switch>,
    traffic: Traffic,
    network: Network,
    super_packets: bool,
    /// Free slots, the one longest free in front.
    slots: VecDeque<Frame>,
    batch: Vec<Packet>,
    counters: Vec<Arc<PortCounters>>,
    now: Nanos,
    /// Keeps the tables published.
    _publication: Arc<Publication<pipelines::tables::Tables>>,
}

/// What the ports have counted, all together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Frames that came in.
    pub received: u64,
    /// Frames that left.
    pub sent: u64,
    /// Further frames made: copies of floods, segments of super-packets.
    pub made: u64,
    /// Frames that went no further.
    pub dropped: u64,
}

/// What several workers share.
pub struct World {
    publication: Arc<Publication<pipelines::tables::Tables>>,
    fdb: Arc<pipelines::fdb::Table>,
    pools: Vec<Pool>,
}

impl World {
    /// The world of a workload, for `workers` workers.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error) when there is no memory.
    pub fn new(workload: &Workload, workers: u8) -> Result<Self, Error> {
        let tables = Arc::new(workload.network.tables());
        let publication = Arc::new(Publication::new(tables, usize::from(workers)));
        let geometry = Geometry { owners: workers.into(), small: SLOTS + RESERVE, runs: RUNS };
        let mut pools = Arena::create(geometry)?;
        pools.reverse();
        Ok(Self { publication, fdb: workload.network.fdb()?, pools })
    }

    /// The rig of the next worker.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error) when there are no more.
    pub fn rig(&mut self, workload: &Workload) -> Result<Rig, Error> {
        let worker = WorkerId(u8::try_from(self.pools.len()).unwrap_or_default());
        let pool = self.pools.pop().ok_or(Error::NoWorker(worker))?;
        let subscriber = self.publication.subscribe(pool.owner())?;
        let switch = Switch::new(WorkerState::new(Arc::clone(&self.fdb)), subscriber);
        let seed = u64::from(pool.owner().0);
        let mut engine = Engine::new(switch, pool, Neighbours::default());
        let counters = (0..workload.network.ports())
            .map(|number| {
                let counters = Arc::new(PortCounters::default());
                engine.attach(PortId(number), Place::Here(Box::new(Sink)), Arc::clone(&counters));
                counters
            })
            .collect();
        let mut slots = VecDeque::with_capacity(SLOTS + RESERVE);
        slots.extend((0..SLOTS).map_while(|_| engine.pool().take(Size::Small)));
        Ok(Rig {
            engine,
            traffic: Traffic::new(workload, seed),
            network: workload.network,
            super_packets: workload.frames == Frames::Super,
            slots,
            batch: Vec::with_capacity(dataplane::engine::BATCH),
            counters,
            now: Nanos(0),
            _publication: Arc::clone(&self.publication),
        })
    }
}

impl Rig {
    /// The rig of a workload's only worker.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error) when there is no memory.
    pub fn new(workload: &Workload) -> Result<Self, Error> {
        World::new(workload, 1)?.rig(workload)
    }

    /// Copies a batch of `size` new frames in; answers the port that they come in by.
    pub fn load(&mut self, size: usize) -> PortId {
        let port = self.traffic.next_port();
        let tag = self.network.tag(port);
        for _ in 0..size {
            let Some(frame) = self.free_slot() else { break };
            let mut packet = Packet::new(frame, port);
            self.traffic.write(port, packet.room());
            let fits = packet.set_len(self.traffic.frame_len());
            debug_assert!(fits, "the slot was chosen so");
            packet.offload = self.traffic.offload();
            let tagged = tag.is_none_or(|tag| vlan::push(&mut packet, tag).is_some());
            debug_assert!(tagged, "there is headroom");
            self.batch.push(packet);
        }
        self.now.0 += PACKET_TIME * self.batch.len() as u64;
        port
    }

    /// Takes the batch through the pipeline: what is measured.
    #[inline(always)]
    pub fn process(&mut self, port: PortId) {
        heddle_measured_batch(&mut self.engine, port, &mut self.batch, self.now);
    }

    /// Empties the transmit arrays into the sink, and takes the slots back.
    pub fn settle(&mut self) {
        self.engine.flush();
        if self.super_packets {
            return;
        }
        while self.engine.pool().free().0 > RESERVE
            && let Some(frame) = self.engine.pool().take(Size::Small)
        {
            self.slots.push_back(frame);
        }
    }

    /// What the ports have counted.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for port in &self.counters {
            totals.received += port.rx_packets.read();
            totals.sent += port.tx_packets.read();
            totals.made += port.copies.read() + port.segments.read();
            totals.dropped += port.drops.total();
        }
        totals
    }

    /// The steps that a packet of the workload takes, as its walk tells them.
    pub fn steps(&mut self) -> Vec<String> {
        let (producer, mut told) = RingBuffer::new(1024);
        self.engine.pipeline().follow(Some(Teller::new(Filter::default(), producer)));
        let port = self.load(1);
        self.process(port);
        self.settle();
        self.engine.pipeline().follow(None);
        let mut steps: Vec<String> = Vec::new();
        while let Ok(told) = told.pop() {
            let step = step(told);
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        }
        steps
    }

    fn free_slot(&mut self) -> Option<Frame> {
        if self.super_packets {
            return self.engine.pool().take(Size::Run);
        }
        self.slots.pop_front()
    }
}

/// The bracket: what the clock and callgrind count is what happens in this function. Its name
/// is what callgrind is told.
#[inline(never)]
fn heddle_measured_batch(
    engine: &mut Engine<Switch>,
    port: PortId,
    batch: &mut Vec<Packet>,
    now: Nanos,
) {
    engine.process(port, batch, now);
}

fn step(told: Told) -> String {
    match told {
        Told::Entered { .. } => "parse".to_owned(),
        Told::Vlan { .. } => "vlan".to_owned(),
        Told::Admitted => "admit".to_owned(),
        Told::Learned(learned) => format!("learn ({learned:?})").to_lowercase(),
        Told::Station(_) => "find station".to_owned(),
        Told::Heard(_) => "find learned".to_owned(),
        Told::Unknown(_) => "unknown".to_owned(),
        Told::Answered(kind) => format!("answer {kind:?}").to_lowercase(),
        Told::Decided(verdict) => {
            let verdict = format!("{verdict:?}").to_lowercase();
            verdict.split(['(', ' ']).next().unwrap_or_default().to_owned()
        }
        Told::Tagged(_) => "tag".to_owned(),
        Told::Emitted(_) => "emit".to_owned(),
        Told::Refused(..) => "refuse".to_owned(),
    }
}

/// A port that takes everything, at once, and gives its slots back.
#[derive(Debug)]
pub struct Sink;

impl Port for Sink {
    fn receive(
        &mut self,
        _pool: &mut Pool,
        _batch: &mut Vec<Packet>,
        _budget: usize,
        _now: Nanos,
        _counters: &PortCounters,
    ) -> Intake {
        Intake::Empty
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        for packet in packets.drain(..) {
            pool.give(packet.into_frame());
        }
        Refused::default()
    }

    /// None: super-packets are to be cut.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {}
}

#[cfg(test)]
mod tests {
    use super::super::workload::ALL;
    use super::*;

    #[test]
    fn every_workload_does_what_it_says_and_loses_nothing() {
        for workload in ALL.iter().filter(|workload| workload.network.stations() < 5000) {
            let mut rig = Rig::new(workload).unwrap();
            for size in [1, 67, 256] {
                let port = rig.load(size);
                rig.process(port);
                rig.settle();
            }
            let totals = rig.totals();
            let each = match workload.frames {
                Frames::Broadcast => 8,
                Frames::Super => super::super::traffic::SEGMENTS as u64,
                _ => 1,
            };
            let sent = 324 * each;
            let expected = Totals { received: 324, sent, made: sent - 324, dropped: 0 };
            assert_eq!(totals, expected, "{}", workload.name);
        }
    }

    #[test]
    fn records_of_one_packet_follow_each_other_in_a_batch() {
        let mut rig = Rig::new(Workload::named("bridge-learned-64").unwrap()).unwrap();
        let (producer, mut told) = RingBuffer::new(1024);
        rig.engine.pipeline().follow(Some(Teller::new(Filter::default(), producer)));
        let port = rig.load(67);
        rig.process(port);
        let told: Vec<String> = std::iter::from_fn(|| told.pop().ok()).map(step).collect();
        assert_eq!(told.len(), 67 * 6);
        for one in told.chunks(6) {
            assert_eq!(one[0], "parse");
            assert_eq!(one[5], "emit");
        }
    }

    #[test]
    fn steps_are_told_by_the_walk_itself() {
        let steps = |name| Rig::new(Workload::named(name).unwrap()).unwrap().steps().join(", ");
        let admitted = steps("bridge-endpoints-2");
        assert_eq!(admitted, "parse, admit, find station, forward, emit");
        let learned = steps("bridge-learned-64");
        assert_eq!(learned, "parse, admit, learn (known), find learned, forward, emit");
        let tagged = steps("trunk-learned-64");
        let expected = "parse, vlan, admit, learn (known), find learned, forward, tag, emit";
        assert_eq!(tagged, expected);
        assert_eq!(steps("gateway-arp"), "parse, admit, answer arp, reply, emit");
        assert_eq!(steps("flood-8-ports"), "parse, admit, flood, emit");
    }
}
