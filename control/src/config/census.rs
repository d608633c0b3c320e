//! What exists so far, and whether one object more fits in: the checks between objects.
//!
//! The file's objects are counted first, then those of the API, so that what clashes with the
//! file is always the API's object.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use dataplane::ids::MacAddr;

use super::device::Netns;
use super::document::Path;
use super::network::Network;
use super::parent::Parent;
use super::parents::Parents;
use super::port::{Address, Port};
use super::report::{Kind, Problem};
use super::schema;

/// Networks, and ports, that one heddle has at most.
pub const MOST_OBJECTS: usize = 65_000;

/// Networks that a name which is none of them is compared with.
const MOST_GUESSES: usize = 256;

/// Where a device is: its namespace, `None` for heddle's own, and its name there.
type Place = (Option<Netns>, String);

/// The objects that were accepted so far.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// `None` is a network that was refused: nothing can be said about its ports.
    networks: BTreeMap<String, Option<Network>>,
    ports: HashSet<String>,
    parents: Parents,
    /// The owner of each device of ports, by namespace and name.
    devices: HashMap<Place, String>,
    addresses: HashMap<(String, IpAddr), String>,
    macs: HashMap<(String, MacAddr), String>,
}

impl Census {
    /// Accepts a network, or says what is wrong with it beside the others.
    ///
    /// # Errors
    ///
    /// Everything that clashes, with paths that start at the network.
    pub fn add_network(&mut self, network: &Network) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        if self.networks.contains_key(&network.name) {
            problems.push(taken(&network.name, "network"));
        } else if self.networks.len() >= MOST_OBJECTS {
            problems.push(full("networks"));
        }
        if let Some(parent) = &network.parent {
            problems.extend(self.parents.clash(parent));
            problems.extend(self.parent_is_port(parent));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if let Some(parent) = &network.parent {
            self.parents.count(&network.name, parent);
        }
        self.networks.insert(network.name.clone(), Some(network.clone()));
        Ok(())
    }

    /// Remembers a network that was refused, so that its ports are not told that it is missing.
    pub(super) fn refuse_network(&mut self, name: &str) {
        self.networks.entry(name.to_owned()).or_insert(None);
    }

    /// Accepts a port, or says what is wrong with it beside the others.
    ///
    /// # Errors
    ///
    /// Everything that clashes, with paths that start at the port.
    pub fn add_port(&mut self, port: &Port) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        if self.ports.contains(&port.name) {
            problems.push(taken(&port.name, "port"));
        } else if self.ports.len() >= MOST_OBJECTS {
            problems.push(full("ports"));
        } else if let Some(network) = self.parents.user(&port.name) {
            let expected = format!("a name other than that of network `{network}`'s parent");
            let path = Path::default().key("name");
            let found = format!("`{}`", port.name);
            problems.push(Problem::new(Kind::Conflict, path, found, expected, ""));
        }
        self.check_device(port, &mut problems);
        match self.networks.get(&port.network) {
            None => problems.push(self.no_network(&port.network)),
            Some(None) => {}
            Some(Some(network)) => {
                self.check_mac(port, &mut problems);
                self.check_addresses(port, network, &mut problems);
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        self.count(port);
        Ok(())
    }

    fn count(&mut self, port: &Port) {
        let owner = || port.name.clone();
        self.ports.insert(owner());
        if let Some(place) = place(port) {
            self.devices.insert(place, owner());
        }
        if let Some(mac) = port.mac {
            self.macs.insert((port.network.clone(), mac), owner());
        }
        for address in &port.addresses {
            self.addresses.insert((port.network.clone(), address.ip), owner());
        }
    }

    fn no_network(&self, name: &str) -> Problem {
        let known = self.networks.keys().map(String::as_str);
        let nearest = schema::nearest(name, known.take(MOST_GUESSES));
        let advice = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("add a network called `{name}`"),
        };
        let path = Path::default().key("network");
        Problem::new(Kind::Conflict, path, format!("`{name}`"), "the name of a network", advice)
    }

    /// Devices of ports and parents are different, and so are their names: commands take either.
    fn parent_is_port(&self, parent: &Parent) -> Option<Problem> {
        let device = &parent.device;
        let expected = if let Some(port) = self.devices.get(&(None, device.clone())) {
            format!("a device that is not port `{port}`'s")
        } else if self.ports.contains(device) {
            format!("a device that is not called like port `{device}`")
        } else {
            return None;
        };
        let path = Path::default().key("parent");
        Some(Problem::new(Kind::Conflict, path, format!("`{device}`"), expected, ""))
    }

    fn check_device(&self, port: &Port, problems: &mut Vec<Problem>) {
        let Some(place) = place(port) else { return };
        let (netns, name) = &place;
        let expected = if let Some(owner) = self.devices.get(&place) {
            let netns = netns.as_ref().map_or("heddle's namespace".to_owned(), Netns::to_string);
            format!("a device other than port `{owner}` has in {netns}")
        } else if let Some(network) = self.parents.user(name).filter(|_| netns.is_none()) {
            format!("a device that is not the parent of network `{network}`")
        } else {
            return;
        };
        let path = Path::default().key("device");
        problems.push(Problem::new(Kind::Conflict, path, format!("`{name}`"), expected, ""));
    }

    fn check_mac(&self, port: &Port, problems: &mut Vec<Problem>) {
        let Some(mac) = port.mac else { return };
        if let Some(owner) = self.macs.get(&(port.network.clone(), mac)) {
            let expected = format!("a MAC address other than port `{owner}` has");
            let path = Path::default().key("mac");
            problems.push(Problem::new(Kind::Conflict, path, mac.to_string(), expected, ""));
        }
    }

    fn check_addresses(&self, port: &Port, network: &Network, problems: &mut Vec<Problem>) {
        let several = port.addresses.len() > 1;
        let base = Path::default().key("address");
        let mut own = HashSet::new();
        for (index, address) in port.addresses.iter().enumerate() {
            let expected = if own.insert(address.ip) {
                self.misplaced(address, network)
            } else {
                Some("an address that this port has once".to_owned())
            };
            let Some(expected) = expected else { continue };
            let path = if several { base.index(index) } else { base.clone() };
            let found = format!("`{address}`");
            problems.push(Problem::new(Kind::Conflict, path, found, expected, ""));
        }
    }

    /// What an address of a port in `network` should be instead.
    fn misplaced(&self, address: &Address, network: &Network) -> Option<String> {
        let ip = address.ip;
        let Some(subnet) = network.subnet_of(ip) else {
            let subnets: Vec<String> =
                network.subnets.iter().map(|s| s.prefix.to_string()).collect();
            let subnets = if subnets.is_empty() { "none".to_owned() } else { subnets.join(", ") };
            return Some(format!("an address in a subnet of `{}` ({subnets})", network.name));
        };
        let length = subnet.prefix.prefix_len();
        if address.prefix_len.is_some_and(|given| given != length) {
            return Some(format!("{ip}/{length}, as the subnet {} has it", subnet.prefix));
        }
        if Some(ip) == subnet.gateway {
            return Some("an address other than the gateway's".to_owned());
        }
        if !subnet.is_host(ip) {
            return Some(format!("a host address in {}, not its first or last", subnet.prefix));
        }
        if let Some(reserved) = network.reservation(ip) {
            return Some(format!("an address that is not reserved (for `{}`)", reserved.name));
        }
        let owner = self.addresses.get(&(network.name.clone(), ip))?;
        Some(format!("an address other than port `{owner}` has"))
    }
}

fn place(port: &Port) -> Option<Place> {
    Some((port.device.netns().cloned(), port.device.name()?.to_owned()))
}

fn taken(name: &str, what: &str) -> Problem {
    let path = Path::default().key("name");
    let expected = format!("a name that no other {what} has");
    let advice = format!("give this {what} another name");
    Problem::new(Kind::Conflict, path, format!("`{name}` again"), expected, advice)
}

fn full(what: &str) -> Problem {
    let path = Path::default().key("name");
    let expected = format!("at most {MOST_OBJECTS} {what}");
    Problem::new(Kind::Conflict, path, "one more", expected, "")
}
