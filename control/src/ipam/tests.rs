//! Examples, and a property test against a model that keeps every address of a small subnet.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn network(body: serde_json::Value) -> config::Network {
    let mut json = json!({ "name": "lan", "driver": "bridge" });
    json.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    config::Network::from_json(json).unwrap()
}

fn ipam(body: serde_json::Value) -> Ipam {
    let mut ipam = Ipam::default();
    assert_eq!(ipam.set_network(&network(body)), []);
    ipam
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn next(ipam: &mut Ipam, family: Family, owner: &str, now: u64) -> Result<String, Error> {
    ipam.allocate("lan", family, owner, at(now)).map(|(net, _)| net.to_string())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_go_round_before_they_come_again() {
    let mut ipam =
        ipam(json!({ "subnets": ["10.0.9.0/29"], "reserved": { "router": "10.0.9.3" } }));
    assert_eq!(next(&mut ipam, Family::V4, "a", 0).unwrap(), "10.0.9.2/29");
    assert_eq!(next(&mut ipam, Family::V4, "b", 0).unwrap(), "10.0.9.4/29");
    ipam.release("lan", ip("10.0.9.2"), "a", at(0)).unwrap();
    assert_eq!(next(&mut ipam, Family::V4, "c", 100).unwrap(), "10.0.9.5/29");
    assert_eq!(next(&mut ipam, Family::V4, "d", 100).unwrap(), "10.0.9.6/29");
    assert_eq!(next(&mut ipam, Family::V4, "e", 100).unwrap(), "10.0.9.2/29");
}

#[test]
fn an_exhausted_pool_says_what_rests() {
    let mut ipam = ipam(json!({ "subnets": ["10.0.9.0/24"], "ip_range": "10.0.9.4/31" }));
    next(&mut ipam, Family::V4, "a", 0).unwrap();
    next(&mut ipam, Family::V4, "b", 0).unwrap();
    ipam.release("lan", ip("10.0.9.5"), "b", at(10)).unwrap();
    let error = next(&mut ipam, Family::V4, "c", 69).unwrap_err();
    let (network, pool) = ("lan".to_owned(), "10.0.9.4/31".to_owned());
    assert_eq!(error, Error::Exhausted { network, pool, held: 1, resting: 1 });
    assert_eq!(next(&mut ipam, Family::V4, "c", 70).unwrap(), "10.0.9.5/24");
}

#[test]
fn a_resting_address_is_given_to_its_last_owner_only() {
    let mut ipam = ipam(json!({ "subnets": ["10.0.9.0/24"] }));
    let address = ip("10.0.9.77");
    ipam.claim("lan", address, "a", at(0)).unwrap();
    ipam.release("lan", address, "a", at(0)).unwrap();
    let error = ipam.claim("lan", address, "b", at(59)).unwrap_err();
    assert!(matches!(error, Error::Resting { left, .. } if left == at(1)));
    ipam.claim("lan", address, "a", at(59)).unwrap();
    assert!(matches!(ipam.claim("lan", address, "b", at(999)), Err(Error::Taken { .. })));
    ipam.release("lan", address, "a", at(60)).unwrap();
    assert!(matches!(ipam.release("lan", address, "a", at(60)), Err(Error::NotHeld { .. })));
    ipam.claim("lan", address, "b", at(120)).unwrap();
}

#[test]
fn some_addresses_are_for_nobody() {
    let mut ipam = ipam(json!({
        "subnets": ["10.0.9.0/24", "fd00::/64"],
        "gateway": "10.0.9.254",
        "reserved": { "router": "fd00::9" },
    }));
    for address in ["10.0.9.0", "10.0.9.255", "10.0.9.254", "fd00::", "fd00::1", "fd00::9"] {
        let error = ipam.claim("lan", ip(address), "a", at(0)).unwrap_err();
        assert!(matches!(error, Error::NotForEndpoints { .. }), "{address}");
    }
    let outside = ipam.claim("lan", ip("10.0.10.1"), "a", at(0));
    assert!(matches!(outside, Err(Error::Outside { .. })));
    assert_eq!(next(&mut ipam, Family::V4, "a", 0).unwrap(), "10.0.9.1/24");
    assert_eq!(next(&mut ipam, Family::V6, "a", 0).unwrap(), "fd00::2/64");
}

#[test]
fn the_smallest_subnets_have_no_edges() {
    let mut pair = ipam(json!({ "subnets": ["10.0.9.6/31", "fd00::4/127"] }));
    assert_eq!(next(&mut pair, Family::V4, "a", 0).unwrap(), "10.0.9.7/31");
    assert_eq!(next(&mut pair, Family::V6, "a", 0).unwrap(), "fd00::5/127");
    assert!(matches!(next(&mut pair, Family::V4, "b", 0), Err(Error::Exhausted { .. })));
    let mut alone = ipam(json!({ "subnets": ["10.0.9.6/32"] }));
    assert!(matches!(next(&mut alone, Family::V4, "a", 0), Err(Error::Exhausted { .. })));
    assert!(matches!(next(&mut alone, Family::V6, "a", 0), Err(Error::NoSubnet { .. })));
}

#[test]
fn large_subnets_cost_what_is_used() {
    let mut ipam = ipam(json!({ "subnets": ["10.0.0.0/8", "fd00::/64"] }));
    for number in 0..257 {
        next(&mut ipam, Family::V4, &number.to_string(), 0).unwrap();
        next(&mut ipam, Family::V6, &number.to_string(), 0).unwrap();
    }
    assert_eq!(ipam.leases().count(), 514);
    // The last address of the subnet is in use, and the search goes round.
    ipam.claim("lan", ip("fd00::ffff:ffff:ffff:ffff"), "last", at(0)).unwrap();
    let network = network(json!({ "subnets": ["fd00::/64"] }));
    let mut restored = Ipam::restore(REST, records(&ipam), at(0));
    assert_eq!(restored.set_network(&network).len(), 257);
    assert_eq!(next(&mut restored, Family::V6, "new", 0).unwrap(), "fd00::103/64");
}

#[test]
fn a_clock_set_back_lengthens_no_rest() {
    let mut ipam = ipam(json!({ "subnets": ["10.0.9.0/24"] }));
    ipam.claim("lan", ip("10.0.9.2"), "a", at(1_000_000)).unwrap();
    ipam.release("lan", ip("10.0.9.2"), "a", at(1_000_000)).unwrap();
    let restored = Ipam::restore(REST, records(&ipam), at(5));
    assert_eq!(restored.lease("lan", ip("10.0.9.2")).unwrap().rests_until, Some(at(65)));
}

fn records(ipam: &Ipam) -> Vec<Record> {
    let record = |(network, address, lease): (&str, IpAddr, &Lease)| Record {
        network: network.to_owned(),
        address,
        lease: Some(lease.clone()),
    };
    ipam.leases().map(record).collect()
}

/// An operation on the naive model; owners and hosts are small numbers so that they meet.
#[derive(Debug, Clone)]
enum Operation {
    Allocate(u8),
    Claim(u8, u8),
    Release(u8),
    Wait(u64),
    Expire,
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0_u8..9).prop_map(Operation::Allocate),
        2 => (0_u8..9, 0_u8..34).prop_map(|(owner, host)| Operation::Claim(owner, host)),
        3 => (0_u8..32).prop_map(Operation::Release),
        2 => (0_u64..40).prop_map(Operation::Wait),
        1 => Just(Operation::Expire),
        1 => Just(Operation::Restart),
    ]
}

/// What each address of the network is, known by looking at all of them.
#[derive(Default)]
struct Naive {
    held: BTreeMap<IpAddr, String>,
    /// The last owner, and when it gave the address up.
    released: BTreeMap<IpAddr, (String, u64)>,
}

impl Naive {
    fn usable() -> HashSet<IpAddr> {
        let none = ["10.0.9.1", "10.0.9.9"].map(ip);
        (1..31).map(|host| ip(&format!("10.0.9.{host}"))).filter(|a| !none.contains(a)).collect()
    }

    fn rests(&self, address: IpAddr, now: u64) -> bool {
        self.released.get(&address).is_some_and(|(_, since)| now < since + 60)
    }

    fn free(&self, now: u64) -> HashSet<IpAddr> {
        let free = |a: &IpAddr| !self.held.contains_key(a) && !self.rests(*a, now);
        Self::usable().into_iter().filter(free).collect()
    }

    /// Whether `owner` may have `address` if it asks for it.
    fn may(&self, address: IpAddr, owner: &str, now: u64) -> bool {
        let last = self.released.get(&address).is_some_and(|(last, _)| last == owner);
        match self.held.get(&address) {
            Some(holder) => holder == owner,
            None => Self::usable().contains(&address) && (last || !self.rests(address, now)),
        }
    }

    fn hold(&mut self, address: IpAddr, owner: &str) {
        self.released.remove(&address);
        self.held.insert(address, owner.to_owned());
    }
}

/// The allocator and the naive model side by side, and what was recorded on the way.
struct Pair {
    ipam: Ipam,
    naive: Naive,
    now: u64,
    stored: BTreeMap<IpAddr, Record>,
}

impl Pair {
    fn apply(&mut self, operation: Operation, lan: &config::Network) -> Result<(), TestCaseError> {
        match operation {
            Operation::Allocate(owner) => self.allocate(&owner.to_string())?,
            Operation::Claim(owner, host) => self.claim(&owner.to_string(), address(host))?,
            Operation::Release(host) => self.release(address(host))?,
            Operation::Wait(seconds) => self.now += seconds,
            Operation::Expire => {
                let expired = self.ipam.expire(at(self.now));
                expired.into_iter().for_each(|record| self.store(record));
            }
            Operation::Restart => {
                let stored = self.stored.values().cloned();
                self.ipam = Ipam::restore(REST, stored, at(self.now));
                self.ipam.set_network(lan);
            }
        }
        Ok(())
    }

    fn store(&mut self, record: Record) {
        self.stored.insert(record.address, record);
    }

    fn allocate(&mut self, owner: &str) -> Result<(), TestCaseError> {
        let free = self.naive.free(self.now);
        match self.ipam.allocate("lan", Family::V4, owner, at(self.now)) {
            Ok((net, record)) => {
                prop_assert!(free.contains(&net.addr()));
                self.naive.hold(net.addr(), owner);
                self.store(record);
            }
            Err(Error::Exhausted { held, resting, .. }) => {
                prop_assert!(free.is_empty());
                prop_assert_eq!(held, self.naive.held.len());
                prop_assert_eq!(held + resting, Naive::usable().len());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
        Ok(())
    }

    fn claim(&mut self, owner: &str, address: IpAddr) -> Result<(), TestCaseError> {
        let claim = self.ipam.claim("lan", address, owner, at(self.now));
        prop_assert_eq!(claim.is_ok(), self.naive.may(address, owner, self.now));
        if let Ok((_, record)) = claim {
            self.naive.hold(address, owner);
            self.store(record);
        }
        Ok(())
    }

    fn release(&mut self, address: IpAddr) -> Result<(), TestCaseError> {
        let owner = self.naive.held.remove(&address);
        let name = owner.clone().unwrap_or_default();
        let release = self.ipam.release("lan", address, &name, at(self.now));
        prop_assert_eq!(release.is_ok(), owner.is_some());
        if let Ok(record) = release {
            self.naive.released.insert(address, (name, self.now));
            self.store(record);
        }
        Ok(())
    }
}

/// A host of the small subnet, or one just outside it.
fn address(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 9, host])
}

proptest! {
    /// No address has two owners, none is outside or reserved, rests are honoured, what is free
    /// is found, and what was recorded is what is there.
    #[test]
    fn agrees_with_the_naive_model(operations in prop::collection::vec(operation(), 1..257)) {
        let subnet = json!({ "subnets": ["10.0.9.0/27"], "reserved": { "router": "10.0.9.9" } });
        let lan = network(subnet.clone());
        let (naive, stored) = (Naive::default(), BTreeMap::new());
        let mut pair = Pair { ipam: ipam(subnet), naive, now: 0, stored };
        for operation in operations {
            pair.apply(operation, &lan)?;
            let stored = pair.stored.values().filter(|record| record.lease.is_some()).cloned();
            prop_assert_eq!(stored.collect::<Vec<_>>(), records(&pair.ipam));
        }
    }
}
