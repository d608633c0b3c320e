//! Rings from one worker to the threads beside it: other workers, and the host stack.

use std::sync::Arc;

use rtrb::{Consumer, Producer, PushError};

use crate::ids::WorkerId;
use crate::memory::Packet;
use crate::pipeline::Egress;
use crate::sleep::Bell;

/// What one worker asks of another.
#[derive(Debug)]
pub enum Errand {
    /// Walk this packet from the start.
    Walk(Packet),
    /// Send this packet by a port whose queue is yours.
    Transmit(Egress, Packet),
}

/// A ring to another thread, which may be asleep.
#[derive(Debug)]
pub struct Way<T> {
    ring: Producer<T>,
    /// `None` where the other side is driven by hand.
    bell: Option<Arc<Bell>>,
    /// Whether something was pushed since the bell was rung.
    pushed: bool,
}

impl<T> Way<T> {
    /// A way over `ring` to a thread that `bell` wakes.
    pub fn new(ring: Producer<T>, bell: Option<Arc<Bell>>) -> Self {
        Self { ring, bell, pushed: false }
    }

    /// Puts something on the ring.
    ///
    /// # Errors
    ///
    /// Gives it back if the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        self.pushed = true;
        self.ring.push(item).map_err(|PushError::Full(item)| item)
    }

    /// Whether the other side has gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Wakes the other side, if there is something new for it.
    #[inline]
    pub fn ring(&mut self) {
        if std::mem::take(&mut self.pushed)
            && let Some(bell) = &self.bell
        {
            // If the wake-up fails, what was pushed waits for the next one.
            let _ = bell.ring();
        }
    }
}

/// Where the engine sends what is not for its own ports.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// To the other workers, by number; our own place is empty.
    pub to: Vec<Option<Way<Errand>>>,
    /// Hand-off rings from the other workers, and from the host stack.
    pub from: Vec<Consumer<Errand>>,
    /// To heddle's own host stack; [`Packet::in_port`] of what it is given is the stack's own
    /// port in the network.
    pub host: Option<Way<Packet>>,
}

impl Neighbours {
    /// Hands an errand to a worker, or gives it back.
    pub(super) fn hand_off(&mut self, worker: WorkerId, errand: Errand) -> Result<(), Errand> {
        match self.to.get_mut(worker.index()) {
            Some(Some(way)) => way.push(errand),
            _ => Err(errand),
        }
    }

    /// Wakes everyone who was given something since the last time.
    #[inline]
    pub(super) fn ring(&mut self) {
        self.to.iter_mut().flatten().for_each(Way::ring);
        self.host.iter_mut().for_each(Way::ring);
    }
}
