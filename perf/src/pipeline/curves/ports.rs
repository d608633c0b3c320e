//! What idle ports cost a busy one.

use serde::Serialize;

use super::super::Error;
use super::super::report::{UNDISTURBED, spread};
use super::super::workload::Network;
use super::busy::{Busy, Work};
use super::{REPEATS, Spread};

/// A worker with so many ports.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Ports, one of which is busy.
    pub ports: u16,
    /// CPU clocks of the whole worker per packet, those of making and taking it included.
    pub clocks: Spread,
    /// The worker's share of its core.
    pub share: Spread,
}

pub(super) const HEADINGS: [&str; 3] = ["ports", "clocks", "share"];

pub(super) const ABOUT: &str = "CPU clocks per packet of a worker's whole loop, generator and sink included, 32 packets at a \
     time. One port is busy; the idle ones are eventfds that its readiness watches.";

impl Point {
    pub(super) fn cells(&self) -> [String; 3] {
        let mark = if self.share.median >= UNDISTURBED { "" } else { " DISTURBED" };
        let share = format!("{:.3}{mark}", self.share.median);
        [self.ports.to_string(), spread(&self.clocks), share]
    }
}

const PORTS: [u16; 6] = [2, 10, 30, 100, 300, 1000];
const PACKETS: u64 = 1 << 19;

pub(super) fn draw(core: usize) -> Result<Vec<Point>, Error> {
    PORTS.iter().map(|&ports| point(core, ports, PACKETS)).collect()
}

fn point(core: usize, ports: u16, packets: u64) -> Result<Point, Error> {
    let (mut clocks, mut share) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let tables = Network::Endpoints(ports).tables();
        let work: Work = Busy::start(core, tables, ports - 2, packets)?.finish()?;
        clocks.push(work.clocks / work.packets as f64);
        share.push(work.share);
    }
    let of = |values| Spread::of(values).ok_or(Error::NoRepeats);
    Ok(Point { ports, clocks: of(clocks)?, share: of(share)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_served_among_idle_ones() {
        let point = point(0, 67, 257).unwrap();
        assert!(point.ports == 67 && point.clocks.low > 0.0);
    }
}
