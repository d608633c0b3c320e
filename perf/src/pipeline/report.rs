//! What was found out: rows for people (aligned text) and for programs (serde).

use std::fmt;
use std::process::Command;

use serde::Serialize;

use super::curves::Curves;
use super::instructions::Counted;
use super::scaling::Scaling;
use crate::lab::report::Machine;
use crate::lab::spread::Spread;

/// Below this share of its core, a thread was disturbed.
pub const UNDISTURBED: f64 = 0.98;

/// Everything that was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Where, and by which heddle.
    pub origin: Origin,
    /// Clocks per packet.
    pub rows: Vec<Row>,
    /// Instructions per packet.
    pub instructions: Vec<Counted>,
    /// How cost grows.
    pub curves: Option<Curves>,
    /// Two workers against one.
    pub scaling: Option<Scaling>,
}

/// Where the figures come from.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Origin {
    /// Kernel, cores, and the load before.
    pub machine: Machine,
    /// The processor's name.
    pub processor: String,
    /// Clocks per second of the time-stamp counter, in which clocks are counted.
    pub clocks_per_second: u64,
    /// The revision of heddle.
    pub commit: String,
    /// What a cold row means.
    pub cold: String,
}

/// Whether caches were swept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// As the last batch, and the copying in of this one, left them.
    Hot,
    /// Swept after a batch was copied in and before it was walked.
    Cold,
}

/// A workload at one batch size.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The workload's name.
    pub workload: &'static str,
    /// The steps of a packet, as its walk told them.
    pub steps: Vec<String>,
    /// Hot or cold.
    pub cache: Cache,
    /// Packets of a batch.
    pub batch: usize,
    /// Packets of a repeat.
    pub packets: usize,
    /// Clocks per packet from the batch to the transmit arrays.
    pub clocks: Spread,
    /// Clocks per packet with taking a slot, copying in, sending and freeing; hot only.
    pub clocks_with_ends: Option<Spread>,
    /// Memory allocations per packet.
    pub allocations: f64,
    /// How undisturbed the measuring was.
    pub conditions: Conditions,
    /// VPP's clocks on a machine of this class, its nodes alone and with its generator: fixed.
    pub vpp: Option<[f64; 2]>,
    /// The clocks to reach.
    pub target: Option<f64>,
}

/// How undisturbed a measuring thread was.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Conditions {
    /// CPU time by time that passed.
    pub share: f64,
    /// The longest stretch between two looks at the clock, in microseconds.
    pub longest_gap_us: f64,
}

impl Conditions {
    /// Whether the thread had its core to itself.
    pub fn undisturbed(self) -> bool {
        self.share >= UNDISTURBED
    }
}

impl Origin {
    /// This machine, now.
    pub fn current(sweep_bytes: usize) -> Self {
        Self {
            machine: Machine::current(),
            processor: processor(),
            clocks_per_second: dataplane::cpu::tsc_frequency(),
            commit: commit(),
            cold: format!(
                "{} MiB, twice the last-level cache, are read between copying a batch in and walking it",
                sweep_bytes >> 20
            ),
        }
    }
}

impl Report {
    /// Whether nothing was allocated per packet, and no instruction count has regressed.
    pub fn passed(&self) -> bool {
        self.failures().is_empty()
    }

    /// Whether no row was disturbed by others.
    pub fn undisturbed(&self) -> bool {
        self.rows.iter().all(|row| row.conditions.undisturbed())
            && self.curves.as_ref().is_none_or(Curves::undisturbed)
            && self.scaling.as_ref().is_none_or(Scaling::undisturbed)
    }

    /// A sentence for everything that failed.
    pub fn failures(&self) -> Vec<String> {
        let allocating = self.rows.iter().filter(|row| row.allocations > 0.0).map(|row| {
            let Row { workload, batch, allocations, .. } = row;
            format!("{workload} at batch {batch} allocates {allocations} times per packet")
        });
        let regressed = self.instructions.iter().filter_map(Counted::failure);
        allocating.chain(regressed).collect()
    }
}

/// The model name in `/proc/cpuinfo`.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": "));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The revision that was built, if the build was told, else that of the directory we are in.
fn commit() -> String {
    if let Some(commit) = option_env!("HEDDLE_COMMIT") {
        return commit.to_owned();
    }
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = output.ok().filter(|output| output.status.success());
    let text = text.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|| "unknown".to_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.origin)?;
        if !self.rows.is_empty() {
            self.write_rows(f)?;
        }
        if !self.instructions.is_empty() {
            let lines = self.instructions.iter().map(Counted::cells);
            table(f, &Counted::HEADINGS, lines)?;
        }
        if let Some(curves) = &self.curves {
            writeln!(f, "{curves}")?;
        }
        if let Some(scaling) = &self.scaling {
            writeln!(f, "{scaling}")?;
        }
        if !self.undisturbed() {
            writeln!(f, "Disturbed: a measuring thread had less than {UNDISTURBED} of its core.")?;
        }
        self.failures().iter().try_for_each(|failure| writeln!(f, "FAILED: {failure}"))
    }
}

const HEADINGS: [&str; 11] = [
    "workload",
    "cache",
    "batch",
    "clocks",
    "ns",
    "with ends",
    "target",
    "VPP",
    "allocations",
    "share",
    "gap µs",
];

impl Report {
    fn write_rows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clocks_per_ns = self.origin.clocks_per_second as f64 / 1e9;
        table(f, &HEADINGS, self.rows.iter().map(|row| row.cells(clocks_per_ns)))?;
        writeln!(
            f,
            "Clocks per packet, medians (lowest-highest). VPP: a fixed reference from a machine of \
             this class, its nodes alone (with its generator's ends)."
        )?;
        let mut last = "";
        for row in self.rows.iter().filter(|row| !row.steps.is_empty()) {
            if row.workload != last {
                writeln!(f, "{}: {}", row.workload, row.steps.join(", "))?;
            }
            last = row.workload;
        }
        writeln!(f)
    }
}

impl Row {
    fn cells(&self, clocks_per_ns: f64) -> [String; HEADINGS.len()] {
        let cache = if self.cache == Cache::Hot { "hot" } else { "cold" };
        let ends =
            self.clocks_with_ends.map_or(String::new(), |ends| format!("{:.1}", ends.median));
        let target = self.target.map_or(String::new(), |target| format!("{target:.0}"));
        let vpp = self.vpp.map_or(String::new(), |[nodes, ends]| format!("{nodes:.0} ({ends:.0})"));
        let mark = if self.conditions.undisturbed() { "" } else { " DISTURBED" };
        [
            self.workload.to_owned(),
            cache.to_owned(),
            self.batch.to_string(),
            spread(&self.clocks),
            format!("{:.1}", self.clocks.median / clocks_per_ns),
            ends,
            target,
            vpp,
            format!("{:.0}", self.allocations),
            format!("{:.3}{mark}", self.conditions.share),
            format!("{:.0}", self.conditions.longest_gap_us),
        ]
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { kernel, cores, load } = &self.machine;
        let load = load.map_or(String::new(), |load| format!(", load {load:.2} before"));
        let gigahertz = self.clocks_per_second as f64 / 1e9;
        let (processor, commit) = (&self.processor, &self.commit);
        writeln!(
            f,
            "heddle {commit} on Linux {kernel}, {processor}, {cores} cores{load}; clocks at \
             {gigahertz:.3} GHz"
        )?;
        writeln!(f, "Cold: {}.", self.cold)
    }
}

/// A spread with one digit.
pub(super) fn spread(spread: &Spread) -> String {
    format!("{:.1} ({:.1}-{:.1})", spread.median, spread.low, spread.high)
}

/// Writes aligned columns.
pub(super) fn table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    headings: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> fmt::Result {
    let mut lines = vec![headings.map(str::to_owned)];
    lines.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
