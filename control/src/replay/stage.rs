//! The data plane of a replay: one worker's engine without the worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::counters::PortCounters;
use dataplane::drops::Reason;
use dataplane::engine::{BATCH, Engine, Neighbours, Place};
use dataplane::ids::PortId;
use dataplane::memory::Packet;
use dataplane::pipeline::{Pipeline, Verdict};
use dataplane::port::Port;
use dataplane::publish::Publication;
use dataplane::time::{Nanos, Tick};
use pipelines::drops;
use pipelines::fdb::Sweeper;
use pipelines::filter::Filter;
use pipelines::state::WorkerState;
use pipelines::switch::Switch;
use pipelines::tables::Tables;
use pipelines::trace::{Teller, Told};
use rtrb::{Consumer, RingBuffer};

use super::merge::Frame;
use crate::compile;
use crate::host::{ByHand, Site};
use crate::model::Model;
use crate::plane::{self, PlaneError};

/// What became of one frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// What was decided; a drop as well if nothing of the frame went on in the end.
    pub(super) verdict: Verdict,
    /// Why something of it was dropped; the first reason where a flood had several.
    pub(super) reason: Option<Reason>,
    /// The ports that copies left by, in the order in which they were made.
    pub(super) to: Vec<PortId>,
    /// The ports that answers of heddle's own host stack left by.
    pub(super) answers: Vec<PortId>,
}

/// An engine and everything around it that control and a worker's thread would do.
pub(super) struct Stage {
    engine: Engine<Switch>,
    tables: Publication<Tables>,
    sweeper: Sweeper,
    counters: BTreeMap<PortId, Arc<PortCounters>>,
    told: Consumer<Told>,
    host: ByHand,
    batch: Vec<Packet>,
    /// The second in which old addresses were last swept out; `None` before the first frame.
    swept: Option<Tick>,
}

/// Fixed, so that hashes are the same in every replay: nobody waits for a table that a
/// stranger has crowded here.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a walk tells before it is decided, at most; the host stack has a batch of them walked.
const STEPS: usize = 16;

impl Stage {
    /// A stage for the networks and endpoints of `model`, with `memory` bytes.
    pub(super) fn new(model: &Model, memory: usize) -> Result<Self, PlaneError> {
        let (fdb, mut pools) = plane::memory(memory, 2, [SEED, SEED])?;
        let tables = Publication::new(Arc::new(compile::compile_all(model, SEED)), 1);
        let (host_pool, pool) = (pools.remove(1), pools.remove(0));
        let mut switch =
            Switch::new(WorkerState::new(Arc::clone(&fdb)), tables.subscribe(pool.owner())?);
        // A copy tells that it goes, and before that how it is tagged.
        let (teller, told) = RingBuffer::new(2 * model.ports().count() + STEPS * (1 + BATCH));
        switch.follow(Some(Teller::new(Filter::default(), teller)));
        let (to_worker, from_host) = RingBuffer::new(BATCH);
        let (mut host, way) = ByHand::new(host_pool, to_worker);
        let neighbours = Neighbours { to: Vec::new(), from: vec![from_host], host: Some(way) };
        let mut engine = Engine::new(switch, pool, neighbours);
        for network in model.networks.values() {
            engine.attach(network.host, Place::Host, Arc::default());
            host.join(network.host, Site::of(network));
        }
        Ok(Self {
            engine,
            tables,
            sweeper: Sweeper::new(fdb),
            counters: BTreeMap::new(),
            told,
            host,
            batch: Vec::new(),
            swept: None,
        })
    }

    /// Puts a port in its place.
    pub(super) fn attach(&mut self, port: PortId, device: Box<dyn Port>) {
        let counters = Arc::new(PortCounters::default());
        self.engine.attach(port, Place::Here(device), Arc::clone(&counters));
        self.counters.insert(port, counters);
    }

    /// Takes one frame through the pipeline, and sends what comes of it.
    pub(super) fn take(&mut self, frame: &Frame) -> Fate {
        self.keep_time(frame.time);
        let before = self.drops(frame.port);
        match Packet::holding(self.engine.pool(), frame.port, &frame.bytes) {
            Ok(packet) => self.batch.push(packet),
            // As the ports count what is larger than a slot.
            Err(reason) => return self.refuse(frame.port, reason),
        }
        self.engine.process(frame.port, &mut self.batch, frame.time);
        self.engine.flush();
        let after = self.drops(frame.port);
        let reason = before.iter().zip(&after).position(|(before, after)| before < after);
        let reason = reason.and_then(|number| u8::try_from(number).ok()).map(Reason::new);
        let mut fate = self.fate(reason);
        self.let_host_answer(frame.time);
        fate.answers = self.fate(None).to;
        fate
    }

    /// Takes what heddle's own host stack answers through the pipeline.
    fn let_host_answer(&mut self, now: Nanos) {
        while self.host.turn(now) {
            self.engine.run_errands(&mut self.batch, now);
            self.engine.flush();
            self.engine.pool().collect();
        }
    }

    /// Closes all ports.
    pub(super) fn close(&mut self) {
        for &port in self.counters.keys() {
            self.engine.detach(port);
        }
    }

    /// Once in each second, removes learned addresses that are old. Between two frames more than
    /// a second apart nothing is heard, so that one sweep does what several would.
    fn keep_time(&mut self, now: Nanos) {
        let tick = now.tick();
        if self.swept.replace(tick).is_none_or(|swept| swept == tick) {
            return;
        }
        let tables = self.tables.current();
        let retired = self.sweeper.sweep(self.sweeper.buckets(), |row| tables.remembers(row, tick));
        // The one worker is between two batches: its report ends the grace period at once.
        let generation = self.tables.advance();
        self.engine.pipeline().begin(now);
        debug_assert!(self.tables.quiesced(generation));
        self.sweeper.recycle(retired);
    }

    fn refuse(&self, port: PortId, reason: Reason) -> Fate {
        if let Some(counters) = self.counters.get(&port) {
            counters.rx_packets.add(1);
            counters.drops.of(reason).add(1);
        }
        Fate {
            verdict: Verdict::Drop(reason),
            reason: Some(reason),
            to: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn drops(&self, port: PortId) -> [u64; Reason::COUNT] {
        let counters = self.counters.get(&port);
        std::array::from_fn(|number| {
            let reason = Reason::new(u8::try_from(number).unwrap_or(u8::MAX));
            counters.map_or(0, |counters| counters.drops.of(reason).read())
        })
    }

    /// What the walk has told of one frame, of which something was dropped for `reason`.
    fn fate(&mut self, reason: Option<Reason>) -> Fate {
        let mut verdict = Verdict::Drop(drops::NO_NETWORK);
        let mut to = Vec::new();
        while let Ok(told) = self.told.pop() {
            match told {
                Told::Decided(decided) => verdict = decided,
                Told::Emitted(egress) => to.push(egress.port),
                _ => {}
            }
        }
        match reason {
            Some(reason) if to.is_empty() => verdict = Verdict::Drop(reason),
            _ => {}
        }
        Fate { verdict, reason, to, answers: Vec::new() }
    }
}
