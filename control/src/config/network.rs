//! A network: a `[[network]]` table or the API's body of the same shape.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use dataplane::ids::Mtu;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::document::{Node, Path};
use super::fields::Fields;
use super::parent::Parent;
use super::report::{Kind, Problem};
use super::schema;
use super::subnet::{self, Subnet};
use super::units::Interval;
use super::values::{self, Mismatch};

/// IPv6 is not sent over links of less (RFC 8200, 5).
const IPV6_MTU: u16 = 1280;
/// Subnets that one network may have.
const MOST_SUBNETS: usize = 16;
/// Learned addresses that one port may have at most.
const MOST_MACS: u32 = 1_000_000;
/// The range of IEEE 802.1Q-2018, 8.8.3, whose lower end is 10 s, with a lower end for tests.
const AGEING: std::ops::RangeInclusive<Interval> =
    Interval::from_secs(1)..=Interval::from_secs(1_000_000);

/// A network with all its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Unique among networks.
    pub name: String,
    /// What carries its frames.
    pub driver: Driver,
    /// What it is plugged into; `None` is a network of this host alone.
    pub parent: Option<Parent>,
    /// Its subnets, none overlapping another; without any it is a plain segment.
    pub subnets: Vec<Subnet>,
    /// Addresses that nobody is given.
    pub reserved: Vec<Reserved>,
    /// No way out: endpoints get no default route.
    pub internal: bool,
    /// Endpoints reach the gateway, not each other.
    pub isolated: bool,
    /// Endpoints may send only from their own MAC and IP addresses.
    pub anti_spoof: bool,
    /// Of every endpoint's device.
    pub mtu: Mtu,
    /// How long a learned address that is not heard is kept.
    pub ageing: Interval,
    /// Learned addresses that one port may have.
    pub mac_limit: u32,
}

/// What carries a network's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// Ports of this host, and the untagged frames of a parent, if there is one.
    Bridge,
    /// Ports of this host, and VLANs of a parent.
    Vlan,
}

/// An auxiliary address of a network, known by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// What the address is for.
    pub name: String,
    /// Inside a subnet.
    pub address: IpAddr,
}

impl Network {
    /// Reads the table. Everything wrong with it is added to `problems`; `None` if there was
    /// anything.
    pub(super) fn read(node: &Node, path: Path, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        let mut fields = Fields::open(node, path, &schema::NETWORK, problems)?;
        let name = fields.required("name", "the network's name", values::name);
        let driver = fields.required("driver", "driver = \"bridge\" or \"vlan\"", Driver::read);
        let parent = driver.and_then(|driver| Parent::read(&mut fields, driver));
        let subnets = subnets(&mut fields);
        let mtu = fields.optional("mtu", values::auto(mtu)).flatten();
        let network = Self {
            reserved: reserved(&mut fields, &subnets),
            internal: fields.optional("internal", values::boolean).unwrap_or(false),
            isolated: fields.optional("isolated", values::boolean).unwrap_or(false),
            anti_spoof: anti_spoof(&mut fields, parent.as_ref()),
            mtu: mtu.unwrap_or(Mtu::ETHERNET),
            ageing: fields.optional("ageing", ageing).unwrap_or(Interval::from_secs(300)),
            mac_limit: mac_limit(&mut fields),
            name: name.unwrap_or_default(),
            driver: driver.unwrap_or(Driver::Bridge),
            parent,
            subnets,
        };
        check_mtu(&mut fields, &network);
        check_trunk(&mut fields, &network);
        (fields.problems() == before).then_some(network)
    }

    /// The subnet that `address` is in.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.prefix.contains(&address))
    }

    /// The reserved address `address`, if it is one.
    pub fn reservation(&self, address: IpAddr) -> Option<&Reserved> {
        self.reserved.iter().find(|reserved| reserved.address == address)
    }

    /// Whether its endpoints get several VLANs, told apart by tags.
    pub fn is_trunk(&self) -> bool {
        self.parent.as_ref().is_some_and(Parent::is_trunk)
    }

    /// Where default routes of endpoints may go, the better ones first: the addresses that are
    /// reserved as `router` and `router6`, then the gateways. None on an internal network.
    pub fn next_hops(&self) -> impl Iterator<Item = IpAddr> {
        let is_router = |reserved: &&Reserved| ["router", "router6"].contains(&&*reserved.name);
        let routers = self.reserved.iter().filter(is_router).map(|reserved| reserved.address);
        let gateways = self.subnets.iter().filter_map(|subnet| subnet.gateway);
        routers.chain(gateways).filter(|_| !self.internal)
    }

    /// The network as a body that the API takes: reading it gives the same network.
    pub fn to_json(&self) -> serde_json::Value {
        let gateways = |v4: bool| -> Vec<String> {
            let of_family = self.subnets.iter().filter(|subnet| subnet.is_v4() == v4);
            of_family
                .filter_map(|subnet| subnet.gateway)
                .map(|gateway| gateway.to_string())
                .collect()
        };
        let reserved = self.reserved.iter().map(|r| (r.name.clone(), r.address.to_string().into()));
        let mut json = serde_json::json!({
            "name": self.name,
            "driver": self.driver,
            "subnets": self.subnets.iter().map(|s| s.prefix).collect::<Vec<_>>(),
            "gateway": gateways(true),
            "gateway6": gateways(false),
            "ip_range": self.subnets.iter().map(|s| s.range).collect::<Vec<_>>(),
            "reserved": reserved.collect::<serde_json::Map<_, _>>(),
            "internal": self.internal,
            "isolated": self.isolated,
            "anti_spoof": self.anti_spoof,
            "mtu": self.mtu.bytes(),
            "ageing": self.ageing.to_string(),
            "mac_limit": self.mac_limit,
        });
        if let Some(parent) = &self.parent {
            parent.put_into(&mut json);
        }
        json
    }
}

impl Driver {
    fn read(node: &Node) -> Result<Self, Mismatch> {
        let words = &[("bridge", Self::Bridge), ("vlan", Self::Vlan)];
        values::choice(words, &["overlay"])(node)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Vlan => "vlan",
        })
    }
}

fn mtu(node: &Node) -> Result<Mtu, Mismatch> {
    let bytes = values::integer(68..=65_535)(node)?;
    let mtu = u16::try_from(bytes).ok().and_then(Mtu::new);
    mtu.ok_or_else(|| Mismatch::value("an integer from 68 to 65535", ""))
}

fn mac_limit(fields: &mut Fields<'_>) -> u32 {
    fields.optional("mac_limit", values::integer(1..=MOST_MACS)).unwrap_or(1024)
}

fn ageing(node: &Node) -> Result<Interval, Mismatch> {
    let ageing: Interval = values::parsed("a duration such as \"300s\"")(node)?;
    let expected = || format!("a duration from {} to {}", AGEING.start(), AGEING.end());
    AGEING.contains(&ageing).then_some(ageing).ok_or_else(|| Mismatch::value(expected(), ""))
}

fn check_mtu(fields: &mut Fields<'_>, network: &Network) {
    let v6 = network.subnets.iter().find(|subnet| !subnet.is_v4());
    let (Some(v6), mtu) = (v6, network.mtu.bytes()) else { return };
    if mtu < IPV6_MTU {
        let expected = format!("at least {IPV6_MTU}, since {} is IPv6", v6.prefix);
        let path = fields.path("mtu");
        fields.problem(Problem::new(Kind::Conflict, path, mtu.to_string(), expected, ""));
    }
}

/// What is behind an endpoint of a trunk are other machines: their addresses are not known.
fn anti_spoof(fields: &mut Fields<'_>, parent: Option<&Parent>) -> bool {
    let is_trunk = parent.is_some_and(Parent::is_trunk);
    let wanted = fields.optional("anti_spoof", values::boolean);
    if is_trunk && wanted == Some(true) {
        let expected = "anti_spoof = false: what is behind a trunk has addresses of its own";
        let path = fields.path("anti_spoof");
        fields.problem(Problem::new(Kind::Conflict, path, "true", expected, ""));
    }
    wanted.unwrap_or(!is_trunk)
}

fn check_trunk(fields: &mut Fields<'_>, network: &Network) {
    let Some(subnet) = network.subnets.first().filter(|_| network.is_trunk()) else { return };
    let expected = "no subnets beside `trunk`: it carries the frames of several networks";
    let advice = "give them to a network that has the VLAN alone, with `vlan`";
    let path = fields.path("subnets");
    let found = subnet.prefix.to_string();
    fields.problem(Problem::new(Kind::Conflict, path, found, expected, advice));
}

/// The subnets with their gateways and ranges. Of a network with a parent, the first address may be
/// anybody's.
fn subnets(fields: &mut Fields<'_>) -> Vec<Subnet> {
    let mut prefixes: Vec<IpNet> = Vec::new();
    for (path, prefix) in fields.list("subnets", subnet::prefix) {
        if let Some(other) = prefixes.iter().find(|other| overlap(other, &prefix)) {
            let expected = format!("a prefix outside {other}, an earlier subnet of this network");
            let problem = Problem::new(Kind::Conflict, path, prefix.to_string(), expected, "");
            fields.problem(problem);
        } else if prefixes.len() == MOST_SUBNETS {
            let expected = format!("at most {MOST_SUBNETS} subnets");
            fields.problem(Problem::new(Kind::BadValue, path, "one more", expected, ""));
            break;
        } else {
            prefixes.push(prefix);
        }
    }
    let subnet = if fields.has("parent") { Subnet::shared } else { Subnet::new };
    let mut subnets: Vec<Subnet> = prefixes.into_iter().map(subnet).collect();
    gateways(fields, &mut subnets, "gateway", true);
    gateways(fields, &mut subnets, "gateway6", false);
    ranges(fields, &mut subnets);
    subnets
}

/// Sets the gateways that are named, each in the subnet that it is in.
fn gateways(fields: &mut Fields<'_>, subnets: &mut [Subnet], key: &'static str, v4: bool) {
    let mut named = HashSet::new();
    for (path, address) in fields.list(key, values::address) {
        let fits = |subnet: &&mut Subnet| subnet.is_v4() == v4 && subnet.is_host(address);
        let family = if v4 { "v4" } else { "v6" };
        let wrong = |expected: String, advice: &str| {
            Problem::new(Kind::Conflict, path.clone(), address.to_string(), expected, advice)
        };
        match subnets.iter_mut().find(fits) {
            Some(subnet) if named.insert(subnet.prefix) => subnet.gateway = Some(address),
            Some(subnet) => fields.problem(wrong(
                format!("one gateway in {}", subnet.prefix),
                "name one gateway for each subnet",
            )),
            None => fields.problem(wrong(
                format!("a host address in one of this network's {family} subnets"),
                "a subnet's first address, and in v4 its last, is no host's",
            )),
        }
    }
}

/// Sets the ranges that are named, each in the subnet that it is part of.
fn ranges(fields: &mut Fields<'_>, subnets: &mut [Subnet]) {
    let mut named = HashSet::new();
    for (path, range) in fields.list("ip_range", values::prefix) {
        let expected = match subnets.iter_mut().find(|subnet| subnet.prefix.contains(&range)) {
            Some(subnet) if named.insert(subnet.prefix) => {
                subnet.range = range;
                continue;
            }
            Some(subnet) => format!("one range in {}", subnet.prefix),
            None => "a prefix inside one of this network's subnets".to_owned(),
        };
        fields.problem(Problem::new(Kind::Conflict, path, range.to_string(), expected, ""));
    }
}

fn reserved(fields: &mut Fields<'_>, subnets: &[Subnet]) -> Vec<Reserved> {
    let mut reserved = Vec::new();
    let mut addresses = HashSet::new();
    for (path, address, name) in
        fields.members("reserved", "{ router = \"10.0.9.9\" }", values::address)
    {
        let subnet = subnets.iter().find(|subnet| subnet.prefix.contains(&address));
        let expected = match subnet {
            _ if !values::is_name(name) => "a reserved name of letters, digits, `_`, `.` and `-`",
            None => "an address in one of this network's subnets",
            Some(subnet) if subnet.gateway == Some(address) => {
                "an address other than the gateway's"
            }
            Some(_) if name == "router6" && address.is_ipv4() => {
                "an IPv6 address: what is called `router6` takes the default route of IPv6"
            }
            Some(_) if !addresses.insert(address) => "an address that is reserved once",
            Some(_) => {
                reserved.push(Reserved { name: name.to_owned(), address });
                continue;
            }
        };
        let found = address.to_string();
        fields.problem(Problem::new(Kind::Conflict, path, found, expected, ""));
    }
    reserved.sort_by(|a: &Reserved, b| a.name.cmp(&b.name));
    reserved
}

/// Whether the prefixes share an address.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Whether `prefix` shares an address with what no subnet may hold.
pub(super) fn special(prefix: &IpNet) -> Option<&'static str> {
    let v4 = |a, b, c, d, len| Ipv4Net::new([a, b, c, d].into(), len).map(IpNet::V4);
    let v6 =
        |first: u16, len| Ipv6Net::new([first, 0, 0, 0, 0, 0, 0, 0].into(), len).map(IpNet::V6);
    let blocks = [
        (v4(0, 0, 0, 0, 8), "0.0.0.0/8 (this network, RFC 1122)"),
        (v4(127, 0, 0, 0, 8), "127.0.0.0/8 (loopback)"),
        (v4(224, 0, 0, 0, 3), "224.0.0.0/3 (multicast and reserved)"),
        (v6(0, 8), "::/8 (loopback and mapped addresses)"),
        (v6(0xfe80, 10), "fe80::/10 (link-local)"),
        (v6(0xff00, 8), "ff00::/8 (multicast)"),
    ];
    let clash = |(block, name): &(Result<IpNet, _>, &'static str)| {
        block.as_ref().is_ok_and(|block| overlap(block, prefix)).then_some(*name)
    };
    blocks.iter().find_map(clash)
}
