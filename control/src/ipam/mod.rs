//! Addresses of endpoints: who has which, and which rest.
//!
//! A state machine without I/O: `now` is an argument, and each operation returns the
//! [`Record`]s that make it durable. Automatic addresses are taken next-fit, so that an address
//! comes round again as late as possible; one that is given up rests for a while, since neighbours
//! and connections still know it by its old owner. What is kept grows with the addresses that
//! are held or rest, never with the size of a subnet.

mod pool;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config;
use pool::Pool;

/// How long a released address rests, unless it is said otherwise.
pub const REST: Duration = Duration::from_secs(60);

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Who has an address, or had it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The endpoint's name.
    pub owner: String,
    /// `None` while it is held; otherwise when it has rested enough, since the epoch of `now`.
    pub rests_until: Option<Duration>,
}

impl Lease {
    fn blocks(&self, now: Duration) -> bool {
        self.rests_until.is_none_or(|until| now < until)
    }
}

/// What must be stored before an operation counts: the lease of an address, `None` if it has none
/// any more. Of several for one address the last one holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The network's name.
    pub network: String,
    /// The address within it.
    pub address: IpAddr,
    /// Its lease from now on.
    pub lease: Option<Lease>,
}

/// Why an address is not given or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The network has no subnets.
    #[error("there is no network `{0}` with addresses")]
    NoNetwork(String),
    /// The network has no subnet of this family.
    #[error("the network `{network}` has no {family:?} subnet")]
    NoSubnet {
        /// The network's name.
        network: String,
        /// The family that was asked for.
        family: Family,
    },
    /// No address is left.
    #[error(
        "no address is left in {pool} of the network `{network}`: {held} are held and {resting} \
         rest before they are used again"
    )]
    Exhausted {
        /// The network's name.
        network: String,
        /// Where addresses come from: the ranges of its subnets.
        pool: String,
        /// Addresses of the pool that endpoints have.
        held: usize,
        /// Addresses of the pool that rest.
        resting: usize,
    },
    /// An address in no subnet of the network.
    #[error("{address} is in no subnet of the network `{network}`")]
    Outside {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
    },
    /// The gateway's, a reserved, the network's or the broadcast address.
    #[error("{address} in the network `{network}` is not for endpoints")]
    NotForEndpoints {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
    },
    /// Another endpoint has it.
    #[error("{address} in the network `{network}` belongs to `{owner}`")]
    Taken {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: String,
    },
    /// Another endpoint had it a moment ago.
    #[error("{address} in the network `{network}` was `{owner}`'s and rests for {left:?} more")]
    Resting {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
        /// Who had it.
        owner: String,
        /// How long it rests yet.
        left: Duration,
    },
    /// An endpoint does not have the address that it gives up.
    #[error("{address} in the network `{network}` does not belong to `{owner}`")]
    NotHeld {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
        /// Who does not have it.
        owner: String,
    },
}

/// The addresses of all networks.
#[derive(Debug, Clone)]
pub struct Ipam {
    rest: Duration,
    networks: BTreeMap<String, Network>,
}

/// A network's pools and leases. After a restart there are leases before there are pools.
#[derive(Debug, Clone, Default)]
struct Network {
    pools: Vec<Pool>,
    leases: BTreeMap<IpAddr, Lease>,
}

impl Default for Ipam {
    fn default() -> Self {
        Self::new(REST)
    }
}

impl Ipam {
    /// No networks; released addresses will rest for `rest`.
    pub fn new(rest: Duration) -> Self {
        Self { rest, networks: BTreeMap::new() }
    }

    /// What the stored records say. A rest that ends later than one from `now` would (the clock
    /// was set back) is cut to that.
    pub fn restore(
        rest: Duration,
        records: impl IntoIterator<Item = Record>,
        now: Duration,
    ) -> Self {
        let mut ipam = Self::new(rest);
        for Record { network, address, lease } in records {
            let Some(mut lease) = lease else { continue };
            lease.rests_until = lease.rests_until.map(|until| until.min(now.saturating_add(rest)));
            ipam.networks.entry(network).or_default().leases.insert(address, lease);
        }
        ipam
    }

    /// Gives a network its subnets, new or changed. Leases outside them are forgotten.
    pub fn set_network(&mut self, network: &config::Network) -> Vec<Record> {
        let name = &network.name;
        let state = self.networks.entry(name.clone()).or_default();
        let allowed = |address: &IpAddr| network.subnet_of(*address).is_some();
        let stray: Vec<IpAddr> = state.leases.keys().copied().filter(|a| !allowed(a)).collect();
        for address in &stray {
            state.leases.remove(address);
        }
        state.reshape(network);
        stray.into_iter().map(|address| forgotten(name, address)).collect()
    }

    /// Forgets a network and all its leases.
    pub fn remove_network(&mut self, name: &str) -> Vec<Record> {
        let leases = self.networks.remove(name).map(|state| state.leases).unwrap_or_default();
        leases.into_keys().map(|address| forgotten(name, address)).collect()
    }

    /// Gives `owner` the address that it asks for. One that rests is given only to its last
    /// owner.
    ///
    /// # Errors
    ///
    /// [`Error::NoNetwork`], [`Error::Outside`], [`Error::NotForEndpoints`], [`Error::Taken`] and
    /// [`Error::Resting`].
    pub fn claim(
        &mut self,
        network: &str,
        address: IpAddr,
        owner: &str,
        now: Duration,
    ) -> Result<(IpNet, Record), Error> {
        let state = self.state(network)?;
        let name = || network.to_owned();
        let pool = state.pools.iter().find(|pool| pool.subnet.prefix.contains(&address));
        let pool = pool.ok_or_else(|| Error::Outside { network: name(), address })?;
        if !pool.is_for_endpoints(address) {
            return Err(Error::NotForEndpoints { network: name(), address });
        }
        let net = pool.with_prefix(address);
        match state.leases.get(&address).filter(|l| l.owner != owner && l.blocks(now)) {
            None => Ok((net, state.hold(network, address, owner))),
            Some(Lease { owner, rests_until: None }) => {
                Err(Error::Taken { network: name(), address, owner: owner.clone() })
            }
            Some(Lease { owner, rests_until: Some(until) }) => {
                let left = until.saturating_sub(now);
                Err(Error::Resting { network: name(), address, owner: owner.clone(), left })
            }
        }
    }

    /// Gives `owner` the next free address of a family, from the first subnet that has one.
    ///
    /// # Errors
    ///
    /// [`Error::NoNetwork`], [`Error::NoSubnet`] and [`Error::Exhausted`].
    pub fn allocate(
        &mut self,
        network: &str,
        family: Family,
        owner: &str,
        now: Duration,
    ) -> Result<(IpNet, Record), Error> {
        let state = self.state(network)?;
        let Network { pools, leases } = &mut *state;
        let mut of_family = pools.iter_mut().filter(|pool| pool.family() == family).peekable();
        if of_family.peek().is_none() {
            return Err(Error::NoSubnet { network: network.to_owned(), family });
        }
        match of_family.find_map(|pool| pool.next_free(leases, now)) {
            Some(net) => Ok((net, state.hold(network, net.addr(), owner))),
            None => Err(state.exhausted(network, family, now)),
        }
    }

    /// Takes an address back from `owner`; it rests from `now`.
    ///
    /// # Errors
    ///
    /// [`Error::NoNetwork`] and [`Error::NotHeld`].
    pub fn release(
        &mut self,
        network: &str,
        address: IpAddr,
        owner: &str,
        now: Duration,
    ) -> Result<Record, Error> {
        let until = now.saturating_add(self.rest);
        let lease = self.state(network)?.leases.get_mut(&address);
        let lease = lease.filter(|lease| lease.owner == owner && lease.rests_until.is_none());
        let Some(lease) = lease else {
            let (network, owner) = (network.to_owned(), owner.to_owned());
            return Err(Error::NotHeld { network, address, owner });
        };
        lease.rests_until = Some(until);
        Ok(Record { network: network.to_owned(), address, lease: Some(lease.clone()) })
    }

    /// Forgets the addresses that have rested enough. Allocation does not depend on it; it keeps
    /// the state small.
    pub fn expire(&mut self, now: Duration) -> Vec<Record> {
        let mut records = Vec::new();
        for (name, state) in &mut self.networks {
            let rested = state.leases.iter().filter(|(_, lease)| !lease.blocks(now));
            let rested: Vec<IpAddr> = rested.map(|(address, _)| *address).collect();
            for address in rested {
                state.leases.remove(&address);
                records.push(forgotten(name, address));
            }
        }
        records
    }

    /// The lease of an address, if it has one.
    pub fn lease(&self, network: &str, address: IpAddr) -> Option<&Lease> {
        self.networks.get(network)?.leases.get(&address)
    }

    /// Everything that is held or rests: network, address and lease.
    pub fn leases(&self) -> impl Iterator<Item = (&str, IpAddr, &Lease)> {
        self.networks.iter().flat_map(|(name, state)| {
            state.leases.iter().map(|(address, lease)| (name.as_str(), *address, lease))
        })
    }

    /// The networks that there is anything about, by name.
    pub fn networks(&self) -> impl Iterator<Item = &str> {
        self.networks.keys().map(String::as_str)
    }

    fn state(&mut self, network: &str) -> Result<&mut Network, Error> {
        self.networks.get_mut(network).ok_or_else(|| Error::NoNetwork(network.to_owned()))
    }
}

impl Network {
    /// New pools for the network's subnets. One that is as it was goes on where it was; another
    /// begins behind its highest lease.
    fn reshape(&mut self, network: &config::Network) {
        let mut pools: Vec<Pool> =
            network.subnets.iter().map(|subnet| Pool::new(subnet, network, &self.leases)).collect();
        for pool in &mut pools {
            let same = self.pools.iter().find(|old| old.subnet == pool.subnet);
            if let Some(old) = same {
                pool.cursor = old.cursor;
            }
        }
        self.pools = pools;
    }

    fn hold(&mut self, network: &str, address: IpAddr, owner: &str) -> Record {
        let lease = Lease { owner: owner.to_owned(), rests_until: None };
        self.leases.insert(address, lease.clone());
        Record { network: network.to_owned(), address, lease: Some(lease) }
    }

    fn exhausted(&self, network: &str, family: Family, now: Duration) -> Error {
        let pools: Vec<&Pool> = self.pools.iter().filter(|p| p.family() == family).collect();
        let ranges: Vec<String> = pools.iter().map(|pool| pool.subnet.range.to_string()).collect();
        let inside = |address: &IpAddr| pools.iter().any(|p| p.subnet.range.contains(address));
        let (mut held, mut resting) = (0, 0);
        for (_, lease) in self.leases.iter().filter(|(address, _)| inside(address)) {
            match lease.rests_until {
                None => held += 1,
                Some(until) if now < until => resting += 1,
                Some(_) => {}
            }
        }
        Error::Exhausted { network: network.to_owned(), pool: ranges.join(", "), held, resting }
    }
}

fn forgotten(network: &str, address: IpAddr) -> Record {
    Record { network: network.to_owned(), address, lease: None }
}
