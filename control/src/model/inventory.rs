//! What there is, with the allocators behind it, and the plan that leads to the next state.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::ids::{MacAddr, PortId, SegmentId};
use ipnet::IpNet;
use pipelines::trunk::{Trunk, TrunkError};
use thiserror::Error;

use super::{Change, Desired, Endpoint, IdError, Ids, Model, Network, Origin, Uplink, mac, uplink};
use crate::config;
use crate::ipam::{self, Family, Ipam};

/// The model with the numbers and addresses that it uses.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    model: Model,
    ids: Ids,
    ipam: Ipam,
}

/// The way from one inventory to the next. It counts once `records` are stored; then `next`
/// replaces the inventory, and `retired` are given back when the workers have let go of them.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The inventory after it.
    pub next: Inventory,
    /// What changes, in an order in which it can be done.
    pub changes: Vec<Change>,
    /// What must be stored.
    pub records: Vec<ipam::Record>,
    /// The numbers that are given up.
    pub retired: Retired,
}

/// Numbers that wait for a grace period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// Of networks and VLANs.
    pub segments: Vec<SegmentId>,
    /// Of endpoints and uplinks, and of the host stack in networks.
    pub ports: Vec<PortId>,
}

/// Why what is desired can't be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// An endpoint does not get an address.
    #[error("endpoint `{endpoint}`: {source}")]
    Address {
        /// The endpoint's name.
        endpoint: String,
        /// Why.
        source: ipam::Error,
    },
    /// An endpoint asks for the MAC address of its network's gateway.
    #[error("endpoint `{endpoint}`: {mac} is the gateway's in the network `{network}`")]
    GatewayMac {
        /// The endpoint's name.
        endpoint: String,
        /// The network's name.
        network: String,
        /// The address.
        mac: MacAddr,
    },
    /// The VLANs of a network contradict those of others with its parent.
    #[error("network `{network}`: {source}")]
    Vlans {
        /// The network's name.
        network: String,
        /// Why.
        source: TrunkError,
    },
    /// There are no numbers left for a network, its uplink or an endpoint.
    #[error("`{name}`: {source}")]
    Number {
        /// The object's name.
        name: String,
        /// Why.
        source: IdError,
    },
}

impl Inventory {
    /// Nothing yet, with the addresses that `ipam` was restored with.
    pub fn new(ipam: Ipam) -> Self {
        Self { ipam, ..Self::default() }
    }

    /// The networks, endpoints and uplinks.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The addresses.
    pub fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// Plans the way to what is desired, and changes nothing itself.
    ///
    /// # Errors
    ///
    /// Everything that can't be had.
    pub fn plan(&self, desired: &Desired, now: Duration) -> Result<Plan, Vec<PlanError>> {
        let mut planner = Planner::new(self);
        planner.place_uplinks(desired);
        planner.place_networks(desired);
        planner.release_unwanted(desired, now);
        planner.claim_fixed(desired, now);
        planner.allocate_missing(desired, now);
        planner.place_endpoints(desired);
        if !planner.errors.is_empty() {
            return Err(planner.errors);
        }
        let retired = planner.retire_gone();
        let Planner { next, records, .. } = planner;
        let changes = Model::diff(&self.model, &next.model);
        Ok(Plan { next, changes, records, retired })
    }

    /// Makes numbers free again, after every worker has seen tables without them.
    ///
    /// # Errors
    ///
    /// [`IdError::NotRetired`] for the first that is not retired.
    pub fn release(&mut self, retired: &Retired) -> Result<(), IdError> {
        retired.segments.iter().try_for_each(|id| self.ids.release_segment(*id))?;
        retired.ports.iter().try_for_each(|id| self.ids.release_port(*id))
    }

    /// Forgets the addresses that have rested enough; the result must be stored.
    pub fn expire(&mut self, now: Duration) -> Vec<ipam::Record> {
        self.ipam.expire(now)
    }
}

/// A plan in the making.
struct Planner<'a> {
    old: &'a Model,
    next: Inventory,
    records: Vec<ipam::Record>,
    /// The addresses of each endpoint, by its name.
    addresses: HashMap<String, Vec<IpNet>>,
    errors: Vec<PlanError>,
}

impl<'a> Planner<'a> {
    fn new(current: &'a Inventory) -> Self {
        let next = Inventory { model: Model::default(), ..current.clone() };
        let (records, addresses, errors) = Default::default();
        Self { old: &current.model, next, records, addresses, errors }
    }

    fn place_uplinks(&mut self, desired: &Desired) {
        for (device, wish) in uplink::wishes(desired) {
            let (network, io, mtu) = (wish.network, wish.io, wish.mtu);
            let old = self.old.uplinks.get(device);
            let id = old.map_or_else(|| self.next.ids.allocate_port(), |old| Ok(old.id));
            let Some(id) = self.number(network, id) else { continue };
            let (mut trunk, mut ageing) = (Trunk::default(), BTreeMap::new());
            for (tagging, interval) in wish.lans() {
                let kept = old.and_then(|old| uplink::kept(&old.trunk, tagging));
                let kept = kept.filter(|segment| !ageing.contains_key(segment));
                let segment = kept.map_or_else(|| self.next.ids.allocate_segment(), Ok);
                let Some(segment) = self.number(network, segment) else { return };
                ageing.insert(segment, interval);
                let Some(more) = self.vlans(network, trunk.with(segment, tagging)) else { return };
                trunk = more;
            }
            let (generation, device) = (self.next.ids.generation(id), device.to_owned());
            let trunk = Arc::new(trunk);
            let uplink = Uplink { id, generation, device, io, mtu, trunk, ageing };
            self.next.model.uplinks.insert(uplink.device.clone(), Arc::new(uplink));
        }
    }

    fn place_networks(&mut self, desired: &Desired) {
        for (origin, spec) in &desired.networks {
            self.place_network(*origin, spec);
        }
        let models = &self.next.model.networks;
        let gone = self.next.ipam.networks().filter(|name| !models.contains_key(*name));
        for name in gone.map(str::to_owned).collect::<Vec<_>>() {
            self.records.extend(self.next.ipam.remove_network(&name));
        }
    }

    fn place_network(&mut self, origin: Origin, spec: &config::Network) {
        let old = self.old.networks.get(&spec.name);
        let (mut vlan, mut trunk) = (None, None);
        let id = if let Some(parent) = &spec.parent {
            let Some(uplink) = self.next.model.uplinks.get(&parent.device) else { return };
            let id = uplink.segment(&parent.lan);
            vlan = uplink.vlan(id);
            let segments = uplink.trunk_of(&parent.lan);
            let Some(segments) = self.vlans(&spec.name, segments) else { return };
            trunk = segments;
            id
        } else {
            let same = old.filter(|old| old.spec.parent.is_none());
            let id = same.map_or_else(|| self.next.ids.allocate_segment(), |old| Ok(old.id));
            let Some(id) = self.number(&spec.name, id) else { return };
            id
        };
        let same = old.filter(|old| old.id == id);
        let host = same.map_or_else(|| self.next.ids.allocate_port(), |old| Ok(old.host));
        let Some(host) = self.number(&spec.name, host) else { return };
        self.records.extend(self.next.ipam.set_network(spec));
        let network = Network {
            id,
            vlan,
            trunk,
            origin,
            spec: spec.clone(),
            host,
            host_generation: self.next.ids.generation(host),
            gateway_mac: gateway_mac(spec),
        };
        self.next.model.networks.insert(spec.name.clone(), Arc::new(network));
    }

    /// Lets go of what no endpoint wants any more.
    fn release_unwanted(&mut self, desired: &Desired, now: Duration) {
        let ports: HashMap<&str, &config::Port> =
            desired.ports.iter().map(|(_, port)| (&*port.name, port)).collect();
        let Inventory { model, ipam, .. } = &self.next;
        let mut unwanted = Vec::new();
        for (network, address, lease) in ipam.leases().filter(|(.., l)| l.rests_until.is_none()) {
            let port = ports.get(&*lease.owner).filter(|port| port.network == network);
            let pair = port.zip(model.networks.get(network));
            let kept = self.addresses.entry(lease.owner.clone()).or_default();
            if !pair.is_some_and(|(port, network)| keep(port, &network.spec, address, kept)) {
                unwanted.push((network.to_owned(), address, lease.owner.clone()));
            }
        }
        for (network, address, owner) in unwanted {
            let released = self.next.ipam.release(&network, address, &owner, now);
            self.records.extend(released);
        }
    }

    fn claim_fixed(&mut self, desired: &Desired, now: Duration) {
        for (_, port) in &desired.ports {
            for address in &port.addresses {
                let before = self.next.ipam.lease(&port.network, address.ip).cloned();
                let claim = self.next.ipam.claim(&port.network, address.ip, &port.name, now);
                self.take(&port.name, before, claim);
            }
        }
    }

    fn allocate_missing(&mut self, desired: &Desired, now: Duration) {
        for (_, port) in &desired.ports {
            for family in [Family::V4, Family::V6] {
                let has =
                    |addresses: &Vec<IpNet>| addresses.iter().any(|a| is_of(family, a.addr()));
                let asked = port.addresses.iter().any(|address| is_of(family, address.ip));
                let served = asked || self.addresses.get(&port.name).is_some_and(has);
                if !served && self.has_subnet(&port.network, family) {
                    let given = self.next.ipam.allocate(&port.network, family, &port.name, now);
                    self.take(&port.name, None, given);
                }
            }
        }
    }

    fn has_subnet(&self, network: &str, family: Family) -> bool {
        let network = self.next.model.networks.get(network);
        network.is_some_and(|n| n.spec.subnets.iter().any(|s| is_of(family, s.prefix.network())))
    }

    /// Notes an address that an endpoint was given, or that it was not.
    fn take(
        &mut self,
        endpoint: &str,
        before: Option<ipam::Lease>,
        given: Result<(IpNet, ipam::Record), ipam::Error>,
    ) {
        match given {
            Ok((net, record)) => {
                self.addresses.entry(endpoint.to_owned()).or_default().push(net);
                self.records.extend((before != record.lease).then_some(record));
            }
            Err(source) => {
                self.errors.push(PlanError::Address { endpoint: endpoint.to_owned(), source });
            }
        }
    }

    fn place_endpoints(&mut self, desired: &Desired) {
        let mut macs = Macs::default();
        for network in self.next.model.networks.values() {
            macs.taken.insert((network.host, network.gateway_mac));
        }
        // Those that ask for an address come first, so that nobody is given it by default.
        let (asking, others): (Vec<_>, Vec<_>) =
            desired.ports.iter().partition(|(_, port)| port.mac.is_some());
        for (origin, port) in asking.into_iter().chain(others) {
            self.place_endpoint(*origin, port, &mut macs);
        }
    }

    fn place_endpoint(&mut self, origin: Origin, port: &config::Port, macs: &mut Macs) {
        let Some(network) = self.next.model.networks.get(&port.network).cloned() else { return };
        let segment = network.id;
        let addresses = in_order(port, self.addresses.remove(&port.name).unwrap_or_default());
        let Some(mac) = macs.choose(port, &network, &addresses) else {
            let (endpoint, network) = (port.name.clone(), port.network.clone());
            let mac = port.mac.unwrap_or_default();
            return self.errors.push(PlanError::GatewayMac { endpoint, network, mac });
        };
        let old = self.old.endpoints.get(&port.name);
        let stays = |old: &&Arc<Endpoint>| {
            let same = segment != SegmentId::NONE || old.spec.network == port.network;
            old.segment == segment && same && old.spec.device == port.device
        };
        let same = old.filter(stays);
        let id = same.map_or_else(|| self.next.ids.allocate_port(), |old| Ok(old.id));
        let Some(id) = self.number(&port.name, id) else { return };
        let generation = self.next.ids.generation(id);
        let spec = port.clone();
        let endpoint = Endpoint { id, generation, segment, origin, spec, addresses, mac };
        self.next.model.endpoints.insert(port.name.clone(), Arc::new(endpoint));
    }

    /// Starts the grace period of every number that is not used any more.
    fn retire_gone(&mut self) -> Retired {
        let Inventory { model, ids, .. } = &mut self.next;
        let ((segments, ports), (old_segments, old_ports)) = (numbers(model), numbers(self.old));
        let segments = old_segments.difference(&segments).copied();
        let ports = old_ports.difference(&ports).copied();
        Retired {
            segments: segments.filter(|id| ids.retire_segment(*id).is_ok()).collect(),
            ports: ports.filter(|id| ids.retire_port(*id).is_ok()).collect(),
        }
    }

    fn vlans<T>(&mut self, network: &str, vlans: Result<T, TrunkError>) -> Option<T> {
        let network = || network.to_owned();
        let note = |source| self.errors.push(PlanError::Vlans { network: network(), source });
        vlans.map_err(note).ok()
    }

    fn number<T>(&mut self, name: &str, id: Result<T, IdError>) -> Option<T> {
        let note = |source| self.errors.push(PlanError::Number { name: name.to_owned(), source });
        id.map_err(note).ok()
    }
}

/// Every number that a model uses.
fn numbers(model: &Model) -> (BTreeSet<SegmentId>, BTreeSet<PortId>) {
    let (mut segments, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for network in model.networks.values() {
        segments.extend(Some(network.id).filter(|id| *id != SegmentId::NONE));
        ports.insert(network.host);
    }
    for uplink in model.uplinks.values() {
        segments.extend(uplink.ageing.keys());
        ports.insert(uplink.id);
    }
    ports.extend(model.endpoints.values().map(|endpoint| endpoint.id));
    (segments, ports)
}

fn gateway_mac(network: &config::Network) -> MacAddr {
    let gateways = || network.subnets.iter().filter_map(|subnet| subnet.gateway);
    let name = format!("gateway of {}", network.name);
    mac::default(gateways(), &mac::seed(network, gateways(), &name), 0)
}

/// Whether a port keeps an address that it has: one that it asks for, or of a family in which it
/// asks for none, the first that is still an endpoint's. The latter is added to `kept`.
fn keep(
    port: &config::Port,
    network: &config::Network,
    address: IpAddr,
    kept: &mut Vec<IpNet>,
) -> bool {
    if port.addresses.iter().any(|asked| asked.ip == address) {
        return true;
    }
    let family = Family::of(address);
    let asks = port.addresses.iter().any(|asked| is_of(family, asked.ip));
    let has = kept.iter().any(|net| is_of(family, net.addr()));
    let subnet =
        network.subnet_of(address).filter(|s| s.is_host(address) && s.gateway != Some(address));
    match subnet {
        Some(subnet) if !asks && !has && network.reservation(address).is_none() => {
            kept.push(IpNet::new_assert(address, subnet.prefix.prefix_len()));
            true
        }
        _ => false,
    }
}

fn is_of(family: Family, address: IpAddr) -> bool {
    Family::of(address) == family
}

/// IPv4 before IPv6, and within a family as the port asks for them.
fn in_order(port: &config::Port, mut addresses: Vec<IpNet>) -> Vec<IpNet> {
    let asked = |net: &IpNet| port.addresses.iter().position(|a| a.ip == net.addr());
    addresses.sort_by_key(|net| (net.addr().is_ipv6(), asked(net)));
    addresses
}

/// The MAC addresses that are taken in each network, for which the host stack's port there stands.
#[derive(Debug, Default)]
struct Macs {
    taken: HashSet<(PortId, MacAddr)>,
}

impl Macs {
    /// The address that the port asks for, `None` if it is taken; or else the first of its
    /// defaults that is not.
    fn choose(
        &mut self,
        port: &config::Port,
        network: &Network,
        addresses: &[IpNet],
    ) -> Option<MacAddr> {
        if let Some(mac) = port.mac {
            return self.taken.insert((network.host, mac)).then_some(mac);
        }
        let addresses = || addresses.iter().map(IpNet::addr);
        let seed = mac::seed(&network.spec, addresses(), &port.name);
        let default = |attempt| mac::default(addresses(), &seed, attempt);
        (0..=u32::MAX).map(default).find(|mac| self.taken.insert((network.host, *mac)))
    }
}
