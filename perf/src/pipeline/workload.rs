//! What is measured: networks of a size, the frames that cross them, and what to compare with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::ids::{MacAddr, PortId, SegmentId};
use dataplane::shared::SharedLines;
use dataplane::time::Tick;
use dataplane::wire::vlan::{Marking, Tag, Vid};
use pipelines::fdb::{self, Entry, Key, PortGeneration};
use pipelines::tables::{Identity, Port, Role, Segment, Tables};
use pipelines::trunk::{Tagging, Trunk};

use super::Error;

/// One row of the report.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Workload {
    /// Its name, as on the command line and in `instructions.json`.
    pub name: &'static str,
    /// Who is on the network.
    pub network: Network,
    /// What they send.
    pub frames: Frames,
    /// VPP's clocks per packet for the same work: its nodes alone, and with its generator's ends.
    pub vpp: Option<[f64; 2]>,
    /// The clocks per packet to reach at a batch of 256, hot.
    pub target: Option<f64>,
}

/// Who is on the network. Its one segment has a gateway, and no storm limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// So many configured endpoints, each with a port, a MAC and its addresses, all admitted by
    /// their identity: the product's default.
    Endpoints(u16),
    /// So many MACs behind two ports that may send as anybody, all learned: `anti_spoof` off.
    Learned(u32),
    /// The same behind two trunks, on which their segment has a VLAN each.
    Trunks(u32),
}

/// What stations send. 64 bytes, FCS not included, but for the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frames {
    /// UDP over IPv4, from station to random station.
    Udp4,
    /// UDP over IPv6, likewise.
    Udp6,
    /// ARP requests for the gateway.
    Arp,
    /// ICMP echo requests to the gateway.
    Echo,
    /// UDP over IPv4 to the broadcast address.
    Broadcast,
    /// TCP super-packets of 45 segments.
    Super,
}

const fn row(name: &'static str, network: Network, frames: Frames) -> Workload {
    Workload { name, network, frames, vpp: None, target: None }
}

const fn beside(workload: Workload, vpp: [f64; 2], target: f64) -> Workload {
    Workload { vpp: Some(vpp), target: Some(target), ..workload }
}

/// All workloads, in the report's order. VPP's figures are those of a release build with one
/// worker, vectors of 256 and its in-memory generator on a processor of this class.
pub const ALL: [Workload; 14] = {
    use Frames::{Arp, Broadcast, Echo, Super, Udp4, Udp6};
    use Network::{Endpoints, Learned, Trunks};
    [
        beside(row("bridge-endpoints-2", Endpoints(2), Udp4), [32.0, 59.0], 22.0),
        row("bridge-endpoints-64", Endpoints(64), Udp4),
        row("bridge-endpoints-1k", Endpoints(1000), Udp4),
        row("bridge-endpoints-10k", Endpoints(10_000), Udp4),
        beside(row("bridge-learned-64", Learned(64), Udp4), [32.0, 59.0], 22.0),
        beside(row("bridge-learned-1k", Learned(1000), Udp4), [44.0, 76.0], 24.0),
        beside(row("bridge-learned-10k", Learned(10_000), Udp4), [63.0, 96.0], 30.0),
        beside(row("bridge-learned-100k", Learned(100_000), Udp4), [92.0, 129.0], 50.0),
        row("bridge-ipv6-2", Endpoints(2), Udp6),
        row("trunk-learned-64", Trunks(64), Udp4),
        row("gateway-arp", Endpoints(2), Arp),
        row("gateway-echo", Endpoints(2), Echo),
        row("flood-8-ports", Endpoints(9), Broadcast),
        row("cut-64k", Endpoints(2), Super),
    ]
};

/// The segment that everybody is in.
pub const SEGMENT: SegmentId = SegmentId(1);

/// Lines of the learned FDB, as the product has with its default memory.
const FDB_LINES: usize = 1 << 18;

/// As the product's default.
const AGEING_SECONDS: u32 = 300;

/// Seeds are fixed, so that every run meets the same collisions.
const SEEDS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x2545_f491_4f6c_dd1d];

impl Workload {
    /// The workload of this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownWorkload`] if there is none.
    pub fn named(name: &str) -> Result<&'static Self, Error> {
        let found = ALL.iter().find(|workload| workload.name == name);
        found.ok_or_else(|| Error::UnknownWorkload(name.to_owned()))
    }
}

impl Network {
    /// The number of stations, gateway not included.
    pub fn stations(self) -> u32 {
        match self {
            Self::Endpoints(count) => u32::from(count),
            Self::Learned(count) | Self::Trunks(count) => count,
        }
    }

    /// The number of ports.
    pub fn ports(self) -> u16 {
        match self {
            Self::Endpoints(count) => count,
            Self::Learned(_) | Self::Trunks(_) => 2,
        }
    }

    /// The configured tables.
    pub fn tables(self) -> Tables {
        let mut tables = Tables::new(SEEDS[0]);
        for number in 0..self.ports() {
            *tables.ports.row_mut(usize::from(number)) = self.port_row(number);
            if matches!(self, Self::Endpoints(_))
                && let Some(key) = Key::new(SEGMENT, mac(number.into()))
            {
                tables.stations.insert(key, PortId(number));
            }
        }
        *tables.segments.row_mut(SEGMENT.index()) = Segment {
            gateway: Some(Arc::new(Identity::new(GATEWAY_MAC, [IpAddr::V4(GATEWAY)]))),
            ageing: AGEING_SECONDS,
            host: None,
            members: Arc::new((0..self.ports()).map(PortId).collect()),
        };
        tables
    }

    /// A learned FDB in which every station that is to be learned has been.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error) when there is no memory.
    pub fn fdb(self) -> Result<Arc<fdb::Table>, Error> {
        let table = empty_fdb(FDB_LINES)?;
        if let Self::Learned(count) | Self::Trunks(count) = self {
            learn(&table, count);
        }
        Ok(Arc::new(table))
    }

    /// The tag that frames have when they come in by a port, if they do.
    pub fn tag(self, port: PortId) -> Option<Tag> {
        let vid = VIDS.get(port.index()).filter(|_| matches!(self, Self::Trunks(_)));
        vid.map(|&vid| Tag::new(vid, Marking::NONE))
    }

    /// What is at a port.
    fn role(self, number: u16) -> Role {
        match self {
            Self::Endpoints(_) | Self::Learned(_) => Role::Endpoint(SEGMENT),
            Self::Trunks(_) => {
                let trunk = Trunk::default();
                let vid = VIDS[usize::from(number)];
                let trunk = trunk.with(SEGMENT, Tagging::Tagged(vid)).unwrap_or_default();
                Role::Trunk(Arc::new(trunk))
            }
        }
    }

    fn port_row(self, number: u16) -> Port {
        let station = u32::from(number);
        let addresses = [IpAddr::V4(ipv4(station)), IpAddr::V6(ipv6(station))];
        let endpoint = matches!(self, Self::Endpoints(_));
        Port {
            role: self.role(number),
            identity: endpoint.then(|| Arc::new(Identity::new(mac(station), addresses))),
            learns: !endpoint,
            mac_limit: u32::MAX,
            ..Port::default()
        }
    }
}

/// An empty FDB of `lines` lines.
///
/// # Errors
///
/// [`Error`](enum@Error) when there is no memory.
pub fn empty_fdb(lines: usize) -> Result<fdb::Table, Error> {
    let lines = SharedLines::create("heddle-perf-fdb", fdb::LAYOUT, lines)?;
    Ok(fdb::Table::new(lines, usize::from(u16::MAX), [SEEDS[1], SEEDS[2]])?)
}

/// Learns stations 0 to `count`, in turn behind the two ports.
pub fn learn(table: &fdb::Table, count: u32) {
    for station in 0..count {
        let port = if station.is_multiple_of(2) { PortId(0) } else { PortId(1) };
        if let Some(key) = Key::new(SEGMENT, mac(station)) {
            // Where both buckets are full, frames to the station are flooded, as they would be.
            let _ = table.learn(key, Entry { port, generation: GENERATION }, Tick(0), u32::MAX);
        }
    }
}

/// The VLANs of the two trunks.
const VIDS: [Vid; 2] = match (Vid::new(67), Vid::new(257)) {
    (Some(first), Some(second)) => [first, second],
    _ => unreachable!(),
};

const GENERATION: PortGeneration = PortGeneration::FIRST;

/// The gateway's station address.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x42, 0xff, 0, 0, 1]);

/// The gateway's address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);

/// The address of a station: unicast, locally administered, otherwise as good as random and never
/// that of another station. Computed, so that making frames reads no table.
#[inline]
pub fn mac(station: u32) -> MacAddr {
    // Multiplication by an odd number permutes the 32 bits below; the upper ones are those of
    // the gateway's prefix but one.
    let scrambled = station.wrapping_mul(0x9e37_79b1);
    MacAddr::from_u64(0x0242_0000_0000 | u64::from(scrambled ^ scrambled >> 15))
}

/// The IPv4 address of a station, in 10.0.0.0/8.
#[inline]
pub fn ipv4(station: u32) -> Ipv4Addr {
    Ipv4Addr::from((10 << 24) + 1 + station)
}

/// The IPv6 address of a station, in fd00:9::/64.
#[inline]
pub fn ipv6(station: u32) -> Ipv6Addr {
    Ipv6Addr::from((0xfd00_0009_u128 << 96) + 1 + u128::from(station))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn stations_have_addresses_of_their_own() {
        let macs: HashSet<_> = (0..100_003).map(mac).collect();
        assert_eq!(macs.len(), 100_003);
        assert!(macs.iter().all(|mac| !mac.is_group()) && !macs.contains(&GATEWAY_MAC));
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = ALL.iter().map(|workload| workload.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(matches!(Workload::named("none"), Err(Error::UnknownWorkload(_))));
    }

    #[test]
    fn every_learned_station_is_known() {
        let network = Network::Learned(1003);
        let table = network.fdb().unwrap();
        assert_eq!(table.len(), 1003);
        assert_eq!(network.tables().ports.iter().filter(|port| port.learns).count(), 2);
    }
}
