//! Small packets through two veths, as many as go: a generator at the far end of one, a sink at
//! the far end of the other, and between them what is measured.
//!
//! The generator sends super-packets of UDP, which the kernel cuts: by AF_XDP it would send no more
//! than who is measured can carry, since each packet has its own way through the kernel then. The
//! sink is heddle's XDP program without a socket, which counts and drops. Who is measured has a core of its own; the generator shares the other one with the
//! machine. What the kernel does for a packet is done where it is sent: the near end's receiving
//! on the generator's core, the sink's on that of who is measured.

use std::net::Ipv4Addr;
use std::panic;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use dataplane::device::netlink;
use dataplane::device::xdp::{MOUNT_POINT, Pins, Program};
use dataplane::ids::PortId;
use dataplane::memory::{Arena, Geometry, Packet, Pool};
use dataplane::offload::Offload;
use dataplane::port::Port;
use dataplane::port::af_packet::{Queue, socket};

use super::cancel::Cancel;
use super::host::{Container, Lab};
use super::network::DEVICE;
use super::{Error, process};
use crate::pipeline::measure;
use crate::pipeline::traffic;

const WARM_UP: Duration = Duration::from_millis(50);
const TIME: Duration = Duration::from_millis(350);

/// How often the sink is looked at, to find gaps.
const LOOK: Duration = Duration::from_micros(100);

/// Packets of a super-packet: as many as a device takes at a time.
const SEGMENTS: usize = 64;

/// Super-packets that are sent at a time.
const BATCH: usize = 4;

const GEOMETRY: Geometry = Geometry { owners: 1, small: 64, runs: 8 };

/// A generator and a sink.
pub(super) struct Line {
    generator: Generator,
    sink: Sink,
    core: usize,
}

/// A thread that is measured, or one of a process that is.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    pub(super) pid: u32,
    pub(super) thread: &'static str,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Packets per second, in millions, that the generator's device took.
    pub(super) offered: f64,
    /// And that the sink got.
    pub(super) received: f64,
    /// The longest time in which the sink got nothing, to within [`LOOK`] and a batch.
    pub(super) longest_gap: Duration,
    /// How much of the time in which it wanted to run the subject did run.
    pub(super) share: f64,
}

impl Line {
    /// Sets up both ends: `from` sends to `to`, each at its [`DEVICE`]. The generator runs on
    /// `core`.
    ///
    /// # Errors
    /// That of the step that failed.
    pub(super) fn open(
        lab: &Lab,
        [from, to]: [&Container; 2],
        [source, destination]: [Ipv4Addr; 2],
        core: usize,
    ) -> Result<Self, Error> {
        let link = |container: &Container| {
            container.wait_until_running(DEVICE, netlink::TIMEOUT, lab.cancel())
        };
        let (near, far) = (link(from)?, link(to)?);
        let frame = traffic::datagrams((near.mac, source), (far.mac, destination), SEGMENTS);
        let generator = from.netns().run(|| Generator::open(near.index, frame))??;
        let sink = to.netns().run(|| Sink::open(to.netns_name(), far.index))??;
        // The program has the device start anew.
        link(to)?;
        Ok(Self { generator, sink, core })
    }

    /// Sends for some tenths of a second.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or that of the step that failed.
    pub(super) fn run(&mut self, subject: Subject, cancel: &Cancel) -> Result<Run, Error> {
        cancel.check()?;
        thread::scope(|scope| join(scope.spawn(|| self.measure(subject))))
    }

    fn measure(&mut self, subject: Subject) -> Result<Run, Error> {
        measure::pin(self.core)?;
        self.send(WARM_UP)?;
        let turns = || process::turns(subject.pid, subject.thread).unwrap_or_default();
        let (before, received) = (turns(), self.sink.count()?);
        let Sent { packets, seconds, longest_gap } = self.send(TIME)?;
        let (received, share) = (self.sink.count()? - received, (turns() - before).share());
        let millions = |packets: u64| packets as f64 / seconds / 1e6;
        let (offered, received) = (millions(packets), millions(received));
        Ok(Run { offered, received, longest_gap, share })
    }

    fn send(&mut self, time: Duration) -> Result<Sent, Error> {
        let started = Instant::now();
        let (mut packets, mut longest_gap) = (0, Duration::ZERO);
        let (mut looked, mut last, mut count) = (started, started, self.sink.count()?);
        while started.elapsed() < time {
            packets += self.generator.send_batch();
            if looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            let now = self.sink.count()?;
            if now > count {
                longest_gap = longest_gap.max(looked - last);
                (count, last) = (now, looked);
            }
        }
        longest_gap = longest_gap.max(last.elapsed());
        Ok(Sent { packets, seconds: started.elapsed().as_secs_f64(), longest_gap })
    }

    /// Lets the devices go.
    ///
    /// # Errors
    /// [`Error::Program`] if the sink's program can't be taken off.
    pub(super) fn close(self, to: &Container) -> Result<(), Error> {
        let Self { mut generator, sink, .. } = self;
        generator.port.close(&mut generator.pool);
        let Sink { program, pins } = sink;
        to.netns().run(|| program.detach())??;
        Ok(pins.close()?)
    }
}

struct Sent {
    packets: u64,
    seconds: f64,
    longest_gap: Duration,
}

struct Generator {
    port: Box<Queue>,
    pool: Pool,
    frame: (Vec<u8>, Offload),
    batch: Vec<Packet>,
}

impl Generator {
    /// On a device in the calling thread's namespace.
    fn open(device: u32, frame: (Vec<u8>, Offload)) -> Result<Self, Error> {
        let pool = Arena::create(GEOMETRY)?.remove(0);
        let socket = socket::open(device, &socket::Options::default())?.remove(0);
        let port = Box::new(Queue::new(PortId(0), socket));
        Ok(Self { port, pool, frame, batch: Vec::with_capacity(BATCH) })
    }

    /// Answers how many packets the device took.
    fn send_batch(&mut self) -> u64 {
        let Self { port, pool, frame, batch } = self;
        let (bytes, offload) = frame;
        let mut next = || Packet::holding(pool, PortId(0), bytes).ok();
        batch.extend((0..BATCH).map_while(|_| next()));
        batch.iter_mut().for_each(|packet| packet.offload = *offload);
        let sent = batch.len() as u64;
        let refused = port.transmit(pool, batch);
        (sent - refused.full - refused.failed) * SEGMENTS as u64
    }
}

struct Sink {
    program: Program,
    pins: Pins,
}

impl Sink {
    /// On a device in the calling thread's namespace.
    fn open(owner: &str, device: u32) -> Result<Self, Error> {
        let pins = Pins::open(MOUNT_POINT, owner)?;
        let mut program = Program::load(&pins, device)?;
        program.attach(None)?;
        Ok(Self { program, pins })
    }

    fn count(&self) -> Result<u64, Error> {
        Ok(self.program.counters()?.unserved)
    }
}

/// What a thread answered. Its panic goes on here.
pub(super) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
}
