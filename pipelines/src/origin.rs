//! Where packets come from: the rows of their port, looked up once for all packets of a run.

use dataplane::ids::{PortId, SegmentId};
use dataplane::memory::Packet;
use dataplane::wire::vlan::Tag;

use crate::tables::{HostStack, Identity, Port, Role, Segment, Tables};

/// A port and a segment with what their rows say. Batches come from one port, so this seldom
/// changes, but for trunks.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'t> {
    /// The port.
    pub id: PortId,
    /// Its row.
    pub port: &'t Port,
    /// The segment that it is in, of a trunk the one that the packet's tag stands for;
    /// [`SegmentId::NONE`] if there is none.
    pub segment: SegmentId,
    /// heddle itself in that segment, if it has an address there.
    pub gateway: Option<&'t Identity>,
    /// The gateway's MAC as a word, one that no frame has if there is none.
    pub gateway_mac: u64,
    /// heddle's own host stack there, if it has one.
    pub host: Option<&'t HostStack>,
    /// How long addresses learned there live, in seconds.
    pub ageing: u32,
    /// The VLAN of a trunk's packets that come from here, zero for none.
    vid: u16,
    /// The port again, if all its packets come from here.
    settled: PortId,
}

impl<'t> Origin<'t> {
    /// What the tables say about where a packet comes from that still has its tag.
    #[inline(never)]
    pub fn of(tables: &'t Tables, packet: &Packet) -> Self {
        let id = packet.in_port;
        let port = tables.port(id);
        let (segment, vid, settled) = match &port.role {
            Role::Trunk(trunk) => {
                let vid = vid(packet);
                (trunk.segment(vid), vid, NO_PORT)
            }
            role => (role.segment(), 0, id),
        };
        let row = tables.segment(segment);
        let gateway = row.and_then(|row: &Segment| row.gateway.as_deref());
        let gateway_mac = gateway.map_or(u64::MAX, |gateway| gateway.mac.to_u64());
        let host = row.and_then(|row| row.host.as_ref());
        let ageing = row.map_or(0, |row| row.ageing);
        Self { id, port, segment, gateway, gateway_mac, host, ageing, vid, settled }
    }

    /// Looks up where the next packet comes from, unless that is the same.
    #[inline(always)]
    pub fn follow(&mut self, tables: &'t Tables, packet: &Packet) {
        if self.settled != packet.in_port {
            self.turn(tables, packet);
        }
    }

    /// The long way, for other ports and for trunks.
    #[inline(never)]
    fn turn(&mut self, tables: &'t Tables, packet: &Packet) {
        if self.id != packet.in_port || self.vid != vid(packet) {
            *self = Self::of(tables, packet);
        }
    }
}

#[inline(always)]
fn vid(packet: &Packet) -> u16 {
    Tag::outermost(packet.data()).map_or(0, Tag::vid)
}

/// A number that no port has: control gives lower ones.
const NO_PORT: PortId = PortId(u16::MAX);
