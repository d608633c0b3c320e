//! `show counters`: everything that is counted.

use std::collections::BTreeMap;

use dataplane::counters::{Counter, PortCounters};
use pipelines::state::Learning;
use serde::{Deserialize, Serialize};

use super::table::{Align, Table};
use crate::plane::{Port, sum};
use crate::switch::Switch;

/// The body of `/v1/counters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// By the port's name.
    pub ports: BTreeMap<String, Counts>,
    /// What learning of addresses came to.
    pub learning: Learned,
    /// Learned addresses that are kept at the moment.
    pub stations: usize,
}

/// What was counted at one port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Frames that came in by it.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames handed to its device.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Further copies made of frames that came in here and were flooded.
    pub copies: u64,
    /// Further frames made by cutting super-packets that came in here.
    pub segments: u64,
    /// Frames from here that were given to heddle's own host stack.
    pub punted: u64,
    /// Frames that came in here and went no further, by the reason's name. Reasons that did not
    /// occur are left out.
    pub drops: BTreeMap<String, u64>,
}

/// How often each outcome of learning came up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// Addresses inserted.
    pub learned: u64,
    /// Addresses that appeared behind another port.
    pub moved: u64,
    /// Addresses that gave way to those of a port with fewer.
    pub evicted: u64,
    /// Addresses not learned: the port has as many as it may have.
    pub refused: u64,
    /// Addresses not learned: no room.
    pub full: u64,
}

impl View {
    /// The counters as they are now.
    pub fn of(switch: &Switch) -> Self {
        let ports = switch.ports.iter().map(|(_, port)| (port.name().to_owned(), counts(port)));
        Self {
            ports: ports.collect(),
            learning: learned(switch.plane.learning()),
            stations: switch.plane.fdb().len(),
        }
    }

    /// The same for people: one counter that is not zero per line.
    pub fn text(&self) -> String {
        let columns = [("counter", Align::Left), ("value", Align::Right)];
        let mut table = Table::new(&columns, "nothing was counted");
        for (port, counts) in &self.ports {
            for (name, value) in counts.named() {
                table.add(&format!("port.{port}.{name}"), value);
            }
            for (reason, value) in &counts.drops {
                table.add(&format!("port.{port}.drops.{reason}"), *value);
            }
        }
        for (name, value) in self.learning.named() {
            table.add(&format!("learning.{name}"), value);
        }
        table.add("stations", u64::try_from(self.stations).unwrap_or(u64::MAX));
        table.to_string()
    }
}

impl Counts {
    fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("rx_packets", self.rx_packets),
            ("rx_bytes", self.rx_bytes),
            ("tx_packets", self.tx_packets),
            ("tx_bytes", self.tx_bytes),
            ("copies", self.copies),
            ("segments", self.segments),
            ("punted", self.punted),
        ]
    }
}

impl Learned {
    fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("learned", self.learned),
            ("moved", self.moved),
            ("evicted", self.evicted),
            ("refused", self.refused),
            ("full", self.full),
        ]
    }
}

impl Table {
    fn add(&mut self, name: &str, value: u64) {
        if value > 0 {
            self.row([name.to_owned(), value.to_string()]);
        }
    }
}

fn counts(port: &Port) -> Counts {
    let of = |counter: fn(&PortCounters) -> &Counter| sum(&port.counters, |c| counter(c).read());
    let drops = pipelines::drops::explanations().map(|explanation| {
        let count = sum(&port.counters, |c| c.drops.of(explanation.reason).read());
        (explanation.symbol.to_owned(), count)
    });
    Counts {
        rx_packets: of(|c| &c.rx_packets),
        rx_bytes: of(|c| &c.rx_bytes),
        tx_packets: of(|c| &c.tx_packets),
        tx_bytes: of(|c| &c.tx_bytes),
        copies: of(|c| &c.copies),
        segments: of(|c| &c.segments),
        punted: of(|c| &c.punted),
        drops: drops.filter(|(_, count)| *count > 0).collect(),
    }
}

fn learned(workers: &[std::sync::Arc<Learning>]) -> Learned {
    let of = |counter: fn(&Learning) -> &Counter| workers.iter().map(|w| counter(w).read()).sum();
    Learned {
        learned: of(|l| &l.learned),
        moved: of(|l| &l.moved),
        evicted: of(|l| &l.evicted),
        refused: of(|l| &l.refused),
        full: of(|l| &l.full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_not_shown_to_people() {
        let drops = BTreeMap::from([("storm".to_owned(), 67)]);
        let counts = Counts { rx_packets: 257, drops, ..Counts::default() };
        let view = View {
            ports: BTreeMap::from([("a".to_owned(), counts)]),
            learning: Learned { moved: 1, ..Learned::default() },
            stations: 0,
        };
        let expected = "\
COUNTER             VALUE
port.a.rx_packets     257
port.a.drops.storm     67
learning.moved          1
";
        assert_eq!(view.text(), expected);
    }
}
