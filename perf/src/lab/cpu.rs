//! CPU accounting around a measurement: what the whole machine and one process spent.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use super::process;

/// What was spent between two moments, in CPU seconds (all cores together).
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Usage {
    /// By the whole machine: user, system and interrupts.
    pub busy_seconds: f64,
    /// Taken away by the hypervisor; a measurement with much of it says little.
    pub stolen_seconds: f64,
    /// By the process in question, all threads.
    pub process_seconds: Option<f64>,
}

/// A running account. The kernel counts in steps of 10 ms, so account for long stretches.
#[derive(Clone, Debug)]
pub struct Meter {
    pid: Option<u32>,
    machine: Machine,
    process: Option<Duration>,
}

impl Meter {
    /// Starts an account of the machine and, if given, of one process.
    pub fn start(pid: Option<u32>) -> Self {
        Self { pid, machine: Machine::read(), process: pid.and_then(process::cpu_time) }
    }

    /// What was spent since the start. A process that has ended has no account.
    pub fn read(&self) -> Usage {
        let now = Self::start(self.pid);
        let process = now.process.zip(self.process).map(|(now, then)| now.saturating_sub(then));
        Usage {
            busy_seconds: now.machine.busy.saturating_sub(self.machine.busy).as_secs_f64(),
            stolen_seconds: now.machine.stolen.saturating_sub(self.machine.stolen).as_secs_f64(),
            process_seconds: process.map(|spent| spent.as_secs_f64()),
        }
    }
}

/// CPU seconds per gigabit (10^9 bits) of contents moved.
pub fn per_gigabit(cpu_seconds: f64, bytes: u64) -> f64 {
    cpu_seconds / (bytes as f64 * 8e-9)
}

/// The load average of the last minute (`/proc/loadavg`), or `None` where it can't be read.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The first line of `/proc/stat` (proc_stat(5)): time of all cores since the machine's start.
#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    busy: Duration,
    stolen: Duration,
}

impl Machine {
    /// Zero if `/proc/stat` can't be read, so that an account shows nothing.
    fn read() -> Self {
        fs::read_to_string("/proc/stat").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let fields: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
            return Self::default();
        };
        // Guests are counted in user already.
        let busy = user + nice + system + irq + softirq;
        Self { busy: process::ticks(busy), stolen: process::ticks(steal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_line_is_read_by_field() {
        let machine = Machine::parse("cpu  100 20 30 4000 500 6 7 80 90 9\ncpu0 1 2 3\n");
        assert_eq!(machine.busy, Duration::from_millis(1630));
        assert_eq!(machine.stolen, Duration::from_millis(800));
    }

    #[test]
    fn work_shows_in_both_accounts() {
        let meter = Meter::start(Some(std::process::id()));
        while meter.read().process_seconds.unwrap() < 0.03 {
            std::hint::black_box(load_average());
        }
        assert!(meter.read().busy_seconds > 0.0);
        assert!((per_gigabit(3.0, 250_000_000) - 1.5).abs() < 1e-9);
    }
}
