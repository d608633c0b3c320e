//! Trunks, by every kind of port: whole frames with known answers, from the wire and from behind
//! trunk endpoints, directly and through the kernel's bridge, which keeps tags beside frames.

use dataplane::device::ethtool;
use dataplane::device::netlink::Netlink;
use dataplane::offload::{Checksum, Gso, Offload};
use dataplane::wire::checksum;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use perf::lab::host::Container;
use perf::lab::traffic::pattern::Pattern;
use tests::raw::{CUSTOMER, Frame, Raw, SERVICE, Tag, experiment, tagged};
use tests::{DEVICE, End, Kind, NIC, PATIENCE, Plan, World, bridge, eventually};
use zerocopy::IntoBytes;

const WIRE: &str = "wire0";

/// What is behind a bridge: a virtual machine's, say.
const BEHIND: &str = "vm0";

/// Trunk endpoints, one of each kind.
const ENDPOINTS: [(&str, Kind); 3] =
    [("tap", Kind::Tap), ("packet", Kind::VethPacket), ("xdp", Kind::VethXdp)];

/// Their places among the stations, and that of the one outside.
const TAP: usize = 0;
const PACKET: usize = 1;
const XDP: usize = 2;
const OUTSIDE: usize = 3;

type Tags = &'static [Tag];

/// Frames that come in by a trunk of the VLANs 10 and 20 with the native VLAN 1, and how they leave by
/// others, or why they don't.
const CASES: [(Tags, Result<Tags, &str>); 13] = [
    (&[], Ok(&[])),
    (&[(CUSTOMER, 1)], Ok(&[])),
    (&[(CUSTOMER, 0xa000)], Ok(&[])),
    (&[(SERVICE, 0)], Ok(&[])),
    (&[(CUSTOMER, 10)], Ok(&[(CUSTOMER, 10)])),
    (&[(CUSTOMER, 0x700a)], Ok(&[(CUSTOMER, 0x700a)])),
    (&[(SERVICE, 0xe014)], Ok(&[(SERVICE, 0xe014)])),
    (&[(CUSTOMER, 10), (CUSTOMER, 20)], Ok(&[(CUSTOMER, 10), (CUSTOMER, 20)])),
    (&[(SERVICE, 20), (CUSTOMER, 4095)], Ok(&[(SERVICE, 20), (CUSTOMER, 4095)])),
    (&[(CUSTOMER, 1), (CUSTOMER, 10)], Err("native_tag")),
    (&[(CUSTOMER, 0), (CUSTOMER, 10)], Err("native_tag")),
    (&[(CUSTOMER, 30)], Err("unknown_vlan")),
    (&[(CUSTOMER, 4095), (CUSTOMER, 10)], Err("unknown_vlan")),
];

/// Bytes of a super-packet, with an odd rest.
const STREAM: usize = 30 * SEGMENT + 67;
const SEGMENT: usize = 1440;

/// Where the TCP header of a tagged frame over IPv4 is.
const TCP: usize = 18 + 20;

#[test]
fn trunks_carry_what_is_theirs_by_every_kind_of_port() {
    let keys = format!("parent = \"{NIC}\"\nio = \"af_packet\"");
    let plan = Plan::new().network("house", &keys);
    let plan = plan.trunk("all", &format!("{keys}\ntrunk = [20, 10]\nnative = 1"));
    let plan = ENDPOINTS.iter().fold(plan, |plan, (name, kind)| plan.port(name, "").of(*kind));
    let mut world = World::prepare(plan);
    let outside = world.lab().container("outside").unwrap();
    world.connect(&outside, WIRE, 1500);
    world.launch();
    eventually("the parent is driven", PATIENCE, || world.driven());
    world.wait_until_running();

    let mut directly = stations(&world, &outside, DEVICE, WIRE);
    check_tags(&world, &mut directly);
    check_super_packets(&mut directly);
    let containers = ENDPOINTS.map(|(name, _)| (world.container(name), DEVICE));
    for (container, device) in containers.into_iter().chain([(&outside, WIRE)]) {
        behind_bridge(container, device, &world);
    }
    let mut bridged = stations(&world, &outside, BEHIND, BEHIND);
    check_tags(&world, &mut bridged);
    check_super_packets(&mut bridged);
}

#[test]
fn vlans_come_and_go_by_af_xdp() {
    let keys = format!("parent = \"{NIC}\"\nio = \"af_xdp\"");
    let plan = Plan::new().network("house", &keys).port("packet", "").of(Kind::VethPacket);
    let plan = plan.vlan("lan10", &format!("{keys}\nvlan = 10")).port("tap", "");
    let plan = plan.vlan("lan20", &format!("{keys}\nvlan = 20")).port("xdp", "").of(Kind::VethXdp);
    let mut world = World::prepare(plan);
    let outside = world.lab().container("outside").unwrap();
    world.connect(&outside, WIRE, 1500);
    behind_bridge(&outside, WIRE, &world);
    // A veth leaves tags beside frames for its other end to see, and AF_XDP sees frames only.
    let in_frames = || {
        ethtool::set_features(
            WIRE,
            &[("tx-vlan-hw-insert", false), ("tx-vlan-stag-hw-insert", false)],
        )
    };
    outside.netns().run(in_frames).unwrap().unwrap();
    world.launch();
    eventually("the parent is driven", PATIENCE, || world.driven());
    world.wait_until_running();
    assert!(!takes_tags_out(&world));

    let mut stations = stations(&world, &outside, DEVICE, BEHIND);
    for to_one in [false, true] {
        check_inwards(&world, &mut stations, to_one);
    }
    check_outwards(&world, &mut stations);

    // What an earlier heddle turned off is put back as well.
    world.restart(End::Killed);
    eventually("the parent is driven", PATIENCE, || world.driven());
    assert!(!takes_tags_out(&world));
    world.reload(Plan::new());
    eventually("tags are taken out again", PATIENCE, || takes_tags_out(&world).then_some(()));
}

/// Whether the parent takes tags out of frames.
fn takes_tags_out(world: &World) -> bool {
    let features = world.host().netns().run(|| ethtool::features(NIC)).unwrap().unwrap();
    features.iter().any(|feature| feature.name == "rx-vlan-hw-parse" && feature.active)
}

/// One in each container, and one outside.
fn stations(world: &World, outside: &Container, inside: &str, wire: &str) -> Vec<Raw> {
    let containers = ENDPOINTS.iter().map(|(name, _)| Raw::open(world.netns(name), inside));
    containers.chain([Raw::open(outside.netns(), wire)]).collect()
}

/// Makes the device a port of a bridge, and [`BEHIND`] what is behind it.
fn behind_bridge(container: &Container, device: &str, world: &World) {
    container.netlink(|netlink| netlink.add_veth("port1", BEHIND, 1, None)).unwrap();
    bridge(container, &[device, "port1"], 1500);
    let up = |netlink: &mut Netlink| {
        let index = netlink.link(BEHIND)?.expect("the veth").index;
        netlink.set_up(index)
    };
    container.netlink(up).unwrap();
    container.wait_until_running(BEHIND, PATIENCE, world.cancel()).unwrap();
}

/// Every station sends every case, and the others get what they should.
fn check_tags(world: &World, stations: &mut [Raw]) {
    let reasons = ["native_tag", "unknown_vlan"];
    let before = reasons.map(|reason| world.drops(reason));
    for sender in 0..stations.len() {
        for (case, (tags, _)) in CASES.iter().enumerate() {
            stations[sender].send(&frame(sender, case, tags), Offload::PLAIN);
        }
        let answers = CASES.iter().enumerate();
        let mut wanted: Vec<_> =
            answers.filter_map(|(case, (_, tags))| Some(frame(sender, case, tags.ok()?))).collect();
        wanted.sort();
        for (at, receiver) in stations.iter_mut().enumerate().filter(|(at, _)| *at != sender) {
            let found = receiver.receive(&mac(sender, 0)[..5], wanted.len());
            assert!(found == wanted, "from {sender} to {at}: {:02x?}", heads(&found));
        }
    }
    // The walk of an unknown VLAN ends; a tag that must not come first is noticed where it leaves.
    let copies = u64::try_from(stations.len() - 1).unwrap();
    let [native, unknown] = [0, 1].map(|at| world.drops(reasons[at]) - before[at]);
    assert_eq!((native, unknown), (2 * copies * (copies + 1), 2 * (copies + 1)));
}

/// Frames of the wire, and by which station they are received, and how. The native VLAN has no number.
const INWARDS: [(Tags, Option<(usize, Tags)>); 8] = [
    (&[(CUSTOMER, 10)], Some((TAP, &[]))),
    (&[(SERVICE, 0xe014)], Some((XDP, &[]))),
    (&[], Some((PACKET, &[]))),
    (&[(CUSTOMER, 0xa000)], Some((PACKET, &[]))),
    (&[(CUSTOMER, 10), (CUSTOMER, 20)], Some((TAP, &[(CUSTOMER, 20)]))),
    (&[(CUSTOMER, 20), (SERVICE, 10)], Some((XDP, &[(SERVICE, 10)]))),
    (&[(CUSTOMER, 1)], None),
    (&[(CUSTOMER, 30)], None),
];

/// What comes from the wire gets to the endpoint of its VLAN, and to nobody else: frames for all,
/// or for the endpoint itself.
fn check_inwards(world: &World, stations: &mut [Raw], to_one: bool) {
    let before = world.drops("unknown_vlan");
    for (case, (tags, to)) in INWARDS.iter().enumerate() {
        let to = to.map(|(at, _)| at).filter(|_| to_one);
        let to = to.map_or([0xff; 6], |at| address_of(world, at));
        stations[OUTSIDE].send(&experiment([to, mac(OUTSIDE, case)], case, tags), Offload::PLAIN);
    }
    for at in [TAP, PACKET, XDP] {
        let to = if to_one { address_of(world, at) } else { [0xff; 6] };
        let cases = INWARDS.iter().enumerate();
        let wanted =
            cases.filter_map(|(case, (_, to))| Some((case, to.filter(|to| to.0 == at)?.1)));
        let mut wanted: Vec<_> =
            wanted.map(|(case, tags)| experiment([to, mac(OUTSIDE, case)], case, tags)).collect();
        wanted.sort();
        let found = stations[at].receive(&mac(OUTSIDE, 0)[..5], wanted.len());
        assert!(found == wanted, "to {at}: {:02x?}", heads(&found));
    }
    let unknown = || (world.drops("unknown_vlan") == before + 2).then_some(());
    eventually("unknown VLANs are dropped", PATIENCE, unknown);
}

/// Frames of endpoints, and how they leave for the wire, or why they don't.
const OUTWARDS: [(usize, Tags, Result<Tags, &str>); 10] = [
    (TAP, &[], Ok(&[(CUSTOMER, 10)])),
    (TAP, &[(CUSTOMER, 0xa000)], Ok(&[(CUSTOMER, 0xa00a)])),
    (TAP, &[(SERVICE, 30)], Ok(&[(CUSTOMER, 10), (SERVICE, 30)])),
    (TAP, &[(CUSTOMER, 10)], Err("own_vlan")),
    (XDP, &[], Ok(&[(CUSTOMER, 20)])),
    (XDP, &[(SERVICE, 0xf000)], Ok(&[(SERVICE, 0xf014)])),
    (XDP, &[(CUSTOMER, 20)], Err("own_vlan")),
    (PACKET, &[], Ok(&[])),
    (PACKET, &[(CUSTOMER, 0xa000)], Ok(&[])),
    (PACKET, &[(CUSTOMER, 10)], Err("native_tag")),
];

/// What endpoints send gets to the wire, and nowhere else.
fn check_outwards(world: &World, stations: &mut [Raw]) {
    let reasons = ["own_vlan", "native_tag"];
    let before = reasons.map(|reason| world.drops(reason));
    for at in [TAP, XDP, PACKET] {
        let mac = address_of(world, at);
        let cases = OUTWARDS.iter().enumerate().filter(|(_, (from, ..))| *from == at);
        let frame = |case, tags| experiment([[0xff; 6], mac], case, tags);
        let mut wanted = Vec::new();
        for (case, (_, tags, leaves)) in cases {
            stations[at].send(&frame(case, tags), Offload::PLAIN);
            wanted.extend(leaves.ok().map(|tags| frame(case, tags)));
        }
        let found = stations[OUTSIDE].receive(&mac, wanted.len());
        wanted.sort();
        assert!(found == wanted, "from {at}: {:02x?}", heads(&found));
    }
    let drops = || [0, 1].map(|at| world.drops(reasons[at]) - before[at]);
    eventually("others are dropped", PATIENCE, || (drops() == [2, 1]).then_some(()));
}

fn address_of(world: &World, at: usize) -> [u8; 6] {
    world.link(ENDPOINTS[at].0).unwrap().mac.0
}

/// What is in front of the contents.
fn heads(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(|frame| &frame[11..frame.len() - 67]).collect()
}

fn mac(sender: usize, case: usize) -> [u8; 6] {
    [2, 0x67, 0, 1, u8::try_from(sender).unwrap(), u8::try_from(case).unwrap()]
}

/// A frame for all, of an odd length.
fn frame(sender: usize, case: usize, tags: &[Tag]) -> Vec<u8> {
    experiment([[0xff; 6], mac(sender, case)], case, tags)
}

/// Every station sends a super-packet in VLAN 10, and the others get all of it, whole or in parts.
fn check_super_packets(stations: &mut [Raw]) {
    for sender in 0..stations.len() {
        let (frame, offload) = super_packet(sender);
        stations[sender].send(&frame, offload);
        for (at, receiver) in stations.iter_mut().enumerate().filter(|(at, _)| *at != sender) {
            let all = |found: &[Frame]| {
                pieces(found).map(|(_, bytes)| bytes.len()).sum::<usize>() >= STREAM
            };
            let found = receiver.gather(&mac(sender, 0)[..5], all);
            let mut pieces: Vec<_> = pieces(&found).collect();
            pieces.sort();
            let joined: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
            assert!(joined == stream(), "from {sender} to {at}: {} bytes", joined.len());
            for (frame, offload) in &found {
                assert_eq!(frame[12..16], [0x81, 0, 0x60, 10], "from {sender} to {at}");
                assert!(
                    offload.checksum == Checksum::Partial || is_right(frame),
                    "from {sender} to {at}"
                );
            }
        }
    }
}

fn stream() -> Vec<u8> {
    let mut bytes = vec![0; STREAM];
    Pattern::new(67).fill(0, &mut bytes);
    bytes
}

/// A TCP super-packet for a station that nobody knows, in VLAN 10 with priority 3.
fn super_packet(sender: usize) -> Frame {
    let mut frame = Vec::new();
    let to = [2, 0x67, 0, 2, 0, 0];
    let builder =
        PacketBuilder::ethernet2(mac(sender, 99), to).ipv4([10, 0, 10, 1], [10, 0, 10, 2], 64);
    builder.tcp(67, 257, 1, 1 << 14).write(&mut frame, &stream()).unwrap();
    let frame = tagged(&frame[..12], &[(CUSTOMER, 0x600a)], &frame[12..]);
    let length = u16::try_from(frame.len() - TCP).unwrap();
    let sum = checksum::pseudo_v4([10, 0, 10, 1], [10, 0, 10, 2], 6, length).fold();
    let mut frame = frame;
    frame[TCP + 16..TCP + 18].copy_from_slice(sum.as_bytes());
    let offload = Offload {
        checksum: Checksum::Partial,
        gso: Gso::Tcp4,
        gso_size: SEGMENT.try_into().unwrap(),
        csum_start: TCP.try_into().unwrap(),
        csum_offset: 16,
    };
    (frame, offload)
}

/// Sequence number and contents of each frame.
fn pieces(frames: &[Frame]) -> impl Iterator<Item = (u32, &[u8])> {
    frames.iter().map(|(frame, _)| {
        let sequence = frame[TCP + 4..TCP + 8].try_into().unwrap();
        (u32::from_be_bytes(sequence), &frame[TCP + 20..])
    })
}

fn is_right(frame: &[u8]) -> bool {
    let Ok(SlicedPacket { transport: Some(TransportSlice::Tcp(tcp)), .. }) =
        SlicedPacket::from_ethernet(frame)
    else {
        panic!("no TCP")
    };
    tcp.calc_checksum_ipv4([10, 0, 10, 1], [10, 0, 10, 2]) == Ok(tcp.checksum())
}
