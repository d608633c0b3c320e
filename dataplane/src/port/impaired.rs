//! A port wrapped in a worse one: loses, delays and reorders what it receives, by a seed.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::time::Nanos;

/// How bad the port is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairment {
    /// The same seed does the same to the same frames.
    pub seed: u64,
    /// Frames lost, per million.
    pub loss_ppm: u32,
    /// Frames held back until the next one has passed, per million.
    pub reorder_ppm: u32,
    /// How long each frame is held.
    pub delay: Nanos,
}

/// A port whose received frames suffer an [`Impairment`]. What it transmits passes untouched.
#[derive(Debug)]
pub struct Impaired<P> {
    port: P,
    impairment: Impairment,
    random: u64,
    /// Frames on their way, with the time at which they arrive.
    held: VecDeque<(Nanos, Packet)>,
    /// The frame that the next one overtakes.
    overtaken: Option<Packet>,
}

impl<P> Impaired<P> {
    /// `port`, made worse.
    pub fn new(port: P, impairment: Impairment) -> Self {
        let random = impairment.seed;
        Self { port, impairment, random, held: VecDeque::new(), overtaken: None }
    }

    /// Whether an event of this likelihood happens now.
    fn happens(&mut self, ppm: u32) -> bool {
        // SplitMix64 (Steele, Lea, Flood 2014): any seed will do, zero too.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 1_000_000 < u64::from(ppm)
    }

    /// Loses, holds back or lets through one frame.
    fn pass(&mut self, pool: &mut Pool, packet: Packet, arrival: Nanos) {
        if self.happens(self.impairment.loss_ppm) {
            pool.give(packet.into_frame());
        } else if self.overtaken.is_none() && self.happens(self.impairment.reorder_ppm) {
            self.overtaken = Some(packet);
        } else {
            self.held.push_back((arrival, packet));
            let overtaken = self.overtaken.take();
            self.held.extend(overtaken.map(|packet| (arrival, packet)));
        }
    }
}

impl<P: Port> Port for Impaired<P> {
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        now: Nanos,
        counters: &PortCounters,
    ) -> Intake {
        let before = batch.len();
        let intake = self.port.receive(pool, batch, budget, now, counters);
        let arrival = Nanos(now.0.saturating_add(self.impairment.delay.0));
        let arrived: Vec<Packet> = batch.drain(before..).collect();
        let quiet = arrived.is_empty();
        arrived.into_iter().for_each(|packet| self.pass(pool, packet, arrival));
        if quiet && self.held.is_empty() {
            // Nothing follows that could overtake it.
            self.held.extend(self.overtaken.take().map(|packet| (now, packet)));
        }
        while self.held.front().is_some_and(|(at, _)| *at <= now) && batch.len() - before < budget {
            batch.extend(self.held.pop_front().map(|(_, packet)| packet));
        }
        if self.held.is_empty() { intake } else { Intake::More }
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        self.port.transmit(pool, packets)
    }

    fn capabilities(&self) -> Capabilities {
        self.port.capabilities()
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        self.port.readiness()
    }

    fn close(self: Box<Self>, pool: &mut Pool) {
        let Self { port, held, overtaken, .. } = *self;
        held.into_iter()
            .map(|(_, packet)| packet)
            .chain(overtaken)
            .for_each(|packet| pool.give(packet.into_frame()));
        Box::new(port).close(pool);
    }
}
