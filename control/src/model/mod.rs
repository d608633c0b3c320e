//! The desired state: what networks, endpoints and uplinks there are, whom they belong to, and the
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
mod uplink;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dataplane::ids::{MacAddr, PortId, SegmentId};
use dataplane::wire::vlan::Vid;
use ipnet::IpNet;
use pipelines::fdb::PortGeneration;
use pipelines::trunk::Trunk;
use serde::Serialize;

pub use desired::{Desired, Skipped, Stored};
pub use diff::Change;
pub use ids::{Error as IdError, Ids};
pub use inventory::{Inventory, Plan, PlanError, Retired};
pub use mac::fnv1a;
pub use uplink::Uplink;

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
    /// Its segment, kept as long as the network exists and is the same VLAN of the same parent.
    /// [`SegmentId::NONE`] for a trunk network, which has those of `trunk`.
    pub id: SegmentId,
    /// Its number as a VLAN of its parent, if it is one. Its endpoints don't tag it.
    pub vlan: Option<Vid>,
    /// The segments of a trunk network, as its endpoints get them.
    pub trunk: Option<Arc<Trunk>>,
    /// Whom it belongs to.
    pub origin: Origin,
    /// What was asked for.
    pub spec: config::Network,
    /// The port of heddle's own host stack, kept as long as the segment; of no use without a
    /// gateway.
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
    /// Its network's segment, [`SegmentId::NONE`] in a trunk network.
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

/// All networks, endpoints and uplinks, by name. A copy is cheap: it shares them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    /// By name.
    pub networks: BTreeMap<String, Arc<Network>>,
    /// By name, of all networks together.
    pub endpoints: BTreeMap<String, Arc<Endpoint>>,
    /// By the name of their device, which no endpoint has.
    pub uplinks: BTreeMap<String, Arc<Uplink>>,
}

impl Model {
    /// The endpoints of one network, by name. It looks at all endpoints; for every network in
    /// turn, go through [`Model::endpoints`] once.
    pub fn endpoints_of(&self, network: &str) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values().filter(move |endpoint| endpoint.spec.network == network)
    }

    /// The number of an endpoint's port, or of the uplink to a parent.
    pub fn port(&self, name: &str) -> Option<PortId> {
        let endpoint = self.endpoints.get(name).map(|endpoint| endpoint.id);
        endpoint.or_else(|| self.uplinks.get(name).map(|uplink| uplink.id))
    }

    /// What each segment is called: by its network, or as the VLAN of its parent that only trunks
    /// have.
    pub fn segments(&self) -> HashMap<SegmentId, String> {
        let mut names = HashMap::new();
        for uplink in self.uplinks.values() {
            for (segment, _) in uplink.trunk.segments() {
                let vlan = uplink.vlan(segment).map_or(String::new(), |vid| format!(" vlan {vid}"));
                names.insert(segment, format!("{}{vlan}", uplink.device));
            }
        }
        let networks = self.networks.values().filter(|network| network.trunk.is_none());
        names.extend(networks.map(|network| (network.id, network.spec.name.clone())));
        names
    }

    /// The port numbers of everything that a frame comes in by, with its name.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &str)> {
        let endpoints = self.endpoints.iter().map(|(name, endpoint)| (endpoint.id, &**name));
        endpoints.chain(self.uplinks.iter().map(|(name, uplink)| (uplink.id, &**name)))
    }
}
