//! What heddle's end-to-end tests share: a host with containers as namespaces and a heddle
//! between them ([`World`]), from a few words about its networks ([`Plan`]), and traffic that
//! shows every loss ([`Paced`]) or fills the wire ([`Load`]). Whole frames go by [`raw`]; those that
//! nobody should send are made by [`hostile`].
//!
//! The tests need root and the binary: `cargo build --workspace`, or another one named by the
//! environment variable `HEDDLE`. Those of all processes take turns, since they share the CPU.
#![forbid(unsafe_code)]

mod api;
mod holdings;
pub mod hostile;
mod load;
mod ovs;
mod paced;
mod plan;
pub mod raw;
mod wire;
mod world;

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub use api::Api;
pub use holdings::{Holdings, Loaded, Memory};
pub use load::Load;
pub use ovs::Ovs;
pub use paced::{Arrivals, Paced};
pub use plan::{Kind, Plan, far_mac, near_end};
pub use wire::{NIC, assign, bridge};
pub use world::{DeviceCounters, End, World, plug};

/// The device's name in every container.
pub const DEVICE: &str = "eth0";

/// How long anything may take that is not traffic, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The one and the other.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Bytes of the IP header without options.
    pub fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    fn pick(self, both: [IpAddr; 2]) -> IpAddr {
        match self {
            Self::V4 => both[0],
            Self::V6 => both[1],
        }
    }
}

/// The binary under test.
///
/// # Panics
/// If there is none.
pub fn heddle() -> PathBuf {
    let beside = || {
        // target/PROFILE/deps/TEST: the binary is two up.
        let own = std::env::current_exe().expect("the test's own path");
        own.ancestors().nth(2).expect("a target directory").join("heddle")
    };
    let path = std::env::var_os("HEDDLE").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{} is not there: cargo build --workspace", path.display());
    path
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// After `within`, naming what did not happen.
pub fn eventually<T>(what: &str, within: Duration, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The right to use the CPU: held by one test at a time, also among processes.
#[derive(Debug)]
pub struct Turn {
    /// Closing it gives the turn to the next.
    _lock: File,
}

impl Turn {
    /// Waits until it is this test's turn.
    ///
    /// # Panics
    /// If locks don't work here.
    pub fn take() -> Self {
        let path = std::env::temp_dir().join("heddle-tests.lock");
        let lock = File::create(&path).expect("a file in the directory for temporary ones");
        lock.lock().expect("a file system with locks");
        Self { _lock: lock }
    }
}
