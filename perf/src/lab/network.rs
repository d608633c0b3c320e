//! The networks of a scenario, their addresses, and the configuration that a user would write.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::host::{Container, Lab};

/// heddle's device in every container.
pub(super) const DEVICE: &str = "eth0";

/// A network of two containers: 10.200.N.0/24 and fd00:200:N::/64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    pub(super) name: &'static str,
    pub(super) number: u8,
    /// What its containers are plugged in by.
    pub(super) kinds: [Kind; 2],
}

/// What a container's device is, and how heddle drives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Tap,
    VethByPacketSockets,
    VethByAfXdp,
}

impl Network {
    pub(super) fn gateways(&self) -> [IpAddr; 2] {
        self.hosts(1)
    }

    /// The addresses of a container, by family, counted from zero.
    pub(super) fn hosts_of(&self, member: u8) -> [IpAddr; 2] {
        self.hosts(member.saturating_add(2))
    }

    /// The same with the lengths of their prefixes.
    pub(super) fn addresses(&self, member: u8) -> [IpNet; 2] {
        let [four, six] = self.hosts_of(member);
        // Both lengths are in range.
        [(four, 24), (six, 64)].map(|(address, length)| IpNet::new_assert(address, length))
    }

    fn hosts(&self, host: u8) -> [IpAddr; 2] {
        let six = [0xfd00, 0x200, self.number.into(), 0, 0, 0, 0, u16::from(host)];
        [IpAddr::from([10, 200, self.number, host]), IpAddr::from(six)]
    }
}

impl Kind {
    /// The keys of a port.
    fn keys(self) -> &'static str {
        match self {
            Self::Tap => "kind = \"tap\"",
            Self::VethByPacketSockets => "kind = \"veth\"\nio = \"af_packet\"",
            Self::VethByAfXdp => "kind = \"veth\"\nio = \"af_xdp\"",
        }
    }

    /// How `show ports` begins to say it.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::VethByPacketSockets => "af_packet",
            Self::VethByAfXdp => "af_xdp",
        }
    }
}

/// Where the heddle of a host listens.
pub(super) fn api(lab: &Lab, host: &Container) -> PathBuf {
    lab.directory().join(format!("{}.sock", host.name()))
}

/// The configuration file of a host: what a user would write. Workers are pinned to `cores`, or
/// without any left to heddle.
pub(super) fn configuration(
    lab: &Lab,
    host: &Container,
    cores: &[usize],
    networks: &[(Network, &[Container; 2])],
) -> String {
    let (name, directory, netns) = (host.name(), lab.directory().display(), host.own_netns());
    let api = api(lab, host).display().to_string();
    let mut text = format!(
        "[host]\nname = \"{name}\"\nstate = \"{directory}/{name}.state\"\napi = \"{api}\"\n\
         netns = \"{netns}\"\n"
    );
    // Writing to a string can't fail.
    if !cores.is_empty() {
        let _ = writeln!(text, "workers = {cores:?}");
    }
    for (network, containers) in networks {
        let Network { name, number, .. } = network;
        let subnets = format!("[\"10.200.{number}.0/24\", \"fd00:200:{number}::/64\"]");
        let _ = write!(
            text,
            "\n[[network]]\nname = \"{name}\"\ndriver = \"bridge\"\nsubnets = {subnets}\n"
        );
        for (member, container) in (0..).zip(*containers) {
            text.push_str(&port(network, member, container));
        }
    }
    text
}

fn port(network: &Network, member: u8, container: &Container) -> String {
    let [four, six] = network.addresses(member);
    let keys = network.kinds[usize::from(member)].keys();
    format!(
        "\n[[port]]\nnetwork = \"{}\"\nname = \"{}\"\n{keys}\nnetns = \"{}\"\n\
         device = \"{DEVICE}\"\naddress = [\"{four}\", \"{six}\"]\n",
        network.name,
        container.name(),
        container.netns_name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Cancel;

    const DB: Network = Network { name: "db", number: 2, kinds: [Kind::Tap, Kind::VethByAfXdp] };

    #[test]
    fn the_configuration_is_what_a_user_would_write() {
        let lab = Lab::new(Cancel::new()).unwrap();
        let host = lab.container("host").unwrap();
        let db = [lab.container("db-1").unwrap(), lab.container("db-2").unwrap()];
        let text = configuration(&lab, &host, &[1, 3], &[(DB, &db)]);
        assert!(text.contains("-own\"\nworkers = [1, 3]\n"), "{text}");
        let network = "\n[[network]]\nname = \"db\"\ndriver = \"bridge\"\n\
                       subnets = [\"10.200.2.0/24\", \"fd00:200:2::/64\"]\n";
        assert!(text.contains(network), "{text}");
        let port = format!(
            "\n[[port]]\nnetwork = \"db\"\nname = \"db-2\"\nkind = \"veth\"\nio = \"af_xdp\"\n\
             netns = \"{}\"\ndevice = \"eth0\"\naddress = [\"10.200.2.3/24\", \"fd00:200:2::3/64\"]\n",
            db[1].netns_name()
        );
        assert!(text.ends_with(&port), "{text}");
    }
}
