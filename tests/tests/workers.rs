//! Several workers, each with a queue of every device.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use dataplane::device::netlink::Netlink;
use dataplane::port::tap::device;
use perf::lab::Cancel;
use perf::lab::host::{Container, Lab};
use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use perf::lab::traffic::udp;
use tests::{End, Family, Kind, Plan, Turn, World, eventually};

#[test]
fn tcp_is_intact_over_two_queues() {
    for kind in Kind::ALL {
        let world = World::start(plan_of(kind, "[0, 1]"));
        transfer(&world);
        if kind.is_existing() && kind.is_xdp() {
            // It has one queue, which one worker serves: the other hands over what it has to send.
            continue;
        }
        let workers = world.show("workers");
        for worker in workers["workers"].as_array().unwrap() {
            assert!(worker["packets"].as_u64().unwrap() > 257, "{kind:?}: {workers:#}");
        }
        assert_eq!(world.drops("handoff_full"), 0, "{kind:?}: every queue has its own worker");
    }
}

/// Whatever queues a flow's datagrams come and leave by, none overtakes another.
#[test]
fn flows_keep_their_order_over_two_queues() {
    let (interval, time) = (Duration::from_micros(20), Duration::from_millis(300));
    let flow = udp::Flow { interval, payload: 67, time };
    for kind in Kind::ALL {
        let world = World::start(plan_of(kind, "[0, 1]"));
        for (from, to) in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
            for family in Family::BOTH {
                // What waits for a neighbour's answer is overtaken by what comes after it.
                assert!(world.answers(to, from, family), "{kind:?}, {family:?}");
                let pair = world.pair(from, to, family);
                let arrivals = udp::flow(&pair, &flow, world.cancel()).unwrap();
                assert!(arrivals.received > 257, "{kind:?}, {family:?}: {arrivals:?}");
                assert_eq!(arrivals.out_of_order, 0, "{kind:?}, {family:?}: {arrivals:?}");
            }
        }
    }
}

/// A device keeps its name, address and connections whatever number of queues it had before.
#[test]
fn queues_change_with_the_workers() {
    let mut world = World::start(plan("[0]"));
    let before = world.link("a").unwrap();
    for (workers, end) in [("[0, 1]", End::Stopped), ("[1]", End::Killed), ("[0, 1]", End::Killed)]
    {
        world.end(end);
        world.launch_with(plan(workers));
        world.wait_until_running();
        let after = world.link("a").unwrap();
        assert_eq!((after.index, after.mac), (before.index, before.mac), "{workers}");
        transfer(&world);
    }
}

/// The kernel gives every frame of a flow to the same queue, and that of the way back as well.
#[test]
fn flows_stick_to_a_queue_in_both_directions() {
    const QUEUES: usize = 3;
    const FLOWS: u16 = 67;
    let _turn = Turn::take();
    let lab = Lab::new(Cancel::new()).unwrap();
    let [there, back] = ["there", "back"].map(|name| lab.container(name).unwrap());
    for version in ["4", "6"] {
        let [near, far]: [IpAddr; 2] = match version {
            "4" => ["10.67.0.1", "10.67.0.2"].map(|text| text.parse().unwrap()),
            _ => ["fd00:67::1", "fd00:67::2"].map(|text| text.parse().unwrap()),
        };
        let name = format!("tap{version}");
        let [mut one, mut other] = [
            Side::open(&there, &name, near, far, QUEUES),
            Side::open(&back, &name, far, near, QUEUES),
        ];
        for flow in 0..FLOWS {
            // Twice each: a flow must not jump to the queue that wrote it last.
            for _ in 0..2 {
                one.send(1000 + flow, 2000);
                other.send(2000, 1000 + flow);
            }
        }
        let (there, back) = (one.queues(usize::from(FLOWS)), other.queues(usize::from(FLOWS)));
        for flow in 0..FLOWS {
            let (port, reverse) = ((1000 + flow, 2000), (2000, 1000 + flow));
            assert_eq!(there[&port].len(), 1, "v{version}, flow {flow}");
            assert_eq!(there[&port], back[&reverse], "v{version}, flow {flow}");
        }
        for queue in 0..QUEUES {
            let flows = there.values().filter(|queues| queues[0] == queue).count();
            assert!(flows > usize::from(FLOWS) / QUEUES / 3, "v{version}: {flows} on {queue}");
        }
    }
}

fn plan(workers: &str) -> Plan {
    plan_of(Kind::Tap, workers)
}

fn plan_of(kind: Kind, workers: &str) -> Plan {
    let plan = Plan::new().host(&format!("workers = {workers}")).network("web", "");
    plan.port("a", "").of(kind).port("b", "").of(kind)
}

fn transfer(world: &World) {
    for family in Family::BOTH {
        for direction in [Direction::ClientSends, Direction::ServerSends] {
            let amount = Amount::BytesPerStream((1 << 20) + 67);
            let plan = Bulk { streams: 8, amount, direction, verify: Some(257) };
            let done = tcp::bulk(&world.pair("a", "b", family), &plan, world.cancel()).unwrap();
            assert_eq!(done.checksum_errors(), 0, "{family:?}, {direction:?}");
        }
    }
}

/// A TAP whose queues are read here, and a kernel that sends into it.
struct Side<'a> {
    container: &'a Container,
    queues: Vec<OwnedFd>,
    own: IpAddr,
    peer: IpAddr,
}

impl<'a> Side<'a> {
    fn open(
        container: &'a Container,
        name: &str,
        own: IpAddr,
        peer: IpAddr,
        queues: usize,
    ) -> Self {
        let queues = container.netns().run(|| device::open(name, queues)).unwrap().unwrap();
        device::set_carrier(queues[0].as_fd(), true).unwrap();
        let length = if own.is_ipv4() { 24 } else { 64 };
        let prepare = |netlink: &mut Netlink| {
            let index = netlink.link(name)?.expect("the device").index;
            netlink.add_address(index, (own, length))?;
            netlink.set_up(index)
        };
        container.netlink(prepare).unwrap();
        container.wait_until_running(name, tests::PATIENCE, &Cancel::new()).unwrap();
        let side = Self { container, queues, own, peer };
        side.ip(&["neigh", "add", &peer.to_string(), "lladdr", "02:00:00:00:00:67", "dev", name]);
        side
    }

    fn ip(&self, arguments: &[&str]) {
        let mut command = std::process::Command::new("ip");
        let status = self.container.netns().run(|| command.args(arguments).status()).unwrap();
        assert!(status.unwrap().success(), "ip {arguments:?}");
    }

    fn send(&mut self, from: u16, to: u16) {
        let send = || {
            let socket = UdpSocket::bind((self.own, from)).unwrap();
            socket.send_to(b"67", (self.peer, to)).unwrap();
        };
        self.container.netns().run(send).unwrap();
    }

    /// The queues on which the frames of each flow, named by its ports, came.
    fn queues(&self, flows: usize) -> HashMap<(u16, u16), Vec<usize>> {
        let mut found: HashMap<(u16, u16), Vec<usize>> = HashMap::new();
        let mut frames = 0;
        eventually("all frames come", tests::PATIENCE, || {
            for (number, queue) in self.queues.iter().enumerate() {
                let mut frame = [0; 2048];
                while let Ok(length) = rustix::io::read(queue, &mut frame) {
                    let Some(ports) = self.ports(&frame[..length]) else { continue };
                    frames += 1;
                    let queues = found.entry(ports).or_default();
                    if !queues.contains(&number) {
                        queues.push(number);
                    }
                }
            }
            (frames == 2 * flows).then_some(())
        });
        found
    }

    /// The ports of a UDP datagram behind a virtio-net header and an Ethernet header.
    fn ports(&self, frame: &[u8]) -> Option<(u16, u16)> {
        const ETHERNET: usize = 10 + 14;
        let (protocol, header) = if self.own.is_ipv4() { (9, 20) } else { (6, 40) };
        if frame[ETHERNET + protocol] != 17 {
            return None;
        }
        let ports = frame.get(ETHERNET + header..)?;
        let word = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        Some((word(0), word(2)))
    }
}
