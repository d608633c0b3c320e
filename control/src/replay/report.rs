//! What a replay says: a line per frame for programs, a summary for people.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use dataplane::drops::Reason;
use dataplane::ids::PortId;
use dataplane::pipeline::Verdict;
use dataplane::time::Nanos;
use serde::Serialize;

use super::Names;
use super::merge::Frame;
use super::stage::Fate;
use crate::trace::{explain, verdict_word};

/// One frame that came in, as a line of JSON.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// Nanoseconds since 1970.
    time: u64,
    port: &'a str,
    /// How many frames came in by the port before.
    index: u64,
    verdict: &'static str,
    /// Why something of it was dropped.
    reason: Option<&'static str>,
    /// The ports that its copies left by.
    to: Vec<&'a str>,
}

impl<'a> Line<'a> {
    pub(super) fn new(names: &'a Names, frame: &Frame, fate: &Fate) -> Self {
        Self {
            time: frame.time.0,
            port: name(names, frame.port),
            index: frame.index,
            verdict: verdict_word(fate.verdict),
            reason: fate.reason.map(|reason| explain(reason).0),
            to: fate.to.iter().map(|&port| name(names, port)).collect(),
        }
    }

    pub(super) fn write_to(&self, lines: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *lines, self)?;
        lines.write_all(b"\n")
    }
}

/// What a replay came to. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The times of the first and of the last frame.
    pub span: Option<(Nanos, Nanos)>,
    /// Every port of the configuration, by number.
    pub ports: BTreeMap<PortId, PortSummary>,
    /// Frames for heddle's own host stack.
    pub punted: u64,
    /// Frames of which something was dropped, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

/// What came and went by one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSummary {
    /// The port's name.
    pub name: String,
    /// Frames that came in by it.
    pub frames_in: u64,
    /// Frames that left by it.
    pub frames_out: u64,
}

impl Summary {
    pub(super) fn new(names: &Names) -> Self {
        let port = |(&port, name): (&PortId, &String)| {
            (port, PortSummary { name: name.clone(), frames_in: 0, frames_out: 0 })
        };
        let ports = names.iter().map(port).collect();
        Self { span: None, ports, punted: 0, dropped: BTreeMap::new() }
    }

    pub(super) fn count(&mut self, frame: &Frame, fate: &Fate) {
        let first = self.span.map_or(frame.time, |(first, _)| first);
        self.span = Some((first, frame.time));
        self.ports.entry(frame.port).and_modify(|port| port.frames_in += 1);
        for &out in fate.to.iter().chain(&fate.answers) {
            self.ports.entry(out).and_modify(|port| port.frames_out += 1);
        }
        self.punted += u64::from(matches!(fate.verdict, Verdict::Punt(_)));
        if let Some(reason) = fate.reason {
            *self.dropped.entry(reason).or_default() += 1;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.span.unwrap_or_default();
        let (seconds, nanos) = (last.since(first).0 / SECOND, last.since(first).0 % SECOND);
        writeln!(f, "{seconds}.{nanos:09} s of frames")?;
        let longest = self.ports.values().map(|port| port.name.len()).max().unwrap_or_default();
        let width = longest.max("PORT".len());
        writeln!(f, "{:width$} {:>10} {:>10}", "PORT", "IN", "OUT")?;
        for PortSummary { name, frames_in, frames_out } in self.ports.values() {
            writeln!(f, "{name:width$} {frames_in:>10} {frames_out:>10}")?;
        }
        if self.punted > 0 {
            writeln!(f, "{} for heddle's own host stack", self.punted)?;
        }
        for (&reason, count) in &self.dropped {
            let (symbol, sentence) = explain(reason);
            writeln!(f, "{count} dropped, {symbol}: {sentence}")?;
        }
        Ok(())
    }
}

const SECOND: u64 = Nanos::SECOND.0;

fn name(names: &Names, port: PortId) -> &str {
    names.get(&port).map_or("", String::as_str)
}
