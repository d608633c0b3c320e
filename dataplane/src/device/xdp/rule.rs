//! What is heddle's on a device that the host uses, too, and how it lies in the program's maps.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use thiserror::Error;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, transmute};

use crate::ids::{MacAddr, Vni};
use crate::wire::protocol;

/// Stations at most.
pub const MOST_STATIONS: usize = 4096;
/// Addresses at most, over all rules that have one.
pub const MOST_ADDRESSES: usize = 256;
/// VXLAN tunnels at most.
pub const MOST_TUNNELS: usize = 4096;
/// Blocks of 2,048 ports at most, in which an address and protocol have one.
pub const MOST_BLOCKS: usize = 1024;

/// Frames that are heddle's. A frame is taken if any rule says so.
///
/// Rules with an address are about packets of unicast frames without a VLAN: in a VLAN, the
/// address is another's. IPv4-mapped IPv6 addresses are IPv4 addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// What is sent to a station of heddle's, in whatever VLAN.
    Station(MacAddr),
    /// A range of ports of an address of ours.
    Ports {
        /// The destination.
        address: IpAddr,
        /// Whose ports.
        transport: Transport,
        /// The destination ports.
        ports: PortRange,
    },
    /// VXLAN packets (RFC 7348) of one of our networks.
    Vxlan {
        /// The destination.
        address: IpAddr,
        /// The destination port.
        port: u16,
        /// The network.
        vni: Vni,
    },
    /// ESP (RFC 4303), on IP or in UDP to port 4500 (RFC 3948). An address has one such rule.
    Esp {
        /// The destination.
        address: IpAddr,
        /// Our security parameter indices.
        spis: SpiPrefix,
    },
}

/// A protocol with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports from the first to the last, neither of which is zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`, both included; `None` if there are none, or zero is one.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// All of them.
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// Security parameter indices with the same upper bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpiPrefix {
    value: u32,
    length: u8,
}

impl SpiPrefix {
    /// The indices whose `length` upper bits are those of `value`; `None` if `length` isn't
    /// between 1 and 32, or `value` has other bits.
    pub const fn new(value: u32, length: u8) -> Option<Self> {
        if length == 0 || length > 32 {
            return None;
        }
        let prefix = Self { value, length };
        if value & !prefix.mask() == 0 { Some(prefix) } else { None }
    }

    /// The upper bits, in their place.
    pub const fn value(self) -> u32 {
        self.value
    }

    /// How many they are, from 1 to 32.
    pub const fn length(self) -> u8 {
        self.length
    }

    const fn mask(self) -> u32 {
        u32::MAX << (32 - self.length)
    }
}

/// Rules that can't be together, or are too many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadRules {
    /// Group frames are for the host, too.
    #[error("{0} is a group address, and no station's")]
    GroupStation(MacAddr),
    /// Two ranges of indices for one address.
    #[error("{0} has two prefixes for its ESP security parameter indices: there can be one")]
    TwoPrefixes(IpAddr),
    /// More than the program has room for.
    #[error("{count} {what} are needed to take what is heddle's: there can be {most}")]
    TooMany {
        /// Of what there are too many.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

/// Rules as the program reads them: per map, the keys and values of `dataplane/xdp/rules.c`.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Compiled {
    pub(super) kinds: u32,
    pub(super) stations: BTreeMap<[u8; 8], [u8; 4]>,
    pub(super) addresses: BTreeMap<[u8; 16], [u8; 12]>,
    pub(super) tunnels: BTreeMap<[u8; 24], [u8; 4]>,
    pub(super) ports: BTreeMap<[u8; 20], [u8; 256]>,
}

const KIND_STATIONS: u32 = 1;
const KIND_ADDRESSES: u32 = 2;

/// The value of maps of which only the keys say something.
const PRESENT: [u8; 4] = [1, 0, 0, 0];

const SERVICE_TUNNELS: u32 = 1;
const SERVICE_PORTS: u32 = 2;
const SERVICE_SEALED: u32 = 4;

/// `struct local`.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Local {
    services: u32,
    spi_mask: U32,
    spi_value: U32,
}

/// `struct tunnel`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Tunnel {
    address: [u8; 16],
    vni: U32,
    port: U16,
    zero: [u8; 2],
}

/// `struct block`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    address: [u8; 16],
    protocol: u8,
    number: u8,
    zero: [u8; 2],
}

const BLOCK_PORTS: u16 = 2048;

impl Compiled {
    pub(super) fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Result<Self, BadRules> {
        let mut compiled = Self::default();
        let mut locals = BTreeMap::new();
        for rule in rules {
            match *rule {
                Rule::Station(mac) if mac.is_group() => return Err(BadRules::GroupStation(mac)),
                Rule::Station(mac) => compiled.add_station(mac),
                Rule::Ports { address, transport, ports } => {
                    local(&mut locals, address).services |= SERVICE_PORTS;
                    compiled.add_ports(address, transport, ports);
                }
                Rule::Vxlan { address, port, vni } => {
                    local(&mut locals, address).services |= SERVICE_TUNNELS;
                    compiled.add_tunnel(address, port, vni);
                }
                Rule::Esp { address, spis } => local(&mut locals, address).seal(address, spis)?,
            }
        }
        compiled.addresses =
            locals.into_iter().map(|(key, local)| (key, transmute!(local))).collect();
        compiled.finish()
    }

    fn finish(mut self) -> Result<Self, BadRules> {
        within("stations", self.stations.len(), MOST_STATIONS)?;
        within("addresses", self.addresses.len(), MOST_ADDRESSES)?;
        within("VXLAN tunnels", self.tunnels.len(), MOST_TUNNELS)?;
        within("blocks of ports", self.ports.len(), MOST_BLOCKS)?;
        let kind = |kind, used: bool| if used { kind } else { 0 };
        self.kinds = kind(KIND_STATIONS, !self.stations.is_empty())
            | kind(KIND_ADDRESSES, !self.addresses.is_empty());
        Ok(self)
    }

    fn add_station(&mut self, mac: MacAddr) {
        let mut key = [0; 8];
        key[..6].copy_from_slice(&mac.0);
        self.stations.insert(key, PRESENT);
    }

    fn add_tunnel(&mut self, address: IpAddr, port: u16, vni: Vni) {
        let key = Tunnel {
            address: octets(address),
            vni: U32::new(vni.to_u32() << 8),
            port: U16::new(port),
            zero: [0; 2],
        };
        self.tunnels.insert(transmute!(key), PRESENT);
    }

    fn add_ports(&mut self, address: IpAddr, transport: Transport, ports: PortRange) {
        for port in ports.ports() {
            let key = Block {
                address: octets(address),
                protocol: transport.number(),
                number: (port / BLOCK_PORTS).to_le_bytes()[0],
                zero: [0; 2],
            };
            let bits = self.ports.entry(transmute!(key)).or_insert([0; 256]);
            let bit = port % BLOCK_PORTS;
            bits[usize::from(bit / 8)] |= 1 << (bit % 8);
        }
    }
}

impl Local {
    fn seal(&mut self, address: IpAddr, spis: SpiPrefix) -> Result<(), BadRules> {
        let (mask, value) = (U32::new(spis.mask()), U32::new(spis.value));
        if self.services & SERVICE_SEALED != 0 && (self.spi_mask, self.spi_value) != (mask, value) {
            return Err(BadRules::TwoPrefixes(address));
        }
        self.services |= SERVICE_SEALED;
        (self.spi_mask, self.spi_value) = (mask, value);
        Ok(())
    }
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

fn local(locals: &mut BTreeMap<[u8; 16], Local>, address: IpAddr) -> &mut Local {
    locals.entry(octets(address)).or_default()
}

/// `struct address`.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn within(what: &'static str, count: usize, most: usize) -> Result<(), BadRules> {
    if count > most { Err(BadRules::TooMany { what, count, most }) } else { Ok(()) }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for SpiPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}/{}", self.value, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn numbers_have_their_range() {
        assert!(PortRange::new(0, 1).is_none() && PortRange::new(2, 1).is_none());
        assert_eq!(PortRange::new(1, 65535).unwrap().to_string(), "1-65535");
        assert!(SpiPrefix::new(0, 0).is_none() && SpiPrefix::new(0, 33).is_none());
        assert!(SpiPrefix::new(0xd000_0001, 4).is_none());
        assert_eq!(SpiPrefix::new(0xd000_0000, 4).unwrap().to_string(), "0xd0000000/4");
        assert_eq!(SpiPrefix::new(0xdead_beef, 32).unwrap().mask(), u32::MAX);
    }

    #[test]
    fn a_range_of_ports_is_bits_in_blocks() {
        let ports = PortRange::new(2047, 4096).unwrap();
        let rule = Rule::Ports { address: HERE, transport: Transport::Udp, ports };
        let compiled = Compiled::new([&rule]).unwrap();
        assert_eq!(compiled.kinds, KIND_ADDRESSES);
        let blocks: Vec<_> = compiled.ports.iter().collect();
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[0].0[16..], [17, 0, 0, 0]);
        assert_eq!((blocks[0].1[254], blocks[0].1[255]), (0, 0x80));
        assert_eq!(blocks[1].1, &[0xff; 256]);
        assert_eq!((blocks[2].0[17], blocks[2].1[0], blocks[2].1[1]), (2, 1, 0));
    }

    #[test]
    fn services_of_an_address_are_one_entry() {
        let spis = SpiPrefix::new(0xd000_0000, 4).unwrap();
        let vni = Vni::new(0x0a_0b_0c).unwrap();
        let rules = [
            Rule::Vxlan { address: HERE, port: 4789, vni },
            Rule::Esp { address: HERE, spis },
            Rule::Esp { address: HERE, spis },
        ];
        let compiled = Compiled::new(&rules).unwrap();
        let local = compiled.addresses.values().next().unwrap();
        assert_eq!(compiled.addresses.len(), 1);
        assert_eq!(local, &[5, 0, 0, 0, 0xf0, 0, 0, 0, 0xd0, 0, 0, 0]);
        let tunnel = compiled.tunnels.keys().next().unwrap();
        assert_eq!(tunnel[10..], [0xff, 0xff, 192, 0, 2, 1, 10, 11, 12, 0, 0x12, 0xb5, 0, 0]);
    }

    #[test]
    fn what_can_not_be_is_named() {
        let group = Compiled::new([&Rule::Station(MacAddr::BROADCAST)]).err();
        assert_eq!(group, Some(BadRules::GroupStation(MacAddr::BROADCAST)));
        let esp = |value| Rule::Esp { address: HERE, spis: SpiPrefix::new(value, 4).unwrap() };
        let two = Compiled::new([&esp(0xd000_0000), &esp(0xe000_0000)]).err();
        assert_eq!(two, Some(BadRules::TwoPrefixes(HERE)));
        let many: Vec<_> = (0..4097).map(|n| Rule::Station(MacAddr::from_u64(n))).collect();
        let error = Compiled::new(&many).err().unwrap();
        assert_eq!(error, BadRules::TooMany { what: "stations", count: 4097, most: 4096 });
        assert!(Compiled::new(&many[1..]).is_ok());
    }
}
