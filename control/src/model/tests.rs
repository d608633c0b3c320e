//! Plans: what is kept, what changes, and what is refused.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use dataplane::ids::{PortId, SegmentId};
use dataplane::wire::vlan::Vid;
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::ipam::{self, Ipam, REST};

const BASE: &str = r#"
[[network]]
name = "lan"
driver = "bridge"
subnets = ["10.0.9.0/24", "fd00:9::/64"]

[[port]]
network = "lan"
name = "a"
kind = "memory"

[[port]]
network = "lan"
name = "b"
kind = "memory"
address = "10.0.9.2/24"
"#;

fn desired(text: &str) -> Desired {
    let (desired, skipped) = Desired::new(&Config::parse(text, "test").unwrap(), &[]);
    assert_eq!(skipped, []);
    desired
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn plan(inventory: &Inventory, text: &str, now: u64) -> Plan {
    inventory.plan(&desired(text), at(now)).unwrap()
}

fn addresses(inventory: &Inventory, endpoint: &str) -> Vec<String> {
    inventory.model().endpoints[endpoint].addresses.iter().map(IpNet::to_string).collect()
}

#[test]
fn fixed_addresses_come_before_automatic_ones() {
    let Plan { next, changes, records, retired } = plan(&Inventory::default(), BASE, 0);
    assert_eq!(addresses(&next, "b"), ["10.0.9.2/24", "fd00:9::3/64"]);
    assert_eq!(addresses(&next, "a"), ["10.0.9.3/24", "fd00:9::2/64"]);
    let a = &next.model().endpoints["a"];
    assert_eq!((a.id, a.segment), (PortId(1), SegmentId(1)));
    assert_eq!(a.mac.to_string(), "02:42:0a:00:09:03");
    assert_eq!(next.model().networks["lan"].gateway_mac.to_string(), "02:42:0a:00:09:01");
    assert_eq!((changes.len(), records.len()), (3, 4));
    assert_eq!(retired, Retired::default());
}

#[test]
fn the_same_wish_changes_nothing() {
    let first = plan(&Inventory::default(), BASE, 0).next;
    let again = plan(&first, BASE, 5);
    assert_eq!((again.changes, again.records), (vec![], vec![]));
}

#[test]
fn addresses_survive_a_restart() {
    let first = plan(&Inventory::default(), BASE, 0);
    let restored = Inventory::new(Ipam::restore(REST, first.records, at(9)));
    let second = plan(&restored, BASE, 9);
    assert_eq!(second.next.model(), first.next.model());
    assert_eq!(second.records, []);
}

#[test]
fn a_removed_endpoint_retires_its_number_and_rests_its_addresses() {
    let first = plan(&Inventory::default(), BASE, 0).next;
    let (without_b, _) = BASE.rsplit_once("[[port]]").unwrap();
    let Plan { mut next, changes, retired, .. } = plan(&first, without_b, 10);
    assert!(matches!(&changes[..], [Change::EndpointRemoved(b)] if b.spec.name == "b"));
    assert_eq!(retired.ports, [PortId(2)]);

    let with_c = BASE.replace("\"b\"", "\"c\"");
    let refused = next.plan(&desired(&with_c), at(69)).unwrap_err();
    assert!(matches!(
        &refused[..],
        [PlanError::Address { source: ipam::Error::Resting { .. }, .. }]
    ));
    assert_eq!(plan(&next, &with_c, 70).next.model().endpoints["c"].id, PortId(3));
    next.release(&retired).unwrap();
    assert_eq!(plan(&next, &with_c, 70).next.model().endpoints["c"].id, PortId(2));
    assert!(next.release(&retired).is_err());
}

#[test]
fn another_network_or_device_is_another_port() {
    let first = plan(&Inventory::default(), BASE, 0).next;
    let moved = BASE.replace("name = \"b\"\nkind = \"memory\"", "name = \"b\"\nkind = \"pcap\"");
    let second = plan(&first, &moved, 1);
    assert_eq!(second.retired.ports, [PortId(2)]);
    assert_eq!(second.next.model().endpoints["b"].id, PortId(3));
    assert_eq!(addresses(&second.next, "b"), addresses(&first, "b"));
    assert!(matches!(&second.changes[..], [Change::EndpointRemoved(_), Change::EndpointAdded(_)]));

    let aliased = BASE.replace("name = \"b\"", "name = \"b\"\naliases = [\"db\"]");
    let changes = plan(&first, &aliased, 1).changes;
    assert!(matches!(&changes[..], [Change::EndpointChanged { .. }]));
}

#[test]
fn an_endpoint_follows_its_network_to_another_subnet() {
    let first = plan(&Inventory::default(), BASE, 0).next;
    let other = BASE.replace("10.0.9.", "10.1.0.");
    let Plan { next, changes, retired, .. } = plan(&first, &other, 1);
    assert_eq!(addresses(&next, "b"), ["10.1.0.2/24", "fd00:9::3/64"]);
    assert_eq!(addresses(&next, "a"), ["10.1.0.3/24", "fd00:9::2/64"]);
    assert_eq!(retired, Retired::default());
    assert!(matches!(changes[0], Change::NetworkChanged { .. }));
    assert_eq!(changes.len(), 3);
    assert!(next.ipam().leases().all(|(_, address, _)| !address.to_string().starts_with("10.0.")));
}

#[test]
fn a_removed_network_is_forgotten() {
    let first = plan(&Inventory::default(), BASE, 0).next;
    let Plan { next, changes, records, retired } = plan(&first, "", 1);
    assert_eq!(next.ipam().leases().count(), 0);
    assert!(matches!(&changes[..], [.., Change::NetworkRemoved(_)]));
    assert_eq!((changes.len(), records.iter().filter(|r| r.lease.is_none()).count()), (3, 4));
    assert_eq!((retired.ports.len(), retired.segments), (3, vec![SegmentId(1)]));
}

#[test]
fn the_gateways_mac_is_refused_and_a_taken_default_is_avoided() {
    let own = |mac: &str| {
        BASE.replace(
            "kind = \"memory\"\naddress",
            &format!("kind = \"memory\"\nmac = \"{mac}\"\naddress"),
        )
    };
    let refused = Inventory::default().plan(&desired(&own("02:42:0a:00:09:01")), at(0));
    assert!(matches!(&refused.unwrap_err()[..], [PlanError::GatewayMac { .. }]));
    // What `a` would be given by default.
    let next = plan(&Inventory::default(), &own("02:42:0a:00:09:03"), 0).next;
    assert_eq!(next.model().endpoints["a"].mac.0[0], 0x06);
}

#[test]
fn too_few_addresses_are_reported_for_each_endpoint() {
    let small = BASE.replace("10.0.9.0/24", "10.0.9.0/30").replace("10.0.9.2/24", "10.0.9.2/30");
    let errors = Inventory::default().plan(&desired(&small), at(0)).unwrap_err();
    assert!(errors[0].to_string().contains("no address is left in 10.0.9.0/30"), "{errors:?}");
    assert_eq!(errors.len(), 1);
}

#[test]
fn the_file_owns_what_it_names() {
    let config = Config::parse(BASE, "test").unwrap();
    let port = |name: &str, address: &str| {
        let body = serde_json::json!({
            "network": "lan", "name": name, "kind": "memory", "address": address,
        });
        Stored::Endpoint(body)
    };
    let network = Stored::Network(serde_json::json!({ "name": "lan", "driver": "bridge" }));
    let stored = [port("a", "10.0.9.7"), port("c", "10.0.9.7"), port("d", "10.0.9.2"), network];
    let (desired, skipped) = Desired::new(&config, &stored);
    assert_eq!(skipped[0], Skipped::NetworkOwnedByFile("lan".into()));
    assert_eq!(skipped[1], Skipped::EndpointOwnedByFile("a".into()));
    assert!(matches!(&skipped[2], Skipped::Clash { name, .. } if name == "d"));
    let next = Inventory::default().plan(&desired, at(0)).unwrap().next;
    let origin = |name: &str| next.model().endpoints[name].origin;
    assert_eq!((origin("a"), origin("c")), (Origin::File, Origin::Api));
    assert!(!next.model().endpoints.contains_key("d"));
}

/// One parent with an untagged network, a VLAN and a trunk of both and one more.
const PLUGGED: &str = r#"
[[network]]
name = "house"
driver = "bridge"
parent = "eth1"
subnets = ["192.168.57.0/24"]
ip_range = "192.168.57.64/28"
reserved = { router = "192.168.57.64" }

[[network]]
name = "lan10"
driver = "vlan"
parent = "eth1"
vlan = 10
io = "af_packet"
mtu = 9000

[[network]]
name = "all"
driver = "vlan"
parent = "eth1"
trunk = [10, 20]
native = 1

[[port]]
network = "house"
name = "a"
kind = "memory"

[[port]]
network = "lan10"
name = "b"
kind = "memory"

[[port]]
network = "all"
name = "vm"
kind = "memory"
"#;

#[test]
fn networks_of_one_parent_share_its_segments() {
    let next = plan(&Inventory::default(), PLUGGED, 0).next;
    let model = next.model();
    let (uplink, all) = (&model.uplinks["eth1"], &model.networks["all"]);
    let (house, lan10) = (&model.networks["house"], &model.networks["lan10"]);
    assert_eq!((uplink.io, uplink.mtu.bytes()), (crate::config::Io::AfPacket, 9000));
    assert_eq!(uplink.trunk.segment(0), house.id);
    assert_eq!(uplink.trunk.segment(1), house.id);
    assert_eq!(uplink.trunk.segment(10), lan10.id);
    assert_ne!(uplink.trunk.segment(20), SegmentId::NONE);
    assert_eq!(all.trunk.as_deref(), Some(&*uplink.trunk));
    assert_eq!((house.vlan, lan10.vlan), (Vid::new(1), Vid::new(10)));
    assert_eq!((all.id, model.endpoints["vm"].segment), (SegmentId::NONE, SegmentId::NONE));
    assert_eq!(model.endpoints["b"].segment, lan10.id);
    // From the range, the router left out; a trunk's endpoints have none.
    assert_eq!(addresses(&next, "a"), ["192.168.57.65/24"]);
    assert_eq!(addresses(&next, "vm"), [""; 0]);
    let ports: Vec<&str> = model.ports().map(|(_, name)| name).collect();
    assert_eq!(ports, ["a", "b", "vm", "eth1"]);
    assert_eq!((model.port("eth1"), model.port("eth2")), (Some(uplink.id), None));
    let names = model.segments();
    let mut names: Vec<&str> = names.values().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["eth1 vlan 20", "house", "lan10"]);
}

#[test]
fn an_uplink_changes_and_goes_with_its_networks() {
    let first = plan(&Inventory::default(), PLUGGED, 0).next;
    let uplink = Arc::clone(&first.model().uplinks["eth1"]);
    let smaller = PLUGGED.replace("trunk = [10, 20]", "trunk = [10]");
    let Plan { next, changes, retired, .. } = plan(&first, &smaller, 1);
    assert!(matches!(
        &changes[..],
        [Change::UplinkChanged { old, new }, Change::NetworkChanged { .. }]
            if old.id == new.id && new.trunk.segment(20) == SegmentId::NONE
    ));
    assert_eq!(retired.segments, [uplink.trunk.segment(20)]);
    assert_eq!(next.model().endpoints["vm"].id, first.model().endpoints["vm"].id);

    // A VLAN that another network has by another name is the same segment.
    let renamed = PLUGGED.replace("\"lan10\"", "\"ten\"");
    let Plan { next, changes, retired, .. } = plan(&first, &renamed, 1);
    assert_eq!(next.model().networks["ten"].id, first.model().networks["lan10"].id);
    assert_eq!((retired.segments, retired.ports.len()), (vec![], 1));
    assert!(matches!(
        &changes[..],
        [Change::NetworkRemoved(_), Change::NetworkAdded(_), Change::EndpointChanged { .. }]
    ));

    let moved = PLUGGED.replace("vlan = 10", "vlan = 11");
    let Plan { changes, retired, .. } = plan(&first, &moved, 1);
    assert!(matches!(
        &changes[..],
        [
            Change::EndpointRemoved(_),
            Change::NetworkRemoved(_),
            Change::UplinkChanged { .. },
            Change::NetworkAdded(_),
            Change::EndpointAdded(_)
        ]
    ));
    // The trunk has the VLAN still; the network's host stack and its endpoint are others.
    assert_eq!((retired.segments, retired.ports.len()), (vec![], 2));

    let Plan { next, changes, retired, .. } = plan(&first, BASE, 1);
    assert!(next.model().uplinks.is_empty());
    let gone = changes.iter().filter(|change| change.is_removal()).count();
    assert_eq!((gone, retired.segments.len(), retired.ports.len()), (5 + 2, 3, 7));
    assert!(retired.ports.contains(&uplink.id));
}

#[test]
fn vlans_that_become_one_keep_the_untagged_segment() {
    let apart = PLUGGED.replace("native = 1", "").replace("vlan = 10", "vlan = 1");
    let first = plan(&Inventory::default(), &apart, 0).next;
    let house = first.model().networks["house"].id;
    let one = first.model().networks["lan10"].id;
    assert_ne!(house, one);
    let together = PLUGGED.replace("vlan = 10", "vlan = 11");
    let second = plan(&first, &together, 1);
    assert_eq!(second.next.model().networks["house"].id, house);
    assert_eq!(second.next.model().uplinks["eth1"].trunk.segment(1), house);
    assert_eq!(second.retired.segments, [one]);
    // And apart again: one segment can't be two.
    let third = plan(&second.next, &apart, 2).next;
    assert_eq!(third.model().networks["house"].id, house);
    assert_ne!(third.model().networks["lan10"].id, house);
}

/// A wish with up to three networks, alone or plugged in, and nine endpoints that may be on any of
/// them.
fn wish() -> impl Strategy<Value = String> {
    let port = (0_u8..9, 0_u8..3, prop::option::of(2_u8..14));
    (prop::collection::vec(port, 0..9), prop::collection::btree_map(0_u8..3, any::<bool>(), 0..4))
        .prop_map(|(ports, networks)| {
            let network = |(n, plugged): (&u8, &bool)| {
                let place = match (n, plugged) {
                    (_, false) => "\"bridge\"".to_owned(),
                    (0, true) => "\"bridge\"\nparent = \"eth1\"".to_owned(),
                    (vid, true) => format!("\"vlan\"\nparent = \"eth1\"\nvlan = {vid}"),
                };
                format!(
                    "[[network]]\nname = \"n{n}\"\ndriver = {place}\n\
                     subnets = [\"10.0.{n}.0/28\", \"fd00:{n}::/64\"]\n"
                )
            };
            let (mut names, mut fixed) = (BTreeSet::new(), BTreeSet::new());
            let ports = ports.into_iter().filter(|(name, network, host)| {
                networks.contains_key(network)
                    && names.insert(*name)
                    && host.is_none_or(|host| fixed.insert((*network, host)))
            });
            let port = |(name, network, host): (u8, u8, Option<u8>)| {
                let address = host
                    .map_or(String::new(), |host| format!("address = \"10.0.{network}.{host}\"\n"));
                format!(
                    "[[port]]\nname = \"p{name}\"\nnetwork = \"n{network}\"\n\
                     kind = \"memory\"\n{address}"
                )
            };
            let ports: String = ports.map(port).collect();
            networks.iter().map(network).chain([ports]).collect()
        })
}

/// The port numbers of all endpoints and uplinks, and of the host stack in all networks.
fn numbers(model: &Model) -> HashSet<PortId> {
    let hosts = model.networks.values().map(|network| network.host);
    model.ports().map(|(id, _)| id).chain(hosts).collect()
}

fn segments(model: &Model) -> HashSet<SegmentId> {
    model.networks.values().map(|network| network.id).collect()
}

proptest! {
    /// Whatever is wished for one after the other: numbers and addresses are unique, none is
    /// used again too early, and what was recorded is enough to restart from.
    #[test]
    fn plans_keep_their_promises(wishes in prop::collection::vec((wish(), 0_u64..40), 1..17)) {
        let (mut inventory, mut now) = (Inventory::default(), 0);
        let mut stored = std::collections::BTreeMap::new();
        let mut resting: HashSet<PortId> = HashSet::new();
        let mut resting_segments: HashSet<SegmentId> = HashSet::new();
        for (wish, pause) in wishes {
            now += pause;
            let desired = desired(&wish);
            // A fixed address that is taken or rests refuses the whole wish.
            let Ok(plan) = inventory.plan(&desired, at(now)) else { continue };
            let model = plan.next.model();
            let ids = numbers(model);
            let owners = model.endpoints.len() + model.networks.len() + model.uplinks.len();
            prop_assert_eq!(ids.len(), owners);
            prop_assert_eq!(segments(model).len(), model.networks.len());
            prop_assert!(segments(model).is_disjoint(&resting_segments));
            prop_assert!(ids.is_disjoint(&resting));
            let mut seen = HashSet::new();
            for endpoint in model.endpoints.values() {
                prop_assert_eq!(endpoint.segment, model.networks[&endpoint.spec.network].id);
                prop_assert_eq!(endpoint.addresses.len(), 2);
                let unique = seen.insert((endpoint.segment, endpoint.mac.to_string()));
                prop_assert!(unique);
                for net in &endpoint.addresses {
                    let unique = seen.insert((endpoint.segment, net.to_string()));
                    prop_assert!(unique);
                    let lease = plan.next.ipam().lease(&endpoint.spec.network, net.addr());
                    prop_assert_eq!(&lease.unwrap().owner, &endpoint.spec.name);
                }
            }
            let gone = &numbers(inventory.model()) - &ids;
            prop_assert_eq!(&gone, &plan.retired.ports.iter().copied().collect());
            let gone = &segments(inventory.model()) - &segments(model);
            prop_assert_eq!(&gone, &plan.retired.segments.iter().copied().collect());
            for record in plan.records {
                stored.insert((record.network.clone(), record.address), record);
            }
            let restored = Ipam::restore(REST, stored.values().cloned(), at(now));
            prop_assert!(restored.leases().eq(plan.next.ipam().leases()));
            inventory = plan.next;
            resting.extend(&plan.retired.ports);
            resting_segments.extend(&plan.retired.segments);
            if now % 3 == 0 {
                inventory.release(&plan.retired).unwrap();
                resting.retain(|id| !plan.retired.ports.contains(id));
                resting_segments.retain(|id| !plan.retired.segments.contains(id));
            }
        }
    }
}
