//! VLANs against Open vSwitch: heddle's parent is plugged into a trunk port of its, and in each VLAN
//! stations of both sides reach each other, and nobody else.

use std::time::Duration;

use dataplane::device::netlink::Netlink;
use dataplane::offload::Offload;
use perf::lab::host::Container;
use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use perf::lab::traffic::{Pair, ping};
use tests::raw::{CUSTOMER, Raw, Tag, experiment};
use tests::{DEVICE, Family, Kind, NIC, Ovs, PATIENCE, Plan, World, assign, eventually};

const WIRE: &str = "wire0";

/// VLANs in the order of the plan's networks, with heddle's container and Open vSwitch's.
const VLANS: [(u16, &str, &str); 3] =
    [(1, "native", "peer1"), (10, "ten", "peer10"), (20, "twenty", "peer20")];

/// The last part of the peers' addresses.
const PEER: u8 = 202;

#[test]
fn vlans_meet_those_of_open_vswitch_by_packet_sockets() {
    let plan = plan("af_packet", false);
    let keys = format!("parent = \"{NIC}\"\ntrunk = [10, 20]\nnative = 1");
    let (world, _ovs, peers) = start(plan.trunk("all", &keys).port("trunk", ""));
    let mut stations = stations(&world, &peers);
    stations.push((Raw::open(world.netns("trunk"), DEVICE), None));
    check_floods(&mut stations);
    check_traffic(&world, &peers);
    check_silence(&mut stations);
}

#[test]
fn vlans_meet_those_of_open_vswitch_by_af_xdp() {
    // The program must know which stations are heddle's: they can't be any.
    let (world, _ovs, peers) = start(plan("af_xdp", true));
    check_traffic(&world, &peers);
}

fn plan(io: &str, anti_spoof: bool) -> Plan {
    // Frames that flood have addresses which tell the test whose they are.
    let keys = format!("parent = \"{NIC}\"\nio = \"{io}\"\nanti_spoof = {anti_spoof}");
    let plan = Plan::new().network("house", &keys).port("native", "").of(Kind::VethXdp);
    let plan = plan.vlan("lan10", &format!("{keys}\nvlan = 10")).port("ten", "");
    let plan = plan.vlan("lan20", &format!("{keys}\nvlan = 20"));
    plan.port("twenty", "").of(Kind::VethPacket)
}

/// Bytes of each transfer, with an odd rest. Open vSwitch has room for few super-packets at a time.
const BYTES: u64 = (512 << 10) + 67;

/// A heddle and an Open vSwitch on one wire, and what is behind this one.
fn start(plan: Plan) -> (World, Ovs, Vec<Container>) {
    let mut world = World::prepare(plan);
    let outside = world.lab().container("outside").unwrap();
    world.connect(&outside, WIRE, 1500);
    let ovs = Ovs::start(world.lab(), &outside);
    ovs.plug(WIRE, &["vlan_mode=native-untagged", "tag=1", "trunks=10,20"]);
    let numbered = (1..).zip(VLANS);
    let peers = numbered.map(|(network, (vid, _, name))| {
        let peer = world.lab().container(name).unwrap();
        let add = |netlink: &mut Netlink| netlink.add_veth(name, DEVICE, 1, Some(peer.netns()));
        outside.netlink(add).unwrap();
        for (container, device) in [(&outside, name), (&peer, DEVICE)] {
            let up = |netlink: &mut Netlink| {
                let index = netlink.link(device)?.expect("the veth").index;
                netlink.set_up(index)
            };
            container.netlink(up).unwrap();
        }
        assign(&peer, DEVICE, &Family::BOTH.map(|f| Plan::address_of(network, PEER, f)));
        ovs.plug(name, &[&format!("tag={vid}")]);
        peer
    });
    let peers = peers.collect();
    world.launch();
    eventually("the parent is driven", PATIENCE, || world.driven());
    world.wait_until_running();
    (world, ovs, peers)
}

/// All stations with the VLAN that each is in.
fn stations(world: &World, peers: &[Container]) -> Vec<(Raw, Option<u16>)> {
    let stations = VLANS.iter().zip(peers).flat_map(|((vid, inside, _), peer)| {
        [world.netns(inside), peer.netns()].map(|netns| (Raw::open(netns, DEVICE), Some(*vid)))
    });
    stations.collect()
}

/// A frame for all in each VLAN, from each station, gets to all others of the VLAN, tagged where it is
/// a trunk, and to nobody else.
fn check_floods(stations: &mut [(Raw, Option<u16>)]) {
    let mut wanted = vec![Vec::new(); stations.len()];
    for sender in 0..stations.len() {
        for (vid, ..) in VLANS.iter().filter(|(vid, ..)| is_in(stations[sender].1, *vid)) {
            let frame = |to: usize| flood(sender, *vid, stations[to].1);
            stations[sender].0.send(&frame(sender), Offload::PLAIN);
            for to in (0..stations.len()).filter(|to| *to != sender && is_in(stations[*to].1, *vid))
            {
                wanted[to].push(frame(to));
            }
        }
    }
    for (at, (wanted, (station, _))) in wanted.iter_mut().zip(stations).enumerate() {
        wanted.sort();
        assert!(station.receive(&MARK, wanted.len()) == *wanted, "to {at}");
    }
}

/// Nothing came later.
fn check_silence(stations: &mut [(Raw, Option<u16>)]) {
    for (at, (station, _)) in stations.iter_mut().enumerate() {
        assert_eq!(station.take(&MARK), [], "to {at}");
    }
}

fn is_in(station: Option<u16>, vid: u16) -> bool {
    station.is_none_or(|of| of == vid)
}

/// How the stations' addresses begin that flood.
const MARK: [u8; 4] = [2, 0x67, 0, 3];

/// The frame of one station in a VLAN, as another sees it.
fn flood(sender: usize, vid: u16, to: Option<u16>) -> Vec<u8> {
    let [case, low] = [sender.to_le_bytes()[0], vid.to_le_bytes()[0]];
    let [a, b, c, d] = MARK;
    let tag: &[Tag] = if to.is_none() && vid != 1 { &[(CUSTOMER, vid)] } else { &[] };
    experiment([[0xff; 6], [a, b, c, d, case, low]], sender, tag)
}

/// In each VLAN containers of both sides reach each other, and none of another VLAN: TCP with checked
/// contents in super-packets, both ways.
fn check_traffic(world: &World, peers: &[Container]) {
    for (network, ((_, inside, _), peer)) in (1..).zip(VLANS.iter().zip(peers)) {
        for family in Family::BOTH {
            let outside = Plan::address_of(network, PEER, family);
            let pair = Pair { client: world.netns(inside), server: peer.netns(), address: outside };
            eventually("a first answer", PATIENCE, || {
                tcp::reaches(&pair, Duration::from_secs(1)).ok().filter(|reached| *reached)
            });
            let trips = ping::ping(pair.client, outside, 3, 1400, world.cancel()).unwrap();
            assert_eq!(trips.lost(), 0, "{inside} to {outside}");
            for direction in [Direction::ClientSends, Direction::ServerSends] {
                check_tcp(world, inside, &pair, direction);
            }
        }
    }
    for reason in ["no_memory", "port_failed", "bad_offload", "too_big", "queue_full"] {
        assert_eq!(world.drops(reason), 0, "{reason}");
    }
}

fn check_tcp(world: &World, inside: &str, pair: &Pair<'_>, direction: Direction) {
    let before = world.device_counters(inside);
    let plan =
        Bulk { streams: 1, amount: Amount::BytesPerStream(BYTES), direction, verify: Some(67) };
    let done = tcp::bulk(pair, &plan, world.cancel());
    let done = done.unwrap_or_else(|error| panic!("{inside}, {direction:?}: {error}"));
    assert_eq!((done.bytes, done.checksum_errors()), (BYTES, 0), "{inside}, {direction:?}");
    let moved = world.device_counters(inside) - before;
    println!(
        "figure: {inside} {direction:?}: {} bytes per packet sent, {} received, {} sent again",
        moved.tx_bytes / moved.tx_packets,
        moved.rx_bytes / moved.rx_packets,
        done.retransmissions()
    );
}
