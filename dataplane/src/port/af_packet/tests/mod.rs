//! Packet sockets against real devices: veth pairs in namespaces of their own. Needs root.

mod frames;
mod lifetime;
mod spread;
mod tcp;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::counters::PortCounters;
use crate::device::netlink::Netlink;
use crate::device::netlink::address::Prefix;
use crate::device::netns::Netns;
use crate::device::netns::tests::Guard;
use crate::ids::PortId;
use crate::memory::{Arena, Geometry, Packet, Pool};
use crate::offload::Offload;
use crate::port::{Intake, Port};
use crate::time::Nanos;
use crate::wire::vnet::Header;

use super::Queue;
use super::socket::{self, Options, Socket};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A veth pair: `near` is ours, in a namespace without a host, `far` is a container's.
struct Veth {
    switch: Guard,
    container: Guard,
    near: u32,
    far: u32,
}

impl Veth {
    /// A pair that is up, in which nobody speaks by himself.
    fn silent() -> Self {
        let (switch, container) = (Guard::new(), Guard::new());
        let near = switch.netns.run(|| add_veth("near", "far", &container.netns)).unwrap();
        let far = container.netns.run(|| index_of("far")).unwrap();
        let this = Self { switch, container, near, far };
        for (guard, name, index) in this.ends() {
            let up = || {
                let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
                std::fs::write(path, "1").unwrap();
                Netlink::open().unwrap().set_up(index).unwrap();
            };
            guard.netns.run(up).unwrap();
        }
        this.wait_until_running();
        this
    }

    fn ends(&self) -> [(&Guard, &'static str, u32); 2] {
        [(&self.switch, "near", self.near), (&self.container, "far", self.far)]
    }

    fn wait_until_running(&self) {
        for (guard, _, index) in self.ends() {
            until(|| guard.netns.run(|| is_running(index)).unwrap());
        }
    }

    /// Our queues on the near end.
    fn near(&self, options: Options) -> Vec<Queue> {
        queues(&self.switch.netns, self.near, options)
    }

    /// A queue on the far end: it sends and receives as a container would.
    fn far(&self) -> Queue {
        queues(&self.container.netns, self.far, Options::default()).remove(0)
    }

    /// A socket on the far end, to send into the pair by hand.
    fn sender(&self) -> Socket {
        let open = || socket::open(self.far, &Options::default()).unwrap().remove(0);
        self.container.netns.run(open).unwrap()
    }
}

/// Receives by hand, as a worker would.
struct Receiver {
    pool: Pool,
    counters: PortCounters,
    batch: Vec<Packet>,
}

impl Receiver {
    fn new() -> Self {
        let geometry = Geometry { owners: 1, small: 4096, runs: 67 };
        let pool = Arena::create(geometry).unwrap().remove(0);
        Self { pool, counters: PortCounters::default(), batch: Vec::new() }
    }

    /// One call of the port's.
    fn turn(&mut self, queue: &mut Queue) -> Intake {
        queue.receive(&mut self.pool, &mut self.batch, 67, Nanos(0), &self.counters)
    }

    /// Everything that waits in the socket.
    fn drain(&mut self, queue: &mut Queue) -> Vec<(Vec<u8>, Offload)> {
        while self.turn(queue) == Intake::More {}
        let Self { pool, batch, .. } = self;
        let take = |packet: Packet| {
            let taken = (packet.data().to_vec(), packet.offload);
            pool.give(packet.into_frame());
            taken
        };
        batch.drain(..).map(take).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        assert_eq!(self.pool.free(), (4096, 67), "slots are lost");
    }
}

/// Sends a frame with its offload state.
fn send(socket: &Socket, frame: &[u8], offload: Offload) {
    use zerocopy::IntoBytes;
    let header = Header::from_offload(offload, frame);
    let bytes = [header.as_bytes(), frame].concat();
    assert_eq!(rustix::io::write(socket, &bytes), Ok(bytes.len()));
}

fn queues(netns: &Netns, index: u32, options: Options) -> Vec<Queue> {
    let sockets = netns.run(|| socket::open(index, &options).unwrap()).unwrap();
    sockets.into_iter().map(|socket| Queue::new(PortId(3), socket)).collect()
}

/// Makes a veth with one end here; answers its index.
fn add_veth(near: &str, far: &str, container: &Netns) -> u32 {
    Netlink::open().unwrap().add_veth(near, far, 1, Some(container)).unwrap();
    index_of(near)
}

fn index_of(device: &str) -> u32 {
    Netlink::open().unwrap().link(device).unwrap().unwrap().index
}

fn is_running(index: u32) -> bool {
    Netlink::open().unwrap().link_at(index).unwrap().unwrap().running
}

fn prefix(address: IpAddr) -> Prefix {
    let length = if address.is_ipv4() { 24 } else { 64 };
    (address, length)
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "nothing happened for {PATIENCE:?}");
        std::thread::yield_now();
    }
}
