//! From the model to the tables that workers read: pure, so that the same model always gives the
//! same rows.
//!
//! [`compile_all`] makes everything from nothing and is the oracle; [`apply`] does the same in
//! proportion to what changes, and shares all other pages with the tables before.

use std::sync::Arc;

use dataplane::ids::PortId;
use pipelines::fdb::Key;
use pipelines::storm::Storm;
use pipelines::tables::{Identity, Port, Role, Segment, Tables};

use crate::model::{Change, Endpoint, Model, Network};

/// The tables of a whole model. `seed` is to be random: see
/// [`Stations::new`](pipelines::stations::Stations::new).
pub fn compile_all(model: &Model, seed: u64) -> Tables {
    let mut tables = Tables::new(seed);
    for network in model.networks.values() {
        *tables.segments.row_mut(network.id.index()) = segment_row(network);
    }
    for endpoint in model.endpoints.values() {
        add_endpoint(&mut tables, model, endpoint);
    }
    tables
}

/// The tables after `changes`, which lead to `model`.
pub fn apply(tables: &Tables, changes: &[Change], model: &Model) -> Tables {
    let mut tables = tables.clone();
    for change in changes {
        match change {
            Change::EndpointRemoved(endpoint) => remove_endpoint(&mut tables, endpoint),
            Change::NetworkRemoved(network) => {
                *tables.segments.row_mut(network.id.index()) = Segment::default();
            }
            Change::NetworkAdded(network) => {
                *tables.segments.row_mut(network.id.index()) = segment_row(network);
            }
            Change::NetworkChanged { new, .. } => change_network(&mut tables, model, new),
            Change::EndpointAdded(endpoint) => add_endpoint(&mut tables, model, endpoint),
            Change::EndpointChanged { old, new } => {
                remove_endpoint(&mut tables, old);
                add_endpoint(&mut tables, model, new);
            }
        }
    }
    tables
}

/// A network's row, still without members.
fn segment_row(network: &Network) -> Segment {
    let addresses = network.spec.subnets.iter().map(|subnet| subnet.gateway);
    let has_address = !network.spec.subnets.is_empty();
    let gateway = Identity::new(network.gateway_mac, addresses);
    Segment {
        gateway: has_address.then(|| Arc::new(gateway)),
        ageing: u32::try_from(network.spec.ageing.duration().as_secs()).unwrap_or(u32::MAX),
        members: Arc::default(),
    }
}

/// An endpoint's row.
fn port_row(network: &Network, endpoint: &Endpoint) -> Port {
    let spec = &network.spec;
    let identity = || Identity::new(endpoint.mac, endpoint.addresses.iter().map(|net| net.addr()));
    let storm = endpoint.spec.limits.storm;
    Port {
        role: Role::Endpoint(endpoint.segment),
        generation: endpoint.generation,
        mtu: spec.mtu,
        identity: spec.anti_spoof.then(|| Arc::new(identity())),
        learns: !spec.anti_spoof,
        isolated: spec.isolated,
        mac_limit: spec.mac_limit,
        storm: storm.map(|rate| Arc::new(Storm::new(rate.0))),
    }
}

fn add_endpoint(tables: &mut Tables, model: &Model, endpoint: &Endpoint) {
    let Some(network) = model.networks.get(&endpoint.spec.network) else { return };
    *tables.ports.row_mut(endpoint.id.index()) = port_row(network, endpoint);
    if let Some(key) = Key::new(endpoint.segment, endpoint.mac) {
        tables.stations.insert(key, endpoint.id);
    }
    with_members(tables, endpoint, |members| {
        if let Err(place) = members.binary_search(&endpoint.id) {
            members.insert(place, endpoint.id);
        }
    });
}

fn remove_endpoint(tables: &mut Tables, endpoint: &Endpoint) {
    *tables.ports.row_mut(endpoint.id.index()) = Port::default();
    if let Some(key) = Key::new(endpoint.segment, endpoint.mac) {
        tables.stations.remove(key);
    }
    with_members(tables, endpoint, |members| members.retain(|&port| port != endpoint.id));
}

/// A network's settings are in its endpoints' rows too.
fn change_network(tables: &mut Tables, model: &Model, network: &Network) {
    let row = tables.segments.row_mut(network.id.index());
    *row = Segment { members: Arc::clone(&row.members), ..segment_row(network) };
    let members = Arc::clone(&row.members);
    for endpoint in model.endpoints_of(&network.spec.name) {
        // One that is still to be added gets its row then.
        if members.binary_search(&endpoint.id).is_ok() {
            *tables.ports.row_mut(endpoint.id.index()) = port_row(network, endpoint);
        }
    }
}

fn with_members(tables: &mut Tables, endpoint: &Endpoint, change: impl FnOnce(&mut Vec<PortId>)) {
    let row = tables.segments.row_mut(endpoint.segment.index());
    change(Arc::make_mut(&mut row.members));
}
