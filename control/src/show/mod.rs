//! What `heddle show` shows: one view per topic, each a body of the API and a table for people.
//!
//! Keys of the bodies are stable; later versions add to them. Counters are sums over all
//! workers since the port was served, read while they go on.

pub mod counters;
pub mod drops;
pub mod fdb;
pub mod networks;
pub mod ports;
mod table;
pub mod workers;

use serde::de::DeserializeOwned;

pub use table::{Align, Table};

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Endpoints' ports.
    Ports,
    /// Networks.
    Networks,
    /// Station addresses and the ports that they are behind.
    Fdb,
    /// Why frames went no further.
    Drops,
    /// Everything that is counted.
    Counters,
    /// How the workers' time goes.
    Workers,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 6] =
        [Self::Ports, Self::Networks, Self::Fdb, Self::Drops, Self::Counters, Self::Workers];

    /// Its name, on the command line and in the API's paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Networks => "networks",
            Self::Fdb => "fdb",
            Self::Drops => "drops",
            Self::Counters => "counters",
            Self::Workers => "workers",
        }
    }

    /// The topic of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// The API's body, as people read it.
    ///
    /// # Errors
    ///
    /// When the body is not this topic's: the two ends are of different versions.
    pub fn text(self, body: serde_json::Value) -> Result<String, serde_json::Error> {
        Ok(match self {
            Self::Ports => read::<ports::View>(body)?.table().to_string(),
            Self::Networks => read::<networks::View>(body)?.table().to_string(),
            Self::Fdb => read::<fdb::View>(body)?.text(),
            Self::Drops => read::<drops::View>(body)?.table().to_string(),
            Self::Counters => read::<counters::View>(body)?.text(),
            Self::Workers => read::<workers::View>(body)?.table().to_string(),
        })
    }
}

fn read<T: DeserializeOwned>(body: serde_json::Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(body)
}
