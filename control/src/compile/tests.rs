//! The two ways to the same rows, and what rows look like.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use super::*;
use crate::config::{self, Config};
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

/// What a network is plugged into.
#[derive(Debug, Clone)]
enum Plug {
    Nothing,
    Untagged(bool),
    Vlan(bool, u16),
    Trunk(bool, BTreeSet<u16>, Option<u16>),
}

/// Isolated, anti-spoofing, MTU, ageing.
type Traits = (bool, bool, u16, u8);

/// Five networks, nine endpoints with a network each, if any, and by how many places fixed MAC
/// addresses are shifted among them, if there are any. What clashes with what came before it is
/// left out.
type Wish = ([Option<(Plug, Traits)>; 5], [Option<usize>; 9], Option<usize>);

fn plug() -> impl Strategy<Value = Plug> {
    let vid = 1u16..5;
    let vids = prop::collection::btree_set(vid.clone(), 1..4);
    prop_oneof![
        Just(Plug::Nothing),
        any::<bool>().prop_map(Plug::Untagged),
        (any::<bool>(), vid.clone()).prop_map(|(parent, vid)| Plug::Vlan(parent, vid)),
        (any::<bool>(), vids, prop::option::of(vid)).prop_map(|(parent, mut vids, native)| {
            let native = native.filter(|native| vids.len() > 1 || !vids.contains(native));
            vids.retain(|vid| Some(*vid) != native);
            Plug::Trunk(parent, vids, native)
        }),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let traits = (any::<bool>(), any::<bool>(), 1400u16..1403, 1u8..4);
    let network = prop::option::weighted(0.8, (plug(), traits));
    let endpoint = prop::option::weighted(0.7, 0usize..5);
    let shift = prop::option::of(0usize..9);
    (prop::array::uniform5(network), prop::array::uniform9(endpoint), shift)
}

fn network_body(number: usize, plug: &Plug, traits: Traits) -> Value {
    let (isolated, anti_spoof, mtu, ageing) = traits;
    let mut body = json!({
        "name": format!("n{number}"), "driver": "vlan", "mtu": mtu,
        "isolated": isolated, "ageing": format!("{ageing}00s"),
    });
    let parent = |other: bool| if other { "eth1" } else { "eth0" };
    match plug {
        Plug::Nothing => body["driver"] = "bridge".into(),
        Plug::Untagged(other) => {
            body["driver"] = "bridge".into();
            body["parent"] = parent(*other).into();
        }
        Plug::Vlan(other, vid) => {
            (body["parent"], body["vlan"]) = (parent(*other).into(), (*vid).into());
        }
        Plug::Trunk(other, vids, native) => {
            body["parent"] = parent(*other).into();
            body["trunk"] = vids.iter().copied().collect();
            if let Some(native) = native {
                body["native"] = (*native).into();
            }
            return body;
        }
    }
    body["anti_spoof"] = anti_spoof.into();
    body["subnets"] = format!("10.0.{number}.0/24").into();
    // Without an address of its own it has no gateway there.
    if ageing > 1 {
        body["gateway"] = format!("10.0.{number}.1").into();
    }
    body
}

fn desired((networks, endpoints, shift): &Wish) -> Desired {
    let mut desired = Desired::default();
    for (number, network) in networks.iter().enumerate() {
        let Some((plug, traits)) = network else { continue };
        let network = config::Network::from_json(network_body(number, plug, *traits));
        let _ = desired.add_network(network.unwrap());
    }
    for (number, network) in endpoints.iter().enumerate() {
        let Some(network) = network else { continue };
        let mut body = json!({
            "name": format!("p{number}"), "network": format!("n{network}"),
            "kind": "memory", "limits": { "storm": format!("{}pps", 100 + number) },
        });
        if let Some(shift) = shift {
            body["mac"] = format!("02:00:00:00:00:0{}", (number + shift) % 9).into();
        }
        let _ = desired.add_port(config::Port::from_json(body).unwrap());
    }
    desired
}

proptest! {
    /// In proportion to the change, in the switch's two steps, or from nothing: the rows are
    /// the same.
    #[test]
    fn apply_agrees_with_compile_all(wishes in prop::collection::vec(wish(), 1..7)) {
        let mut inventory = Inventory::new(Ipam::new(Duration::from_secs(60)));
        let mut tables = compile_all(inventory.model(), SEED);
        for (second, wish) in (0u64..).zip(&wishes) {
            let now = Duration::from_secs(second * 100);
            let plan = inventory.plan(&desired(wish), now).unwrap();
            let model = plan.next.model();
            let (going, coming): (Vec<_>, Vec<_>) =
                plan.changes.iter().cloned().partition(Change::is_removal);
            tables = apply(&tables, &going, model);
            tables = apply(&tables, &coming, model);
            prop_assert_eq!(print(&tables), print(&compile_all(model, SEED)));
            check_members(&tables)?;
            inventory = plan.next;
            inventory.release(&plan.retired).unwrap();
        }
    }
}

/// A flood reaches whom the segment carries, and nobody else.
fn check_members(tables: &Tables) -> Result<(), TestCaseError> {
    for (number, row) in (0u16..).zip(tables.segments.iter()) {
        let ports = (0u16..).map(PortId).zip(tables.ports.iter());
        let carrying = ports.filter(|(_, port)| {
            port.role.carries(SegmentId(number)) && !matches!(port.role, Role::Host(_))
        });
        let carrying: Vec<PortId> = carrying.map(|(id, _)| id).collect();
        prop_assert_eq!(&carrying, &*row.members, "segment {}", number);
    }
    Ok(())
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

#[test]
fn a_parent_of_three_networks_in_rows() {
    let text = "[[network]]\nname = \"lan\"\ndriver = \"bridge\"\nparent = \"eth1\"\n\
                [[network]]\nname = \"lan10\"\ndriver = \"vlan\"\nparent = \"eth1\"\nvlan = 10\n\
                subnets = [\"10.0.9.0/24\"]\nmtu = 9000\nageing = \"60s\"\n\
                [[network]]\nname = \"all\"\ndriver = \"vlan\"\nparent = \"eth1\"\n\
                trunk = [10, 20]\nnative = 1\nmac_limit = 7\n\
                [[port]]\nnetwork = \"lan10\"\nname = \"a\"\nkind = \"memory\"\n\
                [[port]]\nnetwork = \"all\"\nname = \"vm\"\nkind = \"memory\"\n";
    let wish = Desired::new(&Config::parse(text, "test").unwrap(), &[]).0;
    let plan = Inventory::default().plan(&wish, Duration::ZERO).unwrap();
    assert_eq!(print(&compile_all(plan.next.model(), SEED)), PLUGGED);
}

/// A trunk of everything that the parent has looks like the parent.
const PLUGGED: &str = "\
segment 1: ageing 300, members [PortId(0), PortId(5)]
  gateway None, host stack None
segment 2: ageing 60, members [PortId(0), PortId(4), PortId(5)]
  gateway None, host stack None
segment 3: ageing 300, members [PortId(0), PortId(5)]
  gateway None, host stack None
port 0: Port { role: Trunk(Trunk { native: SegmentId(1), \
        inwards: [(Vid(1), SegmentId(1)), (Vid(10), SegmentId(2)), (Vid(20), SegmentId(3))], \
        outwards: [(SegmentId(1), Native(Some(Vid(1)))), (SegmentId(2), Tagged(Vid(10))), \
        (SegmentId(3), Tagged(Vid(20)))] }), generation: PortGeneration(1), mtu: Mtu(9000), \
        vlan: None, identity: None, learns: true, isolated: false, mac_limit: 4294967295, \
        storm: None }
port 1: Port { role: Host(SegmentId(1)), generation: PortGeneration(1), mtu: Mtu(1500), \
        vlan: None, identity: None, learns: false, isolated: false, mac_limit: 0, storm: None }
port 2: Port { role: Host(SegmentId(2)), generation: PortGeneration(1), mtu: Mtu(9000), \
        vlan: None, identity: None, learns: false, isolated: false, mac_limit: 0, storm: None }
port 4: Port { role: Endpoint(SegmentId(2)), generation: PortGeneration(1), mtu: Mtu(9000), \
        vlan: Some(Vid(10)), identity: Some(Identity { mac: 02:42:0a:00:09:01, v4: [10.0.9.1], \
        v6: [fe80::42:aff:fe00:901] }), learns: false, isolated: false, mac_limit: 1024, \
        storm: None }
port 5: Port { role: Trunk(Trunk { native: SegmentId(1), \
        inwards: [(Vid(1), SegmentId(1)), (Vid(10), SegmentId(2)), (Vid(20), SegmentId(3))], \
        outwards: [(SegmentId(1), Native(Some(Vid(1)))), (SegmentId(2), Tagged(Vid(10))), \
        (SegmentId(3), Tagged(Vid(20)))] }), generation: PortGeneration(1), mtu: Mtu(1500), \
        vlan: None, identity: None, learns: true, isolated: false, mac_limit: 7, storm: None }
station 02:42:0a:00:09:01 in 2: PortId(4)
";

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
