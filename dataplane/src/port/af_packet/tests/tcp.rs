//! Kernel TCP with checked contents across two ports and a worker between them.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::counters::PortCounters;
use crate::device::ethtool;
use crate::device::netlink::Netlink;
use crate::device::netns::tests::Guard;
use crate::drops;
use crate::engine::{Neighbours, Place};
use crate::ids::{PortId, SegmentId, WorkerId};
use crate::memory::{Arena, Geometry, Packet};
use crate::pipeline::{Egress, Pipeline, Step, Trace, Verdict};
use crate::worker::{Handle, Policy, Seat};

use super::*;

/// Bytes in each direction: some hundred super-packets.
const BYTES: usize = 8 << 20;

/// What comes in by one port leaves by the other.
struct Patch;

impl Pipeline for Patch {
    fn begin(&mut self, _now: Nanos) {}

    fn tracing(&self) -> bool {
        false
    }

    fn decide<T: Trace>(&mut self, part: &mut [Packet], verdicts: &mut Vec<Verdict>) {
        let other = |packet: &Packet| PortId(1 - packet.in_port.0);
        let forward = |port| Verdict::Forward(Egress { port, segment: SegmentId(1) });
        verdicts.extend(part.iter().map(|packet| forward(other(packet))));
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

/// Two containers on veths, whose near ends a worker serves.
struct Bench {
    containers: [Guard; 2],
    counters: [Arc<PortCounters>; 2],
    /// Before the namespace of its devices.
    _worker: Handle<Patch>,
    _switch: Guard,
}

const V4: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 9, 1)),
    IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 9, 2)),
];

const V6: [IpAddr; 2] = [
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2)),
];

impl Bench {
    fn new(mtu: u32, offloads: bool) -> Self {
        let (switch, containers) = (Guard::new(), [Guard::new(), Guard::new()]);
        let geometry = Geometry { owners: 1, small: 4096, runs: 257 };
        let pool = Arena::create(geometry).unwrap().remove(0);
        let seat = Seat::new(WorkerId(0)).unwrap();
        let (neighbours, policy) = (Neighbours::default(), Policy::default());
        let worker = Handle::start(seat, Patch, pool, neighbours, policy, Instant::now()).unwrap();
        let counters: [Arc<PortCounters>; 2] = Default::default();
        for number in 0..2 {
            let container = &containers[usize::from(number)];
            let near = format!("near{number}");
            let index = switch.netns.run(|| add_veth(&near, "eth0", &container.netns)).unwrap();
            switch.netns.run(|| set_up(index, mtu)).unwrap();
            container.netns.run(|| set_up_container(usize::from(number), mtu, offloads)).unwrap();
            let open = || socket::open(index, &Options::default()).unwrap().remove(0);
            let queue = Queue::new(PortId(number), switch.netns.run(open).unwrap());
            let counters = Arc::clone(&counters[usize::from(number)]);
            worker.attach(PortId(number), Place::Here(Box::new(queue)), counters).unwrap();
        }
        Self { containers, counters, _worker: worker, _switch: switch }
    }

    /// A connection on which both ends send and check.
    fn talk(&self, addresses: [IpAddr; 2]) {
        let [client, server] = &self.containers;
        let bind = || TcpListener::bind((addresses[1], 0)).unwrap();
        let listener = server.netns.run(bind).unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                limit(&stream);
                check(&mut stream, 1);
                speak(&mut stream, 2);
            });
            let mut stream = client.netns.run(|| connect(address)).unwrap();
            speak(&mut stream, 1);
            check(&mut stream, 2);
        });
    }

    fn frames(&self) -> u64 {
        self.counters.iter().map(|counters| counters.rx_packets.read()).sum()
    }

    /// Frames that we have lost. The kernel may have lost some more to a busy machine.
    fn lost(&self) -> u64 {
        let of = |counters: &Arc<PortCounters>| {
            counters.drops.total() - counters.drops.of(drops::QUEUE_FULL).read()
        };
        self.counters.iter().map(of).sum()
    }
}

fn set_up(index: u32, mtu: u32) {
    let mut netlink = Netlink::open().unwrap();
    netlink.set_mtu(index, mtu).unwrap();
    netlink.set_up(index).unwrap();
}

fn set_up_container(number: usize, mtu: u32, offloads: bool) {
    let index = index_of("eth0");
    ethtool::set_offloads("eth0", offloads).unwrap();
    set_up(index, mtu);
    let mut netlink = Netlink::open().unwrap();
    netlink.add_address(index, prefix(V4[number])).unwrap();
    netlink.add_address(index, prefix(V6[number])).unwrap();
    until(|| is_running(index));
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    limit(&stream);
    stream
}

fn limit(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// What is said: never the same at two places that a lost or doubled segment could confuse.
fn text(salt: u8) -> Vec<u8> {
    let word = |n: usize| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let bytes = (0..BYTES / 8).flat_map(|n| word(n).to_ne_bytes());
    bytes.map(|byte| byte ^ salt).collect()
}

fn speak(stream: &mut TcpStream, salt: u8) {
    stream.write_all(&text(salt)).unwrap();
}

fn check(stream: &mut TcpStream, salt: u8) {
    let mut heard = vec![0; BYTES];
    stream.read_exact(&mut heard).unwrap();
    let differ = heard.iter().zip(text(salt)).position(|(heard, said)| *heard != said);
    assert_eq!(differ, None, "the first byte that is wrong");
}

/// Segments that a kernel refused, for their checksum or otherwise (`/proc/net/snmp`).
fn bad_segments() -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut rows = table.lines().filter(|row| row.starts_with("Tcp:"));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let named = names.split(' ').zip(values.split(' '));
    let bad = named.filter(|(name, _)| ["InErrs", "InCsumErrors"].contains(name));
    bad.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

/// Everything for one MTU, and containers whose kernels leave work to us or don't.
fn speaks(mtu: u32, offloads: bool) {
    let bench = Bench::new(mtu, offloads);
    // What containers said before the other's port was there.
    let lost = bench.lost();
    for addresses in [V4, V6] {
        let before = bench.frames();
        bench.talk(addresses);
        let segments = 2 * BYTES / usize::try_from(mtu).unwrap();
        let whole = bench.frames() - before < segments as u64 / 2;
        assert_eq!(whole, offloads, "{} frames for {segments} segments", bench.frames() - before);
    }
    for container in &bench.containers {
        assert_eq!(container.netns.run(bad_segments).unwrap(), 0);
    }
    assert_eq!(bench.lost(), lost);
}

#[test]
fn tcp_crosses_whole_at_1500() {
    speaks(1500, true);
}

#[test]
fn tcp_crosses_whole_at_9000() {
    speaks(9000, true);
}

#[test]
fn tcp_crosses_without_offloads_at_1500() {
    speaks(1500, false);
}

#[test]
fn tcp_crosses_without_offloads_at_9000() {
    speaks(9000, false);
}
