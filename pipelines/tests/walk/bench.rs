//! A switch on in-memory ports, one frame at a time.

use std::sync::Arc;
use std::time::Duration;

use dataplane::counters::PortCounters;
use dataplane::drops::Reason;
use dataplane::engine::{Engine, Neighbours, Place, Way};
use dataplane::ids::{MacAddr, Mtu, PortId, SegmentId};
use dataplane::memory::{Arena, Geometry, Packet};
use dataplane::offload::{Capabilities, Offload};
use dataplane::port::memory::{FarEnd, Memory};
use dataplane::publish::Publication;
use dataplane::shared::SharedLines;
use dataplane::time::Nanos;
use pipelines::capture::{Recording, Wanted};
use pipelines::drops;
use pipelines::fdb::{self, Key};
use pipelines::filter::Filter;
use pipelines::state::{Learning, WorkerState};
use pipelines::storm::Storm;
use pipelines::switch::Switch;
use pipelines::tables::{self, Identity, Port, Role, Segment, Tables};
use pipelines::trace::{Teller, Told};
use rtrb::{Consumer, RingBuffer};

/// Endpoints with identities.
pub(crate) const GUARDED: SegmentId = SegmentId(1);
/// Ports whose stations are learned.
pub(crate) const OPEN: SegmentId = SegmentId(2);
/// Endpoints that reach the gateway only.
pub(crate) const LONELY: SegmentId = SegmentId(3);

/// The ports of the three networks, and one in none. Ports 1 and 4 take every offload.
pub(crate) const SEGMENTS: [SegmentId; 9] =
    [GUARDED, GUARDED, GUARDED, OPEN, OPEN, OPEN, LONELY, LONELY, SegmentId::NONE];

/// Seconds that a learned address lives.
pub(crate) const AGEING: u64 = 10;
/// Learned addresses of one port.
pub(crate) const MAC_LIMIT: u32 = 3;

/// The gateway of all networks.
pub(crate) const GATEWAY: MacAddr = MacAddr([2, 0x42, 10, 0, 9, 1]);

/// The station of a port's endpoint.
pub(crate) const fn mac(port: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 9, port])
}

/// The IPv4 address of a port's endpoint.
pub(crate) const fn v4(port: u8) -> [u8; 4] {
    [10, 0, 9, 10 + port]
}

/// The IPv6 address of a port's endpoint.
pub(crate) const fn v6(port: u8) -> [u8; 16] {
    [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10 + port]
}

/// The gateway's addresses.
pub(crate) const V4_GATEWAY: [u8; 4] = [10, 0, 9, 1];
pub(crate) const V6_GATEWAY: [u8; 16] = [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// What became of one frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// What left, by which port, in the order of the ports.
    pub(crate) out: Vec<(u16, Vec<u8>, Offload)>,
    /// The symbols of the reasons for which something was dropped.
    pub(crate) dropped: Vec<&'static str>,
    /// Packets for the host stack.
    pub(crate) punted: usize,
}

impl Fate {
    /// The ports by which something left.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.out.iter().map(|(port, ..)| *port).collect()
    }

    /// The only frame that left, by `port`; nothing else happened.
    pub(crate) fn only(mut self, port: u16) -> Vec<u8> {
        assert_eq!((self.ports(), &self.dropped[..], self.punted), (vec![port], &[][..], 0));
        self.out.remove(0).1
    }
}

/// The switch.
pub(crate) struct Bench {
    engine: Engine<Switch>,
    tables: Publication<Tables>,
    ports: Vec<(FarEnd, Arc<PortCounters>)>,
    host: Consumer<Packet>,
    now: Nanos,
    /// What learning came to.
    pub(crate) learning: Arc<Learning>,
}

/// The host stack's port in every network.
const HOST: PortId = PortId(9);
/// Packets that it takes from a network, a second; a tenth of it at once.
pub(crate) const PUNTS: u64 = 670;
/// With small ones all addresses would share a bucket.
const SEEDS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];
const MEMORY: Geometry = Geometry { owners: 1, small: 257, runs: 67 };

impl Bench {
    /// The three networks.
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// The three networks, changed.
    pub(crate) fn with(change: impl FnOnce(&mut Tables)) -> Self {
        let pool = Arena::create(MEMORY).unwrap().remove(0);
        let lines = SharedLines::create("walk-fdb", fdb::LAYOUT, 64).unwrap();
        let fdb = Arc::new(fdb::Table::new(lines, 64, SEEDS).unwrap());
        let mut first = tables();
        change(&mut first);
        let tables = Publication::new(Arc::new(first), 1);
        let state = WorkerState::new(fdb);
        let learning = Arc::clone(&state.learning);
        let switch = Switch::new(state, tables.subscribe(pool.owner()).unwrap());
        let (host_ring, host) = RingBuffer::new(1);
        let way = Way::new(host_ring, None);
        let neighbours = Neighbours { host: Some(way), ..Neighbours::default() };
        let mut engine = Engine::new(switch, pool, neighbours);
        let ports = (0..9).map(|number| attach(&mut engine, PortId(number))).collect();
        Self { engine, tables, ports, host, now: Nanos(Nanos::SECOND.0), learning }
    }

    /// Publishes changed tables.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Tables)) {
        let mut next = (*self.tables.current()).clone();
        change(&mut next);
        self.tables.publish(Arc::new(next));
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = Nanos(self.now.0 + Nanos::from(time).0);
    }

    /// Lets a frame come in; answers what its walk tells.
    pub(crate) fn told(&mut self, port: u16, frame: &[u8]) -> Vec<Told> {
        let (producer, mut told) = RingBuffer::new(67);
        self.engine.pipeline().follow(Some(Teller::new(Filter::default(), producer)));
        self.send(port, frame);
        self.engine.pipeline().follow(None);
        std::iter::from_fn(|| told.pop().ok()).collect()
    }

    /// Lets a frame come in.
    pub(crate) fn send(&mut self, port: u16, frame: &[u8]) -> Fate {
        self.send_with(port, frame, Offload::PLAIN)
    }

    /// Lets a frame come in with what its device says about it.
    pub(crate) fn send_with(&mut self, port: u16, frame: &[u8], offload: Offload) -> Fate {
        let mut packet = Packet::holding(self.engine.pool(), PortId(port), frame).unwrap();
        packet.offload = offload;
        self.process(vec![packet])
    }

    /// Lets frames come in together, each by its port.
    pub(crate) fn send_all(&mut self, frames: &[(u16, Vec<u8>)]) -> Fate {
        let pool = self.engine.pool();
        let packets =
            frames.iter().map(|(port, frame)| Packet::holding(pool, PortId(*port), frame).unwrap());
        let packets = packets.collect();
        self.process(packets)
    }

    fn process(&mut self, mut batch: Vec<Packet>) -> Fate {
        let before = self.drops();
        self.engine.process(batch[0].in_port, &mut batch, self.now);
        self.engine.flush();
        let mut fate = Fate { out: Vec::new(), dropped: Vec::new(), punted: 0 };
        for (number, (far, _)) in (0..).zip(&mut self.ports) {
            while let Ok(packet) = far.rx.pop() {
                fate.out.push((number, packet.data().to_vec(), packet.offload));
                self.engine.pool().give(packet.into_frame());
            }
        }
        while let Ok(packet) = self.host.pop() {
            fate.punted += 1;
            assert_eq!(packet.in_port, HOST, "the host stack knows the network by it");
            self.engine.pool().give(packet.into_frame());
        }
        let after = self.drops();
        let pairs = before.into_iter().zip(after);
        fate.dropped = pairs.filter(|(old, new)| old != new).map(|((name, _), _)| name).collect();
        assert_eq!(self.engine.pool().free(), (MEMORY.small, MEMORY.runs), "a buffer is lost");
        fate
    }

    /// Captures what is wanted from now on.
    pub(crate) fn capture(&mut self, wanted: Wanted) -> Recording {
        let (recorder, recording) = wanted.recorder(1 << 20);
        self.engine.pipeline().record(Some(recorder));
        recording
    }

    /// Whether a capture went on, which is ended now.
    pub(crate) fn stop_capturing(&mut self) -> bool {
        self.engine.pipeline().record(None).is_some()
    }

    /// A batch that came in by `port`.
    pub(crate) fn batch(&mut self, port: u16, frame: &[u8], count: usize) -> Vec<Packet> {
        let pool = self.engine.pool();
        (0..count).map(|_| Packet::holding(pool, PortId(port), frame).unwrap()).collect()
    }

    /// Takes a batch through the switch.
    pub(crate) fn walk(&mut self, batch: &mut Vec<Packet>) {
        let Some(port) = batch.first().map(|packet| packet.in_port) else { return };
        self.engine.process(port, batch, self.now);
        self.engine.flush();
    }

    /// Takes what has left, without looking at it.
    pub(crate) fn forget(&mut self) {
        for (far, _) in &mut self.ports {
            while let Ok(packet) = far.rx.pop() {
                self.engine.pool().give(packet.into_frame());
            }
        }
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let of = |reason: Reason| -> u64 {
            self.ports.iter().map(|(_, counters)| counters.drops.of(reason).read()).sum()
        };
        drops::explanations().map(|known| (known.symbol, of(known.reason))).collect()
    }
}

fn attach(engine: &mut Engine<Switch>, port: PortId) -> (FarEnd, Arc<PortCounters>) {
    let takes = if port.0 == 1 || port.0 == 4 { Capabilities::VNET } else { Default::default() };
    let (memory, far) = Memory::pair(port, 128, takes);
    let counters = Arc::new(PortCounters::default());
    engine.attach(port, Place::Here(Box::new(memory)), Arc::clone(&counters));
    (far, counters)
}

fn tables() -> Tables {
    let mut tables = Tables::new(67);
    let gateway = Identity::new(GATEWAY, [V4_GATEWAY.into(), V6_GATEWAY.into()]);
    let gateway = Some(Arc::new(gateway));
    for (number, segment) in (0..).zip(SEGMENTS) {
        let port = PortId(u16::from(number));
        let identity = Identity::new(mac(number), [v4(number).into(), v6(number).into()]);
        *tables.ports.row_mut(port.index()) = Port {
            role: Role::Endpoint(segment),
            mtu: Mtu::ETHERNET,
            identity: (segment != OPEN).then(|| Arc::new(identity)),
            learns: segment == OPEN,
            isolated: segment == LONELY,
            mac_limit: MAC_LIMIT,
            ..Port::default()
        };
        if segment == SegmentId::NONE {
            *tables.ports.row_mut(port.index()) = Port::default();
        } else if segment != OPEN {
            tables.stations.insert(Key::new(segment, mac(number)).unwrap(), port);
        }
        let row = tables.segments.row_mut(segment.index());
        let limit = Arc::new(Storm::new(PUNTS));
        let host = Some(tables::HostStack { port: HOST, limit });
        let (gateway, members) = (gateway.clone(), row.members.clone());
        *row = Segment { gateway, ageing: 10, host, members };
        Arc::make_mut(&mut row.members).push(port);
    }
    assert_eq!(u64::from(tables.segment(OPEN).unwrap().ageing), AGEING);
    tables
}
