//! The bare AF_XDP forwarder on its own.
//!
//! ```text
//! forwarder DEVICE DEVICE SECONDS
//! ```
//!
//! It takes all frames of queue 0 of both devices, which are in the calling process's namespace,
//! and says at the end what it forwarded and what was lost.

use std::error::Error;
use std::time::{Duration, Instant};

use dataplane::device::xdp::{MOUNT_POINT, Pins};
use dataplane::forwarder::{Forwarder, Tally};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [left, right, seconds] = &arguments[..] else {
        return Err("usage: forwarder DEVICE DEVICE SECONDS".into());
    };
    let duration = Duration::from_secs(seconds.parse()?);
    let pins = Pins::open(MOUNT_POINT, "forwarder")?;
    let mut forwarder = Forwarder::open(&pins, [left, right])?;
    for (name, (runs, mode)) in [left, right].into_iter().zip(forwarder.modes()) {
        eprintln!("{name}: {runs} mode, {mode}");
    }
    let started = Instant::now();
    while started.elapsed() < duration {
        forwarder.turn();
    }
    let elapsed = started.elapsed();
    for (name, Tally { sent, lost }) in [left, right].into_iter().zip(forwarder.tallies()) {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = sent as f64 / elapsed.as_secs_f64() / 1e6;
        println!("{name}: sent {sent}, {rate:.3} million per second; lost in the kernel {lost}");
    }
    Ok(forwarder.close()?)
}
