//! Stations that speak in whole frames, tags and super-packets included.

use std::thread;
use std::time::Instant;

use dataplane::counters::PortCounters;
use dataplane::device::netlink::Netlink;
use dataplane::device::netns::Netns;
use dataplane::ids::PortId;
use dataplane::memory::{Arena, Geometry, Packet, Pool};
use dataplane::offload::Offload;
use dataplane::port::af_packet::Queue;
use dataplane::port::af_packet::socket::{self, Options, Socket};
use dataplane::port::{Intake, Port};
use dataplane::time::Nanos;
use dataplane::wire::vnet::Header;
use zerocopy::IntoBytes;

use crate::PATIENCE;

/// An ethertype for experiments (IEEE 802-2014, 9.2.4).
const EXPERIMENT: u16 = 0x88b5;

/// Bytes of contents of such a frame.
const CONTENTS: usize = 67;

/// The type of customer VLAN tags.
pub const CUSTOMER: u16 = 0x8100;
/// The type of service VLAN tags.
pub const SERVICE: u16 = 0x88a8;

/// A VLAN tag: its type; priority, drop eligible and VLAN.
pub type Tag = (u16, u16);

/// A packet socket on a device. What it takes has its tag where it was on the wire.
#[derive(Debug)]
pub struct Raw {
    socket: Socket,
    queue: Queue,
    pool: Pool,
    batch: Vec<Packet>,
    counters: PortCounters,
}

/// A frame, and what its device says about it.
pub type Frame = (Vec<u8>, Offload);

impl Raw {
    /// A socket on this device of a namespace. It takes what comes from then on.
    ///
    /// # Panics
    /// If there is no such device, or no socket to be had.
    pub fn open(netns: &Netns, device: &str) -> Self {
        let open = || {
            let link = Netlink::open().unwrap().link(device).unwrap().expect("the device");
            socket::open(link.index, &Options::default()).unwrap().remove(0)
        };
        let socket = netns.run(open).unwrap();
        let geometry = Geometry { owners: 1, small: 256, runs: 67 };
        Self {
            queue: Queue::new(PortId(1), socket.clone()),
            socket,
            pool: Arena::create(geometry).unwrap().remove(0),
            batch: Vec::new(),
            counters: PortCounters::default(),
        }
    }

    /// Sends a frame as the device's own.
    ///
    /// # Panics
    /// If the kernel refuses it.
    pub fn send(&self, frame: &[u8], offload: Offload) {
        let header = Header::from_offload(offload, frame);
        let bytes = [header.as_bytes(), frame].concat();
        assert_eq!(rustix::io::write(&self.socket, &bytes), Ok(bytes.len()));
    }

    /// Takes what one station has sent until that is enough, or nothing more comes. `from` is how the
    /// station's address begins.
    pub fn gather(&mut self, from: &[u8], enough: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
        let (mut found, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while !enough(&found) && Instant::now() < deadline {
            found.extend(self.take(from));
            thread::yield_now();
        }
        found
    }

    /// As many [`experiment`]s of one station as there should be, sorted: several workers have carried
    /// them. What its kernel says by itself is left out.
    pub fn receive(&mut self, from: &[u8], count: usize) -> Vec<Vec<u8>> {
        let ours = |(frame, _): &&Frame| is_experiment(frame);
        let found = self.gather(from, |found| found.iter().filter(ours).count() >= count);
        let frames = found.into_iter().map(|(frame, _)| frame);
        let mut frames: Vec<_> = frames.filter(|frame| is_experiment(frame)).collect();
        frames.sort();
        frames
    }

    /// Takes what has come of one station.
    pub fn take(&mut self, from: &[u8]) -> Vec<Frame> {
        let Self { queue, pool, batch, counters, .. } = self;
        let mut found = Vec::new();
        loop {
            let intake = queue.receive(pool, batch, 67, Nanos(0), counters);
            for packet in batch.drain(..) {
                if packet.data().get(6..6 + from.len()) == Some(from) {
                    found.push((packet.data().to_vec(), packet.offload));
                }
                pool.give(packet.into_frame());
            }
            if intake != Intake::More {
                return found;
            }
        }
    }
}

/// A frame of an odd length between two stations, told from others by its case.
pub fn experiment(addresses: [[u8; 6]; 2], case: usize, tags: &[Tag]) -> Vec<u8> {
    let contents = [case.to_le_bytes()[0]; CONTENTS];
    let rest = [EXPERIMENT.to_be_bytes().as_slice(), &contents].concat();
    tagged(addresses.as_flattened(), tags, &rest)
}

fn is_experiment(frame: &[u8]) -> bool {
    let kind = frame.len().checked_sub(CONTENTS).and_then(|end| frame[..end].last_chunk());
    kind == Some(&EXPERIMENT.to_be_bytes())
}

/// A frame with tags between its addresses and the rest, the outermost first.
pub fn tagged(addresses: &[u8], tags: &[Tag], rest: &[u8]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(kind, control)| [kind.to_be_bytes(), control.to_be_bytes()]);
    [addresses, &tags.flatten().collect::<Vec<_>>(), rest].concat()
}
