//! The XDP program on a device that the host uses, too: what it takes never reaches the host, what
//! it passes does, also while heddle changes its rules, dies, comes back and goes. A namespace is
//! the host; frames come from the other end of its veth. Needs root.

mod wire_end;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

use dataplane::device::netlink::Netlink;
use dataplane::device::xdp::{Adoption, Mode, Pins, PortRange, Program, Rule, Transport};
use dataplane::ids::{MacAddr, Vni};
use dataplane::wire::vnet;
use etherparse::PacketBuilder;
use rustix::mount::{UnmountFlags, unmount};
use wire_end::{in_a_namespace, packet_socket};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

/// The port of the host's own service, and of one that heddle publishes.
const OWN: u16 = 7000;
const PUBLISHED: u16 = 7001;

/// How long a frame may take from one end to the other.
const DEADLINE: Duration = Duration::from_secs(10);

/// Datagrams per kind: not a round number of anything.
const COUNT: u64 = 67;

/// The host, and the wire that leads to it.
struct Host {
    index: u32,
    mac: MacAddr,
    wire: OwnedFd,
    own: UdpSocket,
    published: UdpSocket,
    bpffs: PathBuf,
}

#[test]
fn a_host_keeps_what_is_its_own_through_heddles_life() {
    for mode in [Mode::Driver, Mode::Skb] {
        in_a_namespace(move || {
            let host = Host::new();
            host.expect_at_own(COUNT);
            host.expect_at_published(COUNT);
            let pins = Pins::open(&host.bpffs, "67").unwrap();

            let mut first = Program::load_with_rules(&pins, host.index).unwrap();
            first.set_rules([published(), vxlan(7)]).unwrap();
            assert_eq!(first.attach(Some(mode)).unwrap().adoption, Adoption::New);
            host.expect_split();
            assert!(first.counters().unwrap().unserved >= COUNT, "heddle's, without a socket");

            // Reloaded: another network, which is none of the host's business.
            first.set_rules([published(), vxlan(8)]).unwrap();
            host.expect_split();
            drop(first);
            host.expect_split();
            let mut second = Program::load_with_rules(&pins, host.index).unwrap();
            assert_eq!(second.attach(None).unwrap().adoption, Adoption::Kept);
            second.set_rules([published()]).unwrap();
            host.expect_split();

            // Not published any more, and published again.
            second.remove_rule(&published()).unwrap();
            host.expect_at_published(COUNT);
            second.add_rule(published()).unwrap();
            host.expect_split();
            second.detach().unwrap();
            host.expect_at_own(COUNT);
            host.expect_at_published(COUNT);
        });
    }
}

#[test]
fn a_station_of_heddles_is_unseen_by_the_host() {
    in_a_namespace(|| {
        let host = Host::new();
        let pins = Pins::open(&host.bpffs, "67").unwrap();
        let mut program = Program::load_with_rules(&pins, host.index).unwrap();
        // The host's own address, as if it were heddle's: only so would it notice otherwise.
        program.set_rules([Rule::Station(host.mac)]).unwrap();
        program.attach(None).unwrap();
        let passed = program.counters().unwrap().passed;
        (0..COUNT).for_each(|_| host.send(host.mac, OWN));
        host.send(MacAddr::BROADCAST, OWN);
        assert_eq!(host.arrived_at_own(1), 1, "the group frame, which was sent last");
        let counters = program.counters().unwrap();
        assert!(counters.unserved >= COUNT && counters.passed > passed, "{counters:?}");
        program.detach().unwrap();
    });
}

fn published() -> Rule {
    let ports = PortRange::new(PUBLISHED, PUBLISHED + 7).unwrap();
    Rule::Ports { address: IpAddr::V4(HOST), transport: Transport::Udp, ports }
}

fn vxlan(vni: u32) -> Rule {
    Rule::Vxlan { address: IpAddr::V4(HOST), port: 4789, vni: Vni::new(vni).unwrap() }
}

impl Host {
    fn new() -> Self {
        let mut netlink = Netlink::open().unwrap();
        netlink.add_veth("a0", "b0", 1, None).unwrap();
        let [near, far] = ["a0", "b0"].map(|name| netlink.link(name).unwrap().unwrap());
        netlink.add_address(near.index, (HOST.into(), 24)).unwrap();
        netlink.set_up(near.index).unwrap();
        netlink.set_up(far.index).unwrap();
        // Until both run, what is sent is lost.
        let deadline = Instant::now() + DEADLINE;
        while [near.index, far.index].map(|at| netlink.link_at(at).unwrap().unwrap().running)
            != [true; 2]
        {
            assert!(Instant::now() < deadline, "the veth doesn't run");
        }
        let socket = |port| {
            let socket = UdpSocket::bind(SocketAddrV4::new(HOST, port)).unwrap();
            socket.set_nonblocking(false).unwrap();
            socket
        };
        Self {
            index: near.index,
            mac: near.mac,
            wire: packet_socket("b0").unwrap(),
            own: socket(OWN),
            published: socket(PUBLISHED),
            bpffs: std::env::temp_dir().join(format!("hdltest-xdp-{}-{}", process::id(), near.mac)),
        }
    }

    /// heddle's datagrams first, so that none of them is on its way when the host's are here.
    fn expect_split(&self) {
        (0..COUNT).for_each(|_| self.send(self.mac, PUBLISHED));
        self.expect_at_own(COUNT);
        assert_eq!(arrived(&self.published, 0), 0, "heddle's, at the host");
    }

    fn expect_at_own(&self, count: u64) {
        (0..count).for_each(|_| self.send(self.mac, OWN));
        assert_eq!(self.arrived_at_own(count), count);
    }

    fn expect_at_published(&self, count: u64) {
        (0..count).for_each(|_| self.send(self.mac, PUBLISHED));
        assert_eq!(arrived(&self.published, count), count);
    }

    fn arrived_at_own(&self, expected: u64) -> u64 {
        arrived(&self.own, expected)
    }

    fn send(&self, to: MacAddr, port: u16) {
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], to.0)
            .ipv4(PEER.octets(), HOST.octets(), 64)
            .udp(40_000, port);
        // Without offloads.
        let mut frame = vec![0; size_of::<vnet::Header>()];
        packet.write(&mut frame, &[7; 100]).unwrap();
        let sent = rustix::net::send(&self.wire, &frame, rustix::net::SendFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }
}

/// Datagrams that come until there are as many as expected, and those that are there beyond.
fn arrived(socket: &UdpSocket, expected: u64) -> u64 {
    let mut buffer = [0; 2048];
    let mut count = 0;
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    while count < expected && socket.recv(&mut buffer).is_ok() {
        count += 1;
    }
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut buffer).is_ok() {
        count += 1;
    }
    socket.set_nonblocking(false).unwrap();
    count
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = unmount(&self.bpffs, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.bpffs);
    }
}
