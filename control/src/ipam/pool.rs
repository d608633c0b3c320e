//! One subnet's addresses, and the next-fit search through them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::{Family, Lease};
use crate::config::{self, Subnet};

/// Where the automatic addresses of a subnet come from.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) subnet: Subnet,
    /// The address, as a number, at which the next search begins.
    pub(super) cursor: u128,
    /// The gateway's and the reserved addresses in this subnet.
    excluded: BTreeSet<IpAddr>,
}

impl Pool {
    pub(super) fn new(
        subnet: &Subnet,
        network: &config::Network,
        leases: &BTreeMap<IpAddr, Lease>,
    ) -> Self {
        let reserved = network.reserved.iter().map(|reserved| reserved.address);
        let excluded = reserved.filter(|address| subnet.prefix.contains(address));
        let excluded = excluded.chain(subnet.gateway).collect();
        let mut pool = Self { subnet: subnet.clone(), cursor: 0, excluded };
        let highest = leases.range(subnet.range.network()..=subnet.range.broadcast()).next_back();
        pool.cursor = highest.map_or(0, |(address, _)| number(*address).saturating_add(1));
        pool
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.subnet.prefix.network())
    }

    pub(super) fn is_for_endpoints(&self, address: IpAddr) -> bool {
        self.subnet.is_host(address) && !self.excluded.contains(&address)
    }

    pub(super) fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new_assert(address, self.subnet.prefix.prefix_len())
    }

    /// The first address at or after the cursor, going round, that nothing blocks. The cursor
    /// moves behind it.
    ///
    /// Of one address more than can be blocked, one is free: that bounds the search by what there
    /// is, whatever the size of the subnet.
    pub(super) fn next_free(
        &mut self,
        leases: &BTreeMap<IpAddr, Lease>,
        now: Duration,
    ) -> Option<IpNet> {
        let range = self.subnet.range;
        let (first, last) = (number(range.network()), number(range.broadcast()));
        // The network's and the broadcast address come on top of those excluded.
        let blocked = leases.len() + self.excluded.len() + 2;
        let mut candidate = self.cursor.clamp(first, last);
        if candidate != self.cursor {
            candidate = first;
        }
        let others = last - first;
        for _ in 0..=u128::try_from(blocked).unwrap_or(u128::MAX).min(others) {
            let address = address(candidate, self.family());
            let next = if candidate == last { first } else { candidate + 1 };
            let free = leases.get(&address).is_none_or(|lease| !lease.blocks(now));
            if free && self.is_for_endpoints(address) {
                self.cursor = next;
                return Some(self.with_prefix(address));
            }
            candidate = next;
        }
        None
    }
}

/// An address as a number, within its family.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The inverse of [`number`]; a v4 address is the low 32 bits.
fn address(number: u128, family: Family) -> IpAddr {
    match (family, u32::try_from(number)) {
        (Family::V4, Ok(bits)) => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}
