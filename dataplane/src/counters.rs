//! Counters of one port on one worker: written by that worker, summed by whoever reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::drops::Reason;

/// A number that one thread raises and others read, relaxed: exact once the writer is quiet.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises the number. Only the counter's one writer may call this: it is a load and a store,
    /// which needs no locked instruction.
    #[inline(always)]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The number as it is now.
    #[inline(always)]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counts at one port. Frames are conserved: over all ports and workers,
/// received (or sent by the host stack) + copies + segments = transmitted + punted + drops, once nothing is in flight.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PortCounters {
    /// Frames that came in by the port.
    pub rx_packets: Counter,
    /// Their bytes, Ethernet header included, FCS not.
    pub rx_bytes: Counter,
    /// Frames handed to the port's device.
    pub tx_packets: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// Further copies made of frames that came in here and were flooded.
    pub copies: Counter,
    /// Further frames made by cutting super-packets that came in here.
    pub segments: Counter,
    /// Frames from here that were given to heddle's own host stack.
    pub punted: Counter,
    /// Frames that went no further, by [`Reason::index`], counted at the port they came in by.
    pub drops: Drops,
}

/// One counter per reason.
#[derive(Debug)]
pub struct Drops([Counter; Reason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Drops {
    /// The counter of `reason`.
    #[inline(always)]
    pub fn of(&self, reason: Reason) -> &Counter {
        &self.0[reason.index()]
    }

    /// All drops, whatever the reason.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::read).sum()
    }
}
