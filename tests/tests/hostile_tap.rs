//! Hostile frames over a real TAP: a packet socket writes them into the kernel's end, with offload
//! requests, and the accounts must balance with the kernel's own counters of the device.
//!
//! It needs root; everything happens in a network namespace that ends with its thread.
#![allow(unsafe_code)]

#[path = "../../dataplane/tests/wire_end/mod.rs"]
mod wire_end;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use dataplane::device::netlink::Netlink;
use dataplane::drops;
use dataplane::ids::PortId;
use dataplane::port::tap::{Tap, device as tap};
use dataplane::wire::vnet::Header;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tests::hostile::{Generator, Shot, Stage};
use wire_end::{in_a_namespace, packet_socket};
use zerocopy::IntoBytes;

/// Frames that are written into the kernel's end, and as many to another port: once whole, and once
/// with super-packets. `HEDDLE_HOSTILE_FRAMES` asks for more.
const FRAMES: usize = 20_011;

/// The port whose endpoint most hostile frames claim to be.
const PORT: PortId = PortId(0);

const DEVICE: &str = "hostile0";

/// What the kernel has counted, as seen from its end of the device.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Frames that heddle wrote and the kernel took.
    received: u64,
    /// Frames that heddle has read.
    sent: u64,
    /// Frames that the kernel dropped on their way to heddle.
    lost: u64,
}

/// What became of the frames that were written into the kernel's end.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    /// Taken, or dropped on the way to heddle, which the kernel counts.
    sent: u64,
    /// Refused before they were the device's.
    refused: u64,
}

#[test]
fn a_tap_bears_hostile_frames() {
    let more = std::env::var("HEDDLE_HOSTILE_FRAMES").ok();
    let frames = more.map_or(FRAMES, |frames| frames.parse().expect("a number of frames"));
    in_a_namespace(move || {
        let mut bench = Bench::new();
        // The kernel cuts a super-packet that it thinks the device can't take, so that only whole
        // frames can be counted one by one.
        let whole = bench.write(frames, |header| header.gso_type = 0);
        let kernel = counted();
        assert_eq!(kernel.sent + kernel.lost, whole.sent, "{kernel:?}");
        let all = bench.write(frames, |_| ());
        bench.balance(whole.sent + all.sent);
        println!("figure: hostile frames over a TAP: {whole:?} whole, {all:?} with super-packets");
        assert!(whole.refused > 0 && whole.sent > 1_000 && all.sent > 1_000);
    });
}

struct Bench {
    socket: OwnedFd,
    stage: Stage,
    generator: Generator,
}

impl Bench {
    fn new() -> Self {
        let queue = device();
        let socket = packet_socket(DEVICE).unwrap();
        let (mut stage, generator) = (Stage::new(), Generator::new(257));
        stage.plug(PORT, Box::new(Tap::new(PORT, queue)));
        Self { socket, stage, generator }
    }

    /// Writes frames into the kernel's end, and as many to another port, for the TAP.
    fn write(&mut self, frames: usize, change: impl Fn(&mut Header)) -> Written {
        let mut written = Written::default();
        for _ in 0..frames {
            let mut shot = self.generator.shot();
            change(&mut shot.header);
            let bytes = [shot.header.as_bytes(), &shot.frame].concat();
            match rustix::net::send(&self.socket, &bytes, SendFlags::DONTWAIT) {
                Ok(_) | Err(Errno::NOBUFS) => written.sent += 1,
                Err(_) => written.refused += 1,
            }
            self.stage.poll();
            self.stage.feed(&[towards_the_tap(self.generator.shot())]);
        }
        self.read_all();
        written
    }

    /// Reads until nothing is left: a packet socket's frame is in the device when the call returns.
    fn read_all(&mut self) {
        let read = |stage: &Stage| stage.counters(PORT).rx_packets.read();
        loop {
            let before = read(&self.stage);
            self.stage.poll();
            if read(&self.stage) == before {
                return;
            }
        }
    }

    fn balance(&mut self, written: u64) {
        let kernel = counted();
        self.stage.unplug();
        assert_eq!(self.stage.balance(), Ok(()));
        let counters = self.stage.counters(PORT);
        let (read, given) = (counters.rx_packets.read(), counters.tx_packets.read());
        assert_eq!(kernel.sent, read, "{kernel:?}");
        assert!(kernel.sent + kernel.lost >= written, "{kernel:?} of {written}");
        // Packets of one flow leave together, so that the kernel counts fewer.
        assert!(kernel.received <= given && given > 1_000, "{kernel:?}, {given} given to it");
        assert!(counters.drops.of(drops::PORT_FAILED).read() > 0, "the kernel refuses some");
    }
}

/// The shot from a port where anything goes, for the station behind the TAP.
fn towards_the_tap(mut shot: Shot) -> Shot {
    if let Some(destination) = shot.frame.get_mut(..6) {
        destination.copy_from_slice(&[2, 0, 0, 0, 9, 0]);
    }
    Shot { port: PortId(2), ..shot }
}

/// A TAP that is up and on which the kernel itself says nothing.
fn device() -> OwnedFd {
    let queue = tap::open(DEVICE, 1).unwrap().remove(0);
    fs::write(format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"), "1").unwrap();
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link(DEVICE).unwrap().expect("the device was made");
    netlink.set_up(link.index).unwrap();
    tap::set_carrier(queue.as_fd(), true).unwrap();
    queue
}

/// The device's line in the table of the thread's namespace: eight columns of what was received,
/// eight of what was sent.
fn counted() -> Counted {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix("hostile0:")).unwrap();
    let columns: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    Counted { received: columns[1], sent: columns[9], lost: columns[11] }
}
