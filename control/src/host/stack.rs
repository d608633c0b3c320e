//! The host thread: packets from the workers' rings to the networks, and what these send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use dataplane::engine::{BATCH, Errand};
use dataplane::ids::PortId;
use dataplane::memory::{Packet, Pool};
use dataplane::sleep::Bell;
use dataplane::time::Nanos;
use mio::{Events, Poll};
use rtrb::{Consumer, Producer};

use super::network::Network;
use super::phy::Way;
use super::{Counters, Site};

/// What control asks of the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Be this on the network with this port.
    Join(PortId, Site, Arc<Counters>),
    /// Leave the network with this port, and say so.
    Leave(PortId, Sender<()>),
    /// End.
    Stop,
}

/// What lives on the thread.
pub(super) struct Stack {
    way: Way,
    punted: Vec<Consumer<Packet>>,
    commands: Receiver<Command>,
    /// By the host stack's port.
    networks: BTreeMap<PortId, Network>,
    running: bool,
}

impl Stack {
    pub(super) fn new(
        pool: Pool,
        punted: Vec<Consumer<Packet>>,
        ring: Producer<Errand>,
        commands: Receiver<Command>,
    ) -> Self {
        let (way, networks) = (Way::new(pool, ring), BTreeMap::new());
        Self { way, punted, commands, networks, running: true }
    }

    pub(super) fn join(&mut self, port: PortId, site: Site, counters: Arc<Counters>) {
        self.networks.insert(port, Network::new(port, site, counters));
    }

    /// Works until it is told to stop. `own` wakes this thread, `worker` the one that it sends to.
    pub(super) fn run(&mut self, mut poll: Poll, own: &Bell, worker: &Bell, origin: Instant) {
        let mut events = Events::with_capacity(1);
        while self.running {
            if self.turn(Nanos::from(origin.elapsed())) {
                self.wake(worker);
                continue;
            }
            let asleep = own.prepare();
            // What came before the declaration is found here; what comes after it rings.
            let now = Nanos::from(origin.elapsed());
            if self.turn(now) {
                self.wake(worker);
            } else {
                // An interrupted wait is an empty one.
                let _ = poll.poll(&mut events, self.patience(now));
            }
            drop(asleep);
        }
        self.leave_all();
    }

    /// Does what there is to do now. Answers whether there was anything.
    pub(super) fn turn(&mut self, now: Nanos) -> bool {
        let mut busy = self.run_commands(now);
        for index in 0..self.punted.len() {
            let there = self.punted[index].slots().min(BATCH);
            // A network's first packet may have come just after the command to join it.
            busy |= there > 0 && self.run_commands(now);
            busy |= self.take_punted(index, there, now);
        }
        for network in self.networks.values_mut() {
            busy |= network.tend(&mut self.way, now);
        }
        self.way.pool.collect();
        busy
    }

    fn wake(&mut self, worker: &Bell) {
        if self.way.take_sent() {
            // If the wake-up fails, the packets wait for the next one.
            let _ = worker.ring();
        }
    }

    /// How long there is nothing to do, unless something comes.
    fn patience(&self, now: Nanos) -> Option<Duration> {
        let next = self.networks.values().filter_map(Network::due).min()?;
        Some(next.since(now).into())
    }

    /// Takes at most so many packets of one ring.
    fn take_punted(&mut self, index: usize, most: usize, now: Nanos) -> bool {
        let Self { way, punted, networks, .. } = self;
        let mut busy = false;
        for _ in 0..most {
            let Ok(mut packet) = punted[index].pop() else { break };
            busy = true;
            if let Some(network) = networks.get_mut(&packet.in_port) {
                network.receive(&mut packet, way, now);
            }
            way.pool.give(packet.into_frame());
        }
        busy
    }

    /// Takes what is there at this moment.
    fn take_all_punted(&mut self, now: Nanos) {
        for index in 0..self.punted.len() {
            self.take_punted(index, self.punted[index].slots(), now);
        }
    }

    fn run_commands(&mut self, now: Nanos) -> bool {
        let mut busy = false;
        while let Ok(command) = self.commands.try_recv() {
            busy = true;
            match command {
                Command::Join(port, site, counters) => self.join(port, site, counters),
                Command::Leave(port, done) => {
                    // What still waits in its name must not meet a later owner of the number.
                    self.take_all_punted(now);
                    self.networks.remove(&port);
                    let _ = done.send(());
                }
                Command::Stop => self.running = false,
            }
        }
        busy
    }

    /// Gives home what nobody will look at.
    pub(super) fn leave_all(&mut self) {
        self.networks.clear();
        self.take_all_punted(Nanos::default());
    }
}

#[cfg(test)]
impl Stack {
    /// Free frames of the stack's own: small ones and runs.
    pub(super) fn free(&self) -> (usize, usize) {
        self.way.pool.free()
    }

    /// One of the stack's own small frames, as a packet.
    pub(super) fn hold(&mut self) -> Option<Packet> {
        Packet::with_room(&mut self.way.pool, PortId(0), 64).ok()
    }
}
