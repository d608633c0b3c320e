//! A bare AF_XDP forwarder: what comes in by one device leaves by the other, untouched, without a
//! pipeline. It is the floor that a switch is compared with.
//!
//! ```text
//! forwarder DEVICE DEVICE SECONDS
//! ```
//!
//! It takes all frames of queue 0 of both devices, which are in the calling process's namespace,
//! and says at the end what it forwarded and what was lost.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::PortCounters;
use dataplane::device::netlink::Netlink;
use dataplane::device::xdp::{MOUNT_POINT, Pins, Program};
use dataplane::engine::BATCH;
use dataplane::ids::PortId;
use dataplane::memory::{Arena, Geometry, Ledger, Packet, Pool};
use dataplane::port::Port;
use dataplane::port::af_xdp::{AfXdp, Meter, Peer, Queue, Settings, Umem};
use dataplane::time::Nanos;

/// Frames in the fill ring of each port.
const FRAMES: u32 = 2048;

const GEOMETRY: Geometry = Geometry { owners: 1, small: 3 * FRAMES as usize, runs: 64 };

/// One device.
struct Side {
    port: Box<AfXdp>,
    counters: PortCounters,
    meter: Arc<Meter>,
    program: Program,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, seconds] = &arguments[..] else {
        return Err("usage: forwarder DEVICE DEVICE SECONDS".into());
    };
    let duration = Duration::from_secs(seconds.parse()?);
    let mut pool = Arena::create(GEOMETRY)?.remove(0);
    let umem = Umem::register(Arc::new(Ledger::new(Arc::clone(pool.arena()))))?;
    let pins = Pins::open(MOUNT_POINT, "forwarder")?;
    let mut left = Side::open(&umem, &pins, first, PortId(0))?;
    let mut right = Side::open(&umem, &pins, second, PortId(1))?;
    let (mut batch, started) = (Vec::with_capacity(BATCH), Instant::now());
    while started.elapsed() < duration {
        carry(&mut left, &mut right, &mut pool, &mut batch);
        carry(&mut right, &mut left, &mut pool, &mut batch);
    }
    let elapsed = started.elapsed();
    left.close(&mut pool, elapsed)?;
    right.close(&mut pool, elapsed)
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
    fn open(umem: &Umem, pins: &Pins, name: &str, port: PortId) -> Result<Self, Box<dyn Error>> {
        let link = Netlink::open()?.link(name)?.ok_or_else(|| format!("no device `{name}`"))?;
        let mut program = Program::load(pins, link.index)?;
        let attached = program.attach(None)?;
        let peer = if link.kind.as_deref() == Some("veth") { Peer::Veth } else { Peer::Wire };
        let queue = Queue { device: link.index, number: 0 };
        let port = AfXdp::open(umem, Settings { port, queue, frames: FRAMES, peer })?;
        program.insert_socket(0, port.socket())?;
        eprintln!("{name}: {:?}, {}", attached.mode, port.mode());
        let meter = Arc::clone(port.meter());
        Ok(Self { port: Box::new(port), counters: PortCounters::default(), meter, program })
    }

    fn close(self, pool: &mut Pool, elapsed: Duration) -> Result<(), Box<dyn Error>> {
        let Self { port, counters, meter, program } = self;
        port.close(pool);
        program.detach()?;
        let (sent, kernel) = (counters.tx_packets.read(), meter.read());
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = sent as f64 / elapsed.as_secs_f64() / 1e6;
        println!("sent {sent}, {rate:.3} million per second; lost in the kernel {}", kernel.lost());
        Ok(())
    }
}
