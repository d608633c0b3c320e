//! The switch that bears hostile frames, and the accounts that must balance.

use std::sync::Arc;

use dataplane::counters::PortCounters;
use dataplane::drops::{self, Reason};
use dataplane::engine::{BATCH, Engine, Neighbours, Place, Way};
use dataplane::ids::{MacAddr, Mtu, PortId, SegmentId};
use dataplane::memory::{Arena, Geometry, Packet, Pool};
use dataplane::offload::{Capabilities, Checksum, Offload};
use dataplane::pipeline::Pipeline;
use dataplane::port::memory::{FarEnd, Memory};
use dataplane::publish::Publication;
use dataplane::shared::SharedLines;
use dataplane::time::Nanos;
use dataplane::wire::ethernet;
use dataplane::wire::gro::Run;
use dataplane::wire::vlan::Vid;
use pipelines::fdb::{self, Key, Sweeper};
use pipelines::state::WorkerState;
use pipelines::storm::Storm;
use pipelines::switch::Switch;
use pipelines::tables::{self, Identity, Port, Role, Segment, Tables};
use pipelines::trunk::{Tagging, Trunk};
use rtrb::{Consumer, RingBuffer};

use super::Shot;

/// Ports that frames come in by: their numbers are below.
pub const PORTS: u16 = 10;

/// VLANs of the trunks.
pub(super) const VIDS: [u16; 3] = [5, 67, 257];

/// Small, so that hostile frames also meet its end.
const MEMORY: Geometry = Geometry { owners: 1, small: 500, runs: 16 };

/// Packets that wait at a port's far end: less than a flooded super-packet comes to.
const DEPTH: usize = 300;

/// A switch of three networks on in-memory ports: one with identities, one that learns, and one
/// that isolates its endpoints. One port is in no network, and one network names a port of another
/// one and a port that is not there, as tables may for a moment. Two ports are trunks of the first two
/// networks, one of them with a native VLAN.
pub struct Stage {
    engine: Engine<Switch>,
    tables: Publication<Tables>,
    sweeper: Sweeper,
    ports: Vec<(FarEnd, Capabilities, Arc<PortCounters>)>,
    host: Consumer<Packet>,
    now: Nanos,
    batch: Vec<Packet>,
    /// The port that a device was given, whose far end is not ours.
    device: Option<PortId>,
    /// Frames that were fed.
    fed: u64,
    /// Frames that came out at a far end of ours.
    delivered: u64,
    punted: u64,
}

impl Stage {
    /// The switch, before the first frame.
    ///
    /// # Panics
    ///
    /// When the system gives no memory.
    pub fn new() -> Self {
        let pool = Arena::create(MEMORY).expect("packet memory").remove(0);
        let lines = SharedLines::create("hostile-fdb", fdb::LAYOUT, 16).expect("learned table");
        let fdb = Arc::new(fdb::Table::new(lines, 64, [67, 257]).expect("sixteen lines"));
        let tables = Publication::new(Arc::new(tables()), 1);
        let subscriber = tables.subscribe(pool.owner()).expect("the first of one");
        let switch = Switch::new(WorkerState::new(Arc::clone(&fdb)), subscriber);
        let (host_ring, host) = RingBuffer::new(3);
        let way = Way::new(host_ring, None);
        let neighbours = Neighbours { host: Some(way), ..Neighbours::default() };
        let mut engine = Engine::new(switch, pool, neighbours);
        let ports = (0..PORTS).map(|number| attach(&mut engine, PortId(number))).collect();
        let sweeper = Sweeper::new(fdb);
        let (now, batch) = (Nanos(Nanos::SECOND.0), Vec::new());
        let (device, fed, delivered, punted) = (None, 0, 0, 0);
        Self { engine, tables, sweeper, ports, host, now, batch, device, fed, delivered, punted }
    }

    /// Gives a port a device in place of its in-memory far end. Only one port can have one.
    pub fn plug(&mut self, port: PortId, device: Box<dyn dataplane::port::Port>) {
        self.unplug();
        let counters = Arc::clone(&self.ports[port.index()].2);
        self.engine.detach(port);
        self.engine.attach(port, Place::Here(device), counters);
        self.device = Some(port);
    }

    /// Closes the device, which gives back the buffers that it holds.
    pub fn unplug(&mut self) {
        if let Some(port) = self.device {
            self.engine.detach(port);
        }
    }

    /// The packet memory, for a device that is to know it.
    pub fn arena(&mut self) -> &Arc<Arena> {
        self.engine.pool().arena()
    }

    /// What a port has counted.
    pub fn counters(&self, port: PortId) -> &PortCounters {
        &self.ports[port.index()].2
    }

    /// Lets frames come in, and takes out what comes of them.
    pub fn feed(&mut self, shots: &[Shot]) {
        for shots in shots.chunks(BATCH) {
            shots.iter().for_each(|shot| self.load(shot));
            self.poll();
        }
    }

    /// Takes in what waits at the ports, at most a batch from each, and takes out what comes of it.
    pub fn poll(&mut self) {
        self.serve();
        self.drain();
    }

    /// Checks the accounts: no buffer is lost, and every frame has come to an end that is counted.
    ///
    /// # Errors
    ///
    /// A sentence about what does not balance.
    pub fn balance(&mut self) -> Result<(), String> {
        let free = self.engine.pool().free();
        if free != (MEMORY.small, MEMORY.runs) {
            return Err(format!("free slots are {free:?} of {MEMORY:?}"));
        }
        let sum = |of: fn(&PortCounters) -> u64| -> u64 {
            self.ports.iter().map(|(_, _, counters)| of(counters)).sum()
        };
        let of_the_device = |of: fn(&PortCounters) -> u64| {
            self.device.map_or(0, |port| of(&self.ports[port.index()].2))
        };
        let received = sum(|port| port.rx_packets.read());
        let fed = self.fed + of_the_device(|port| port.rx_packets.read());
        let delivered = self.delivered + of_the_device(|port| port.tx_packets.read());
        let made = sum(|port| port.copies.read() + port.segments.read());
        let (sent, punted) = (sum(|port| port.tx_packets.read()), sum(|port| port.punted.read()));
        let dropped = sum(|port| port.drops.total());
        let counted = [
            ("fed", fed, received),
            ("delivered", delivered, sent),
            ("punted", self.punted, punted),
            ("received and made", received + made, sent + punted + dropped),
        ];
        for (what, one, other) in counted {
            if one != other {
                return Err(format!("frames {what}: {one} on one side, {other} on the other"));
            }
        }
        Ok(())
    }

    /// How many frames were dropped for `reason`.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.ports.iter().map(|(_, _, counters)| counters.drops.of(reason).read()).sum()
    }

    /// Frames that came out at a far end.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Puts a frame where its port will receive it, as a device would.
    fn load(&mut self, shot: &Shot) {
        self.fed += 1;
        self.pass(shot.seconds);
        let (far, _, counters) = &mut self.ports[shot.port.index()];
        let refuse = |reason| {
            counters.rx_packets.add(1);
            counters.drops.of(reason).add(1);
        };
        let Ok(offload) = shot.header.to_offload(shot.frame.len()) else {
            return refuse(drops::BAD_OFFLOAD);
        };
        match Packet::holding(self.engine.pool(), shot.port, &shot.frame) {
            Ok(mut packet) => {
                packet.offload = offload;
                let pushed = far.tx.push(packet);
                assert!(pushed.is_ok(), "a batch fits into the ring");
            }
            Err(reason) => refuse(reason),
        }
    }

    fn serve(&mut self) {
        for port in (0..PORTS).map(PortId) {
            self.engine.receive(port, &mut self.batch, BATCH, self.now);
            self.engine.process(port, &mut self.batch, self.now);
            self.engine.flush();
        }
    }

    /// Takes out everything that was sent, looking at it as a device would.
    fn drain(&mut self) {
        for (number, (far, takes, _)) in (0..).map(PortId).zip(&mut self.ports) {
            let mut sent: Vec<Packet> = std::iter::from_fn(|| far.rx.pop().ok()).collect();
            self.delivered += sent.len() as u64;
            for packet in &sent {
                check(packet, *takes, mtu(number));
            }
            coalesce(&mut sent);
            give(self.engine.pool(), sent);
        }
        let punted: Vec<Packet> = std::iter::from_fn(|| self.host.pop().ok()).collect();
        self.punted += punted.len() as u64;
        give(self.engine.pool(), punted);
    }

    /// Lets time pass, and sweeps old addresses out as control does.
    fn pass(&mut self, seconds: u8) {
        if seconds == 0 {
            return;
        }
        self.now = Nanos(self.now.0.wrapping_add(u64::from(seconds) * Nanos::SECOND.0));
        let (tables, tick) = (self.tables.current(), self.now.tick());
        let retired = self.sweeper.sweep(self.sweeper.buckets(), |row| tables.remembers(row, tick));
        let generation = self.tables.advance();
        self.engine.pipeline().begin(self.now);
        assert!(self.tables.quiesced(generation), "the worker is between two batches");
        self.sweeper.recycle(retired);
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

fn give(pool: &mut Pool, packets: Vec<Packet>) {
    packets.into_iter().for_each(|packet| pool.give(packet.into_frame()));
}

fn attach(engine: &mut Engine<Switch>, port: PortId) -> (FarEnd, Capabilities, Arc<PortCounters>) {
    let takes = match port.0 {
        1 | 4 | 9 => Capabilities::VNET,
        2 => Capabilities { checksum: true, ..Capabilities::default() },
        5 => Capabilities { udp_gso: false, ..Capabilities::VNET },
        _ => Capabilities::default(),
    };
    let (memory, far) = Memory::pair(port, DEPTH, takes);
    let counters = Arc::new(PortCounters::default());
    engine.attach(port, Place::Here(Box::new(memory)), Arc::clone(&counters));
    (far, takes, counters)
}

/// A device that settles nothing must not be given anything to settle, nor more than its MTU.
fn check(packet: &Packet, takes: Capabilities, mtu: Mtu) {
    assert!(takes.takes(packet.offload), "{:?} for {takes:?}", packet.offload);
    // A trunk's tag and two more are not counted, nor is what is behind a super-packet's headers.
    let longest = usize::from(mtu.bytes()) + ethernet::HEADER_LEN + 3 * ethernet::TAG_LEN;
    assert!(packet.offload.is_super() || packet.len() <= longest, "{} bytes", packet.len());
    let Offload { checksum, csum_start, csum_offset, .. } = packet.offload;
    let field = usize::from(csum_start) + usize::from(csum_offset) + 2;
    assert!(checksum != Checksum::Partial || field <= packet.len(), "a checksum outside");
}

/// Coalesces what follows each other, as a TAP does when it sends.
fn coalesce(packets: &mut [Packet]) {
    let mut waiting = packets;
    while let Some((head, rest)) = std::mem::take(&mut waiting).split_first_mut() {
        let mut taken = 0;
        if let Some(mut run) = Run::start(head.data(), head.offload) {
            let follows = |packet: &&mut Packet| {
                let payload = run.accept(packet.data(), packet.offload);
                payload.is_some_and(|range| packet.data().get(range).is_some())
            };
            taken = rest.iter_mut().take_while(follows).count();
            head.offload = run.finish(head.data_mut());
        }
        waiting = &mut rest[taken..];
    }
}

fn mtu(port: PortId) -> Mtu {
    let bytes = match port.0 {
        1 => 9000,
        3 => 68,
        4 => u16::MAX,
        _ => 1500,
    };
    Mtu::new(bytes).unwrap_or(Mtu::ETHERNET)
}

/// The station address of a port's endpoint.
pub(super) const fn mac(port: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 9, port])
}

/// The station address of every gateway.
pub(super) const GATEWAY: MacAddr = MacAddr([2, 0x42, 10, 0, 9, 1]);

fn tables() -> Tables {
    let mut tables = Tables::new(67);
    for number in 0..PORTS - 3 {
        let port = PortId(number);
        let segment = SegmentId([1, 1, 1, 2, 2, 3, 3][port.index()]);
        *tables.ports.row_mut(port.index()) = port_row(port, segment);
        if let Some(key) = Key::new(segment, mac(number.to_be_bytes()[1])) {
            tables.stations.insert(key, port);
        }
    }
    let [native, open, guarded] = VIDS.map(|number| Vid::new(number).expect("a VLAN"));
    let tagged = trunk([(2, Tagging::Tagged(open)), (1, Tagging::Tagged(guarded))]);
    let native = trunk([(2, Tagging::Native(Some(native))), (1, Tagging::Tagged(open))]);
    for (port, role) in [(8, tagged), (9, native)] {
        *tables.ports.row_mut(port) = Port { role, learns: true, mac_limit: 7, ..Port::default() };
    }
    let gateway = Identity::new(GATEWAY, ["10.0.9.1", "fd00:9::1"].map(|a| a.parse().unwrap()));
    let gateway = Some(Arc::new(gateway));
    for (segment, members) in
        [(1, vec![0, 1, 2, 4, 8, 9, 40]), (2, vec![3, 4, 8, 9]), (3, vec![5, 6])]
    {
        let members = members.into_iter().map(PortId).collect();
        let gateway = gateway.clone().filter(|_| segment != 3);
        let limit = Arc::new(Storm::new(67));
        let host = tables::HostStack { port: PortId(PORTS), limit };
        *tables.segments.row_mut(segment) =
            Segment { gateway, ageing: 10, host: Some(host), members: Arc::new(members) };
    }
    tables
}

fn trunk(segments: [(u16, Tagging); 2]) -> Role {
    let with = |trunk: Trunk, (segment, tagging)| trunk.with(SegmentId(segment), tagging);
    let trunk = segments.into_iter().try_fold(Trunk::default(), with);
    Role::Trunk(Arc::new(trunk.expect("each segment has a VLAN of its own")))
}

fn port_row(port: PortId, segment: SegmentId) -> Port {
    let host = u8::try_from(port.0 + 10).unwrap_or(0);
    let addresses = [[10, 0, 9, host].into(), [0xfd00, 9, 0, 0, 0, 0, 0, host.into()].into()];
    let identity = Identity::new(mac(port.0.to_be_bytes()[1]), addresses);
    let honest = matches!(port.0, 0 | 1 | 5);
    Port {
        role: Role::Endpoint(segment),
        mtu: mtu(port),
        vlan: Vid::new(VIDS[usize::from(port.0 % 3)]),
        identity: honest.then(|| Arc::new(identity)),
        learns: !honest,
        isolated: segment.0 == 3,
        mac_limit: 7,
        storm: (port.0 == 2).then(|| Arc::new(Storm::new(20))),
        ..Port::default()
    }
}
