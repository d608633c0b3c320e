//! `show fdb`: which station is behind which port, configured or learned.

use std::collections::HashMap;

use dataplane::ids::{PortId, SegmentId};
use serde::{Deserialize, Serialize};

use super::table::{Align, Table};
use crate::switch::Switch;

/// Stations that are shown at most, unless the request says otherwise.
pub const LIMIT: usize = 10_000;

/// The body of `/v1/fdb`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// By network and address.
    pub fdb: Vec<Station>,
    /// Further stations, beyond the limit.
    pub omitted: usize,
}

/// One address and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Station {
    /// The network's name.
    pub network: String,
    /// The station's address.
    pub mac: String,
    /// The name of the port that it is behind.
    pub port: String,
    /// Why heddle knows it.
    pub kind: Kind,
    /// Seconds since it was last heard; only of learned ones.
    pub age: Option<u32>,
}

/// Why a station is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An endpoint's own address.
    Configured,
    /// Heard from the port.
    Learned,
}

impl View {
    /// At most `limit` stations, as they are now.
    pub fn of(switch: &Switch, limit: usize) -> Self {
        let networks = switch.inventory.model().segments();
        let ports: HashMap<PortId, &str> = switch.inventory.model().ports().collect();
        let mut fdb: Vec<Station> = configured(switch).take(limit).collect();
        let mut learned = learned(switch, &networks, &ports);
        fdb.extend(learned.by_ref().take(limit - fdb.len()));
        let omitted = configured(switch).count().saturating_sub(limit) + learned.count();
        fdb.sort();
        Self { fdb, omitted }
    }

    /// The same for people.
    pub fn text(&self) -> String {
        let columns = [
            ("network", Align::Left),
            ("mac", Align::Left),
            ("port", Align::Left),
            ("kind", Align::Left),
            ("age", Align::Right),
        ];
        let mut table = Table::new(&columns, "no stations");
        for station in &self.fdb {
            let kind = match station.kind {
                Kind::Configured => "configured",
                Kind::Learned => "learned",
            };
            table.row([
                station.network.clone(),
                station.mac.clone(),
                station.port.clone(),
                kind.to_owned(),
                station.age.map_or("-".to_owned(), |age| format!("{age}s")),
            ]);
        }
        match self.omitted {
            0 => table.to_string(),
            more => format!("{table}and {more} more; --limit shows them\n"),
        }
    }
}

/// Where an endpoint of a trunk is, frames say.
fn configured(switch: &Switch) -> impl Iterator<Item = Station> + '_ {
    let endpoints = switch.inventory.model().endpoints.values();
    let located = endpoints.filter(|endpoint| endpoint.segment != SegmentId::NONE);
    located.map(|endpoint| Station {
        network: endpoint.spec.network.clone(),
        mac: endpoint.mac.to_string(),
        port: endpoint.spec.name.clone(),
        kind: Kind::Configured,
        age: None,
    })
}

/// What is outdated and only waits to be removed is left out.
fn learned<'a>(
    switch: &'a Switch,
    networks: &'a HashMap<SegmentId, String>,
    ports: &'a HashMap<PortId, &str>,
) -> impl Iterator<Item = Station> + 'a {
    let (now, tables) = (switch.plane.now().tick(), switch.plane.tables());
    switch.plane.fdb().iter().filter_map(move |row| {
        let port = *ports.get(&row.entry.port)?;
        (tables.port(row.entry.port).generation == row.entry.generation).then(|| Station {
            network: networks.get(&row.key.segment()).map_or("-", String::as_str).to_owned(),
            mac: row.key.mac().to_string(),
            port: port.to_owned(),
            kind: Kind::Learned,
            age: Some(row.seen.age(now)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_are_shown_with_their_age() {
        let station = |mac: &str, kind, age| Station {
            network: "web".to_owned(),
            mac: mac.to_owned(),
            port: "web-1".to_owned(),
            kind,
            age,
        };
        let fdb = vec![
            station("02:42:0a:00:09:41", Kind::Configured, None),
            station("02:42:0a:00:09:42", Kind::Learned, Some(257)),
        ];
        let expected = "\
NETWORK  MAC                PORT   KIND         AGE
web      02:42:0a:00:09:41  web-1  configured     -
web      02:42:0a:00:09:42  web-1  learned     257s
and 3 more; --limit shows them
";
        assert_eq!(View { fdb, omitted: 3 }.text(), expected);
    }
}
