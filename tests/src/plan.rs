//! A configuration in a few words. Addresses follow from places: the first network is
//! 10.200.1.0/24 and fd00:200:1::/64 with the gateway at 1, its first port is at 2, and so on.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use dataplane::ids::MacAddr;

use crate::{DEVICE, Family};

/// Networks with their ports. Settings are lines of the configuration file.
#[derive(Clone, Default, Debug)]
pub struct Plan {
    host: String,
    networks: Vec<Network>,
}

#[derive(Clone, Debug)]
struct Network {
    name: String,
    driver: Driver,
    settings: String,
    ports: Vec<Port>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Driver {
    Bridge,
    Vlan,
    /// A network of several VLANs, which has no addresses.
    Trunk,
}

#[derive(Clone, Debug)]
struct Port {
    name: String,
    settings: String,
    kind: Kind,
    /// Whether heddle is to find it an address.
    automatic: bool,
}

/// What a port is made of, and how that is driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// A TAP.
    #[default]
    Tap,
    /// A veth by packet sockets.
    VethPacket,
    /// A veth by AF_XDP.
    VethXdp,
    /// A device that there is, by packet sockets: one end of a veth that the test has made.
    DevicePacket,
    /// The same by AF_XDP.
    DeviceXdp,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Tap, Self::VethPacket, Self::VethXdp, Self::DevicePacket, Self::DeviceXdp];

    /// Whether heddle finds the device, and leaves it as it is.
    pub const fn is_existing(self) -> bool {
        matches!(self, Self::DevicePacket | Self::DeviceXdp)
    }

    /// Whether it is driven by AF_XDP, for which a container's kernel cuts its super-packets itself.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::VethXdp | Self::DeviceXdp)
    }

    /// The `kind` that the configuration calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::VethPacket | Self::VethXdp => "veth",
            Self::DevicePacket | Self::DeviceXdp => "device",
        }
    }

    /// The `io` that the configuration calls it, where there is a choice.
    pub const fn io(self) -> Option<&'static str> {
        match self {
            Self::Tap => None,
            Self::VethPacket | Self::DevicePacket => Some("af_packet"),
            Self::VethXdp | Self::DeviceXdp => Some("af_xdp"),
        }
    }

    /// The keys of a port that say what it is made of. `netns` is its container's.
    fn text(self, port: &str, netns: &str) -> String {
        let mut text = format!("kind = \"{}\"\n", self.word());
        // Writing to a string can't fail.
        let _ = match self.io() {
            Some(io) => writeln!(text, "io = \"{io}\""),
            None => Ok(()),
        };
        let _ = if self.is_existing() {
            write!(text, "device = \"{}\"\nmac = \"{}\"", near_end(port), far_mac(port))
        } else {
            write!(text, "netns = \"{netns}\"\ndevice = \"{DEVICE}\"")
        };
        text
    }
}

impl Plan {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One network called `web` with ports `a` and `b`: enough for most tests.
    pub fn pair(settings: &str) -> Self {
        Self::new().network("web", settings).port("a", "").port("b", "")
    }

    /// Adds settings of the host.
    #[must_use]
    pub fn host(mut self, settings: &str) -> Self {
        self.host = settings.to_owned();
        self
    }

    /// Adds a network of this host, or with a parent in its settings one that is plugged in there.
    #[must_use]
    pub fn network(self, name: &str, settings: &str) -> Self {
        self.with(name, Driver::Bridge, settings)
    }

    /// Adds a network that is a VLAN of a parent.
    #[must_use]
    pub fn vlan(self, name: &str, settings: &str) -> Self {
        self.with(name, Driver::Vlan, settings)
    }

    /// Adds a network that is several VLANs of a parent. Its ports have no addresses of heddle's.
    #[must_use]
    pub fn trunk(self, name: &str, settings: &str) -> Self {
        self.with(name, Driver::Trunk, settings)
    }

    fn with(mut self, name: &str, driver: Driver, settings: &str) -> Self {
        let (name, settings) = (name.to_owned(), settings.to_owned());
        self.networks.push(Network { name, driver, settings, ports: Vec::new() });
        self
    }

    /// Adds a port to the network that was added last.
    #[must_use]
    pub fn port(mut self, name: &str, settings: &str) -> Self {
        let network = self.networks.last_mut().expect("a network before its ports");
        let (name, settings) = (name.to_owned(), settings.to_owned());
        network.ports.push(Port { name, settings, kind: Kind::Tap, automatic: false });
        self
    }

    /// Has heddle find an address for the port that was added last.
    #[must_use]
    pub fn automatic(mut self) -> Self {
        let network = self.networks.last_mut().expect("a network before its ports");
        network.ports.last_mut().expect("a port before its address").automatic = true;
        self
    }

    /// Makes the port that was added last of another kind than a TAP.
    #[must_use]
    pub fn of(mut self, kind: Kind) -> Self {
        let network = self.networks.last_mut().expect("a network before its ports");
        network.ports.last_mut().expect("a port before its kind").kind = kind;
        self
    }

    /// The names of all ports, which are also those of their containers.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        self.networks.iter().flat_map(|network| &network.ports).map(|port| &*port.name)
    }

    /// What a port is made of.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn kind(&self, port: &str) -> Kind {
        let mut ports = self.networks.iter().flat_map(|network| &network.ports);
        let found = ports.find(|other| other.name == port);
        found.unwrap_or_else(|| panic!("no port is called {port}")).kind
    }

    /// The address of a port, unless it is automatic.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn address(&self, port: &str, family: Family) -> IpAddr {
        let place = |network: &Network| network.ports.iter().position(|other| other.name == port);
        let mut places = (1..).zip(&self.networks);
        let found = places.find_map(|(number, network)| Some((number, place(network)?)));
        let (number, place) = found.unwrap_or_else(|| panic!("no port is called {port}"));
        family.pick(addresses(number, u8::try_from(place + 2).expect("fewer than 254 ports")))
    }

    /// The address of a host in a network, counted from 1.
    pub fn address_of(network: u8, host: u8, family: Family) -> IpAddr {
        family.pick(addresses(network, host))
    }

    /// The gateway of a network, counted from 1.
    pub fn gateway(&self, number: u8, family: Family) -> IpAddr {
        family.pick(addresses(number, 1))
    }

    /// The configuration file. `own_netns` is heddle's own namespace; `netns` answers that of a
    /// port's container.
    pub(crate) fn text(
        &self,
        directory: &Path,
        own_netns: &str,
        netns: impl Fn(&str) -> String,
    ) -> String {
        let (directory, host) = (directory.display(), &self.host);
        let mut text = format!(
            "[host]\nname = \"host\"\nmemory = \"128MiB\"\nstate = \"{directory}/state\"\n\
             api = \"{directory}/api.sock\"\nnetns = \"{own_netns}\"\n{host}\n"
        );
        for (number, Network { name, driver, settings, ports }) in (1_u8..).zip(&self.networks) {
            let keys = driver.keys(number);
            // Writing to a string can't fail.
            let _ = write!(text, "\n[[network]]\nname = \"{name}\"\n{keys}\n{settings}\n");
            for port in ports {
                let Port { name: port, settings, kind, automatic } = port;
                let given = !automatic && *driver != Driver::Trunk;
                let address = if given { self.addressing(port) } else { String::new() };
                let kind = kind.text(port, &netns(port));
                let _ = write!(
                    text,
                    "\n[[port]]\nnetwork = \"{name}\"\nname = \"{port}\"\n{kind}\n\
                     {address}\n{settings}\n"
                );
            }
        }
        text
    }

    /// The key that says a port's addresses.
    fn addressing(&self, port: &str) -> String {
        let [four, six] = Family::BOTH.map(|family| self.address(port, family));
        format!("address = [\"{four}/24\", \"{six}/64\"]")
    }
}

impl Driver {
    /// The keys of the network with this number.
    fn keys(self, number: u8) -> String {
        let subnets = format!("subnets = [\"10.200.{number}.0/24\", \"fd00:200:{number}::/64\"]");
        match self {
            Self::Bridge => format!("driver = \"bridge\"\n{subnets}"),
            Self::Vlan => format!("driver = \"vlan\"\n{subnets}"),
            Self::Trunk => "driver = \"vlan\"".to_owned(),
        }
    }
}

/// The end of a veth that a port takes which is made of a device that there is. The other end is in
/// its container.
pub fn near_end(port: &str) -> String {
    format!("near-{port}")
}

/// The address of its other end.
pub fn far_mac(port: &str) -> MacAddr {
    let sum = port.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [a, b, c, d] = sum.to_be_bytes();
    MacAddr([0x02, 0x67, a, b, c, d])
}

fn addresses(network: u8, host: u8) -> [IpAddr; 2] {
    let six = [0xfd00, 0x200, u16::from(network), 0, 0, 0, 0, u16::from(host)];
    [IpAddr::from([10, 200, network, host]), IpAddr::from(six)]
}
