//! What a lab found out: rows for people (aligned text) and for programs (serde).

use std::fmt;
use std::fs;
use std::thread;

use serde::Serialize;

use super::cpu;
use super::spread::Spread;

/// The outcome of a scenario.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// One row per check, in the order in which they were made.
    pub rows: Vec<Row>,
    /// How long all of it took.
    pub seconds: f64,
    /// What stays until the lab is cancelled, if it was to be kept.
    pub kept: Vec<Kept>,
}

/// A container that stays for a look around.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Kept {
    /// The container's name in the scenario.
    pub container: String,
    /// The name of its namespace, for `ip netns exec`.
    pub netns: String,
}

/// The machine, as far as it matters to figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The load average of the last minute, before the lab began: others disturb figures.
    pub load: Option<f64>,
}

/// One check: whether it passed, and figures if it measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// What was checked.
    pub check: String,
    /// Whether it went as it should.
    pub passed: bool,
    /// What people should know: the reason of a failure, or a detail.
    pub note: String,
    /// What heddle did.
    pub heddle: Option<Figure>,
    /// What the peer did, interleaved with heddle: the kernel's bridge, where the check names no
    /// other.
    pub peer: Option<Figure>,
    /// heddle's figure by the peer's, repeat by repeat.
    pub ratio: Option<Spread>,
}

/// A measured quantity.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// In what it is measured.
    pub unit: Unit,
    /// Over the repeats.
    pub value: Spread,
    /// CPU seconds of the whole machine per gigabit moved, both ends' work included.
    pub cpu_seconds_per_gigabit: Option<f64>,
    /// TCP segments sent again, over all repeats.
    pub retransmissions: Option<u64>,
}

/// Units of figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Gigabits (10^9 bits) of contents per second.
    GigabitsPerSecond,
    /// Microseconds.
    Microseconds,
    /// Times per second.
    PerSecond,
    /// Millions of packets per second.
    MegapacketsPerSecond,
}

impl Machine {
    /// This machine, now.
    pub fn current() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            load: cpu::load_average(),
        }
    }
}

impl Report {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.passed)
    }
}

impl Row {
    /// A check without figures.
    pub fn plain(check: impl Into<String>, passed: bool, note: impl Into<String>) -> Self {
        let (check, note) = (check.into(), note.into());
        Self { check, passed, note, heddle: None, peer: None, ratio: None }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let figure = |figure: &Option<Figure>| figure.map_or(String::new(), |f| f.to_string());
        let unit = self.heddle.map_or("", |figure| figure.unit.symbol());
        let ratio = self.ratio.map_or(String::new(), |ratio| spread(&ratio, 2));
        let result = if self.passed { "ok" } else { "FAILED" };
        [
            self.check.clone(),
            result.to_owned(),
            figure(&self.heddle),
            figure(&self.peer),
            unit.to_owned(),
            ratio,
            self.cpu(),
            self.note.clone(),
        ]
    }

    fn cpu(&self) -> String {
        let of = |figure: &Option<Figure>| figure.and_then(|f| f.cpu_seconds_per_gigabit);
        match (of(&self.heddle), of(&self.peer)) {
            (None, None) => String::new(),
            (heddle, peer) => {
                let text = |cpu: Option<f64>| cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.3}"));
                format!("{} / {}", text(heddle), text(peer))
            }
        }
    }
}

impl Unit {
    /// The unit as people write it.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::GigabitsPerSecond => "Gbit/s",
            Self::Microseconds => "µs",
            Self::PerSecond => "/s",
            Self::MegapacketsPerSecond => "Mpps",
        }
    }
}

/// The value without its unit.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.unit {
            Unit::GigabitsPerSecond => 2,
            Unit::MegapacketsPerSecond => 3,
            Unit::Microseconds | Unit::PerSecond => 0,
        };
        f.write_str(&spread(&self.value, digits))
    }
}

const COLUMNS: usize = 8;
const HEADINGS: [&str; COLUMNS] =
    ["check", "result", "heddle", "peer", "unit", "ratio", "CPU s/Gbit", "note"];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        });
        for line in &lines {
            let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        let failed = self.rows.iter().filter(|row| !row.passed).count();
        let Machine { kernel, cores, load } = &self.machine;
        let load = load.map_or(String::new(), |load| format!(", load {load:.2} before"));
        writeln!(
            f,
            "\nscenario {}: {} checks, {failed} failed, in {:.1} s (Linux {kernel}, {cores} cores{load})",
            self.scenario,
            self.rows.len(),
            self.seconds
        )?;
        writeln!(
            f,
            "Figures are medians (lowest-highest); ratios are taken pair by pair; a / b is heddle / peer. The \
             peer is a Linux bridge where the check names no other."
        )?;
        for Kept { container, netns } in &self.kept {
            writeln!(f, "kept: {container} is network namespace {netns}")?;
        }
        Ok(())
    }
}

fn spread(spread: &Spread, digits: usize) -> String {
    let Spread { median, low, high } = spread;
    if low == high {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({low:.digits$}-{high:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_failures_counted() {
        let value = Spread { median: 15.25, low: 15.0, high: 15.5 };
        let figure = Figure {
            unit: Unit::GigabitsPerSecond,
            value,
            cpu_seconds_per_gigabit: Some(0.0625),
            retransmissions: Some(0),
        };
        let measured = Row {
            heddle: Some(figure),
            peer: Some(figure),
            ratio: Some(Spread { median: 1.0, low: 1.0, high: 1.0 }),
            ..Row::plain("TCP", true, "")
        };
        let machine = Machine { kernel: "6.18".to_owned(), cores: 2, load: Some(0.5) };
        let rows = vec![measured, Row::plain("isolation, long name", false, "got through")];
        let report = Report { scenario: "bridge", machine, rows, seconds: 3.0, kept: vec![] };
        assert!(!report.passed());
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        let at = |line: &str, word: &str| line.find(word).unwrap();
        assert_eq!(at(lines[0], "result"), at(lines[1], "ok"));
        assert_eq!(at(lines[0], "heddle"), at(lines[1], "15.25 (15.00-15.50)"));
        assert_eq!(at(lines[0], "note"), at(lines[2], "got through"));
        assert!(lines[1].contains("Gbit/s  1.00 ") && lines[1].contains("0.062 / 0.062"));
        assert!(text.contains("2 checks, 1 failed, in 3.0 s (Linux 6.18, 2 cores, load 0.50"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["heddle"]["unit"], "gigabits_per_second");
    }
}
