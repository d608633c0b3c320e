//! A real worker with one busy port, which makes its own frames, and any number of idle ones.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use dataplane::counters::PortCounters;
use dataplane::cpu::{tsc, tsc_frequency};
use dataplane::engine::{Neighbours, Place};
use dataplane::ids::{PortId, WorkerId};
use dataplane::memory::{Arena, Geometry, Packet, Pool};
use dataplane::offload::Capabilities;
use dataplane::port::{Intake, Port, Refused};
use dataplane::publish::Publication;
use dataplane::time::Nanos;
use dataplane::worker::{Handle, Policy, Seat};
use pipelines::state::WorkerState;
use pipelines::switch::Switch;
use pipelines::tables::Tables;
use rustix::event::{EventfdFlags, eventfd};

use super::super::Error;
use super::super::measure::thread_time;
use super::super::rig::Sink;
use super::super::traffic::Traffic;
use super::super::workload::{Frames, Network, Workload};

/// Packets that the busy port gives at a time: few, so that the loop around them shows.
pub(super) const BURST: u64 = 32;

/// The running worker. Dropping it ends it.
pub(super) struct Busy {
    pub(super) publication: Arc<Publication<Tables>>,
    handle: Handle<Switch>,
    done: Receiver<Work>,
    counters: Vec<Arc<PortCounters>>,
}

/// What the worker did from the busy port's first frame to its last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) packets: u64,
    /// The worker's CPU time, in clocks.
    pub(super) clocks: f64,
    /// CPU time by time that passed.
    pub(super) share: f64,
}

impl Busy {
    /// A worker on `core` that decides by `tables`, with `idle` ports beside the busy port 0 and
    /// port 1, which takes the `packets` that the busy one sends.
    pub(super) fn start(
        core: usize,
        tables: Tables,
        idle: u16,
        packets: u64,
    ) -> Result<Self, Error> {
        let publication = Arc::new(Publication::new(Arc::new(tables), 1));
        let pool = Arena::create(Geometry { owners: 1, small: 4096, runs: 1 })?.remove(0);
        let fdb = Arc::new(super::super::workload::empty_fdb(1024)?);
        let switch = Switch::new(WorkerState::new(fdb), publication.subscribe(WorkerId(0))?);
        let policy = Policy { core: Some(core), ..Policy::default() };
        let neighbours = Neighbours::default();
        let (seat, origin) = (Seat::new(WorkerId(0))?, Instant::now());
        let handle = Handle::start(seat, switch, pool, neighbours, policy, origin)?;
        let (tell, done) = channel();
        let mut this = Self { publication, handle, done, counters: Vec::new() };
        this.attach(1, Box::new(Sink))?;
        for number in 2..idle + 2 {
            this.attach(number, Box::new(Idle(event()?)))?;
        }
        this.attach(0, Box::new(Generator::new(packets, tell)?))?;
        Ok(this)
    }

    /// Waits until the busy port has sent all its packets.
    pub(super) fn finish(self) -> Result<Work, Error> {
        let work = self.done.recv().map_err(|_| Error::ThreadEnded)?;
        drop(self.handle);
        let dropped = self.counters.iter().map(|port| port.drops.total()).sum();
        if dropped > 0 {
            return Err(Error::Lossy { workload: "one busy port", dropped });
        }
        Ok(work)
    }

    fn attach(&mut self, number: u16, port: Box<dyn Port>) -> Result<(), Error> {
        let counters = Arc::new(PortCounters::default());
        self.counters.push(Arc::clone(&counters));
        Ok(self.handle.attach(PortId(number), Place::Here(port), counters)?)
    }
}

fn event() -> Result<OwnedFd, Error> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| Error::System { call: "eventfd", source: error.into() })
}

/// A port by which nothing ever comes: an eventfd that is never written.
struct Idle(OwnedFd);

impl Port for Idle {
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
        Sink.transmit(pool, packets)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.0.as_fd()]
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {}
}

/// A port by which frames come as fast as they are taken.
struct Generator {
    traffic: Traffic,
    event: OwnedFd,
    packets: u64,
    left: u64,
    begun: Option<(u64, Duration)>,
    tell: Sender<Work>,
}

impl Generator {
    fn new(packets: u64, tell: Sender<Work>) -> Result<Self, Error> {
        let network = Network::Endpoints(2);
        let workload =
            Workload { name: "busy", network, frames: Frames::Udp4, vpp: None, target: None };
        let traffic = Traffic::new(&workload, 0);
        Ok(Self { traffic, event: event()?, packets, left: packets, begun: None, tell })
    }

    fn tell(&self) {
        let Some((clock, cpu)) = self.begun else { return };
        let frequency = tsc_frequency() as f64;
        let clocks = thread_time().saturating_sub(cpu).as_secs_f64() * frequency;
        let passed = tsc().wrapping_sub(clock) as f64;
        // Nobody listens any more when the measurement was given up.
        let _ = self.tell.send(Work { packets: self.packets, clocks, share: clocks / passed });
    }
}

impl Port for Generator {
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        _budget: usize,
        _now: Nanos,
        _counters: &PortCounters,
    ) -> Intake {
        if self.left == 0 {
            return Intake::Empty;
        }
        self.begun.get_or_insert_with(|| (tsc(), thread_time()));
        for _ in 0..BURST.min(self.left) {
            let length = self.traffic.frame_len();
            let Ok(mut packet) = Packet::with_room(pool, PortId(0), length) else { break };
            self.traffic.write(PortId(0), packet.room());
            if packet.set_len(length) {
                self.left -= 1;
            }
            batch.push(packet);
        }
        if self.left == 0 {
            self.tell();
        }
        Intake::More
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        Sink.transmit(pool, packets)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Never ready: it is asked when it is attached, and from then on for as long as it has more.
    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.event.as_fd()]
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {}
}
