//! What the kernel counts at a socket, readable by control while a worker has the port.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::sockopt;

use crate::counters::Counter;

/// Frames and events that the port's other counters don't have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Frames lost because no frame was in the fill ring, or a piece of one could not be had.
    pub rx_dropped: u64,
    /// Frames lost because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that the kernel found the fill ring empty.
    pub fill_ring_empty: u64,
    /// Sent frames that the kernel found invalid: none, unless heddle is wrong.
    pub tx_invalid: u64,
    /// Addresses that the kernel returned and that were not lent to this socket: none.
    pub foreign: u64,
    /// Frames that could not be had back when the port was closed, since the device may still
    /// use them.
    pub quarantined: u64,
}

impl Statistics {
    /// Frames that arrived for the socket and were lost in the kernel.
    pub fn lost(&self) -> u64 {
        self.rx_dropped + self.rx_ring_full
    }
}

/// The statistics of one socket. They stay as they were when it is closed.
#[derive(Debug)]
pub struct Meter {
    source: Mutex<Source>,
    pub(super) foreign: Counter,
    pub(super) quarantined: Counter,
}

#[derive(Debug)]
enum Source {
    /// The lock is held while the socket is asked, so that a reader can't keep it from closing.
    Open(Arc<OwnedFd>),
    Closed(Statistics),
}

impl Meter {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Self {
        let source = Mutex::new(Source::Open(socket));
        Self { source, foreign: Counter::default(), quarantined: Counter::default() }
    }

    /// The statistics as they are now; one system call while the port is open.
    pub fn read(&self) -> Statistics {
        let kernel = match &*self.source.lock().unwrap_or_else(PoisonError::into_inner) {
            Source::Open(socket) => ask(socket),
            Source::Closed(last) => *last,
        };
        let (foreign, quarantined) = (self.foreign.read(), self.quarantined.read());
        Statistics { foreign, quarantined, ..kernel }
    }

    /// Lets go of the socket.
    pub(super) fn close(&self) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Source::Open(socket) = &*source {
            *source = Source::Closed(ask(socket));
        }
    }
}

pub(super) fn ask(socket: impl AsFd) -> Statistics {
    // A bound socket is never refused; if it were, zeroes would be as good as nothing.
    let Ok(kernel) = sockopt::xdp_statistics(socket) else { return Statistics::default() };
    Statistics {
        rx_dropped: kernel.rx_dropped,
        rx_ring_full: kernel.rx_ring_full.unwrap_or(0),
        fill_ring_empty: kernel.rx_fill_ring_empty_descs.unwrap_or(0),
        tx_invalid: kernel.tx_invalid_descs,
        ..Statistics::default()
    }
}
