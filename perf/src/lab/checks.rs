//! The checks of a scenario in the making, and comparisons by turns.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::Error;
use super::cancel::Cancel;
use super::cpu::{self, Meter};
use super::report::{Figure, Row, Unit};
use super::spread::Spread;
use super::switch::Switch;
use super::traffic::Pair;
use super::traffic::tcp::{self, Amount, Bulk, Direction};

/// The families, in the order of all addresses.
pub(super) const FAMILIES: [&str; 2] = ["v4", "v6"];

const INTACT_BYTES: u64 = (16 << 20) + 67;

/// The checks that were made, and how far they are.
pub(super) struct Checks {
    pub(super) cancel: Cancel,
    pub(super) rows: Vec<Row>,
    bar: ProgressBar,
}

/// One repeat of a measurement.
#[derive(Clone, Copy, Default)]
pub(super) struct Sample {
    pub(super) value: f64,
    pub(super) bytes: u64,
    pub(super) retransmissions: u64,
}

impl Checks {
    pub(super) fn new(cancel: &Cancel) -> Self {
        // Draws nothing unless standard error is a terminal.
        let bar = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
        let style = ProgressStyle::with_template("{spinner} {elapsed} {pos} checks done: {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { cancel: cancel.clone(), rows: Vec::new(), bar }
    }

    /// Says what is done now.
    pub(super) fn begin(&self, check: &str) {
        self.bar.set_message(check.to_owned());
    }

    /// Keeps a row; heddle must still be there, or all further rows would say the same.
    pub(super) fn note(&mut self, row: Row, switch: &mut Switch) -> Result<(), Error> {
        self.cancel.check()?;
        switch.check()?;
        self.rows.push(row);
        self.bar.inc(1);
        Ok(())
    }

    /// The row of TCP that has to deliver every byte right, both ways: the classic failure is a
    /// wrong checksum.
    pub(super) fn contents(&self, check: String, pair: &Pair<'_>) -> Result<Row, Error> {
        self.begin(&check);
        let both = [Direction::ClientSends, Direction::ServerSends].map(|direction| {
            let amount = Amount::BytesPerStream(INTACT_BYTES);
            let plan = Bulk { streams: 3, amount, direction, verify: Some(7) };
            Ok(tcp::bulk(pair, &plan, &self.cancel)?.checksum_errors())
        });
        match both.into_iter().sum::<Result<u64, Error>>() {
            Ok(0) => Ok(Row::plain(check, true, "")),
            Ok(errors) => Ok(Row::plain(check, false, format!("{errors} wrong checksums"))),
            Err(error) => failed(check, error),
        }
    }

    /// The row of a throughput, heddle's pair first.
    pub(super) fn throughput(
        &self,
        check: &str,
        repeats: usize,
        plan: &Bulk,
        mut sides: [Pair<'_>; 2],
    ) -> Result<Row, Error> {
        self.compare(check, repeats, Unit::GigabitsPerSecond, &mut sides, |pair| {
            let done = tcp::bulk(pair, plan, &self.cancel)?;
            let retransmissions = done.retransmissions();
            let value = done.bits_per_second() / 1e9;
            Ok(Sample { value, bytes: done.bytes, retransmissions })
        })
    }

    /// Measures heddle, the first of `sides`, and its peer by turns, so that a disturbance meets
    /// both.
    pub(super) fn compare<Side>(
        &self,
        check: &str,
        repeats: usize,
        unit: Unit,
        sides: &mut [Side; 2],
        measure: impl FnMut(&mut Side) -> Result<Sample, Error>,
    ) -> Result<Row, Error> {
        self.begin(check);
        match by_turns(repeats, sides, measure) {
            Ok([heddle, peer]) => {
                let row = Row::plain(check, true, heddle.note(&peer));
                Ok(heddle.beside(&peer, unit, row))
            }
            Err(error) => failed(check.to_owned(), error),
        }
    }
}

fn by_turns<Side>(
    repeats: usize,
    sides: &mut [Side; 2],
    mut measure: impl FnMut(&mut Side) -> Result<Sample, Error>,
) -> Result<[Series; 2], Error> {
    let mut all = [Series::default(), Series::default()];
    for _ in 0..repeats {
        for (series, side) in all.iter_mut().zip(sides.iter_mut()) {
            let meter = Meter::start(None);
            let sample = measure(side)?;
            series.add(sample, meter.read().busy_seconds);
        }
    }
    Ok(all)
}

/// The repeats of one side.
#[derive(Default)]
pub(super) struct Series {
    samples: Vec<Sample>,
    busy_seconds: f64,
}

impl Series {
    pub(super) fn add(&mut self, sample: Sample, busy_seconds: f64) {
        self.samples.push(sample);
        self.busy_seconds += busy_seconds;
    }

    /// A row with the figures of heddle, its peer, and their ratio pair by pair.
    pub(super) fn beside(&self, peer: &Self, unit: Unit, row: Row) -> Row {
        let pairs = self.samples.iter().zip(&peer.samples);
        Row {
            ratio: Spread::of(pairs.map(|(ours, theirs)| ours.value / theirs.value)),
            heddle: self.figure(unit),
            peer: peer.figure(unit),
            ..row
        }
    }

    fn retransmissions(&self) -> u64 {
        self.samples.iter().map(|sample| sample.retransmissions).sum()
    }

    fn figure(&self, unit: Unit) -> Option<Figure> {
        let bytes: u64 = self.samples.iter().map(|sample| sample.bytes).sum();
        let moves = unit == Unit::GigabitsPerSecond && bytes > 0;
        Some(Figure {
            unit,
            value: Spread::of(self.samples.iter().map(|sample| sample.value))?,
            cpu_seconds_per_gigabit: moves.then(|| cpu::per_gigabit(self.busy_seconds, bytes)),
            retransmissions: moves.then(|| self.retransmissions()),
        })
    }

    fn note(&self, peer: &Self) -> String {
        match (self.retransmissions(), peer.retransmissions()) {
            (0, 0) => String::new(),
            (ours, theirs) => format!("{ours} / {theirs} segments sent again"),
        }
    }
}

/// The row of a check whose traffic failed; only a cancelled lab goes no further.
pub(super) fn failed(check: String, error: impl Into<Error>) -> Result<Row, Error> {
    match error.into() {
        Error::Cancelled => Err(Error::Cancelled),
        error => Ok(Row::plain(check, false, error.to_string())),
    }
}

/// So many streams, as people say it.
pub(super) fn streams_text(streams: usize) -> String {
    if streams == 1 { "1 stream".to_owned() } else { format!("{streams} streams") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_summed_up() {
        let mut series = Series::default();
        for (value, bytes, retransmissions) in [(2.0, 100_000_000, 3), (4.0, 25_000_000, 0)] {
            series.add(Sample { value, bytes, retransmissions }, 0.5);
        }
        let figure = series.figure(Unit::GigabitsPerSecond).unwrap();
        assert_eq!((figure.value.low, figure.value.high), (2.0, 4.0));
        assert!((figure.cpu_seconds_per_gigabit.unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(figure.retransmissions, Some(3));
        assert_eq!(series.figure(Unit::PerSecond).unwrap().retransmissions, None);
        assert_eq!(Series::default().figure(Unit::PerSecond), None);
    }

    #[test]
    fn sides_take_turns() {
        let mut order = Vec::new();
        let [ours, theirs] = by_turns(2, &mut [3.0, 2.0], |&mut value| {
            order.push(value);
            Ok(Sample { value, ..Sample::default() })
        })
        .unwrap();
        assert_eq!(order, [3.0, 2.0, 3.0, 2.0]);
        let row = ours.beside(&theirs, Unit::PerSecond, Row::plain("", true, ""));
        assert!((row.ratio.unwrap().low - 1.5).abs() < 1e-9);
    }
}
