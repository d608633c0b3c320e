//! heddle's own host stack: what the walk can't answer in place, on a thread of its own.
//!
//! On each network heddle is a host at the gateway's addresses. Workers answer ARP, neighbour
//! discovery and echo themselves; the rest comes here over one bounded ring per worker, is given
//! to a TCP/IP stack per network, and what that sends goes back over one ring to worker 0, which
//! walks it as coming from the host stack's port in the network. In this version the stack has no
//! sockets: it puts fragments together and answers echo, refuses TCP connections, and says that
//! UDP ports are unreachable.
//!
//! | state | writer | reader |
//! |---|---|---|
//! | punt rings, one per worker | that worker | the host thread |
//! | the ring back, to worker 0 | the host thread | worker 0 |
//! | [`Counters`] of a network | the host thread | control |
//!
//! Nothing waits for this thread: a full punt ring is a counted drop, and while it is slow or
//! gone, workers forward as before.

mod introduction;
mod network;
mod phy;
mod quota;
mod screen;
mod stack;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::counters::{Counter, Drops};
use dataplane::engine::{Errand, Way};
use dataplane::ids::{MacAddr, Mtu, PortId};
use dataplane::memory::{Packet, Pool};
use dataplane::sleep::{Bell, Doorbell};
use dataplane::time::Nanos;
use ipnet::IpNet;
use mio::{Poll, Token, Waker};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::model::Network;
use stack::{Command, Stack};

/// Packets that may wait on each worker's ring to the host stack.
const PUNTED: usize = 1024;
/// How long control waits for the thread to let go of a network.
const PATIENCE: Duration = Duration::from_secs(1);

/// What heddle is on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its station's address.
    pub mac: MacAddr,
    /// Its addresses, each with its subnet's prefix length.
    pub addresses: Vec<IpNet>,
    /// The largest packet on the network.
    pub mtu: Mtu,
}

impl Site {
    /// heddle on this network: at the gateway address of every subnet that has one.
    pub fn of(network: &Network) -> Self {
        let own = network.spec.subnets.iter().filter_map(|subnet| {
            let gateway = subnet.gateway?;
            Some(IpNet::new_assert(gateway, subnet.prefix.prefix_len()))
        });
        Self { mac: network.gateway_mac, addresses: own.collect(), mtu: network.spec.mtu }
    }
}

/// What happened to one network's packets here, written by the host thread.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that workers gave.
    pub received: Counter,
    /// Packets given to worker 0.
    pub sent: Counter,
    /// Packets received that were refused, and packets to be sent that were not, by reason. What
    /// the TCP/IP stack itself ignores, such as a wrong checksum, is in none of these.
    pub drops: Drops,
}

/// The rings and the doorbell, before the thread and the workers are there.
#[derive(Debug)]
pub struct Wiring {
    poll: Poll,
    bell: Arc<Bell>,
    punted: Vec<Consumer<Packet>>,
}

impl Wiring {
    /// A doorbell, and no ring yet.
    ///
    /// # Errors
    ///
    /// Those of the system, when it has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let bell = Arc::new(Doorbell::new(Waker::new(poll.registry(), Token(0))?));
        Ok(Self { poll, bell, punted: Vec::new() })
    }

    /// One more worker's way to the host stack.
    pub fn way(&mut self) -> Way<Packet> {
        let (ring, punted) = RingBuffer::new(PUNTED);
        self.punted.push(punted);
        Way::new(ring, Some(Arc::clone(&self.bell)))
    }
}

/// The host stack without its thread, beside one worker's engine that is driven by hand too. The
/// same packets at the same times always have the same answers.
pub(crate) struct ByHand(Stack);

impl ByHand {
    /// A host stack that sends from `pool` over `ring`, and the engine's way to it.
    pub(crate) fn new(pool: Pool, ring: Producer<Errand>) -> (Self, Way<Packet>) {
        let (way, punted) = RingBuffer::new(PUNTED);
        let (_, nobody) = channel();
        let stack = Stack::new(pool, vec![punted], ring, nobody);
        (Self(stack), Way::new(way, None))
    }

    /// As [`Host::join`].
    pub(crate) fn join(&mut self, port: PortId, site: Site) {
        self.0.join(port, site, Arc::default());
    }

    /// Does what there is to do now. Answers whether there was anything.
    pub(crate) fn turn(&mut self, now: Nanos) -> bool {
        self.0.turn(now)
    }
}

/// The running host stack, as control sees it. Dropping it ends the thread.
#[derive(Debug)]
pub struct Host {
    commands: Sender<Command>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
    counters: BTreeMap<PortId, Arc<Counters>>,
}

impl Host {
    /// Starts the thread, still without a network. It sends from `pool`, over `ring` to the
    /// worker that `bell` wakes.
    ///
    /// # Errors
    ///
    /// Those of the system, when it has no thread left.
    pub fn start(
        wiring: Wiring,
        pool: Pool,
        ring: Producer<Errand>,
        bell: Arc<Bell>,
        origin: Instant,
    ) -> io::Result<Self> {
        let Wiring { poll, bell: own, punted } = wiring;
        let (commands, receiver) = channel();
        let mut stack = Stack::new(pool, punted, ring, receiver);
        let doorbell = Arc::clone(&own);
        let thread = std::thread::Builder::new()
            .name("host".to_owned())
            .spawn(move || stack.run(poll, &doorbell, &bell, origin))?;
        Ok(Self { commands, bell: own, thread: Some(thread), counters: BTreeMap::new() })
    }

    /// Makes heddle a host on a network, by its own port there; or changes what it is.
    pub fn join(&mut self, port: PortId, site: Site) {
        let counters = Arc::clone(self.counters.entry(port).or_default());
        self.tell(Command::Join(port, site, counters));
    }

    /// Takes heddle off a network. When this returns, nothing more is sent in the port's name,
    /// unless the thread is stuck; workers must have let go of the port before.
    pub fn leave(&mut self, port: PortId) {
        let (done, gone) = channel();
        self.counters.remove(&port);
        self.tell(Command::Leave(port, done));
        if gone.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(%port, "the host stack has not left a network within {PATIENCE:?}");
        }
    }

    /// What happened to a network's packets.
    pub fn counters(&self, port: PortId) -> Option<&Arc<Counters>> {
        self.counters.get(&port)
    }

    /// A thread that has ended takes nothing, and needs nothing.
    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
        let _ = self.bell.ring();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
