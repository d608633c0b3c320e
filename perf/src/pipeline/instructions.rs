//! Instructions per packet, counted by callgrind: the same on every run, so that a small
//! regression shows in CI, where clocks are noise.
//!
//! The binary runs itself under callgrind once per workload, and callgrind counts only what
//! happens inside the bracket that the clock also measures.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Error;
use super::rig::Rig;
use super::workload::{Frames, Workload};

/// What is done with the counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instructions {
    /// The committed counts.
    pub baseline: PathBuf,
    /// Whether they are to be replaced by the new ones.
    pub bless: bool,
}

/// The arguments by which the binary calls itself, before the workload's name:
/// [`under_callgrind`] is to be called then.
pub const ARGUMENTS: [&str; 3] = ["perf", "pipeline", "--under-callgrind"];

/// More than this much more than the committed count is a regression.
pub const TOLERANCE: f64 = 0.03;

/// The file of committed counts.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Baseline {
    /// Instructions per packet, by workload.
    instructions_per_packet: BTreeMap<String, f64>,
}

/// One workload's count.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Counted {
    /// The workload's name.
    pub workload: &'static str,
    /// Instructions per packet at a batch of 256.
    pub instructions: f64,
    /// The committed count; `None` for a new workload.
    pub committed: Option<f64>,
    /// Whether the committed counts were replaced.
    pub blessed: bool,
}

impl Counted {
    pub(super) const HEADINGS: [&'static str; 4] =
        ["workload", "instructions", "committed", "change"];

    /// The sentence of a regression.
    pub(super) fn failure(&self) -> Option<String> {
        let committed = self.committed.filter(|_| !self.blessed)?;
        let Self { workload, instructions, .. } = self;
        (*instructions > committed * (1.0 + TOLERANCE)).then(|| {
            format!("{workload} takes {instructions:.1} instructions per packet, {committed:.1} were committed")
        })
    }

    pub(super) fn cells(&self) -> [String; 4] {
        let committed = self.committed.map_or("none".to_owned(), |count| format!("{count:.1}"));
        let change = self.committed.map(|count| (self.instructions / count - 1.0) * 100.0);
        [
            self.workload.to_owned(),
            format!("{:.1}", self.instructions),
            committed,
            change.map_or(String::new(), |change| format!("{change:+.1} %")),
        ]
    }
}

/// Counts the instructions of some workloads, and compares them with the committed counts or
/// replaces those.
///
/// # Errors
///
/// [`Error::Callgrind`] when it can't be run, [`Error::File`] and [`Error::Counts`] for the
/// committed counts.
pub fn count(
    workloads: &[&'static Workload],
    instructions: &Instructions,
) -> Result<Vec<Counted>, Error> {
    let Instructions { baseline: path, bless } = instructions;
    let mut baseline = read(path, *bless)?;
    let mut counts = Vec::new();
    for workload in workloads {
        let total = run(workload)?;
        let instructions = (total as f64 / packets(workload) as f64 * 10.0).round() / 10.0;
        let committed = baseline.instructions_per_packet.get(workload.name).copied();
        counts.push(Counted { workload: workload.name, instructions, committed, blessed: *bless });
        baseline.instructions_per_packet.insert(workload.name.to_owned(), instructions);
    }
    if *bless {
        write(path, &baseline)?;
    }
    Ok(counts)
}

/// The fixed work of a workload, to be counted by the callgrind around this process.
///
/// # Errors
///
/// [`Error`](enum@Error) when there is no such workload, or no memory.
pub fn under_callgrind(name: &str) -> Result<(), Error> {
    let workload = Workload::named(name)?;
    let mut rig = Rig::new(workload)?;
    for _ in 0..packets(workload) / BATCH {
        let port = rig.load(BATCH);
        rig.process(port);
        rig.settle();
    }
    Ok(())
}

const BATCH: usize = 256;

fn packets(workload: &Workload) -> usize {
    if workload.frames == Frames::Super { BATCH } else { 8 * BATCH }
}

/// Runs a workload under callgrind; answers the instructions inside the bracket.
fn run(workload: &'static Workload) -> Result<u64, Error> {
    let failed = |log: String| Error::Callgrind { workload: workload.name, log };
    let binary = env::current_exe().map_err(|error| failed(error.to_string()))?;
    let out = env::temp_dir().join(format!("heddle-callgrind-{}", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=*heddle_measured_batch*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(binary)
        .args(ARGUMENTS)
        .arg(workload.name)
        .output()
        .map_err(|error| failed(format!("valgrind: {error}")))?;
    let counts = fs::read_to_string(&out);
    let _ = fs::remove_file(&out);
    let log = String::from_utf8_lossy(&output.stderr);
    let total = counts.ok().filter(|_| output.status.success()).and_then(|text| total(&text));
    total.filter(|&total| total > 0).ok_or_else(|| failed(last_lines(&log)))
}

/// The total in callgrind's output: what its line `totals:` or `summary:` says.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let line = line.or_else(|| text.lines().find_map(|line| line.strip_prefix("summary: ")));
    line?.split_whitespace().next()?.parse().ok()
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// The committed counts; none where there is no file and they are to be made.
fn read(path: &Path, bless: bool) -> Result<Baseline, Error> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|source| Error::Counts { path: path.to_owned(), source }),
        Err(_) if bless => Ok(Baseline::default()),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, baseline: &Baseline) -> Result<(), Error> {
    let counts = |source| Error::Counts { path: path.to_owned(), source };
    let text = serde_json::to_string_pretty(baseline).map_err(counts)? + "\n";
    fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total("events: Ir\nsummary: 7\n\ntotals: 67257\n"), Some(67257));
        assert_eq!(total("events: Ir\nsummary: 257 1\n"), Some(257));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn three_percent_more_are_a_regression_unless_blessed() {
        let counted = |instructions, blessed| Counted {
            workload: "flood-8-ports",
            instructions,
            committed: Some(100.0),
            blessed,
        };
        assert_eq!(counted(102.9, false).failure(), None);
        assert!(counted(103.1, false).failure().unwrap().contains("flood-8-ports takes 103.1"));
        assert_eq!(counted(110.0, true).failure(), None);
        assert_eq!(Counted { committed: None, ..counted(110.0, false) }.failure(), None);
    }

    #[test]
    fn counts_survive_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut baseline = Baseline::default();
        baseline.instructions_per_packet.insert("gateway-arp".to_owned(), 67.5);
        write(file.path(), &baseline).unwrap();
        assert_eq!(read(file.path(), false).unwrap(), baseline);
        fs::write(file.path(), "{").unwrap();
        assert!(matches!(read(file.path(), true), Err(Error::Counts { .. })));
        let missing = Path::new("/nonexistent/instructions.json");
        assert!(matches!(read(missing, false), Err(Error::File { .. })));
        assert_eq!(read(missing, true).unwrap(), Baseline::default());
    }
}
