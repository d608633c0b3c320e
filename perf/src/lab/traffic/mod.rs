//! The built-in traffic tool: kernel sockets of two namespaces, driven by threads. A socket
//! belongs to the namespace in which it was made, so only making it happens inside.
//!
//! Everything is bounded in time: each socket has a timeout, a transfer without progress is
//! given up after [`STALL`], and the lab's [`Cancel`](super::cancel::Cancel) ends it at once.

pub mod counters;
pub mod pattern;
pub mod ping;
pub mod tcp;
pub mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::device::netns::{self, Netns};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::Serialize;
use thiserror::Error;

use super::cancel::LOOK;

/// How long traffic may make no progress at all before it counts as stalled.
pub const STALL: Duration = Duration::from_secs(3);

/// How long a connection may take to be established.
pub const CONNECT: Duration = Duration::from_secs(3);

/// Why traffic failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// A socket operation failed.
    #[error("cannot {operation} {address}: {source}")]
    Socket {
        /// The operation, as a verb.
        operation: &'static str,
        /// The address in question.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A TCP stream made no progress for [`STALL`].
    #[error("stream {stream} to {address} stalled after {bytes} bytes")]
    Stalled {
        /// The stream's number, from zero.
        stream: usize,
        /// The address that the client connected to.
        address: SocketAddr,
        /// How far it came.
        bytes: u64,
    },
    /// A TCP stream delivered a wrong byte.
    #[error("stream {stream} to {address} is damaged at byte {offset}")]
    Damaged {
        /// The stream's number, from zero.
        stream: usize,
        /// The address that the client connected to.
        address: SocketAddr,
        /// Where the first wrong byte is.
        offset: u64,
    },
    /// A TCP stream ended, but not with the last byte that was sent.
    #[error("stream {stream} to {address} delivered {received} of {sent} bytes")]
    Short {
        /// The stream's number, from zero.
        stream: usize,
        /// The address that the client connected to.
        address: SocketAddr,
        /// How much was sent.
        sent: u64,
        /// How much arrived.
        received: u64,
    },
    /// The lab is to end.
    #[error("cancelled")]
    Cancelled,
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Where the connecting side is.
    pub client: &'a Netns,
    /// Where the listening side is.
    pub server: &'a Netns,
    /// The server's address, at which the client meets it.
    pub address: IpAddr,
}

/// Requests that were answered, or not, and how long that took.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct RoundTrips {
    /// Requests sent.
    pub sent: u64,
    /// Answers received in time.
    pub received: u64,
    /// The median time to an answer, in microseconds; zero without answers.
    pub p50_us: f64,
    /// The time within which 99 % of the answers came, in microseconds.
    pub p99_us: f64,
}

impl RoundTrips {
    fn new(sent: u64, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self { sent, received: times.len() as u64, p50_us: at(50), p99_us: at(99) }
    }

    /// Requests without an answer.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

fn socket_error(
    operation: &'static str,
    address: SocketAddr,
) -> impl FnOnce(io::Error) -> Error + Copy {
    move |source| Error::Socket { operation, address, source }
}

/// Ends the other side's thread when this one is left, however that happens.
pub(super) struct Stop<'a>(pub(super) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes every receive and accept on a socket return after [`LOOK`], with or without success.
fn look_often<Fd: AsFd>(socket: &Fd) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(LOOK))?;
    set_socket_timeout(socket, Timeout::Send, Some(LOOK))?;
    Ok(())
}

/// Whether an error only says that a socket's timeout passed.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let times = (1..=67).map(Duration::from_micros).collect();
        let trips = RoundTrips::new(70, times);
        assert_eq!((trips.received, trips.lost()), (67, 3));
        assert!((trips.p50_us - 34.0).abs() < 0.01 && (trips.p99_us - 67.0).abs() < 0.01);
        assert_eq!(RoundTrips::new(2, vec![]).lost(), 2);
    }
}
