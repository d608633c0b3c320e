//! One row: clocks per packet on a pinned core, hot and cold, and how undisturbed they are.

use std::time::{Duration, Instant};

use dataplane::alloc;
use dataplane::cpu::tsc;
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

use super::Error;
use super::report::{Cache, Conditions, Row};
use super::rig::{Rig, Totals};
use super::workload::{Frames, Workload};
use crate::lab::spread::Spread;

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Repeats, of which the median and the spread are shown.
    pub repeats: usize,
    /// Packets of a repeat, hot.
    pub packets: usize,
    /// Batches of a repeat, cold: each is preceded by a sweep of all caches.
    pub sweeps: usize,
}

/// Pins the calling thread to a core.
///
/// # Errors
///
/// [`Error::Pin`] when there is no such core.
pub fn pin(core: usize) -> Result<(), Error> {
    let mut cores = CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).map_err(|source| Error::Pin { core, source })
}

/// A core and another one that this thread may use; twice the same where there is only one.
///
/// # Errors
///
/// [`Error::Pin`] when the system does not say.
pub fn pair(core: usize) -> Result<[usize; 2], Error> {
    let allowed =
        rustix::thread::sched_getaffinity(None).map_err(|source| Error::Pin { core, source })?;
    let other = (0..CpuSet::MAX_CPU).find(|&other| other != core && allowed.is_set(other));
    Ok([core, other.unwrap_or(core)])
}

/// Measures a workload at one batch size.
///
/// # Errors
///
/// [`Error::Lossy`] when frames were dropped: that would be another workload.
pub fn row(
    rig: &mut Rig,
    workload: &Workload,
    (batch, cache): (usize, Cache),
    effort: Effort,
    sweep: &mut Sweep,
) -> Result<Row, Error> {
    let packets = packets(workload, batch, cache, effort);
    let before = rig.totals();
    let mut bench = Bench { rig, batch, packets, empty: empty_bracket(), allocations: 0 };
    bench.repeat(&mut Sweep::default());
    let watch = Watch::start();
    let mut clocks = Vec::new();
    let mut ends = Vec::new();
    let mut longest = 0;
    for _ in 0..effort.repeats {
        let sweep = if cache == Cache::Cold { &mut *sweep } else { &mut Sweep::default() };
        let (inside, gap) = bench.repeat(sweep);
        clocks.push(inside);
        longest = longest.max(gap);
        if cache == Cache::Hot {
            ends.push(bench.with_ends());
        }
    }
    let conditions = watch.stop(longest);
    let allocations = bench.allocations as f64 / (packets * (effort.repeats + 1)) as f64;
    check(workload, before, rig.totals())?;
    Ok(Row {
        workload: workload.name,
        steps: Vec::new(),
        cache,
        batch,
        packets,
        clocks: Spread::of(clocks).ok_or(Error::NoRepeats)?,
        clocks_with_ends: Spread::of(ends),
        allocations,
        conditions,
        vpp: workload.vpp,
        target: workload.target.filter(|_| batch == 256 && cache == Cache::Hot),
    })
}

fn packets(workload: &Workload, batch: usize, cache: Cache, effort: Effort) -> usize {
    let batches = match cache {
        Cache::Hot => (effort.packets / batch).max(1),
        Cache::Cold => effort.sweeps,
    };
    // A super-packet is as much work as its segments, and needs a slot of 64 KiB.
    match workload.frames {
        Frames::Super => batch * (batches / 64).clamp(1, 64),
        _ => batch * batches,
    }
}

fn check(workload: &Workload, before: Totals, after: Totals) -> Result<(), Error> {
    let dropped = after.dropped - before.dropped;
    if dropped > 0 {
        return Err(Error::Lossy { workload: workload.name, dropped });
    }
    Ok(())
}

struct Bench<'a> {
    rig: &'a mut Rig,
    batch: usize,
    packets: usize,
    /// Clocks between two looks at the clock.
    empty: u64,
    allocations: u64,
}

impl Bench<'_> {
    /// Clocks per packet between the batch and the transmit arrays, and the longest batch.
    fn repeat(&mut self, sweep: &mut Sweep) -> (f64, u64) {
        let (mut inside, mut longest) = (0, 0);
        for _ in 0..self.packets / self.batch {
            let port = self.rig.load(self.batch);
            sweep.run();
            let allocations = alloc::allocations();
            let begin = tsc();
            self.rig.process(port);
            let spent = tsc() - begin;
            self.allocations += alloc::allocations() - allocations;
            self.rig.settle();
            inside += spent.saturating_sub(self.empty);
            longest = longest.max(spent);
        }
        (inside as f64 / self.packets as f64, longest)
    }

    /// Clocks per packet with the ends: taking a slot, copying the frame in, sending, freeing.
    fn with_ends(&mut self) -> f64 {
        let begin = tsc();
        for _ in 0..self.packets / self.batch {
            let port = self.rig.load(self.batch);
            self.rig.process(port);
            self.rig.settle();
        }
        (tsc() - begin) as f64 / self.packets as f64
    }
}

/// What an empty bracket costs: the median of many.
fn empty_bracket() -> u64 {
    let mut samples: Vec<u64> = (0..257)
        .map(|_| {
            let begin = tsc();
            tsc() - begin
        })
        .collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// Memory that is read to push everything else out of the caches.
#[derive(Default)]
pub struct Sweep(Vec<u64>);

impl Sweep {
    /// Twice the size of the last-level cache, or of 32 MiB where the system does not say.
    pub fn of_this_machine() -> Self {
        const PATH: &str = "/sys/devices/system/cpu/cpu0/cache/index3/size";
        let text = std::fs::read_to_string(PATH).unwrap_or_default();
        let kib = text.trim().trim_end_matches('K').parse().unwrap_or(32 << 10);
        Self(vec![1; kib * 1024 * 2 / size_of::<u64>()])
    }

    /// Bytes that are read.
    pub fn bytes(&self) -> usize {
        self.0.len() * size_of::<u64>()
    }

    fn run(&mut self) {
        const WORDS_PER_LINE: usize = 64 / size_of::<u64>();
        let sum =
            self.0.iter().step_by(WORDS_PER_LINE).fold(0u64, |sum, word| sum.wrapping_add(*word));
        std::hint::black_box(sum);
    }
}

/// Watches how much of a core the calling thread gets.
pub struct Watch {
    wall: Instant,
    cpu: Duration,
}

impl Watch {
    /// Begins to watch.
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: thread_time() }
    }

    /// What was seen. `longest` is the longest stretch between two looks at the clock, in clocks.
    pub fn stop(self, longest: u64) -> Conditions {
        let wall = self.wall.elapsed().as_secs_f64();
        let cpu = thread_time().saturating_sub(self.cpu).as_secs_f64();
        let clocks_per_us = dataplane::cpu::tsc_frequency() as f64 / 1e6;
        Conditions { share: (cpu / wall).min(1.0), longest_gap_us: longest as f64 / clocks_per_us }
    }
}

/// The CPU time that the calling thread has had.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFORT: Effort = Effort { repeats: 3, packets: 1024, sweeps: 1 };

    #[test]
    fn a_row_measures_its_packets_and_finds_no_allocation() {
        let workload = Workload::named("bridge-learned-64").unwrap();
        let mut rig = Rig::new(workload).unwrap();
        let mut sweep = Sweep(vec![0; 67]);
        for cell in [(67, Cache::Hot), (256, Cache::Cold)] {
            let row = row(&mut rig, workload, cell, EFFORT, &mut sweep).unwrap();
            assert!(row.clocks.low > 0.0 && row.clocks.low <= row.clocks.high);
            assert_eq!(row.clocks_with_ends.is_some(), cell.1 == Cache::Hot);
            assert_eq!(row.packets % cell.0, 0);
            assert!((0.0..=1.0).contains(&row.conditions.share));
        }
    }

    #[test]
    fn a_thread_that_works_has_its_share() {
        let watch = Watch::start();
        while thread_time().saturating_sub(watch.cpu) < Duration::from_millis(2) {
            std::hint::black_box(empty_bracket());
        }
        assert!(watch.stop(0).share > 0.0);
    }
}
