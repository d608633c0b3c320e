//! MAC addresses for those who did not ask for one.

use std::net::IpAddr;

use dataplane::ids::MacAddr;

use crate::config;

/// The address that belongs to a v4 address: 02:42, which is locally administered, and its four
/// octets. Without one it is made from a [`seed`], below 06, where it can't meet one made from v4.
/// `attempt` gives another one when the first is taken.
pub(super) fn default(
    addresses: impl IntoIterator<Item = IpAddr>,
    seed: &str,
    attempt: u32,
) -> MacAddr {
    let v4 = addresses.into_iter().find_map(|address| match address {
        IpAddr::V4(v4) => Some(v4.octets()),
        IpAddr::V6(_) => None,
    });
    match v4 {
        Some([a, b, c, d]) if attempt == 0 => MacAddr([0x02, 0x42, a, b, c, d]),
        _ => from_seed(seed, attempt),
    }
}

/// The text that a default which is not made from a v4 address is made from. On a network of this
/// host alone that is the station's name. On one that other hosts are on too, names may repeat, so it
/// is the first v6 address where there is one. Stations without any address, as those of a trunk,
/// are still told apart by name alone: one wire, one name.
pub(super) fn seed(
    network: &config::Network,
    mut addresses: impl Iterator<Item = IpAddr>,
    name: &str,
) -> String {
    let shared = network.parent.is_some();
    let v6 = addresses.find(IpAddr::is_ipv6).filter(|_| shared);
    v6.map_or_else(|| name.to_owned(), |v6| v6.to_string())
}

/// Forty bits of a hash that no version may change, since containers keep their addresses.
fn from_seed(seed: &str, attempt: u32) -> MacAddr {
    let hash = fnv1a(seed.bytes().chain(attempt.to_be_bytes()));
    let [_, _, _, a, b, c, d, e] = (hash ^ (hash >> 40)).to_be_bytes();
    MacAddr([0x06, a, b, c, d, e])
}

/// FNV-1a with 64 bits (the constants are those of its authors' draft,
/// draft-eastlake-fnv-17, 5): the same in every version, for names and numbers that must be found
/// again.
pub fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_comes_first() {
        let addresses = ["fd00:9::65".parse().unwrap(), "10.0.9.65".parse().unwrap()];
        assert_eq!(default(addresses, "web-1", 0).to_string(), "02:42:0a:00:09:41");
    }

    #[test]
    fn names_give_stable_unicast_addresses() {
        let mac = default([], "web-1", 0);
        assert_eq!(mac, default(["fd00::1".parse().unwrap()], "web-1", 0));
        assert_ne!(mac, default([], "web-2", 0));
        assert_ne!(mac, default([], "web-1", 1));
        assert!(!mac.is_group() && mac.0[0] == 0x06);
    }

    #[test]
    fn names_are_for_those_who_share_no_wire() {
        let network = |parent: Option<&str>| {
            let mut body = serde_json::json!({ "name": "n", "driver": "bridge" });
            if let Some(parent) = parent {
                body["parent"] = parent.into();
            }
            config::Network::from_json(body).unwrap()
        };
        let addresses = ["10.0.9.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(seed(&network(None), addresses.into_iter(), "a"), "a");
        assert_eq!(seed(&network(Some("eth1")), addresses.into_iter(), "a"), "fd00::2");
        assert_eq!(seed(&network(Some("eth1")), addresses.into_iter().take(1), "a"), "a");
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(std::iter::empty()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a".bytes()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar".bytes()), 0x8594_4171_f739_67e8);
    }
}
