//! What one change costs when many endpoints are loaded: making the new tables, and bringing
//! them into force on a busy worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::ids::PortId;
use pipelines::fdb::Key;
use pipelines::tables::{Port, Tables};
use serde::Serialize;

use super::super::Error;
use super::super::report::spread;
use super::super::workload::{Network, SEGMENT, mac};
use super::busy::Busy;
use super::{Spread, repeated};

/// Tables with so many endpoints, to which one is added.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Configured stations.
    pub endpoints: u32,
    /// Microseconds to make the tables that have one more.
    pub change_us: Spread,
    /// Microseconds until the worker forwards by them, from the moment of publication.
    pub in_force_us: Spread,
}

pub(super) const HEADINGS: [&str; 3] = ["endpoints", "change µs", "in force µs"];

pub(super) const ABOUT: &str = "One endpoint more: its port, its station and its place in the flood list, then publication \
     until a busy worker has taken it up. Beyond 50,000 ports, stations share ports.";

impl Point {
    pub(super) fn cells(&self) -> [String; 3] {
        [self.endpoints.to_string(), spread(&self.change_us), spread(&self.in_force_us)]
    }
}

const SIZES: [u32; 4] = [100, 1000, 10_000, 100_000];
const MOST_PORTS: u16 = 50_000;
/// A worker that has not come round by then is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn draw(core: usize) -> Result<Vec<Point>, Error> {
    SIZES.iter().map(|&size| point(core, size)).collect()
}

fn point(core: usize, endpoints: u32) -> Result<Point, Error> {
    let busy = Busy::start(core, loaded(endpoints), 0, u64::MAX)?;
    let mut number = endpoints;
    let mut change = || {
        number += 1;
        let before = busy.publication.current();
        let begin = Instant::now();
        let tables = Arc::new(with_one_more(&before, number));
        (begin.elapsed(), tables)
    };
    let change_us = repeated(|| Ok(change().0.as_secs_f64() * 1e6))?;
    let in_force_us = repeated(|| {
        let (_, tables) = change();
        let begin = Instant::now();
        let generation = busy.publication.publish(tables);
        while !busy.publication.quiesced(generation) {
            if begin.elapsed() > PATIENCE {
                return Err(Error::ThreadEnded);
            }
            std::thread::yield_now();
        }
        Ok(begin.elapsed().as_secs_f64() * 1e6)
    })?;
    Ok(Point { endpoints, change_us, in_force_us })
}

fn loaded(endpoints: u32) -> Tables {
    let ports = u16::try_from(endpoints).unwrap_or(u16::MAX).min(MOST_PORTS);
    let mut tables = Network::Endpoints(ports).tables();
    for station in u32::from(ports)..endpoints {
        put(&mut tables, station, PortId(u16::try_from(station % u32::from(ports)).unwrap_or(0)));
    }
    tables
}

fn with_one_more(tables: &Tables, station: u32) -> Tables {
    let mut tables = tables.clone();
    let port = PortId(u16::try_from(station).unwrap_or(u16::MAX).min(MOST_PORTS + 67));
    *tables.ports.row_mut(port.index()) = Port::default();
    put(&mut tables, station, port);
    let segment = tables.segments.row_mut(SEGMENT.index());
    let members = Arc::make_mut(&mut segment.members);
    if let Err(place) = members.binary_search(&port) {
        members.insert(place, port);
    }
    tables
}

fn put(tables: &mut Tables, station: u32, port: PortId) {
    if let Some(key) = Key::new(SEGMENT, mac(station)) {
        tables.stations.insert(key, port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_in_the_new_tables_only() {
        let before = loaded(257);
        let after = with_one_more(&before, 300);
        assert_eq!((before.stations.len(), after.stations.len()), (257, 258));
        let members = |tables: &Tables| tables.segment(SEGMENT).unwrap().members.len();
        assert_eq!((members(&before), members(&after)), (257, 258));
    }

    #[test]
    fn a_busy_worker_takes_changes_up() {
        let point = point(0, 67).unwrap();
        assert!(point.change_us.low > 0.0 && point.in_force_us.low > 0.0);
    }
}
