//! Where packets come from: the rows of their port, looked up once for all packets of a run.

use dataplane::ids::{PortId, SegmentId};

use crate::tables::{HostStack, Identity, Port, Segment, Tables};

/// A port with what its rows say. Batches come from one port, so this seldom changes.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'t> {
    /// The port.
    pub id: PortId,
    /// Its row.
    pub port: &'t Port,
    /// The segment that it is in.
    pub segment: SegmentId,
    /// heddle itself in that segment, if it has an address there.
    pub gateway: Option<&'t Identity>,
    /// The gateway's MAC as a word, one that no frame has if there is none.
    pub gateway_mac: u64,
    /// heddle's own host stack there, if it has one.
    pub host: Option<&'t HostStack>,
    /// How long addresses learned there live, in seconds.
    pub ageing: u32,
}

impl<'t> Origin<'t> {
    /// What the tables say about a port.
    #[inline(never)]
    pub fn of(tables: &'t Tables, id: PortId) -> Self {
        let port = tables.port(id);
        let segment = port.role.segment();
        let row = tables.segment(segment);
        let gateway = row.and_then(|row: &Segment| row.gateway.as_deref());
        let gateway_mac = gateway.map_or(u64::MAX, |gateway| gateway.mac.to_u64());
        let host = row.and_then(|row| row.host.as_ref());
        let ageing = row.map_or(0, |row| row.ageing);
        Self { id, port, segment, gateway, gateway_mac, host, ageing }
    }

    /// Looks the next packet's port up, unless it is the same.
    #[inline(always)]
    pub fn follow(&mut self, tables: &'t Tables, id: PortId) {
        if self.id != id {
            *self = Self::of(tables, id);
        }
    }
}
