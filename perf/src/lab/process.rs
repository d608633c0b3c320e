//! What `/proc` says about processes: who they are, and what they cost.

use std::fs;
use std::time::Duration;

/// Clock ticks per second in `/proc`: `USER_HZ`, 100 on every architecture that heddle knows.
const TICKS_PER_SECOND: u32 = 100;

/// A process, told from a later one that got the same pid by the time of its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks after the machine's start.
    pub start: u64,
}

impl Identity {
    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this pid now, or `None` if none has.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: Stat::read(pid)?.start })
    }

    /// Whether this very process still runs (or waits for its parent to notice its end).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The CPU time that a process has used so far, all threads, or `None` if there is none.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    Stat::read(pid).map(|stat| ticks(stat.cpu))
}

/// A number of clock ticks as a duration.
pub(super) fn ticks(count: u64) -> Duration {
    Duration::from_secs(count) / TICKS_PER_SECOND
}

/// The fields of `/proc/PID/stat` that matter here (proc_pid_stat(5)).
struct Stat {
    cpu: u64,
    start: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything, so count from the last bracket: field 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let (user, system) = (field(14)?, field(15)?);
        Some(Self { cpu: user + system, start: field(22)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_alive_until_it_is_reaped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.is_alive());
        assert!(!Identity { start: identity.start + 1, ..identity }.is_alive());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }

    #[test]
    fn cpu_time_rises_with_work() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut spun = 0_u64;
        while cpu_time(std::process::id()).unwrap() == before {
            spun = std::hint::black_box(spun + 1);
        }
        assert!(spun > 0);
    }
}
