//! `show networks`: every network, with its addresses and what is on it.

use std::collections::HashMap;

use dataplane::wire::vlan::Vid;
use serde::{Deserialize, Serialize};

use super::ports::origin;
use super::table::{Align, Table, or_dash};
use crate::config::{Lan, Parent, Trunk};
use crate::model;
use crate::switch::Switch;

/// The body of `/v1/networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// By name.
    pub networks: Vec<Network>,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// `file` or `api`.
    pub origin: String,
    /// `bridge` or `vlan`.
    pub driver: String,
    /// The device that it is plugged into.
    pub parent: Option<String>,
    /// The VLANs of that device that belong to it.
    pub vlans: Vec<Vlan>,
    /// Its subnets, each with heddle's own address in it.
    pub subnets: Vec<Subnet>,
    /// heddle's own station address.
    pub gateway_mac: String,
    /// The largest layer 3 packet, in bytes.
    pub mtu: u16,
    /// Endpoints get no default route.
    pub internal: bool,
    /// Endpoints reach the gateway, not each other.
    pub isolated: bool,
    /// Endpoints send only from their own addresses.
    pub anti_spoof: bool,
    /// Endpoints on it.
    pub endpoints: usize,
}

/// A VLAN of a network, as the network's endpoints get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// Its identifier.
    pub id: u16,
    /// Whether endpoints get its frames tagged.
    pub tagged: bool,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Address and prefix length.
    pub prefix: String,
    /// heddle's own address, if it has one.
    pub gateway: Option<String>,
    /// Where automatic addresses come from.
    pub range: String,
}

impl View {
    /// The networks as they are now.
    pub fn of(switch: &Switch) -> Self {
        let model = switch.inventory.model();
        let mut endpoints: HashMap<&str, usize> = HashMap::new();
        for endpoint in model.endpoints.values() {
            *endpoints.entry(&endpoint.spec.network).or_default() += 1;
        }
        let count = |name: &str| endpoints.get(name).copied().unwrap_or(0);
        let networks = model.networks.iter().map(|(name, network)| row(network, count(name)));
        Self { networks: networks.collect() }
    }

    /// The same for people.
    pub fn table(&self) -> Table {
        use Align::{Left, Right};
        let columns = [
            ("network", Left),
            ("from", Left),
            ("driver", Left),
            ("outside", Left),
            ("subnets", Left),
            ("gateways", Left),
            ("mtu", Right),
            ("endpoints", Right),
            ("traits", Left),
        ];
        let mut table = Table::new(&columns, "no networks");
        for network in &self.networks {
            let join = |of: fn(&Subnet) -> Option<&str>| {
                network.subnets.iter().filter_map(of).collect::<Vec<_>>().join(" ")
            };
            table.row([
                network.name.clone(),
                network.origin.clone(),
                network.driver.clone(),
                or_dash(network.outside().as_deref()),
                or_dash(Some(&join(|subnet| Some(&subnet.prefix)))),
                or_dash(Some(&join(|subnet| subnet.gateway.as_deref()))),
                network.mtu.to_string(),
                network.endpoints.to_string(),
                or_dash(Some(&network.traits())),
            ]);
        }
        table
    }
}

impl Network {
    /// What it is plugged into: `eth1`, `eth1 vlan 10`, or `eth1 vlans 10 20 native 1`.
    fn outside(&self) -> Option<String> {
        let mut words = self.parent.clone()?;
        let is_trunk = self.vlans.iter().any(|vlan| vlan.tagged);
        let (tagged, untagged): (Vec<_>, Vec<_>) = self.vlans.iter().partition(|vlan| vlan.tagged);
        words += if is_trunk { " vlans" } else { "" };
        words.extend(tagged.iter().map(|vlan| format!(" {}", vlan.id)));
        let untagged_word = if is_trunk { "native" } else { "vlan" };
        words.extend(untagged.iter().map(|vlan| format!(" {untagged_word} {}", vlan.id)));
        Some(words)
    }

    fn traits(&self) -> String {
        let all = [
            (self.internal, "internal"),
            (self.isolated, "isolated"),
            (!self.anti_spoof, "any source"),
        ];
        all.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
    }
}

fn vlans(parent: Option<&Parent>) -> Vec<Vlan> {
    let vlan = |tagged: bool| move |vid: &Vid| Vlan { id: vid.number(), tagged };
    match parent.map(|parent| &parent.lan) {
        None | Some(Lan::Untagged) => Vec::new(),
        Some(Lan::Vlan(vid)) => vec![vlan(false)(vid)],
        Some(Lan::Trunk(Trunk { tagged, native })) => {
            tagged.iter().map(vlan(true)).chain(native.iter().map(vlan(false))).collect()
        }
    }
}

fn row(network: &model::Network, endpoints: usize) -> Network {
    let spec = &network.spec;
    let subnet = |subnet: &crate::config::Subnet| Subnet {
        prefix: subnet.prefix.to_string(),
        gateway: subnet.gateway.map(|gateway| gateway.to_string()),
        range: subnet.range.to_string(),
    };
    Network {
        name: spec.name.clone(),
        origin: origin(network.origin),
        driver: spec.driver.to_string(),
        parent: spec.parent.as_ref().map(|parent| parent.device.clone()),
        vlans: vlans(spec.parent.as_ref()),
        subnets: spec.subnets.iter().map(subnet).collect(),
        gateway_mac: network.gateway_mac.to_string(),
        mtu: spec.mtu.bytes(),
        internal: spec.internal,
        isolated: spec.isolated,
        anti_spoof: spec.anti_spoof,
        endpoints,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_shown_in_columns() {
        let subnet = |prefix: &str, gateway: Option<&str>| Subnet {
            prefix: prefix.to_owned(),
            gateway: gateway.map(str::to_owned),
            range: prefix.to_owned(),
        };
        let plain = Network {
            name: "plain".to_owned(),
            origin: "api".to_owned(),
            driver: "bridge".to_owned(),
            parent: None,
            vlans: vec![],
            subnets: vec![],
            gateway_mac: "02:00:00:00:00:01".to_owned(),
            mtu: 9000,
            internal: true,
            isolated: true,
            anti_spoof: false,
            endpoints: 0,
        };
        let web = Network {
            name: "web".to_owned(),
            origin: "file".to_owned(),
            subnets: vec![
                subnet("10.0.9.0/24", Some("10.0.9.1")),
                subnet("fd00:9::/64", Some("fd00:9::1")),
            ],
            mtu: 1500,
            internal: false,
            isolated: false,
            anti_spoof: true,
            endpoints: 257,
            ..plain.clone()
        };
        let lan = Network {
            name: "lan10".to_owned(),
            driver: "vlan".to_owned(),
            parent: Some("eth1".to_owned()),
            vlans: vec![Vlan { id: 10, tagged: false }],
            subnets: vec![subnet("10.0.8.0/24", None)],
            ..web.clone()
        };
        let trunk = Network {
            name: "all".to_owned(),
            vlans: [(10, true), (20, true), (1, false)]
                .map(|(id, tagged)| Vlan { id, tagged })
                .to_vec(),
            subnets: vec![],
            anti_spoof: false,
            ..lan.clone()
        };
        let expected = "\
NETWORK  FROM  DRIVER  OUTSIDE                    SUBNETS                  GATEWAYS             MTU  ENDPOINTS  TRAITS
plain    api   bridge  -                          -                        -                   9000          0  internal, isolated, any source
web      file  bridge  -                          10.0.9.0/24 fd00:9::/64  10.0.9.1 fd00:9::1  1500        257  -
lan10    file  vlan    eth1 vlan 10               10.0.8.0/24              -                   1500        257  -
all      file  vlan    eth1 vlans 10 20 native 1  -                        -                   1500        257  any source
";
        let networks = vec![plain, web, lan, trunk];
        assert_eq!(View { networks }.table().to_string(), expected);
    }
}
