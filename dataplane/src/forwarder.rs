//! A bare AF_XDP forwarder: what comes in by one device leaves by the other, untouched, without a
//! pipeline. It is the floor that a switch is compared with.

use std::sync::Arc;

use thiserror::Error;

use crate::counters::PortCounters;
use crate::device::netlink::{self, Netlink};
use crate::device::xdp::{self, Pins, Program};
use crate::engine::BATCH;
use crate::ids::PortId;
use crate::memory::{Arena, ArenaError, Geometry, Ledger, Packet, Pool};
use crate::port::Port;
use crate::port::af_xdp::{self, AfXdp, Meter, Mode, Peer, Queue, Settings, Umem};
use crate::time::Nanos;

/// Frames in the fill ring of each port: as many as a queue of a switch with few ports has.
const FRAMES: u32 = 1024;

/// Beside those, each port's transmit ring and a batch.
const GEOMETRY: Geometry = Geometry { owners: 1, small: 6 * FRAMES as usize, runs: 64 };

/// Why there is no forwarder.
#[derive(Debug, Error)]
pub enum ForwarderError {
    /// No device is called like this.
    #[error("no device `{0}`")]
    NoDevice(String),
    /// The kernel does not say which devices there are.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// No packet memory.
    #[error(transparent)]
    Memory(#[from] ArenaError),
    /// No XDP program.
    #[error(transparent)]
    Program(#[from] xdp::Error),
    /// No AF_XDP socket.
    #[error(transparent)]
    Socket(#[from] af_xdp::Error),
}

/// What one side did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Frames that the device took.
    pub sent: u64,
    /// Frames that arrived and were lost in the kernel.
    pub lost: u64,
}

/// A forwarder between two devices.
#[derive(Debug)]
pub struct Forwarder {
    left: Side,
    right: Side,
    pool: Pool,
    batch: Vec<Packet>,
}

/// One device.
#[derive(Debug)]
struct Side {
    port: Box<AfXdp>,
    counters: PortCounters,
    meter: Arc<Meter>,
    program: Program,
    runs: xdp::Mode,
}

impl Forwarder {
    /// Takes all frames of queue 0 of two devices in the calling thread's namespace. Programs stay
    /// attached until [`Forwarder::close`].
    ///
    /// # Errors
    ///
    /// [`ForwarderError`].
    pub fn open(pins: &Pins, devices: [&str; 2]) -> Result<Self, ForwarderError> {
        let pool = Arena::create(GEOMETRY)?.remove(0);
        let umem = Umem::register(Arc::new(Ledger::new(Arc::clone(pool.arena()))))?;
        let [left, right] = devices;
        let left = Side::open(&umem, pins, left, PortId(0))?;
        let right = Side::open(&umem, pins, right, PortId(1))?;
        Ok(Self { left, right, pool, batch: Vec::with_capacity(BATCH) })
    }

    /// Takes one batch from each device to the other.
    pub fn turn(&mut self) {
        let Self { left, right, pool, batch } = self;
        carry(left, right, pool, batch);
        carry(right, left, pool, batch);
    }

    /// How each device is driven: where the program runs, and who moves the bytes.
    pub fn modes(&self) -> [(xdp::Mode, Mode); 2] {
        [&self.left, &self.right].map(|side| (side.runs, side.port.mode()))
    }

    /// What each side did so far.
    pub fn tallies(&self) -> [Tally; 2] {
        [&self.left, &self.right].map(|side| Tally {
            sent: side.counters.tx_packets.read(),
            lost: side.meter.read().lost(),
        })
    }

    /// Lets the devices go. To be called in their namespace.
    ///
    /// # Errors
    ///
    /// [`ForwarderError::Program`] if a program can't be taken off.
    pub fn close(self) -> Result<(), ForwarderError> {
        let Self { left, right, mut pool, .. } = self;
        for side in [left, right] {
            side.port.close(&mut pool);
            side.program.detach()?;
        }
        Ok(())
    }
}

/// One batch from one device to the other.
fn carry(from: &mut Side, to: &mut Side, pool: &mut Pool, batch: &mut Vec<Packet>) {
    from.port.receive(pool, batch, BATCH, Nanos::default(), &from.counters);
    if batch.is_empty() {
        return;
    }
    let packets = batch.len() as u64;
    let refused = to.port.transmit(pool, batch);
    to.counters.tx_packets.add(packets - refused.full - refused.failed);
}

impl Side {
    fn open(umem: &Umem, pins: &Pins, name: &str, port: PortId) -> Result<Self, ForwarderError> {
        let link = Netlink::open()?.link(name)?;
        let link = link.ok_or_else(|| ForwarderError::NoDevice(name.to_owned()))?;
        let mut program = Program::load(pins, link.index)?;
        let runs = program.attach(None)?.mode;
        let peer = if link.kind.as_deref() == Some("veth") { Peer::Veth } else { Peer::Wire };
        let queue = Queue { device: link.index, number: 0 };
        let port = AfXdp::open(umem, Settings { port, queue, frames: FRAMES, peer })?;
        program.insert_socket(0, port.socket())?;
        let meter = Arc::clone(port.meter());
        Ok(Self { port: Box::new(port), counters: PortCounters::default(), meter, program, runs })
    }
}
