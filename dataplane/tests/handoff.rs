//! Packets that one worker hands to another arrive, in order, also when that one sleeps.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dataplane::engine::{Errand, Neighbours, Place, Way};
use dataplane::ids::{PortId, SegmentId, WorkerId};
use dataplane::memory::{Arena, Geometry, Packet, Pool, Size};
use dataplane::offload::Capabilities;
use dataplane::pipeline::{Egress, Pipeline, Step, Trace, Verdict};
use dataplane::port::memory::{FarEnd, Memory};
use dataplane::time::Nanos;
use dataplane::worker::{Handle, Policy, Seat, Worker};
use rtrb::RingBuffer;

const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);
const ROUNDS: u8 = 67;
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends everything to `OUT`, walked by the worker `home`.
struct Onwards {
    home: WorkerId,
    here: WorkerId,
    /// Whether somebody watches, and how many packets he has seen leave.
    watched: Option<Arc<AtomicUsize>>,
}

impl Pipeline for Onwards {
    fn begin(&mut self, _now: Nanos) {}

    fn tracing(&self) -> bool {
        self.watched.is_some()
    }

    fn decide<T: Trace>(&mut self, part: &mut [Packet], verdicts: &mut Vec<Verdict>) {
        let verdict = if self.home == self.here {
            Verdict::Forward(Egress { port: OUT, segment: SegmentId(1) })
        } else {
            Verdict::Handoff(self.home)
        };
        verdicts.extend(part.iter().map(|_| verdict));
    }

    fn emit<T: Trace>(&mut self, _egress: Egress, _packet: &mut Packet) -> Step {
        if T::ON
            && let Some(seen) = &self.watched
        {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    }

    fn copies(&self, _segment: SegmentId) -> usize {
        0
    }

    fn copy(&self, _segment: SegmentId, _index: usize, _packet: &Packet) -> Option<Egress> {
        None
    }

    fn offline<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        wait()
    }
}

/// Two workers: the first has `IN`, the second `OUT`. The packets of the third pool come in.
struct Bench {
    workers: Vec<Handle<Onwards>>,
    pool: Pool,
    input: FarEnd,
    output: FarEnd,
}

impl Bench {
    /// Packets are walked by the worker `home`.
    fn new(home: WorkerId) -> Self {
        let mut pools = Arena::create(Geometry { owners: 3, small: 257, runs: 1 }).unwrap();
        let pool = pools.pop().unwrap();
        let seats = [0, 1].map(|n| Seat::new(WorkerId(n)).unwrap());
        let (ring, errands) = RingBuffer::<Errand>::new(64);
        let way = Way::new(ring, Some(Arc::clone(seats[1].bell())));
        let first = Neighbours { to: vec![None, Some(way)], ..Neighbours::default() };
        let second = Neighbours { from: vec![errands], ..Neighbours::default() };
        let workers: Vec<_> = seats
            .into_iter()
            .zip(pools)
            .zip([first, second])
            .map(|((seat, pool), neighbours)| {
                let pipeline = Onwards { home, here: pool.owner(), watched: None };
                let (policy, now) = (Policy::default(), Instant::now());
                Handle::start(seat, pipeline, pool, neighbours, policy, now).unwrap()
            })
            .collect();
        let (into, input) = Memory::pair(IN, 64, Capabilities::VNET);
        let (out, output) = Memory::pair(OUT, 64, Capabilities::VNET);
        workers[0].attach(IN, Place::Here(Box::new(into)), Arc::default()).unwrap();
        workers[0].attach(OUT, Place::At(WorkerId(1)), Arc::default()).unwrap();
        workers[1].attach(OUT, Place::Here(Box::new(out)), Arc::default()).unwrap();
        Self { workers, pool, input, output }
    }

    /// Sends one packet while both workers sleep, and waits for it.
    fn pass(&mut self, number: u8) -> u8 {
        for worker in &self.workers {
            let sleeps = worker.counters().sleeps.read();
            worker.ask(|_| ()).unwrap();
            until(|| worker.counters().sleeps.read() > sleeps);
        }
        let mut packet = Packet::new(self.pool.take(Size::Small).unwrap(), IN);
        assert!(packet.set_len(60));
        packet.data_mut()[0] = number;
        self.input.tx.push(packet).unwrap();
        self.workers[0].bell().ring().unwrap();
        until(|| !self.output.rx.is_empty());
        let packet = self.output.rx.pop().unwrap();
        let number = packet.data()[0];
        self.pool.give(packet.into_frame());
        number
    }
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "nothing happened for {PATIENCE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_port_of_the_other_worker_is_reached_though_it_sleeps() {
    let mut bench = Bench::new(WorkerId(0));
    for number in 0..ROUNDS {
        assert_eq!(bench.pass(number), number);
    }
}

#[test]
fn a_packet_for_the_other_worker_is_walked_though_it_sleeps() {
    let mut bench = Bench::new(WorkerId(1));
    for number in 0..ROUNDS {
        assert_eq!(bench.pass(number), number);
    }
}

#[test]
fn what_another_worker_has_walked_is_seen_when_it_leaves() {
    let mut bench = Bench::new(WorkerId(0));
    let seen = Arc::new(AtomicUsize::new(0));
    let watch = Arc::clone(&seen);
    let watch =
        move |worker: &mut Worker<Onwards>| worker.engine().pipeline().watched = Some(watch);
    bench.workers[1].ask(watch).unwrap();
    for number in 0..ROUNDS {
        assert_eq!(bench.pass(number), number);
    }
    assert_eq!(seen.load(Ordering::Relaxed), usize::from(ROUNDS));
}
