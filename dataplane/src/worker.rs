//! The worker loop: a pinned thread that owns one queue of every port and runs each frame to
//! completion.
//!
//! Ports that had frames are on the hot list and are asked again; of the rest, edge-triggered readiness
//! tells, so a thousand idle ports cost nothing. When nothing is hot the worker polls for a
//! moment, then declares itself offline, so that no grace period waits for it, and sleeps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::counters::{Counter, PortCounters};
use crate::engine::{BATCH, Engine, Neighbours, Place};
use crate::ids::{PortId, WorkerId};
use crate::memory::{Packet, Pool};
use crate::pipeline::Pipeline;
use crate::port::{Intake, Port};
use crate::sleep::{Bell, Doorbell};
use crate::time::Nanos;

/// How a worker is to run.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The core to pin to; `None` leaves the choice to the scheduler.
    pub core: Option<usize>,
    /// How long to poll before sleeping, once nothing is hot.
    pub linger: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { core: None, linger: Duration::from_micros(20) }
    }
}

/// How the worker's time went.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct WorkerCounters {
    /// Batches taken through the pipeline.
    pub batches: Counter,
    /// Packets in them.
    pub packets: Counter,
    /// Times that it went to sleep.
    pub sleeps: Counter,
    /// Nanoseconds asleep.
    pub asleep_ns: Counter,
}

/// What is done between two batches.
type Command<P> = Box<dyn FnOnce(&mut Worker<P>) + Send>;

/// A worker's place before it runs: who has work for it can be given its bell already.
#[derive(Debug)]
pub struct Seat {
    poll: Poll,
    bell: Arc<Bell>,
}

impl Seat {
    /// A seat for one worker.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Start`] when the system has no descriptor left.
    pub fn new(worker: WorkerId) -> Result<Self, WorkerError> {
        let failed = |error| WorkerError::Start(worker, error);
        let poll = Poll::new().map_err(failed)?;
        let waker = Waker::new(poll.registry(), BELL).map_err(failed)?;
        Ok(Self { poll, bell: Arc::new(Doorbell::new(waker)) })
    }

    /// Wakes the worker that will sit here.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

/// A running worker, as control sees it. Dropping it stops the worker and waits for its end.
pub struct Handle<P> {
    worker: WorkerId,
    bell: Arc<Bell>,
    commands: Sender<Command<P>>,
    counters: Arc<WorkerCounters>,
    thread: Option<JoinHandle<()>>,
}

/// Why a worker can't do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The thread or its readiness could not be made.
    #[error("worker {0} can't start: {1}")]
    Start(WorkerId, io::Error),
    /// The device can't be watched.
    #[error("worker {0} can't watch port {1}: {2}")]
    Watch(WorkerId, PortId, io::Error),
    /// The worker's thread has ended.
    #[error("worker {0} has ended")]
    Ended(WorkerId),
}

/// The worker itself; it lives on its thread.
pub struct Worker<P> {
    worker: WorkerId,
    engine: Engine<P>,
    policy: Policy,
    poll: Poll,
    bell: Arc<Bell>,
    commands: Receiver<Command<P>>,
    counters: Arc<WorkerCounters>,
    /// Ports that had frames when they were last asked.
    hot: Vec<PortId>,
    /// Ports without readiness, asked in every turn; what puts frames there rings the bell.
    unwatched: Vec<PortId>,
    batch: Vec<Packet>,
    origin: Instant,
    running: bool,
}

impl<P: Pipeline + Send + 'static> Handle<P> {
    /// Starts a worker without ports. `origin` is the zero of its time.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Start`] when the system has no thread or descriptor left.
    pub fn start(
        seat: Seat,
        pipeline: P,
        pool: Pool,
        neighbours: Neighbours,
        policy: Policy,
        origin: Instant,
    ) -> Result<Self, WorkerError> {
        let worker = pool.owner();
        let failed = |error| WorkerError::Start(worker, error);
        let Seat { poll, bell } = seat;
        let counters = Arc::new(WorkerCounters::default());
        let (commands, receiver) = channel();
        let this = Worker {
            worker,
            engine: Engine::new(pipeline, pool, neighbours),
            policy,
            poll,
            bell: Arc::clone(&bell),
            commands: receiver,
            counters: Arc::clone(&counters),
            hot: Vec::new(),
            unwatched: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            origin,
            running: true,
        };
        let thread = std::thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || this.run())
            .map_err(failed)?;
        Ok(Self { worker, bell, commands, counters, thread: Some(thread) })
    }

    /// Which worker this is.
    pub fn id(&self) -> WorkerId {
        self.worker
    }

    /// Wakes it after something was put into one of its rings.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// How its time goes.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// Has `command` done by the worker between two batches, and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Ended`] when the worker's thread is gone.
    pub fn ask<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Worker<P>) -> R + Send + 'static,
    ) -> Result<R, WorkerError> {
        let ended = || WorkerError::Ended(self.worker);
        let (answer, answered) = channel();
        let command: Command<P> = Box::new(move |worker| {
            let _ = answer.send(command(worker));
        });
        self.commands.send(command).map_err(|_| ended())?;
        self.bell.ring().map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())
    }

    /// Puts a port in its place on this worker.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Watch`] when its device has no readiness to give.
    pub fn attach(
        &self,
        port: PortId,
        place: Place,
        counters: Arc<PortCounters>,
    ) -> Result<(), WorkerError> {
        self.ask(move |worker| worker.attach(port, place, counters))?
    }

    /// Takes a port out, and closes this worker's queue of it.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Ended`] when the worker's thread is gone.
    pub fn detach(&self, port: PortId) -> Result<(), WorkerError> {
        self.ask(move |worker| worker.detach(port))
    }
}

impl<P> Drop for Handle<P> {
    fn drop(&mut self) {
        let _ = self.commands.send(Box::new(|worker| worker.running = false));
        let _ = self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<P: Pipeline> Worker<P> {
    /// The engine, for what is done between batches.
    pub fn engine(&mut self) -> &mut Engine<P> {
        &mut self.engine
    }

    fn run(mut self) {
        if let Some(core) = self.policy.core {
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
        }
        let mut events = Events::with_capacity(BATCH);
        let mut quiet_since = None;
        while self.running {
            let now = self.now();
            if self.turn(now) {
                quiet_since = None;
            } else {
                let since = *quiet_since.get_or_insert(now);
                if now.since(since) >= Nanos::from(self.policy.linger) {
                    self.sleep(&mut events);
                    quiet_since = None;
                    continue;
                }
            }
            // In every turn, or the answers on other ports would wait for a busy one.
            let looked = self.poll.poll(&mut events, Some(Duration::ZERO));
            self.warm(&events, looked.is_ok());
        }
    }

    /// Asks every hot port, and does errands and commands. Answers whether there was any work.
    fn turn(&mut self, now: Nanos) -> bool {
        let mut busy = !self.hot.is_empty();
        let mut index = 0;
        while let Some(&port) = self.hot.get(index) {
            if self.serve(port, now) {
                index += 1;
            } else {
                self.hot.swap_remove(index);
            }
        }
        for index in 0..self.unwatched.len() {
            busy |= self.serve(self.unwatched[index], now);
        }
        busy |= self.engine.run_errands(&mut self.batch, now);
        self.engine.flush();
        self.engine.pool().collect();
        busy | self.run_commands()
    }

    /// Takes one batch of a port through the pipeline. Answers whether there may be more.
    fn serve(&mut self, port: PortId, now: Nanos) -> bool {
        let intake = self.engine.receive(port, &mut self.batch, BATCH, now);
        if !self.batch.is_empty() {
            self.counters.batches.add(1);
            self.counters.packets.add(self.batch.len() as u64);
            self.engine.process(port, &mut self.batch, now);
            self.engine.flush();
        }
        intake == Intake::More
    }

    /// Sleeps until a port is readable or the bell rings, unless there is work after all.
    fn sleep(&mut self, events: &mut Events) {
        let started = self.now();
        let bell = Arc::clone(&self.bell);
        let asleep = bell.prepare();
        // What came before the declaration is found here; what comes after it rings.
        if !self.turn(started) {
            self.counters.sleeps.add(1);
            let Self { engine, poll, .. } = self;
            // An interrupted wait is an empty one; the loop comes back here.
            let woken = engine.pipeline().offline(|| poll.poll(events, None));
            self.warm(events, woken.is_ok());
            self.counters.asleep_ns.add(self.now().since(started).0);
        }
        drop(asleep);
    }

    /// Does what control asked for. Answers whether there was anything.
    fn run_commands(&mut self) -> bool {
        let mut busy = false;
        while let Ok(command) = self.commands.try_recv() {
            command(self);
            busy = true;
        }
        busy
    }

    /// Puts ports that have become readable on the hot list.
    fn warm(&mut self, events: &Events, valid: bool) {
        for event in events.iter().filter(|_| valid) {
            if let Ok(port) = u16::try_from(event.token().0) {
                warm(&mut self.hot, PortId(port));
            }
        }
    }

    fn attach(
        &mut self,
        port: PortId,
        place: Place,
        counters: Arc<PortCounters>,
    ) -> Result<(), WorkerError> {
        let mine = matches!(place, Place::Here(_));
        self.engine.attach(port, place, counters);
        if !mine {
            return Ok(());
        }
        let devices = self.engine.queue(port).map(Port::readiness).unwrap_or_default();
        for device in &devices {
            let watched = watch(&self.poll, *device, port);
            watched.map_err(|error| WorkerError::Watch(self.worker, port, error))?;
        }
        if devices.is_empty() {
            self.unwatched.push(port);
        } else {
            warm(&mut self.hot, port);
        }
        Ok(())
    }

    fn detach(&mut self, port: PortId) {
        // What was handed over in its name must not meet a later owner of the number.
        let now = self.now();
        self.engine.run_errands(&mut self.batch, now);
        for device in self.engine.queue(port).map(Port::readiness).unwrap_or_default() {
            // Explicitly, since another descriptor of the same queue would keep it registered.
            let _ = self.poll.registry().deregister(&mut SourceFd(&device.as_raw_fd()));
        }
        self.hot.retain(|&other| other != port);
        self.unwatched.retain(|&other| other != port);
        self.engine.detach(port);
    }

    fn now(&self) -> Nanos {
        Nanos::from(self.origin.elapsed())
    }
}

fn watch(poll: &Poll, device: BorrowedFd<'_>, port: PortId) -> io::Result<()> {
    let token = Token(port.index());
    poll.registry().register(&mut SourceFd(&device.as_raw_fd()), token, Interest::READABLE)
}

fn warm(hot: &mut Vec<PortId>, port: PortId) {
    if !hot.contains(&port) {
        hot.push(port);
    }
}

/// The token of the doorbell, beyond all ports.
const BELL: Token = Token(usize::MAX);
