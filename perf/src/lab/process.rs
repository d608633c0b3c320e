//! What `/proc` says about processes: who they are, and what they cost.

use std::fs;
use std::ops::Sub;
use std::path::PathBuf;
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

/// What the scheduler did with a thread so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turns {
    /// How long it ran.
    pub ran: Duration,
    /// How long it could have run, and another one did.
    pub waited: Duration,
}

impl Turns {
    /// How much of the time in which it wanted to run it did run, from 0 to 1.
    pub fn share(self) -> f64 {
        let wanted = self.ran + self.waited;
        if wanted.is_zero() { 1.0 } else { self.ran.as_secs_f64() / wanted.as_secs_f64() }
    }
}

/// What was done between two moments.
impl Sub for Turns {
    type Output = Self;

    fn sub(self, then: Self) -> Self {
        let ran = self.ran.saturating_sub(then.ran);
        Self { ran, waited: self.waited.saturating_sub(then.waited) }
    }
}

/// The turns of the first thread of a process that is called `thread`, or `None` if there is none
/// (`/proc/PID/task/TID/schedstat`, scheduler/sched-stats.rst of the kernel's documentation).
pub fn turns(pid: u32, thread: &str) -> Option<Turns> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let is_called = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == thread)
    };
    let path = threads.map(|entry| entry.path()).find(is_called)?;
    let text = fs::read_to_string(path.join("schedstat")).ok()?;
    let mut fields = text.split_whitespace().map_while(|field| field.parse().ok());
    let mut next = || fields.next().map(Duration::from_nanos);
    Some(Turns { ran: next()?, waited: next()? })
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

    #[test]
    fn turns_of_a_thread_are_found_by_its_name() {
        let pid = std::process::id();
        assert_eq!(turns(pid, "no such thread"), None);
        let work = move || {
            while turns(pid, "worker-67").unwrap().ran < Duration::from_millis(5) {
                std::hint::black_box(0);
            }
            turns(pid, "worker-67").unwrap()
        };
        let thread = std::thread::Builder::new().name("worker-67".to_owned());
        let turns = thread.spawn(work).unwrap().join().unwrap();
        let half = Turns { ran: turns.ran / 2, waited: turns.waited };
        assert!(turns.share() > 0.0 && (turns - half).ran >= Duration::from_micros(2500));
        assert!((Turns::default().share() - 1.0).abs() < 1e-9);
    }
}
