//! Small packets from one AF_XDP port to another: through heddle's whole pipeline, and through a
//! forwarder that has none, by veths that are made alike.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dataplane::device::netlink::{self, Netlink};
use dataplane::device::xdp::{MOUNT_POINT, Pins};
use dataplane::forwarder::Forwarder;

use super::cancel::Cancel;
use super::checks::{Checks, Sample};
use super::host::{Container, Lab};
use super::line::{Line, Run, Subject, join};
use super::network::{self, DEVICE, Kind, Network};
use super::report::{Row, Unit};
use super::spread::Spread;
use super::switch::Switch;
use super::traffic::Stop;
use super::{Error, Standing};
use crate::pipeline::measure;
use crate::pipeline::report::UNDISTURBED;

const CHECK: &str = "64 B packets, af_xdp to af_xdp, beside a bare forwarder";
const REPEATS: usize = 5;
const NETWORK: Network = Network { name: "fast", number: 6, kinds: [Kind::VethByAfXdp; 2] };
/// The forwarder's ends of its veths.
const NEAR: [&str; 2] = ["near-1", "near-2"];
/// The forwarder's thread.
const FORWARDER: &str = "forwarder";

/// Measures both by turns, and notes the row. What is answered is left running.
///
/// # Errors
/// If it can't be built, heddle ends, or the lab is cancelled.
pub(super) fn compare(lab: &Lab, heddle: &Path, checks: &mut Checks) -> Result<Standing, Error> {
    checks.begin(CHECK);
    let cores = cores()?;
    let host = lab.container("fast")?;
    let fast = [lab.container("fast-1")?, lab.container("fast-2")?];
    let bare = [lab.container("bare-1")?, lab.container("bare-2")?];
    let text = network::configuration(lab, &host, &[cores[0]], &[(NETWORK, &fast)]);
    let mut switch = Switch::start(lab, &host, heddle, &text)?;
    let ours = Contender::heddle(lab, &fast, switch.pid(), cores)?;
    let mut both = [ours, Contender::bare(lab, &bare, cores)?];
    let unit = Unit::MegapacketsPerSecond;
    let row = checks.compare(CHECK, REPEATS, unit, &mut both, |contender| {
        let run = contender.run(lab.cancel())?;
        Ok(Sample { value: run.received, ..Sample::default() })
    })?;
    checks.note(judged(row, &both), &mut switch)?;
    let [ours, theirs] = both;
    ours.close(&fast[1])?;
    theirs.close(&bare[1])?;
    Ok(Standing::new(&fast, vec![switch]))
}

/// Who is measured.
struct Contender {
    line: Line,
    subject: Subject,
    core: usize,
    /// It runs only while it is measured, since it never sleeps. heddle runs by itself.
    bare: Option<Bare>,
    runs: Vec<Run>,
}

/// The forwarder, and where its devices are.
struct Bare {
    host: Container,
    forwarder: Forwarder,
    pins: Pins,
}

impl Contender {
    /// A heddle with one worker that serves both containers.
    fn heddle(lab: &Lab, far: &[Container; 2], pid: u32, cores: [usize; 2]) -> Result<Self, Error> {
        let line = line(lab, far, cores)?;
        let subject = Subject { pid, thread: "worker-0" };
        Ok(Self { line, subject, core: cores[0], bare: None, runs: Vec::new() })
    }

    /// Two veths as heddle makes them, with a forwarder at the near ends.
    fn bare(lab: &Lab, far: &[Container; 2], cores: [usize; 2]) -> Result<Self, Error> {
        let host = lab.container("bare")?;
        let quiet = || fs::write(IPV6_OFF, "1");
        host.netns().run(quiet)?.map_err(|e| Error::file("write", IPV6_OFF.as_ref(), e))?;
        for (near, far) in NEAR.into_iter().zip(far) {
            host.netlink(|netlink| {
                netlink.add_veth(near, DEVICE, 1, Some(far.netns()))?;
                set_up(netlink, near)
            })?;
            far.netlink(|netlink| set_up(netlink, DEVICE))?;
            host.wait_until_running(near, netlink::TIMEOUT, lab.cancel())?;
        }
        let pins = Pins::open(MOUNT_POINT, host.netns_name())?;
        let forwarder = host.netns().run(|| Forwarder::open(&pins, NEAR))??;
        let line = line(lab, far, cores)?;
        let subject = Subject { pid: std::process::id(), thread: FORWARDER };
        let bare = Some(Bare { host, forwarder, pins });
        Ok(Self { line, subject, core: cores[0], bare, runs: Vec::new() })
    }

    fn run(&mut self, cancel: &Cancel) -> Result<Run, Error> {
        let Self { line, subject, core, bare, runs } = self;
        let done = AtomicBool::new(false);
        let run = thread::scope(|scope| {
            let turn = bare.as_mut().map(|Bare { forwarder, .. }| {
                let thread = thread::Builder::new().name(FORWARDER.to_owned());
                thread.spawn_scoped(scope, || forward(forwarder, *core, &done))
            });
            let turn = turn.transpose().map_err(Error::Thread)?;
            let run = {
                let _stop = Stop(&done);
                line.run(*subject, cancel)
            };
            turn.map_or(Ok(()), join)?;
            run
        })?;
        runs.push(run);
        Ok(run)
    }

    fn close(self, far: &Container) -> Result<(), Error> {
        self.line.close(far)?;
        let Some(Bare { host, forwarder, pins }) = self.bare else { return Ok(()) };
        host.netns().run(|| forwarder.close())??;
        Ok(pins.close()?)
    }
}

fn forward(forwarder: &mut Forwarder, core: usize, done: &AtomicBool) -> Result<(), Error> {
    measure::pin(core)?;
    while !done.load(Ordering::Relaxed) {
        forwarder.turn();
    }
    Ok(())
}

/// New devices of this namespace do without IPv6, and so have nothing to say for themselves.
const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

fn set_up(netlink: &mut Netlink, name: &str) -> Result<(), netlink::Error> {
    // If it is gone, zero is refused with the reason.
    let index = netlink.link(name)?.map_or(0, |link| link.index);
    netlink.set_up(index)
}

fn line(lab: &Lab, far: &[Container; 2], cores: [usize; 2]) -> Result<Line, Error> {
    let addresses = [0, 1].map(|member| match NETWORK.hosts_of(member)[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    });
    Line::open(lab, far.each_ref(), addresses, cores[1])
}

/// The cores for who is measured and for the generator; the same one twice where there is no
/// other.
fn cores() -> Result<[usize; 2], Error> {
    let last = thread::available_parallelism().map_or(0, |count| count.get() - 1);
    Ok(measure::pair(last)?)
}

/// The row with what is to be known beside the figures.
fn judged(row: Row, both: &[Contender; 2]) -> Row {
    if !row.passed {
        return row;
    }
    let arrived = both.iter().flat_map(|contender| &contender.runs).all(|run| run.received > 0.0);
    let [ours, theirs] = both.each_ref().map(|contender| Summary::of(&contender.runs));
    Row { passed: arrived, note: note(&ours, &theirs), ..row }
}

fn note(ours: &Summary, theirs: &Summary) -> String {
    let disturbed = ours.share.min(theirs.share) < UNDISTURBED;
    format!(
        "offered {:.2} / {:.2} Mpps, while it ran {:.3} / {:.3} Mpps, share {:.3} / {:.3}, \
         longest gap {:.1} / {:.1} ms{}{}",
        ours.offered,
        theirs.offered,
        ours.while_running,
        theirs.while_running,
        ours.share,
        theirs.share,
        ours.longest_gap_ms,
        theirs.longest_gap_ms,
        if disturbed { ", DISTURBED" } else { "" },
        if ours.kept_up || theirs.kept_up { ", bound by the generator" } else { "" },
    )
}

/// The worst of several runs, and medians of what they were offered and carried.
struct Summary {
    offered: f64,
    /// What it would have carried had it always run when it wanted to.
    while_running: f64,
    share: f64,
    longest_gap_ms: f64,
    /// Whether nearly all that was offered got through once, so that more might have.
    kept_up: bool,
}

impl Summary {
    fn of(runs: &[Run]) -> Self {
        let median = |of: fn(&Run) -> f64| {
            Spread::of(runs.iter().map(of)).map_or(0.0, |spread| spread.median)
        };
        let gaps = runs.iter().map(|run| run.longest_gap.as_secs_f64() * 1e3);
        Self {
            offered: median(|run| run.offered),
            while_running: median(|run| run.received / run.share),
            share: runs.iter().map(|run| run.share).fold(1.0, f64::min),
            longest_gap_ms: gaps.fold(0.0, f64::max),
            kept_up: runs.iter().any(|run| run.received > KEPT_UP * run.offered),
        }
    }
}

/// The part of what is offered from which on it is not the receiver that is measured.
const KEPT_UP: f64 = 0.98;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_summary_shows_the_worst() {
        let run = |offered, share, milliseconds| Run {
            offered,
            received: 1.0,
            longest_gap: Duration::from_millis(milliseconds),
            share,
        };
        let summary = Summary::of(&[run(2.0, 1.0, 3), run(4.0, 0.5, 1), run(3.0, 0.75, 2)]);
        assert!((summary.offered - 3.0).abs() < 1e-9 && (summary.share - 0.5).abs() < 1e-9);
        assert!((summary.while_running - 4.0 / 3.0).abs() < 1e-9);
        assert!((summary.longest_gap_ms - 3.0).abs() < 1e-9 && !summary.kept_up);
        assert!(Summary::of(&[run(1.01, 1.0, 0)]).kept_up);
    }

    #[test]
    fn small_packets_get_through_a_bare_forwarder() {
        let lab = Lab::new(Cancel::new()).unwrap();
        let far = [lab.container("far-1").unwrap(), lab.container("far-2").unwrap()];
        let mut contender = Contender::bare(&lab, &far, cores().unwrap()).unwrap();
        let run = contender.run(lab.cancel()).unwrap();
        assert!(run.received > 0.0 && run.received <= run.offered * 1.1, "{run:?}");
        assert!(run.share > 0.0 && run.longest_gap > Duration::ZERO);
        contender.close(&far[1]).unwrap();
    }
}
