//! Two workers against one: each pinned to a core of its own, with memory of its own, on the
//! same ports, tables and learned FDB.

use std::fmt;
use std::sync::{Arc, Barrier};
use std::thread;

use dataplane::cpu::{tsc, tsc_frequency};
use serde::Serialize;

use super::measure::{self, Watch};
use super::report::{self, Conditions, UNDISTURBED};
use super::rig::{Rig, World};
use super::workload::Workload;
use super::{Error, Options};
use crate::lab::spread::Spread;

/// What a second worker adds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Scaling {
    /// The workload.
    pub workload: &'static str,
    /// Million packets per second of one worker, ends included.
    pub one_mpps: Spread,
    /// Million packets per second of both together, at the same time.
    pub two_mpps: Spread,
    /// The ratio, repeat by repeat.
    pub ratio: Spread,
    /// How undisturbed the workers were, each repeat's worst.
    pub share: Spread,
}

/// Of one worker, from one repeat.
struct Run {
    packets_per_second: f64,
    conditions: Conditions,
}

const WORKLOAD: &str = "bridge-learned-1k";
const BATCH: usize = 256;
/// Long enough that a worker that starts a little later does not count.
const PACKETS_FACTOR: usize = 16;

impl Scaling {
    /// Whether both workers had their cores.
    pub fn undisturbed(&self) -> bool {
        self.share.median >= UNDISTURBED
    }
}

/// Measures one worker, then two, in turn.
///
/// # Errors
///
/// [`Error`](enum@Error) when threads or memory can't be had.
pub fn measure(options: &Options, cores: [usize; 2]) -> Result<Scaling, Error> {
    let workload = Workload::named(WORKLOAD)?;
    let packets = options.packets * PACKETS_FACTOR;
    let mut world = World::new(workload, 2)?;
    let mut rigs = vec![world.rig(workload)?, world.rig(workload)?];
    let (mut one, mut two, mut ratio, mut share) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.repeats {
        let alone = together(&mut rigs[..1], cores, packets)?;
        let both = together(&mut rigs, cores, packets)?;
        let rate = |runs: &[Run]| runs.iter().map(|run| run.packets_per_second).sum::<f64>();
        one.push(rate(&alone) / 1e6);
        two.push(rate(&both) / 1e6);
        ratio.push(rate(&both) / rate(&alone));
        let shares = alone.iter().chain(&both).map(|run| run.conditions.share);
        share.push(shares.fold(1.0, f64::min));
    }
    let spread = |values| Spread::of(values).ok_or(Error::NoRepeats);
    Ok(Scaling {
        workload: workload.name,
        one_mpps: spread(one)?,
        two_mpps: spread(two)?,
        ratio: spread(ratio)?,
        share: spread(share)?,
    })
}

/// Runs every rig on a thread of its own, from the same moment on.
fn together(rigs: &mut [Rig], cores: [usize; 2], packets: usize) -> Result<Vec<Run>, Error> {
    let start = Arc::new(Barrier::new(rigs.len()));
    thread::scope(|scope| {
        let threads: Vec<_> = rigs
            .iter_mut()
            .zip(cores)
            .map(|(rig, core)| {
                let start = Arc::clone(&start);
                scope.spawn(move || {
                    let pinned = measure::pin(core);
                    start.wait();
                    pinned.map(|()| drive(rig, packets))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::ThreadEnded))).collect()
    })
}

fn drive(rig: &mut Rig, packets: usize) -> Run {
    let watch = Watch::start();
    let (begin, mut last, mut longest) = (tsc(), tsc(), 0);
    for _ in 0..packets / BATCH {
        let port = rig.load(BATCH);
        rig.process(port);
        rig.settle();
        let now = tsc();
        longest = longest.max(now - last);
        last = now;
    }
    let seconds = (last - begin) as f64 / tsc_frequency() as f64;
    Run { packets_per_second: packets as f64 / seconds, conditions: watch.stop(longest) }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, one_mpps, two_mpps, ratio, share } = self;
        let mark = if self.undisturbed() { "" } else { " DISTURBED" };
        let (one, two) = (report::spread(one_mpps), report::spread(two_mpps));
        writeln!(
            f,
            "Two workers, {workload}, generator and sink on the workers' own cores: {two} Mpps \
             against {one} Mpps of one: {:.2}x ({:.2}-{:.2}), share {:.3}{mark}",
            ratio.median, ratio.low, ratio.high, share.median
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_forward_on_one_fdb() {
        let options = Options { repeats: 1, packets: 257, ..Options::default() };
        let scaling = measure(&options, super::measure::pair(0).unwrap()).unwrap();
        assert!(scaling.ratio.median > 0.0);
        assert!(scaling.to_string().contains("bridge-learned-1k"));
    }
}
