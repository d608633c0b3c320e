//! From the model to the tables that workers read: pure, so that the same model always gives the
//! same rows.
//!
//! [`compile_all`] makes everything from nothing and is the oracle; [`apply`] does the same in
//! proportion to what changes, and shares all other pages with the tables before.

use std::sync::Arc;

use dataplane::ids::PortId;
use pipelines::fdb::Key;
use pipelines::storm::Storm;
use pipelines::tables::{HostStack, Identity, Port, Role, Segment, Tables};

use crate::model::{Change, Endpoint, Model, Network};

/// Packets a second that the host stack takes from one network; a tenth of it at once.
const HOST_STACK_LIMIT: u64 = 4000;

/// The tables of a whole model. `seed` is to be random: see
/// [`Stations::new`](pipelines::stations::Stations::new).
pub fn compile_all(model: &Model, seed: u64) -> Tables {
    let mut tables = Tables::new(seed);
    for network in model.networks.values() {
        add_network(&mut tables, network);
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
            Change::NetworkAdded(network) => add_network(&mut tables, network),
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

fn add_network(tables: &mut Tables, network: &Network) {
    *tables.segments.row_mut(network.id.index()) = segment_row(network);
    *tables.ports.row_mut(network.host.index()) = host_row(network);
}

fn remove_network(tables: &mut Tables, network: &Network) {
    *tables.segments.row_mut(network.id.index()) = Segment::default();
    *tables.ports.row_mut(network.host.index()) = Port::default();
}

/// A network's row, still without members.
fn segment_row(network: &Network) -> Segment {
    let addresses = network.spec.subnets.iter().filter_map(|subnet| subnet.gateway);
    let has_address = addresses.clone().next().is_some();
    let gateway = Identity::new(network.gateway_mac, addresses);
    let limit = Arc::new(Storm::new(HOST_STACK_LIMIT));
    Segment {
        gateway: has_address.then(|| Arc::new(gateway)),
        ageing: u32::try_from(network.spec.ageing.duration().as_secs()).unwrap_or(u32::MAX),
        host: has_address.then_some(HostStack { port: network.host, limit }),
        members: Arc::default(),
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
        role: Role::Endpoint(endpoint.segment),
        generation: endpoint.generation,
        mtu: spec.mtu,
        vlan: None,
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
    // An endpoint that was changed before this one may have its address by now.
    if let Some(key) = Key::new(endpoint.segment, endpoint.mac)
        && tables.stations.find(key) == Some(endpoint.id)
    {
        tables.stations.remove(key);
    }
    with_members(tables, endpoint, |members| members.retain(|&port| port != endpoint.id));
}

/// A network's settings are in its endpoints' rows too.
fn change_network(tables: &mut Tables, model: &Model, network: &Network) {
    let row = tables.segments.row_mut(network.id.index());
    *row = Segment { members: Arc::clone(&row.members), ..segment_row(network) };
    let members = Arc::clone(&row.members);
    *tables.ports.row_mut(network.host.index()) = host_row(network);
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

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::ipam::Ipam;
    use crate::model::{Desired, Inventory};

    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The tables as text, one line per row that is in use.
    fn print(tables: &Tables) -> String {
        let mut text = String::new();
        for (number, row) in tables.segments.iter().enumerate().filter(|(_, row)| row.ageing > 0) {
            let gateway = row.gateway.as_deref();
            writeln!(text, "segment {number}: ageing {}, members {:?}", row.ageing, row.members)
                .unwrap();
            let host = row.host.as_ref().map(|host| host.port);
            writeln!(text, "  gateway {gateway:?}, host stack {host:?}").unwrap();
        }
        for (number, row) in tables.ports.iter().enumerate() {
            if row.role != Role::Vacant {
                writeln!(text, "port {number}: {row:?}").unwrap();
            }
        }
        let mut stations: Vec<_> = tables.stations.iter().collect();
        stations.sort_by_key(|(key, _)| key.word());
        for (key, port) in stations {
            writeln!(text, "station {} in {}: {port:?}", key.mac(), key.segment()).unwrap();
        }
        text
    }

    /// Three networks with three settings each, nine endpoints with a network each, if any, and by
    /// how many places fixed MAC addresses are shifted among them, if there are any.
    type Wish = ([Option<(bool, bool, u16)>; 3], [Option<usize>; 9], Option<usize>);

    fn wish() -> impl Strategy<Value = Wish> {
        let network = prop::option::weighted(0.8, (any::<bool>(), any::<bool>(), 1400u16..1403));
        let endpoint = prop::option::weighted(0.7, 0usize..3);
        let shift = prop::option::of(0usize..9);
        (prop::array::uniform3(network), prop::array::uniform9(endpoint), shift)
    }

    fn desired((networks, endpoints, shift): &Wish) -> Desired {
        let mut text = String::new();
        for (i, network) in networks.iter().enumerate() {
            let Some((isolated, anti_spoof, mtu)) = network else { continue };
            writeln!(
                text,
                "[[network]]\nname = \"n{i}\"\ndriver = \"bridge\"\nsubnets = [\"10.0.{i}.0/24\"]\n\
                 isolated = {isolated}\nanti_spoof = {anti_spoof}\nmtu = {mtu}"
            )
            .unwrap();
        }
        for (i, network) in endpoints.iter().enumerate() {
            let Some(network) = network.filter(|&n| networks[n].is_some()) else { continue };
            writeln!(
                text,
                "[[port]]\nnetwork = \"n{network}\"\nname = \"p{i}\"\nkind = \"memory\"\n\
                 limits = {{ storm = \"{}pps\" }}",
                100 + i
            )
            .unwrap();
            if let Some(shift) = shift {
                writeln!(text, "mac = \"02:00:00:00:00:0{}\"", (i + shift) % 9).unwrap();
            }
        }
        Desired::new(&Config::parse(&text, "test").unwrap(), &[]).0
    }

    proptest! {
        /// In proportion to the change, or from nothing: the rows are the same.
        #[test]
        fn apply_agrees_with_compile_all(wishes in prop::collection::vec(wish(), 1..7)) {
            let mut inventory = Inventory::new(Ipam::new(Duration::from_secs(60)));
            let mut tables = compile_all(inventory.model(), SEED);
            for (second, wish) in (0u64..).zip(&wishes) {
                let now = Duration::from_secs(second * 100);
                let plan = inventory.plan(&desired(wish), now).unwrap();
                tables = apply(&tables, &plan.changes, plan.next.model());
                inventory = plan.next;
                inventory.release(&plan.retired).unwrap();
                prop_assert_eq!(print(&tables), print(&compile_all(inventory.model(), SEED)));
            }
        }
    }

    #[test]
    fn a_network_of_two_endpoints_in_rows() {
        let text = "[[network]]\nname = \"web\"\ndriver = \"bridge\"\n\
                    subnets = [\"10.0.9.0/24\", \"fd00:9::/64\"]\n\
                    [[port]]\nnetwork = \"web\"\nname = \"a\"\nkind = \"memory\"\n\
                    [[port]]\nnetwork = \"web\"\nname = \"b\"\nkind = \"memory\"\n";
        let wish = Desired::new(&Config::parse(text, "test").unwrap(), &[]).0;
        let inventory = Inventory::new(Ipam::new(Duration::from_secs(60)));
        let plan = inventory.plan(&wish, Duration::ZERO).unwrap();
        assert_eq!(print(&compile_all(plan.next.model(), SEED)), GOLDEN);
    }

    const GOLDEN: &str = "\
segment 1: ageing 300, members [PortId(1), PortId(2)]
  gateway Some(Identity { mac: 02:42:0a:00:09:01, v4: [10.0.9.1], \
        v6: [fd00:9::1, fe80::42:aff:fe00:901] }), host stack Some(PortId(0))
port 0: Port { role: Host(SegmentId(1)), generation: PortGeneration(1), mtu: Mtu(1500), \
        vlan: None, identity: None, learns: false, isolated: false, mac_limit: 0, storm: None }
port 1: Port { role: Endpoint(SegmentId(1)), generation: PortGeneration(1), mtu: Mtu(1500), \
        vlan: None, identity: Some(Identity { mac: 02:42:0a:00:09:02, v4: [10.0.9.2], \
        v6: [fd00:9::2, fe80::42:aff:fe00:902] }), learns: false, isolated: false, \
        mac_limit: 1024, storm: None }
port 2: Port { role: Endpoint(SegmentId(1)), generation: PortGeneration(1), mtu: Mtu(1500), \
        vlan: None, identity: Some(Identity { mac: 02:42:0a:00:09:03, v4: [10.0.9.3], \
        v6: [fd00:9::3, fe80::42:aff:fe00:903] }), learns: false, isolated: false, \
        mac_limit: 1024, storm: None }
station 02:42:0a:00:09:02 in 1: PortId(1)
station 02:42:0a:00:09:03 in 1: PortId(2)
";
}
