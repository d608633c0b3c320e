//! What learned addresses cost: memory, time to find and to hear one again, time to sweep.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use dataplane::ids::PortId;
use dataplane::time::Tick;
use pipelines::fdb::{self, Entry, Key, PortGeneration, Sweeper, Table};
use serde::Serialize;

use super::super::Error;
use super::super::report::spread;
use super::super::traffic::Random;
use super::super::workload::{SEGMENT, empty_fdb, learn, mac};
use super::{Spread, repeated};

/// A table filled with as many addresses as it was made for.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Addresses learned.
    pub macs: usize,
    /// Bytes of the table's lines per address.
    pub bytes_each: f64,
    /// Nanoseconds to find a random address, without a prefetch.
    pub lookup_ns: Spread,
    /// Nanoseconds to hear a random address again where and when it is known.
    pub learn_ns: Spread,
    /// Milliseconds to sweep the whole table when nothing is old.
    pub sweep_ms: Spread,
}

pub(super) const HEADINGS: [&str; 5] = ["MACs", "bytes each", "lookup ns", "learn ns", "sweep ms"];

pub(super) const ABOUT: &str = "A learned FDB of the size recommended for its addresses. Random addresses, one after the \
     other; nothing is prefetched as the walk would.";

impl Point {
    pub(super) fn cells(&self) -> [String; 5] {
        [
            self.macs.to_string(),
            format!("{:.1}", self.bytes_each),
            spread(&self.lookup_ns),
            spread(&self.learn_ns),
            format!("{:.2}", self.sweep_ms.median),
        ]
    }
}

const SIZES: [u32; 4] = [1000, 10_000, 100_000, 1_000_000];
const LOOKUPS: u32 = 1 << 17;

pub(super) fn draw() -> Result<Vec<Point>, Error> {
    SIZES.iter().map(|&size| point(size, LOOKUPS)).collect()
}

fn point(size: u32, lookups: u32) -> Result<Point, Error> {
    let lines = fdb::lines_for(size);
    let table = Arc::new(empty_fdb(lines)?);
    learn(&table, size);
    let macs = table.len();
    Ok(Point {
        macs,
        bytes_each: (lines * 64) as f64 / macs.max(1) as f64,
        lookup_ns: repeated(|| Ok(each(size, lookups, |_, key| find(&table, key))))?,
        learn_ns: repeated(|| Ok(each(size, lookups, |station, key| hear(&table, station, key))))?,
        sweep_ms: repeated(|| Ok(sweep(&table)))?,
    })
}

/// Nanoseconds that `act` takes for each of random stations.
fn each(size: u32, lookups: u32, act: impl Fn(u32, Key) -> bool) -> f64 {
    let mut random = Random(0x5851_f42d_4c95_7f2d);
    let begin = Instant::now();
    for _ in 0..lookups {
        let station = random.below(size);
        if let Some(key) = Key::new(SEGMENT, mac(station)) {
            black_box(act(station, key));
        }
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(lookups)
}

fn find(table: &Table, key: Key) -> bool {
    table.lookup(key, Tick(0), 300).is_some()
}

fn hear(table: &Table, station: u32, key: Key) -> bool {
    let port = if station.is_multiple_of(2) { PortId(0) } else { PortId(1) };
    let at = Entry { port, generation: PortGeneration::FIRST };
    table.learn(key, at, Tick(0), u32::MAX) == fdb::Learned::Known
}

fn sweep(table: &Arc<Table>) -> f64 {
    let mut sweeper = Sweeper::new(Arc::clone(table));
    let begin = Instant::now();
    let retired = sweeper.sweep(sweeper.buckets(), |row| row.seen.age(Tick(1)) <= 300);
    let seconds = begin.elapsed().as_secs_f64();
    sweeper.recycle(retired);
    seconds * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_finds_what_it_learned() {
        let point = point(257, 67).unwrap();
        assert!(point.macs > 250 && point.bytes_each < 64.0, "{point:?}");
        assert!(point.lookup_ns.low > 0.0 && point.sweep_ms.low > 0.0);
    }
}
