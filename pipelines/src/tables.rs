//! What control has decided, as the walk reads it: one immutable snapshot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::ids::{MacAddr, Mtu, PortId, SegmentId};
use dataplane::time::Tick;
use dataplane::wire::vlan::Vid;

use crate::fdb::{PortGeneration, Row};
use crate::pages::Pages;
use crate::stations::Stations;
use crate::storm::Storm;
use crate::trunk::Trunk;

/// The configured tables. A copy shares all pages with its original until it is changed.
#[derive(Debug, Clone)]
pub struct Tables {
    /// By port number.
    pub ports: Pages<Port>,
    /// By segment number.
    pub segments: Pages<Segment>,
    /// Where configured endpoints are.
    pub stations: Stations,
}

/// What is at a port, and so what its frames may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Role {
    /// An endpoint of a network.
    Endpoint(SegmentId),
    /// heddle's own host stack in that network.
    Host(SegmentId),
    /// Nothing: the number is not in use.
    #[default]
    Vacant,
    /// Several networks, told apart by tag: an uplink, or an endpoint that gets VLANs tagged.
    Trunk(Arc<Trunk>),
}

impl Role {
    /// The one segment that the port is in, [`SegmentId::NONE`] for a vacant one or a trunk.
    #[inline(always)]
    pub const fn segment(&self) -> SegmentId {
        match self {
            Self::Vacant | Self::Trunk(_) => SegmentId::NONE,
            Self::Endpoint(segment) | Self::Host(segment) => *segment,
        }
    }

    /// Whether frames of the segment come in and leave by the port.
    #[inline(always)]
    pub fn carries(&self, segment: SegmentId) -> bool {
        match self {
            Self::Endpoint(own) | Self::Host(own) => *own == segment,
            Self::Trunk(trunk) => trunk.tagging(segment).is_some(),
            Self::Vacant => false,
        }
    }
}

/// A row of the port table.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Port {
    /// What is there.
    pub role: Role,
    /// How often the number has been used.
    pub generation: PortGeneration,
    /// The largest layer 3 packet that may leave by it; tags come on top.
    pub mtu: Mtu,
    /// The VLAN that an endpoint's network is elsewhere, if it is one: the endpoint does not tag it.
    pub vlan: Option<Vid>,
    /// What the endpoint may claim to be; `None` where anything goes.
    pub identity: Option<Arc<Identity>>,
    /// Whether source addresses are learned: not where they are configured.
    pub learns: bool,
    /// Whether the port exchanges frames with the host stack only.
    pub isolated: bool,
    /// Learned addresses, at most.
    pub mac_limit: u32,
    /// The limit of group and unknown frames that come in, if there is one.
    pub storm: Option<Arc<Storm>>,
}

impl Port {
    /// The row of a number that is not in use.
    const VACANT: Self = Self {
        role: Role::Vacant,
        generation: PortGeneration::FIRST,
        mtu: Mtu::ETHERNET,
        vlan: None,
        identity: None,
        learns: false,
        isolated: false,
        mac_limit: 0,
        storm: None,
    };
}

impl Default for Port {
    fn default() -> Self {
        Self::VACANT
    }
}

/// The addresses that an endpoint has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its station address.
    pub mac: MacAddr,
    /// Its IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, the link-local one made from `mac` among them.
    pub v6: Vec<Ipv6Addr>,
}

impl Identity {
    /// The identity of a station with these addresses; its link-local address is added.
    pub fn new(mac: MacAddr, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut identity = Self { mac, v4: Vec::new(), v6: Vec::new() };
        for address in addresses {
            match address {
                IpAddr::V4(address) => identity.v4.push(address),
                IpAddr::V6(address) => identity.v6.push(address),
            }
        }
        identity.v6.push(dataplane::wire::ipv6::link_local(mac));
        identity
    }

    /// Whether the address is one of the endpoint's own.
    #[inline(always)]
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address),
            IpAddr::V6(address) => self.v6.contains(&address),
        }
    }
}

/// A row of the segment table: one network.
#[derive(Debug, Clone, Default)]
#[repr(align(64))]
pub struct Segment {
    /// heddle itself in this network, if it has an address there.
    pub gateway: Option<Arc<Identity>>,
    /// How long a learned address lives, in seconds.
    pub ageing: u32,
    /// heddle's own host stack in this network, if it has one.
    pub host: Option<HostStack>,
    /// The ports that a flood reaches, in the order of their numbers.
    pub members: Arc<Vec<PortId>>,
}

/// heddle's own host stack in a network.
#[derive(Debug, Clone)]
pub struct HostStack {
    /// Its port.
    pub port: PortId,
    /// How much it takes from the network, so that one network leaves room for the others.
    pub limit: Arc<Storm>,
}

impl Tables {
    /// Tables without a row. `seed` is to be random: see [`Stations::new`].
    pub fn new(seed: u64) -> Self {
        Self { ports: Pages::default(), segments: Pages::default(), stations: Stations::new(seed) }
    }

    /// The row of a port; a vacant one where there is none.
    #[inline(always)]
    pub fn port(&self, port: PortId) -> &Port {
        self.ports.row(port.index()).unwrap_or(&VACANT)
    }

    /// The row of a segment; an empty one where there is none.
    #[inline(always)]
    pub fn segment(&self, segment: SegmentId) -> Option<&Segment> {
        self.segments.row(segment.index())
    }

    /// Whether a learned address is still to be kept: it was heard within its segment's ageing
    /// time, behind a port that has the same owner since.
    pub fn remembers(&self, row: &Row, now: Tick) -> bool {
        let (port, segment) = (self.port(row.entry.port), row.key.segment());
        let ageing = self.segment(segment).map_or(0, |segment| segment.ageing);
        port.generation == row.entry.generation
            && port.role.carries(segment)
            && row.seen.age(now) <= ageing
    }
}

static VACANT: Port = Port::VACANT;

const _: () = assert!(size_of::<Port>() == 64);
