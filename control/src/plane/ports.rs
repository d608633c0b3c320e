//! The ports of all endpoints and uplinks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dataplane::counters::PortCounters;
use dataplane::ids::PortId;
use dataplane::worker::WorkerError;

use super::Plane;
use super::device::{self, Site, Wanted};
use super::drive::Stations;
use super::port::{Owner, Port};
use super::wish::Wish;
use crate::config;
use crate::model::{Endpoint, Model, Network, Uplink};

/// The ports that there are, by number.
#[derive(Default)]
pub struct Ports {
    ports: BTreeMap<PortId, Port>,
    /// Devices without a port that could not be removed yet.
    orphans: Vec<Site>,
}

impl Ports {
    /// Every port, by number.
    pub fn iter(&self) -> impl Iterator<Item = (&PortId, &Port)> {
        self.ports.iter()
    }

    /// One endpoint's port.
    pub fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(&port)
    }

    /// Serves an endpoint: opens its device and puts a queue of it on every worker. The carrier
    /// stays off until [`Ports::raise`]. A container that is not there yet is waited for.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone; a device that can't be had is noted in the port.
    pub fn attach(
        &mut self,
        plane: &Plane,
        instance: &str,
        endpoint: &Arc<Endpoint>,
        network: &Network,
    ) -> Result<(), WorkerError> {
        let wish = wish(instance, endpoint, network);
        let adopted = wish.site();
        self.orphans.retain(|orphan| Some(orphan) != adopted.as_ref());
        self.add(plane, Owner::Endpoint(Arc::clone(endpoint)), wish)
    }

    /// Plugs networks into a device: opens it and puts a queue of it on every worker. One that is
    /// not there yet is waited for.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone; a device that can't be had is noted in the port.
    pub fn plug(
        &mut self,
        plane: &Plane,
        uplink: &Arc<Uplink>,
        model: &Model,
    ) -> Result<(), WorkerError> {
        self.add(plane, Owner::Uplink(Arc::clone(uplink)), parent(uplink, model))
    }

    fn add(&mut self, plane: &Plane, owner: Owner, wish: Wish) -> Result<(), WorkerError> {
        let id = owner.id();
        let mut port = Port::new(plane, owner, wish);
        port.serve(plane)?;
        self.ports.insert(id, port);
        Ok(())
    }

    /// Changes an uplink, or what is behind it; without a pause, unless it is to be driven
    /// otherwise.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn replug(
        &mut self,
        plane: &Plane,
        uplink: &Arc<Uplink>,
        model: &Model,
    ) -> Result<(), WorkerError> {
        self.alter(plane, Owner::Uplink(Arc::clone(uplink)), parent(uplink, model))
    }

    fn alter(&mut self, plane: &Plane, owner: Owner, wish: Wish) -> Result<(), WorkerError> {
        let Some(port) = self.ports.get_mut(&owner.id()) else { return Ok(()) };
        port.owner = owner;
        port.change(plane, wish)
    }

    /// Tells endpoints' devices that they are served. All that were adopted must let packets
    /// through before the first asks for its neighbours again, so that these can answer.
    pub fn raise(&self, plane: &Plane, ports: &[PortId]) {
        let ports = || ports.iter().filter_map(|port| self.ports.get(port));
        ports().for_each(|port| port.raise(plane));
        ports().for_each(|port| port.resume(device::wait_until_running));
        ports().for_each(|port| port.resume(device::forget_neighbors));
    }

    /// Changes an endpoint that keeps its port and device.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn change(
        &mut self,
        plane: &Plane,
        instance: &str,
        endpoint: &Arc<Endpoint>,
        network: &Network,
    ) -> Result<(), WorkerError> {
        let wish = wish(instance, endpoint, network);
        self.alter(plane, Owner::Endpoint(Arc::clone(endpoint)), wish)
    }

    /// Stops serving an endpoint and removes its device, now or as soon as that can be done. One
    /// that heddle has not made stays. Nothing may refer to the port any more.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn detach(&mut self, plane: &Plane, port: PortId) -> Result<(), WorkerError> {
        let Some(mut port) = self.ports.remove(&port) else { return Ok(()) };
        port.retire(plane)?;
        port.release(plane, "it is no more");
        if let Some(site) = port.wish.site() {
            self.clear(site);
        }
        Ok(())
    }

    /// Removes a device that has no port, now or as soon as that can be done.
    pub fn clear(&mut self, site: Site) {
        if let Err(error) = site.clear() {
            let (netns, name) = (site.netns.display(), &site.name);
            tracing::warn!(%netns, name, %error, "device not removed");
            self.orphans.push(site);
        }
    }

    /// Whether a device without a port is still to be removed.
    pub fn is_orphan(&self, site: &Site) -> bool {
        self.orphans.contains(site)
    }

    /// Looks after containers and devices that came, went, or were replaced by others of the same
    /// name.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn look_after(&mut self, plane: &Plane) -> Result<(), WorkerError> {
        self.orphans.retain(|site| site.clear().is_err());
        let heard = plane.backstage().listen();
        self.ports.values_mut().try_for_each(|port| port.look_after(plane, &heard))
    }
}

/// Where the device of an endpoint is to be, if heddle makes one for it.
pub fn site(instance: &str, endpoint: &Endpoint) -> Option<Site> {
    let (config::Device::Tap { netns, name } | config::Device::Veth { netns, name, .. }) =
        &endpoint.spec.device
    else {
        return None;
    };
    let alias = format!("{instance}{}", endpoint.spec.name);
    Some(Site { netns: path(netns), name: name.clone(), alias })
}

/// What the port of an endpoint is to be made of.
fn wish(instance: &str, endpoint: &Endpoint, network: &Network) -> Wish {
    let wanted = |site: Site| (site.netns.clone(), wanted(instance, site, endpoint, network));
    match (&endpoint.spec.device, site(instance, endpoint).map(wanted)) {
        (config::Device::Veth { io, .. }, Some((netns, wanted))) => Wish::Veth(netns, wanted, *io),
        (_, Some((netns, wanted))) => Wish::Tap(netns, wanted),
        (config::Device::Existing { netns, name, io }, None) => {
            Wish::Existing(netns.as_ref().map(path), name.clone(), *io)
        }
        (_, None) => Wish::Memory,
    }
}

fn parent(uplink: &Uplink, model: &Model) -> Wish {
    Wish::Parent(uplink.device.clone(), uplink.io, stations(&uplink.device, model))
}

/// The stations of the networks that are plugged into a device. Where addresses are learned, any may
/// come up.
fn stations(device: &str, model: &Model) -> Stations {
    let mut stations = BTreeSet::new();
    for network in model.networks.values() {
        let Some(parent) = network.spec.parent.as_ref().filter(|p| p.device == device) else {
            continue;
        };
        if parent.is_trunk() || !network.spec.anti_spoof {
            return None;
        }
        stations.insert(network.gateway_mac);
        stations.extend(model.endpoints_of(&network.spec.name).map(|endpoint| endpoint.mac));
    }
    Some(stations)
}

fn wanted(instance: &str, site: Site, endpoint: &Endpoint, network: &Network) -> Wanted {
    let reachable =
        |next_hop: &IpAddr| endpoint.addresses.iter().any(|address| address.contains(next_hop));
    Wanted {
        name: site.name,
        alias: site.alias,
        instance: instance.to_owned(),
        mac: endpoint.mac,
        mtu: network.spec.mtu,
        addresses: endpoint.addresses.clone(),
        gateways: first_of_each_family(network.spec.next_hops().filter(reachable)),
    }
}

fn path(netns: &config::Netns) -> PathBuf {
    match netns {
        config::Netns::Name(name) => PathBuf::from(name),
        config::Netns::Path(path) => path.clone(),
    }
}

fn first_of_each_family(gateways: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut first = Vec::new();
    for gateway in gateways {
        if !first.iter().any(|other: &IpAddr| other.is_ipv4() == gateway.is_ipv4()) {
            first.push(gateway);
        }
    }
    first
}

/// Sums one counter over all workers.
pub fn sum(counters: &[Arc<PortCounters>], of: impl Fn(&PortCounters) -> u64) -> u64 {
    counters.iter().map(|counters| of(counters)).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::ipam::Ipam;
    use crate::model::{Desired, Inventory};

    const LAN: &str = "[[network]]\nname = \"lan\"\ndriver = \"vlan\"\nparent = \"eth1\"\nvlan = 10\n\
                       subnets = [\"10.0.9.0/24\"]\n";
    const PORT: &str = "[[port]]\nnetwork = \"lan\"\nname = \"a\"\nkind = \"memory\"\n\
                        mac = \"02:00:00:00:00:67\"\n";
    const TRUNK: &str =
        "[[network]]\nname = \"all\"\ndriver = \"vlan\"\nparent = \"eth1\"\ntrunk = [10]\n";

    fn stations_of(text: &str) -> Stations {
        let (desired, _) = Desired::new(&Config::parse(text, "test").unwrap(), &[]);
        let plan = Inventory::new(Ipam::default()).plan(&desired, Duration::ZERO).unwrap();
        stations("eth1", plan.next.model())
    }

    #[test]
    fn stations_are_known_only_where_none_is_learned() {
        let known = stations_of(&format!("{LAN}{PORT}")).expect("they are known");
        assert!(known.contains(&"02:00:00:00:00:67".parse().unwrap()));
        assert_eq!(known.len(), 2, "the gateway's and the endpoint's");
        assert_eq!(stations_of(&format!("{LAN}anti_spoof = false\n{PORT}")), None);
        assert_eq!(stations_of(&format!("{LAN}{PORT}{TRUNK}")), None);
    }
}
