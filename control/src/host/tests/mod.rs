//! The host stack over its rings, driven by hand: frames in, answers out, all frames home.

mod answers;
mod bounds;
mod frames;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use dataplane::engine::{BATCH, Errand};
use dataplane::ids::{MacAddr, Mtu, PortId, WorkerId};
use dataplane::memory::{Arena, Geometry, Packet, Pool};
use dataplane::offload::Offload;
use dataplane::sleep::{Bell, Doorbell};
use dataplane::time::Nanos;
use mio::{Poll, Token, Waker};
use rtrb::{Consumer, Producer, RingBuffer};

use super::stack::{Command, Stack};
use super::{Counters, Host, Site, Wiring};

const GATEWAY: PortId = PortId(7);
const GEOMETRY: Geometry = Geometry { owners: 2, small: 1031, runs: 5 };

fn site() -> Site {
    Site {
        mac: MacAddr(frames::GATEWAY_MAC),
        addresses: vec!["10.0.9.1/24".parse().unwrap(), "fd00:9::1/64".parse().unwrap()],
        mtu: Mtu::ETHERNET,
    }
}

/// A host stack, and this thread in the place of the workers.
struct Rig {
    stack: Stack,
    commands: Sender<Command>,
    counters: Arc<Counters>,
    pool: Pool,
    punt: Producer<Packet>,
    back: Consumer<Errand>,
    now: Nanos,
}

impl Rig {
    fn new() -> Self {
        let mut pools = Arena::create(GEOMETRY).unwrap();
        let (host, pool) = (pools.remove(1), pools.remove(0));
        let (punt, punted) = RingBuffer::new(1024);
        let (ring, back) = RingBuffer::new(BATCH);
        let (commands, receiver) = channel();
        let stack = Stack::new(host, vec![punted], ring, receiver);
        let (counters, now) = (Arc::default(), Nanos::SECOND);
        let mut rig = Self { stack, commands, counters, pool, punt, back, now };
        rig.join(GATEWAY);
        rig
    }

    fn join(&mut self, port: PortId) {
        let counters = Arc::clone(&self.counters);
        self.commands.send(Command::Join(port, site(), counters)).unwrap();
        self.stack.turn(self.now);
    }

    fn punt(&mut self, port: PortId, frame: &[u8], offload: Offload) {
        let mut packet = Packet::holding(&mut self.pool, port, frame).unwrap();
        packet.offload = offload;
        self.punt.push(packet).unwrap();
    }

    /// What the stack has sent, with the port in whose name it did.
    fn sent(&mut self) -> Vec<(PortId, Vec<u8>)> {
        while self.stack.turn(self.now) {}
        let mut sent = Vec::new();
        while let Ok(Errand::Walk(packet)) = self.back.pop() {
            sent.push((packet.in_port, packet.data().to_vec()));
            self.pool.give(packet.into_frame());
        }
        sent
    }

    /// The answers to one plain frame.
    fn ask(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.punt(GATEWAY, frame, Offload::PLAIN);
        let sent = self.sent();
        assert!(sent.iter().all(|(port, _)| *port == GATEWAY));
        sent.into_iter().map(|(_, frame)| frame).collect()
    }

    fn dropped(&self, reason: dataplane::drops::Reason) -> u64 {
        self.counters.drops.of(reason).read()
    }

    /// That no frame was lost: all are in their owners' free lists.
    fn all_home(mut self) {
        self.sent();
        self.stack.leave_all();
        self.stack.turn(self.now);
        self.pool.collect();
        let each = (GEOMETRY.small, GEOMETRY.runs);
        assert_eq!((self.pool.free(), self.stack.free()), (each, each));
    }
}

#[test]
fn the_thread_wakes_answers_and_ends() {
    let mut pools = Arena::create(GEOMETRY).unwrap();
    let (host_pool, mut pool) = (pools.remove(1), pools.remove(0));
    assert_eq!(host_pool.owner(), WorkerId(1));
    let mut wiring = Wiring::new().unwrap();
    let mut way = wiring.way();
    let (ring, mut back) = RingBuffer::new(BATCH);
    let mut poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), Token(0)).unwrap();
    let bell: Arc<Bell> = Arc::new(Doorbell::new(waker));
    let mut host = Host::start(wiring, host_pool, ring, Arc::clone(&bell), Instant::now()).unwrap();
    host.join(GATEWAY, site());
    for _ in 0..3 {
        let packet = Packet::holding(&mut pool, GATEWAY, &frames::syn(4)).unwrap();
        way.push(packet).unwrap();
        way.ring();
        let deadline = Instant::now() + Duration::from_secs(10);
        while back.is_empty() {
            assert!(Instant::now() < deadline, "no answer");
            let asleep = bell.prepare();
            if back.is_empty() {
                let patience = Some(Duration::from_secs(1));
                poll.poll(&mut mio::Events::with_capacity(1), patience).unwrap();
            }
            drop(asleep);
        }
        let Ok(Errand::Walk(answer)) = back.pop() else { panic!("another errand") };
        pool.give(answer.into_frame());
    }
    assert_eq!(host.counters(GATEWAY).unwrap().sent.read(), 3);
    host.leave(GATEWAY);
    assert!(host.counters(GATEWAY).is_none());
    drop(host);
    assert!(way.is_abandoned() && back.is_abandoned());
}
