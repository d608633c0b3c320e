//! Storm control: how many group and unknown frames a port may send, as a shared virtual clock.

use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::time::Nanos;

/// A rate with a burst, by the generic cell rate algorithm (ITU-T I.371, the virtual scheduling
/// form): the time at which the next frame is due moves on by one interval per frame, and may run
/// ahead of the clock by the burst.
///
/// One per port, shared by the workers: what it limits is flooded to every port, so that one
/// compare-and-swap is the least of it.
#[derive(Debug)]
pub struct Storm {
    interval_ns: u64,
    tolerance_ns: u64,
    due_ns: AtomicU64,
}

impl Storm {
    /// At most `per_second` frames a second, and a burst of a tenth of a second's, at least one.
    pub fn new(per_second: u64) -> Self {
        let interval_ns = 1_000_000_000 / per_second.max(1);
        let burst = (per_second / 10).max(1);
        Self { interval_ns, tolerance_ns: interval_ns * (burst - 1), due_ns: AtomicU64::new(0) }
    }

    /// Whether one more frame may pass now; it is counted if so.
    pub fn admits(&self, now: Nanos) -> bool {
        let step = |due: u64| {
            let conforms = due <= now.0.saturating_add(self.tolerance_ns);
            conforms.then(|| due.max(now.0).saturating_add(self.interval_ns))
        };
        // Another worker's frame counts first when it was faster; both are counted.
        self.due_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_any_second_after_the_burst() {
        let storm = Storm::new(1000);
        let admitted = |from: u64, to: u64| {
            (from..to).step_by(10_000).filter(|&ns| storm.admits(Nanos(ns))).count()
        };
        let start = 5_000_000_000;
        let first = admitted(start, start + 1_000_000_000);
        assert!((1095..=1105).contains(&first), "{first} with the burst");
        let second = admitted(start + 1_000_000_000, start + 2_000_000_000);
        assert!((995..=1005).contains(&second), "{second} without");
    }

    #[test]
    fn a_single_frame_always_passes_after_a_pause() {
        let storm = Storm::new(1);
        assert!(storm.admits(Nanos(1_000_000_000)));
        assert!(!storm.admits(Nanos(1_500_000_000)));
        assert!(storm.admits(Nanos(2_000_000_000)));
    }
}
