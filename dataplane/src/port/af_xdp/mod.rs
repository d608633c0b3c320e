//! AF_XDP: frames of one queue of a device, as its XDP program redirects them.
//!
//! The arena is registered with the kernel, so frames are received into its slots and sent from
//! them. Most devices copy between their own buffers and ours; a few drivers (zero-copy) do not.
//!
//! A socket has four rings. Free frames go to the kernel by the *fill* ring and come back with a
//! frame in them by the *receive* ring; frames to be sent go by the *transmit* ring and come back by
//! the *completion* ring. What the kernel has is on a [ledger](Ledger)'s account of this socket.
//!
//! A veth leaves checksums open and does not say so: see [`Peer`].

mod metadata;
mod meter;
mod receive;
mod ring;
mod socket;
mod transmit;
mod umem;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::xdp::SocketAddrXdpFlags;
use thiserror::Error;

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::drops;
use crate::ids::PortId;
use crate::memory::{Borrower, Ledger, Packet, Pool, Purpose};
use crate::offload::Capabilities;
use crate::time::Nanos;

pub use meter::{Meter, Statistics};
use receive::Chain;
use socket::{Memory, Sizes, Socket};
use umem::Layout;
pub use umem::Umem;

/// Slots of the transmit and the completion ring: two batches, or one of jumbo frames.
const TRANSMIT: u32 = 1024;

/// Frames between two questions for the kernel's own drops, at least: see the packet socket's.
const AUDIT: usize = 64;

/// The largest fill ring that makes sense, in slots.
const MOST_FRAMES: u32 = 1 << 15;

/// How long a closing port waits for the device to finish what it sends. Other ports of the worker
/// wait as well.
const PATIENCE: Duration = Duration::from_millis(2);

/// One queue of a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Queue {
    /// The device's index in its namespace.
    pub device: u32,
    /// The queue, counted from zero.
    pub number: u32,
}

/// Why there is no socket.
#[derive(Debug, Error)]
#[error("AF_XDP on queue {} of device {}: {step}: {source}", queue.number, queue.device)]
pub struct Error {
    /// The queue.
    pub queue: Queue,
    /// What was tried.
    pub step: &'static str,
    /// The kernel's answer: `EBUSY` when another socket has the queue.
    pub source: Errno,
}

impl Error {
    /// Whether another socket has the queue.
    pub fn is_busy(&self) -> bool {
        self.source == Errno::BUSY
    }
}

/// Who sends at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A kernel at the other end of a veth, which may leave the checksums of TCP and UDP open
    /// ([`partial`](crate::wire::partial)), and which copies what it is sent at once.
    Veth,
    /// A wire: checksums are complete, and the device may read a frame after it was sent.
    Wire,
}

/// How a port is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The port's number.
    pub port: PortId,
    /// The queue.
    pub queue: Queue,
    /// Frames that wait for arrivals, at most 32,768: what the port holds while it is idle, and
    /// the longest burst that it survives while its worker looks elsewhere.
    pub frames: u32,
    /// Who sends.
    pub peer: Peer,
}

/// Who moves the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The kernel copies between the device's memory and ours.
    Copy,
    /// The device uses our memory.
    ZeroCopy,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        })
    }
}

/// One queue of a device, by AF_XDP.
///
/// It receives once its socket is in the map of the device's XDP program, and a worker has called
/// [`Port::receive`] for the first time, which supplies the kernel with frames.
#[derive(Debug)]
pub struct AfXdp {
    port: PortId,
    socket: Socket,
    layout: Layout,
    ledger: Arc<Ledger>,
    borrower: Borrower,
    peer: Peer,
    /// Frames that the kernel is to have for arrivals.
    depth: u32,
    /// Those that it has.
    filled: u32,
    /// Packets that were handed over and have not come back.
    unfinished: u32,
    /// A frame of which more is to come.
    chain: Option<Chain>,
    /// Frames received since the kernel was last asked how many it has lost.
    unaudited: usize,
    /// Those that are counted.
    lost: u64,
    meter: Arc<Meter>,
}

impl AfXdp {
    /// A port in copy mode, which every device can do, over memory that all such ports share. To
    /// be called in the device's namespace, with the device's XDP program attached.
    ///
    /// # Errors
    ///
    /// [`struct@Error`] of the step that the kernel refuses.
    pub fn open(umem: &Umem, settings: Settings) -> Result<Self, Error> {
        let memory = Memory::Shared(umem.anchor());
        let socket = Socket::bind(settings.queue, Sizes::of(settings), memory)?;
        Ok(Self::over(socket, umem.layout(), Arc::clone(umem.ledger()), settings))
    }

    /// Ports on queues of a device that may do without copies, which registers the memory for
    /// itself: zero-copy where its driver can, else copy mode. To be called as [`AfXdp::open`].
    ///
    /// # Errors
    ///
    /// [`struct@Error`] of the step that the kernel refuses; nothing stays open.
    pub fn open_native(ledger: &Arc<Ledger>, queues: &[Settings]) -> Result<Vec<Self>, Error> {
        let mut ports: Vec<Self> = Vec::with_capacity(queues.len());
        for &settings in queues {
            let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | SocketAddrXdpFlags::XDP_USE_SG;
            let memory = match ports.first() {
                Some(first) => Memory::Shared(first.socket.fd.as_fd()),
                None => Memory::Own(Layout::NATIVE.registration(ledger), flags),
            };
            let socket = Socket::bind(settings.queue, Sizes::of(settings), memory)?;
            ports.push(Self::over(socket, Layout::NATIVE, Arc::clone(ledger), settings));
        }
        Ok(ports)
    }

    fn over(socket: Socket, layout: Layout, ledger: Arc<Ledger>, settings: Settings) -> Self {
        let meter = Arc::new(Meter::new(Arc::clone(&socket.fd)));
        Self {
            port: settings.port,
            socket,
            layout,
            borrower: ledger.borrower(),
            ledger,
            peer: settings.peer,
            depth: settings.frames.clamp(1, MOST_FRAMES),
            filled: 0,
            unfinished: 0,
            chain: None,
            unaudited: 0,
            lost: 0,
            meter,
        }
    }

    /// The socket, for the map of the device's XDP program.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.fd.as_fd()
    }

    /// Who moves the bytes.
    pub fn mode(&self) -> Mode {
        if self.socket.zero_copy { Mode::ZeroCopy } else { Mode::Copy }
    }

    /// What the kernel counts, for control.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Counts the frames that the kernel has lost since it was last asked.
    fn audit(&mut self, counters: &PortCounters) {
        let lost = meter::ask(self.socket()).lost();
        let new = lost.saturating_sub(self.lost);
        counters.rx_packets.add(new);
        counters.drops.of(drops::QUEUE_FULL).add(new);
        (self.lost, self.unaudited) = (self.lost.max(lost), 0);
    }

    /// Has the kernel send what it still can, and takes back what it is done with.
    fn drain(&mut self, pool: &mut Pool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.kick(pool, &mut 1);
            self.reap(pool);
            if self.unfinished == 0 || Instant::now() > deadline {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Port for AfXdp {
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        _now: Nanos,
        counters: &PortCounters,
    ) -> Intake {
        self.reap(pool);
        let before = batch.len();
        let any = self.take(pool, batch, budget, counters);
        self.refill(pool);
        self.unaudited += batch.len() - before;
        if self.unaudited >= AUDIT {
            self.audit(counters);
        }
        if any { Intake::More } else { self.look() }
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        self.reap(pool);
        self.send(pool, packets)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { checksum: self.layout.metadata, ..Capabilities::default() }
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.socket.fd.as_fd()]
    }

    /// Closes the socket and takes back what is safe to have.
    ///
    /// In copy mode nothing touches the memory once the socket is closed: arrivals are copied
    /// while it is bound, and the close waits until the last one is over (`xsk_unbind_dev`). What
    /// is sent is copied when the kernel takes the descriptor, but for a few devices whose packets
    /// refer to our pages until they have left (`IFF_TX_SKB_NO_LINEAR`); a veth is none of them.
    /// A zero-copy driver uses our memory until the kernel has got round to telling it. So behind
    /// a [`Peer::Veth`] all frames come home; of other ports in copy mode, all but those that the
    /// device has begun to send and not finished; of zero-copy ports, those that have come back by
    /// themselves. The rest stays lent, is counted, and is never used again.
    fn close(mut self: Box<Self>, pool: &mut Pool) {
        self.drain(pool);
        if let Some(chain) = self.chain.take() {
            chain.abandon(pool);
        }
        let copies = self.mode() == Mode::Copy;
        if copies {
            self.withdraw(pool);
        }
        let Self { socket, ledger, mut borrower, meter, peer, .. } = *self;
        meter.close();
        drop(socket);
        if copies {
            ledger.reclaim_all(&mut borrower, Purpose::Fill, |frame| pool.give(frame));
        }
        if copies && peer == Peer::Veth {
            ledger.reclaim_all(&mut borrower, Purpose::Transmit, |frame| pool.give(frame));
        }
        let kept =
            [Purpose::Fill, Purpose::Transmit].map(|purpose| ledger.lent(&borrower, purpose));
        meter.quarantined.add(kept.iter().sum::<usize>() as u64);
    }
}

impl Sizes {
    fn of(settings: Settings) -> Self {
        let receive = settings.frames.clamp(1, MOST_FRAMES).next_power_of_two();
        Self { receive, transmit: TRANSMIT }
    }
}

/// Whether an error means that the device is gone: its sockets are unbound then, for good.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NXIO | Errno::NODEV | Errno::BADF)
}
