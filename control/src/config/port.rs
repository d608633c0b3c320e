//! A port: a `[[port]]` table, or an endpoint that the API is asked for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use dataplane::ids::MacAddr;
use ipnet::IpNet;
use thiserror::Error;

use super::device::Device;
use super::document::{Node, Path};
use super::fields::Fields;
use super::report::Problem;
use super::schema;
use super::units::PacketRate;
use super::values::{self, Mismatch};

/// A port with all defaults filled in that don't depend on what else there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The name of its network.
    pub network: String,
    /// Unique among the ports of all networks.
    pub name: String,
    /// What its device is.
    pub device: Device,
    /// The addresses that it must have. Of a family without any, one is allocated, if the
    /// network has a subnet of that family.
    pub addresses: Vec<Address>,
    /// Its station's address; `None` is made from its IP address.
    pub mac: Option<MacAddr>,
    /// Further names.
    pub aliases: Vec<String>,
    /// What it may send.
    pub limits: Limits,
}

/// An address of a port, with or without the length of its subnet's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// Must be the subnet's, where it is given.
    pub prefix_len: Option<u8>,
}

/// What a port may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Broadcasts, multicasts and unknown unicasts together; `None` is no limit.
    pub storm: Option<PacketRate>,
}

impl Port {
    /// Reads the table. Everything wrong with it is added to `problems`; `None` if there was
    /// anything.
    pub(super) fn read(node: &Node, path: Path, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        let mut fields = Fields::open(node, path, &schema::PORT, problems)?;
        let network = fields.required("network", "a network's name", values::name);
        let name = fields.required("name", "the port's name", values::name);
        let device = Device::read(&mut fields);
        let port = Self {
            network: network.unwrap_or_default(),
            name: name.unwrap_or_default(),
            device: device.unwrap_or(Device::Memory),
            addresses: addresses(&mut fields),
            mac: fields.optional("mac", values::mac),
            aliases: fields
                .list("aliases", values::name)
                .into_iter()
                .map(|(_, name)| name)
                .collect(),
            limits: limits(&mut fields),
        };
        (fields.problems() == before).then_some(port)
    }

    /// The port as a body that the API takes: reading it gives the same port.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "network": self.network,
            "name": self.name,
            "kind": self.device.kind(),
            "address": self.addresses.iter().map(Address::to_string).collect::<Vec<_>>(),
            "aliases": self.aliases,
        });
        let netns = self.device.netns().map(|netns| ("netns", netns.to_string()));
        let name = self.device.name().map(|name| ("device", name.to_owned()));
        let io = self.device.io().map(|io| ("io", io.to_string()));
        for (key, value) in [netns, name, io].into_iter().flatten() {
            json[key] = value.into();
        }
        if let Some(mac) = self.mac {
            json["mac"] = mac.to_string().into();
        }
        if let Some(storm) = self.limits.storm {
            json["limits"] = serde_json::json!({ "storm": storm.to_string() });
        }
        json
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len {
            None => self.ip.fmt(f),
            Some(length) => write!(f, "{}/{length}", self.ip),
        }
    }
}

/// A text that is no address, with or without a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not an address like 10.0.9.65/24")]
pub struct BadAddress(pub String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, prefix_len: None });
        }
        let net: IpNet = text.parse().map_err(|_| BadAddress(text.to_owned()))?;
        Ok(Self { ip: net.addr(), prefix_len: Some(net.prefix_len()) })
    }
}

fn addresses(fields: &mut Fields<'_>) -> Vec<Address> {
    let read = values::parsed("an address such as \"10.0.9.65/24\" or \"fd00:9::65/64\"");
    fields.list("address", read).into_iter().map(|(_, address)| address).collect()
}

fn limits(fields: &mut Fields<'_>) -> Limits {
    let Some(mut limits) = fields.table("limits", &schema::LIMITS) else {
        return Limits::default();
    };
    Limits { storm: limits.optional("storm", storm) }
}

fn storm(node: &Node) -> Result<PacketRate, Mismatch> {
    let rate: PacketRate = values::parsed("a rate such as \"1000pps\"")(node)?;
    let fits = (1..=u64::from(u32::MAX)).contains(&rate.0);
    fits.then_some(rate).ok_or_else(|| Mismatch::value("a rate from 1pps to 4294967295pps", ""))
}
