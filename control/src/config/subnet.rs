//! A subnet: which of its addresses are hosts' and which is the gateway's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::document::Node;
use super::network;
use super::values::{self, Mismatch};

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet itself, without host bits.
    pub prefix: IpNet,
    /// heddle's own address on it, if it has one.
    pub gateway: Option<IpAddr>,
    /// Where automatic addresses come from: a part of the prefix, or all of it.
    pub range: IpNet,
}

impl Subnet {
    /// A subnet with the defaults: its first host address is the gateway's, and automatic
    /// addresses come from all of it.
    pub fn new(prefix: IpNet) -> Self {
        let skip = u32::from(has_network_address(&prefix));
        Self { prefix, gateway: Some(nth(prefix.network(), skip)), range: prefix }
    }

    /// A subnet that others have too: all of its addresses are theirs, unless it is said
    /// otherwise.
    pub fn shared(prefix: IpNet) -> Self {
        Self { prefix, gateway: None, range: prefix }
    }

    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        matches!(self.prefix, IpNet::V4(_))
    }

    /// Whether `address` may be a host's: inside, and neither the network's address (in v6 the
    /// subnet-router anycast address, RFC 4291, 2.6.1) nor the v4 broadcast address. In the
    /// point-to-point prefixes /31 (RFC 3021) and /127 (RFC 6164), and in /32 and /128, every
    /// address is a host's.
    pub fn is_host(&self, address: IpAddr) -> bool {
        let edge = has_network_address(&self.prefix)
            && (address == self.prefix.network()
                || (self.is_v4() && address == self.prefix.broadcast()));
        self.prefix.contains(&address) && !edge
    }
}

/// Whether the first address of a prefix names the subnet and not a host.
fn has_network_address(prefix: &IpNet) -> bool {
    prefix.max_prefix_len() - prefix.prefix_len() > 1
}

fn nth(first: IpAddr, offset: u32) -> IpAddr {
    match first {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(offset)).into(),
        IpAddr::V6(first) => {
            Ipv6Addr::from_bits(first.to_bits().wrapping_add(offset.into())).into()
        }
    }
}

/// A prefix that can be a subnet.
pub(super) fn prefix(node: &Node) -> Result<IpNet, Mismatch> {
    let prefix = values::prefix(node)?;
    match network::special(&prefix) {
        None => Ok(prefix),
        Some(block) => Err(Mismatch::value(format!("a unicast subnet outside {block}"), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(prefix: &str) -> Subnet {
        Subnet::new(prefix.parse().unwrap())
    }

    #[test]
    fn the_first_host_is_the_gateway() {
        for (prefix, gateway) in [
            ("10.0.9.0/24", "10.0.9.1"),
            ("10.0.9.0/31", "10.0.9.0"),
            ("10.0.9.7/32", "10.0.9.7"),
            ("fd00:9::/64", "fd00:9::1"),
            ("fd00:9::/127", "fd00:9::"),
        ] {
            assert_eq!(subnet(prefix).gateway.unwrap().to_string(), gateway);
        }
    }

    #[test]
    fn edges_are_no_hosts() {
        let host = |prefix: &str, address: &str| subnet(prefix).is_host(address.parse().unwrap());
        assert!(!host("10.0.9.0/24", "10.0.9.0") && !host("10.0.9.0/24", "10.0.9.255"));
        assert!(host("10.0.9.0/24", "10.0.9.254") && !host("10.0.9.0/24", "10.0.10.1"));
        assert!(host("10.0.9.0/31", "10.0.9.0") && host("10.0.9.0/31", "10.0.9.1"));
        assert!(!host("fd00::/64", "fd00::") && host("fd00::/64", "fd00::ffff:ffff:ffff:ffff"));
        assert!(!host("10.0.9.0/24", "fd00::1"));
    }
}
