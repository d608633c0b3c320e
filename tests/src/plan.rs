//! A configuration in a few words. Addresses follow from places: the first network is
//! 10.200.1.0/24 and fd00:200:1::/64 with the gateway at 1, its first port is at 2, and so on.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

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
    settings: String,
    ports: Vec<Port>,
}

#[derive(Clone, Debug)]
struct Port {
    name: String,
    settings: String,
    kind: Kind,
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
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Tap, Self::VethPacket, Self::VethXdp];

    const fn text(self) -> &'static str {
        match self {
            Self::Tap => "kind = \"tap\"",
            Self::VethPacket => "kind = \"veth\"\nio = \"af_packet\"",
            Self::VethXdp => "kind = \"veth\"\nio = \"af_xdp\"",
        }
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

    /// Adds a network.
    #[must_use]
    pub fn network(mut self, name: &str, settings: &str) -> Self {
        let (name, settings) = (name.to_owned(), settings.to_owned());
        self.networks.push(Network { name, settings, ports: Vec::new() });
        self
    }

    /// Adds a port to the network that was added last.
    #[must_use]
    pub fn port(mut self, name: &str, settings: &str) -> Self {
        let network = self.networks.last_mut().expect("a network before its ports");
        let (name, settings) = (name.to_owned(), settings.to_owned());
        network.ports.push(Port { name, settings, kind: Kind::Tap });
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

    /// The address of a port.
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
        for (number, Network { name, settings, ports }) in (1_u8..).zip(&self.networks) {
            // Writing to a string can't fail.
            let _ = write!(
                text,
                "\n[[network]]\nname = \"{name}\"\ndriver = \"bridge\"\n\
                 subnets = [\"10.200.{number}.0/24\", \"fd00:200:{number}::/64\"]\n{settings}\n"
            );
            for Port { name: port, settings, kind } in ports {
                let kind = kind.text();
                let [four, six] = Family::BOTH.map(|family| self.address(port, family));
                let netns = netns(port);
                let _ = write!(
                    text,
                    "\n[[port]]\nnetwork = \"{name}\"\nname = \"{port}\"\n{kind}\n\
                     netns = \"{netns}\"\ndevice = \"{DEVICE}\"\n\
                     address = [\"{four}/24\", \"{six}/64\"]\n{settings}\n"
                );
            }
        }
        text
    }
}

fn addresses(network: u8, host: u8) -> [IpAddr; 2] {
    let six = [0xfd00, 0x200, u16::from(network), 0, 0, 0, 0, u16::from(host)];
    [IpAddr::from([10, 200, network, host]), IpAddr::from(six)]
}
