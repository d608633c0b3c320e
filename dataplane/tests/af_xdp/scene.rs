//! Two containers, each behind a veth whose host end is in a namespace of the switch, and a worker
//! that carries everything from one to the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dataplane::counters::PortCounters;
use dataplane::device::netlink::Netlink;
use dataplane::device::netns::Netns;
use dataplane::device::xdp::{Pins, Program};
use dataplane::engine::{Neighbours, Place};
use dataplane::ids::{PortId, SegmentId, WorkerId};
use dataplane::memory::{Arena, Geometry, Ledger, Packet, Pool};
use dataplane::pipeline::{Egress, Pipeline, Step, Trace, Verdict};
use dataplane::port::Intake;
use dataplane::port::af_xdp::{AfXdp, Error, Meter, Mode, Peer, Queue, Settings, Umem};
use dataplane::time::Nanos;
use dataplane::worker::{Handle, Policy, Seat, Worker};
use rustix::io::Errno;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Frames in the fill ring of each port.
pub(crate) const FRAMES: u32 = 257;

const GEOMETRY: Geometry = Geometry { owners: 1, small: 4099, runs: 67 };

/// All frames of the arena: small ones and runs.
pub(crate) const ALL: (usize, usize) = (GEOMETRY.small, GEOMETRY.runs);

/// Sends what comes in by one port out by the other.
pub(crate) struct Across;

impl Pipeline for Across {
    fn begin(&mut self, _now: Nanos) {}

    fn tracing(&self) -> bool {
        false
    }

    fn decide<T: Trace>(&mut self, part: &mut [Packet], verdicts: &mut Vec<Verdict>) {
        let across = |packet: &mut Packet| {
            let port = PortId(1 - packet.in_port.0);
            Verdict::Forward(Egress { port, segment: SegmentId(1) })
        };
        verdicts.extend(part.iter_mut().map(across));
    }

    fn emit<T: Trace>(&mut self, _egress: Egress, _packet: &mut Packet) -> Step {
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

/// A namespace that goes with its value.
pub(crate) struct Namespace(pub(crate) Netns);

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hdltest-afxdp-{}-{number}", std::process::id());
        Self(Netns::create(&name).unwrap())
    }

    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.run(work).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Netns::remove(self.0.path());
    }
}

/// One side of the switch.
pub(crate) struct Side {
    pub(crate) container: Namespace,
    /// The index of the veth's end in the switch's namespace.
    pub(crate) device: u32,
    pub(crate) counters: Arc<PortCounters>,
    pub(crate) meter: Option<Arc<Meter>>,
    program: Option<Program>,
}

pub(crate) struct Scene {
    pub(crate) sides: Vec<Side>,
    // After the programs, which are attached there; before the namespace that it is bound in.
    worker: Option<Handle<Across>>,
    pub(crate) umem: Umem,
    pub(crate) switch: Namespace,
    bpffs: PathBuf,
}

impl Scene {
    /// Both veths, up, with this MTU, and programs on them, but no ports yet.
    pub(crate) fn new(mtu: u32) -> Self {
        let switch = Namespace::new();
        let bpffs = std::env::temp_dir().join(switch.0.path().file_name().unwrap());
        let pins = Pins::open(&bpffs, "af_xdp").unwrap();
        let sides: Vec<Side> = (1..=2).map(|n| Side::new(&switch, &pins, n, mtu)).collect();
        let pool = Arena::create(GEOMETRY).unwrap().pop().unwrap();
        let ledger = Arc::new(Ledger::new(Arc::clone(pool.arena())));
        let umem = switch.run(|| Umem::register(ledger)).unwrap();
        Self { sides, worker: Some(start(pool)), umem, switch, bpffs }
    }

    pub(crate) fn worker(&self) -> &Handle<Across> {
        self.worker.as_ref().unwrap()
    }

    /// Gives the worker a port on each side.
    pub(crate) fn open(&mut self) {
        self.open_with(|umem, _, settings| AfXdp::open(umem, settings));
    }

    pub(crate) fn open_with(
        &mut self,
        open: impl Fn(&Umem, &Arc<Ledger>, Settings) -> Result<AfXdp, Error> + Sync,
    ) {
        for number in 0..self.sides.len() {
            let settings = self.settings(number);
            let (umem, switch) = (&self.umem, &self.switch);
            let opened = || switch.run(|| open(umem, umem.ledger(), settings));
            // A queue is free again some time after its last socket was closed.
            let queue = until(|| match opened() {
                Err(error) if error.source == Errno::BUSY => None,
                opened => Some(opened.unwrap()),
            });
            assert_eq!(queue.mode(), Mode::Copy);
            self.place(number, queue);
        }
    }

    pub(crate) fn settings(&self, number: usize) -> Settings {
        let port = PortId(u16::try_from(number).unwrap());
        let queue = Queue { device: self.sides[number].device, number: 0 };
        Settings { port, queue, frames: FRAMES, peer: Peer::Veth }
    }

    fn place(&mut self, number: usize, queue: AfXdp) {
        let port = self.settings(number).port;
        let side = &mut self.sides[number];
        side.meter = Some(Arc::clone(queue.meter()));
        side.program.as_mut().unwrap().insert_socket(0, queue.socket()).unwrap();
        let (place, counters) = (Place::Here(Box::new(queue)), Arc::clone(&side.counters));
        self.worker().attach(port, place, counters).unwrap();
    }

    /// What a port answers when it is asked for frames; those are lost.
    pub(crate) fn ask(&self, number: usize) -> Intake {
        let port = self.settings(number).port;
        let ask = move |worker: &mut Worker<Across>| {
            let mut batch = Vec::new();
            let intake = worker.engine().receive(port, &mut batch, 256, Nanos::default());
            let frames = batch.into_iter().map(Packet::into_frame);
            frames.for_each(|frame| worker.engine().pool().give(frame));
            intake
        };
        self.worker().ask(ask).unwrap()
    }

    pub(crate) fn close(&self) {
        for port in [PortId(0), PortId(1)] {
            self.worker().detach(port).unwrap();
        }
    }

    /// The worker's free frames.
    pub(crate) fn free(&self) -> (usize, usize) {
        self.worker().ask(|worker| worker.engine().pool().free()).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.worker = None;
        for side in &mut self.sides {
            let program = side.program.take();
            let detach = || program.map(Program::detach);
            if let Some(Err(error)) = self.switch.run(detach) {
                eprintln!("{error}");
            }
        }
        let _ = rustix::mount::unmount(&self.bpffs, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.bpffs);
    }
}

impl Side {
    /// Frames that the program has given to sockets.
    pub(crate) fn taken(&self) -> u64 {
        self.program.as_ref().unwrap().counters().unwrap().taken
    }

    fn new(switch: &Namespace, pins: &Pins, number: u8, mtu: u32) -> Self {
        let container = Namespace::new();
        let name = format!("side{number}");
        let device = switch.run(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_veth(&name, "eth0", 1, Some(&container.0)).unwrap();
            let device = netlink.link(&name).unwrap().unwrap().index;
            netlink.set_up(device).unwrap();
            device
        });
        let program = switch.run(|| {
            let mut program = Program::load(pins, device).unwrap();
            program.attach(None).unwrap();
            Netlink::open().unwrap().set_mtu(device, mtu).unwrap();
            program
        });
        container.run(|| {
            let mut netlink = Netlink::open().unwrap();
            let eth0 = netlink.link("eth0").unwrap().unwrap().index;
            netlink.set_mtu(eth0, mtu).unwrap();
            netlink.set_up(eth0).unwrap();
            netlink.add_address(eth0, (v4(number), 24)).unwrap();
            netlink.add_address(eth0, (v6(number), 64)).unwrap();
        });
        switch.run(|| {
            let mut netlink = Netlink::open().unwrap();
            until(|| netlink.link_at(device).unwrap().filter(|link| link.running));
        });
        let counters = Arc::default();
        Self { container, device, counters, meter: None, program: Some(program) }
    }
}

fn start(pool: Pool) -> Handle<Across> {
    let seat = Seat::new(WorkerId(0)).unwrap();
    let (neighbours, policy) = (Neighbours::default(), Policy::default());
    Handle::start(seat, Across, pool, neighbours, policy, Instant::now()).unwrap()
}

pub(crate) fn v4(side: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 67, 0, side))
}

pub(crate) fn v6(side: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0x67, 0, 0, 0, side.into()))
}

/// Waits until there is an answer.
pub(crate) fn until<R>(mut ask: impl FnMut() -> Option<R>) -> R {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "nothing happened for {PATIENCE:?}");
        std::thread::yield_now();
    }
}
