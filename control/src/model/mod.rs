//! The desired state: what networks and endpoints there are, whom they belong to, and the
//! numbers and addresses that they were given.
//!
//! [`Desired`] is what was asked for, by the file and over the API. An [`Inventory`] holds what
//! that came to: it plans the next one from a new wish without changing itself, so that nothing
//! has happened before the plan is stored and published.

mod desired;
mod diff;
mod ids;
mod inventory;
mod mac;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::ids::{MacAddr, PortId, SegmentId};
use ipnet::IpNet;
use pipelines::fdb::PortGeneration;
use serde::Serialize;

pub use desired::{Desired, Skipped, Stored};
pub use diff::Change;
pub use ids::{Error as IdError, Ids};
pub use inventory::{Inventory, Plan, PlanError, Retired};

use crate::config;

/// Whom an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration file names it: it comes and goes with the file.
    File,
    /// It was made at run time and persists until it is removed.
    Api,
}

/// A network with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its segment, kept as long as the network exists.
    pub id: SegmentId,
    /// Whom it belongs to.
    pub origin: Origin,
    /// What was asked for.
    pub spec: config::Network,
    /// The port of heddle's own host stack, kept as long as the network exists.
    pub host: PortId,
    /// How often that port's number has been given.
    pub host_generation: PortGeneration,
    /// heddle's own address on the segment.
    pub gateway_mac: MacAddr,
}

/// A port with its number and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its row among the ports, kept as long as its device is the same.
    pub id: PortId,
    /// How often that row has been given.
    pub generation: PortGeneration,
    /// Its network's segment.
    pub segment: SegmentId,
    /// Whom it belongs to.
    pub origin: Origin,
    /// What was asked for.
    pub spec: config::Port,
    /// What it has: each address with its subnet's prefix length.
    pub addresses: Vec<IpNet>,
    /// Its station's address.
    pub mac: MacAddr,
}

/// All networks and endpoints, by name. A copy is cheap: it shares them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    /// By name.
    pub networks: BTreeMap<String, Arc<Network>>,
    /// By name, of all networks together.
    pub endpoints: BTreeMap<String, Arc<Endpoint>>,
}

impl Model {
    /// The endpoints of one network, by name. It looks at all endpoints; for every network in
    /// turn, go through [`Model::endpoints`] once.
    pub fn endpoints_of(&self, network: &str) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values().filter(move |endpoint| endpoint.spec.network == network)
    }
}
