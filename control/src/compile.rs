//! From the model to the tables that workers read: pure, so that the same model always gives the
//! same rows.
//!
//! [`compile_all`] makes everything from nothing and is the oracle; [`apply`] does the same in
//! proportion to what changes, and shares all other pages with the tables before.

use std::sync::Arc;

use dataplane::ids::{PortId, SegmentId};
use pipelines::fdb::Key;
use pipelines::storm::Storm;
use pipelines::tables::{HostStack, Identity, Port, Role, Segment, Tables};

use crate::config::units::Interval;
use crate::model::{Change, Endpoint, Model, Network, Uplink};

/// Packets a second that the host stack takes from one network; a tenth of it at once.
const HOST_STACK_LIMIT: u64 = 4000;

/// The tables of a whole model. `seed` is to be random: see
/// [`Stations::new`](pipelines::stations::Stations::new).
pub fn compile_all(model: &Model, seed: u64) -> Tables {
    let mut tables = Tables::new(seed);
    for uplink in model.uplinks.values() {
        put_uplink(&mut tables, uplink);
    }
    for network in model.networks.values() {
        put_network(&mut tables, network);
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
            Change::NetworkRemoved(network) => remove_network(&mut tables, network),
            Change::UplinkRemoved(uplink) => remove_uplink(&mut tables, uplink),
            Change::UplinkAdded(uplink) => put_uplink(&mut tables, uplink),
            Change::UplinkChanged { old, new } => change_uplink(&mut tables, old, new),
            Change::NetworkAdded(network) => put_network(&mut tables, network),
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

/// An uplink's row, and what its segments have of it: how long addresses live there, and one
/// member.
fn put_uplink(tables: &mut Tables, uplink: &Uplink) {
    *tables.ports.row_mut(uplink.id.index()) = uplink_row(uplink);
    for (segment, ageing) in &uplink.ageing {
        tables.segments.row_mut(segment.index()).ageing = seconds(*ageing);
        join(tables, *segment, uplink.id);
    }
}

/// Segments that others have are the parent's VLANs: they go with it, not with a network.
fn change_uplink(tables: &mut Tables, old: &Uplink, new: &Uplink) {
    for segment in old.ageing.keys().filter(|segment| !new.ageing.contains_key(segment)) {
        *tables.segments.row_mut(segment.index()) = Segment::default();
    }
    put_uplink(tables, new);
}

fn remove_uplink(tables: &mut Tables, uplink: &Uplink) {
    *tables.ports.row_mut(uplink.id.index()) = Port::default();
    for segment in uplink.ageing.keys() {
        *tables.segments.row_mut(segment.index()) = Segment::default();
    }
}

/// What a network's segment has of it, and the host stack's port there. A trunk network has
/// neither: its segments are its parent's.
fn put_network(tables: &mut Tables, network: &Network) {
    if network.trunk.is_some() {
        return;
    }
    let row = tables.segments.row_mut(network.id.index());
    (row.gateway, row.host) = gateway(network).unzip();
    if network.spec.parent.is_none() {
        row.ageing = seconds(network.spec.ageing);
    }
    *tables.ports.row_mut(network.host.index()) = host_row(network);
}

/// The parent still has the VLAN, if it is one, and then others are in it too.
fn remove_network(tables: &mut Tables, network: &Network) {
    if network.trunk.is_some() {
        return;
    }
    let row = tables.segments.row_mut(network.id.index());
    if network.spec.parent.is_some() {
        (row.gateway, row.host) = (None, None);
    } else {
        *row = Segment::default();
    }
    *tables.ports.row_mut(network.host.index()) = Port::default();
}

/// heddle itself on a network, if it has an address there.
fn gateway(network: &Network) -> Option<(Arc<Identity>, HostStack)> {
    let mut addresses = network.spec.subnets.iter().filter_map(|subnet| subnet.gateway).peekable();
    addresses.peek()?;
    let identity = Identity::new(network.gateway_mac, addresses);
    let limit = Arc::new(Storm::new(HOST_STACK_LIMIT));
    Some((Arc::new(identity), HostStack { port: network.host, limit }))
}

fn seconds(interval: Interval) -> u32 {
    u32::try_from(interval.duration().as_secs()).unwrap_or(u32::MAX)
}

/// The row of an uplink's port. Behind it is a whole LAN: how many stations there are is not for
/// heddle to limit, and the table of learned addresses is large enough for itself.
fn uplink_row(uplink: &Uplink) -> Port {
    Port {
        role: Role::Trunk(Arc::clone(&uplink.trunk)),
        generation: uplink.generation,
        mtu: uplink.mtu,
        learns: true,
        mac_limit: u32::MAX,
        ..Port::default()
    }
}

/// The row of the host stack's port.
fn host_row(network: &Network) -> Port {
    Port {
        role: Role::Host(network.id),
        generation: network.host_generation,
        mtu: network.spec.mtu,
        ..Port::default()
    }
}

/// An endpoint's row.
fn port_row(network: &Network, endpoint: &Endpoint) -> Port {
    let spec = &network.spec;
    let identity = || Identity::new(endpoint.mac, endpoint.addresses.iter().map(|net| net.addr()));
    let storm = endpoint.spec.limits.storm;
    Port {
        role: match &network.trunk {
            Some(trunk) => Role::Trunk(Arc::clone(trunk)),
            None => Role::Endpoint(network.id),
        },
        generation: endpoint.generation,
        mtu: spec.mtu,
        vlan: network.vlan,
        identity: spec.anti_spoof.then(|| Arc::new(identity())),
        learns: !spec.anti_spoof,
        isolated: spec.isolated,
        mac_limit: spec.mac_limit,
        storm: storm.map(|rate| Arc::new(Storm::new(rate.0))),
    }
}

fn add_endpoint(tables: &mut Tables, model: &Model, endpoint: &Endpoint) {
    let Some(network) = model.networks.get(&endpoint.spec.network) else { return };
    put_endpoint(tables, network, endpoint);
    if let Some(key) = Key::new(endpoint.segment, endpoint.mac) {
        tables.stations.insert(key, endpoint.id);
    }
}

/// Puts an endpoint's row in the place of the one that it has, and itself into its segments.
fn put_endpoint(tables: &mut Tables, network: &Network, endpoint: &Endpoint) {
    let row = port_row(network, endpoint);
    if tables.port(endpoint.id).role != row.role {
        leave(tables, endpoint.id);
        for segment in segments(&row.role) {
            join(tables, segment, endpoint.id);
        }
    }
    *tables.ports.row_mut(endpoint.id.index()) = row;
}

fn remove_endpoint(tables: &mut Tables, endpoint: &Endpoint) {
    leave(tables, endpoint.id);
    *tables.ports.row_mut(endpoint.id.index()) = Port::default();
    // An endpoint that was changed before this one may have its address by now.
    if let Some(key) = Key::new(endpoint.segment, endpoint.mac)
        && tables.stations.find(key) == Some(endpoint.id)
    {
        tables.stations.remove(key);
    }
}

/// A network's settings are in its endpoints' rows too.
fn change_network(tables: &mut Tables, model: &Model, network: &Network) {
    put_network(tables, network);
    for endpoint in model.endpoints_of(&network.spec.name) {
        // One that is still to be added gets its row then.
        if tables.port(endpoint.id).role != Role::Vacant {
            put_endpoint(tables, network, endpoint);
        }
    }
}

/// The segments that a port with this role is in.
fn segments(role: &Role) -> Vec<SegmentId> {
    match role {
        Role::Trunk(trunk) => trunk.segments().map(|(segment, _)| segment).collect(),
        Role::Endpoint(segment) => vec![*segment],
        Role::Host(_) | Role::Vacant => Vec::new(),
    }
}

fn join(tables: &mut Tables, segment: SegmentId, port: PortId) {
    let members = &mut tables.segments.row_mut(segment.index()).members;
    if let Err(place) = members.binary_search(&port) {
        Arc::make_mut(members).insert(place, port);
    }
}

/// Takes a port out of all segments that it is in.
fn leave(tables: &mut Tables, port: PortId) {
    for segment in segments(&tables.port(port).role) {
        let members = &mut tables.segments.row_mut(segment.index()).members;
        if let Ok(place) = members.binary_search(&port) {
            Arc::make_mut(members).remove(place);
        }
    }
}

#[cfg(test)]
mod tests;
