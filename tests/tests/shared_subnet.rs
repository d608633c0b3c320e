//! Three hosts that share a subnet on one wire, each with its own part of it: containers of all reach
//! each other, the hosts, and by a router that is none of heddle's what is behind it; and each
//! address has one answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane::device::netlink::Netlink;
use dataplane::offload::Offload;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use perf::lab::host::Container;
use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use perf::lab::traffic::{Pair, ping};
use tests::raw::{Frame, Raw};
use tests::{DEVICE, Family, Kind, NIC, PATIENCE, Plan, World, assign, bridge, eventually};

/// Ports of the wire's bridge: the hosts', and what else is on it.
const HOSTS: [&str; 3] = ["host0", "host1", "host2"];
const ROUTER: &str = "router";
const ASKER: &str = "asker";

/// What only the router leads to.
const BEHIND: [&str; 2] = ["198.51.100.67", "2001:db8::67"];

/// The gateway that the last heddle is asked to be, and the last part of an address of nobody's.
const GATEWAY: u8 = 3;
const NOBODY: u8 = 250;

#[test]
fn three_hosts_share_a_subnet_by_packet_sockets() {
    share("af_packet");
}

#[test]
fn three_hosts_share_a_subnet_by_af_xdp() {
    share("af_xdp");
}

const MTU: u32 = 9000;

fn share(io: &str) {
    let first = World::prepare(plan(io, 0));
    let others = [1, 2].map(|number| first.prepare_beside(plan(io, number)));
    let mut worlds: Vec<_> = [first].into_iter().chain(others).collect();
    let lan = worlds[0].lab().container("lan").unwrap();
    let [router, asker] = [ROUTER, ASKER].map(|name| plug(&worlds[0], &lan, name));
    lead_behind(&router);
    for ((number, world), port) in (0..).zip(&mut worlds).zip(HOSTS) {
        world.connect(&lan, port, MTU);
        assign(world.host(), NIC, &Family::BOTH.map(|family| host(number, family)));
    }
    bridge(&lan, &[HOSTS.as_slice(), &[ROUTER, ASKER]].concat(), MTU);
    for world in &mut worlds {
        world.launch();
        eventually("the parent is driven", PATIENCE, || world.driven());
        world.wait_until_running();
    }
    let stations = stations(&worlds);
    check_reach(&worlds, &router, &stations);
    check_tcp(&worlds, &stations);
    check_answers(&worlds, &router, &asker, &stations);
}

/// A heddle with a part of the subnet.
fn plan(io: &str, number: u8) -> Plan {
    let (range, six) = (64 + 32 * number, number + 1);
    let gateway =
        if number == 2 { format!("gateway = \"10.200.1.{GATEWAY}\"\n") } else { String::new() };
    let keys = format!(
        "parent = \"{NIC}\"\nio = \"{io}\"\nmtu = {MTU}\n{gateway}\
         ip_range = [\"10.200.1.{range}/27\", \"fd00:200:1::{six}:0/112\"]\n\
         reserved = {{ router = \"10.200.1.1\", router6 = \"fd00:200:1::1\" }}"
    );
    let plan = Plan::new().network("lan", &keys).port("tap", "").automatic();
    plan.port("veth", "").of(Kind::VethXdp).automatic()
}

/// One more on the wire.
fn plug(world: &World, lan: &Container, name: &str) -> Container {
    let container = world.lab().container(name).unwrap();
    let add = |netlink: &mut Netlink| netlink.add_veth(name, DEVICE, 1, Some(container.netns()));
    lan.netlink(add).unwrap();
    let set_up = |netlink: &mut Netlink, device| {
        let index = netlink.link(device)?.expect("the veth").index;
        netlink.set_mtu(index, MTU)?;
        netlink.set_up(index)
    };
    lan.netlink(|netlink| set_up(netlink, name)).unwrap();
    container.netlink(|netlink| set_up(netlink, DEVICE)).unwrap();
    container
}

/// Gives the router its addresses, and what is behind it.
fn lead_behind(router: &Container) {
    assign(router, DEVICE, &Family::BOTH.map(|family| Plan::address_of(1, 1, family)));
    let add = |netlink: &mut Netlink| {
        let lo = netlink.link("lo")?.expect("every namespace has one").index;
        netlink.set_up(lo)?;
        BEHIND.into_iter().zip([32, 128]).try_for_each(|(address, length)| {
            netlink.add_address(lo, (address.parse().unwrap(), length))
        })
    };
    router.netlink(add).unwrap();
}

fn host(number: u8, family: Family) -> IpAddr {
    Plan::address_of(1, 201 + number, family)
}

/// A container with the address that its heddle has found.
struct Station {
    world: usize,
    port: &'static str,
    addresses: [IpAddr; 2],
}

fn stations(worlds: &[World]) -> Vec<Station> {
    let mut stations = Vec::new();
    for (world, at) in worlds.iter().zip(0..) {
        for port in ["tap", "veth"] {
            let index = world.link(port).unwrap().index;
            let found = world.netlink(port, |netlink| netlink.addresses(index));
            let of = |v6| {
                found
                    .iter()
                    .map(|(address, _)| *address)
                    .find(|a| is_global(*a) && a.is_ipv6() == v6)
            };
            let addresses = [false, true].map(|v6| of(v6).expect("an address"));
            stations.push(Station { world: at, port, addresses });
        }
    }
    let distinct: BTreeSet<_> = stations.iter().flat_map(|station| station.addresses).collect();
    assert_eq!(distinct.len(), 2 * stations.len(), "{distinct:?}");
    stations
}

fn is_global(address: IpAddr) -> bool {
    !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Every container reaches every other, the router and what is behind it, and the other hosts; every
/// host reaches the others and the router.
fn check_reach(worlds: &[World], router: &Container, stations: &[Station]) {
    for (at, family) in Family::BOTH.into_iter().enumerate() {
        let outside = [Plan::address_of(1, 1, family), BEHIND[at].parse().unwrap()];
        for from in stations {
            let others = stations.iter().map(|station| station.addresses[at]);
            let hosts = (0..3).filter(|number| usize::from(*number) != from.world);
            let hosts = hosts.map(|number| host(number, family));
            for to in others.chain(hosts).chain(outside) {
                reaches(&worlds[0], worlds[from.world].container(from.port), to);
            }
        }
        for (number, world) in (0..).zip(worlds) {
            let hosts = (0..3).filter(|other| *other != number).map(|number| host(number, family));
            for to in hosts.chain([outside[0]]) {
                reaches(&worlds[0], world.host(), to);
            }
            reaches(&worlds[0], router, host(number, family));
        }
    }
    // What heddle sends by the wire doesn't come back to the host that it is on.
    let (own, to) = (&stations[0], host(0, Family::V4));
    let container = worlds[own.world].container(own.port);
    assert_eq!(ping::ping(container.netns(), to, 1, 67, worlds[0].cancel()).unwrap().lost(), 1);
}

fn reaches(world: &World, from: &Container, to: IpAddr) {
    eventually(&format!("{} reaches {to}", from.name()), PATIENCE, || {
        let trips = ping::ping(from.netns(), to, 1, 8000, world.cancel()).unwrap();
        (trips.lost() == 0).then_some(())
    });
}

/// TCP with checked contents between containers of each two hosts.
fn check_tcp(worlds: &[World], stations: &[Station]) {
    for (one, other) in [(0, 3), (2, 5), (4, 1)] {
        let [one, other] = [one, other].map(|at: usize| &stations[at]);
        for address in other.addresses {
            let client = worlds[one.world].netns(one.port);
            let pair = Pair { client, server: worlds[other.world].netns(other.port), address };
            let (amount, direction) = (Amount::BytesPerStream(1 << 20), Direction::ClientSends);
            let plan = Bulk { streams: 2, amount, direction, verify: Some(67) };
            let done = tcp::bulk(&pair, &plan, worlds[0].cancel()).unwrap();
            assert_eq!((done.bytes, done.checksum_errors()), (2 << 20, 0), "{address}");
        }
    }
}

/// An address of IPv4 and who has it.
type Answer = ([u8; 4], [u8; 6]);

/// For each address one station answers, which has it, and for one of nobody's nobody does; heddle
/// answers where it was told to be the gateway, and nowhere else.
fn check_answers(worlds: &[World], router: &Container, asker: &Container, stations: &[Station]) {
    let mac = |container: &Container, device| {
        container.netlink(|netlink| netlink.link(device)).unwrap().expect("its device").mac.0
    };
    let mut wanted =
        BTreeSet::from([(v4(Plan::address_of(1, 1, Family::V4)), mac(router, DEVICE))]);
    for station in stations {
        let container = worlds[station.world].container(station.port);
        wanted.insert((v4(station.addresses[0]), mac(container, DEVICE)));
    }
    for (number, world) in (0..).zip(worlds) {
        wanted.insert((v4(host(number, Family::V4)), mac(world.host(), NIC)));
    }
    let heddle = [2, 0x42, 10, 200, 1, GATEWAY];
    wanted.insert(([10, 200, 1, GATEWAY], heddle));
    let mut raw = Raw::open(asker.netns(), DEVICE);
    let own = mac(asker, DEVICE);
    // Answers to the later ones show that there is none to the first.
    let others = [[10, 200, 1, 2], [10, 200, 1, NOBODY]];
    for address in others.into_iter().chain(wanted.iter().map(|(address, _)| *address)) {
        raw.send(&question(own, address), Offload::PLAIN);
    }
    let found = raw.gather(&[], |found| answers(found, own).len() >= wanted.len());
    let mut found = answers(&found, own);
    // Whoever would answer as well has done so by the time that this is answered again.
    for (address, _) in &wanted {
        raw.send(&question(own, *address), Offload::PLAIN);
    }
    let again = raw.gather(&[], |found| answers(found, own).len() >= wanted.len());
    found.extend(answers(&again, own));
    assert_eq!(found.len(), 2 * wanted.len(), "{found:02x?}");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
}

/// Who has an address?
fn question(own: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let (hardware, protocol) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
    let sender = [10, 200, 1, 240];
    let arp =
        ArpPacket::new(hardware, protocol, ArpOperation::REQUEST, &own, &sender, &[0; 6], &address);
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(own, [0xff; 6]).arp(arp.unwrap());
    builder.write(&mut frame).unwrap();
    frame
}

/// The answers among frames.
fn answers(frames: &[Frame], own: [u8; 6]) -> Vec<Answer> {
    let frames = frames.iter().map(|(frame, _)| frame);
    let replies = frames.filter(|frame| {
        frame.starts_with(&own)
            && frame.get(12..14) == Some(&[8, 6])
            && frame.get(20..22) == Some(&[0, 2])
    });
    replies
        .map(|reply| (reply[28..32].try_into().unwrap(), reply[22..28].try_into().unwrap()))
        .collect()
}

fn v4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => panic!("{address} is of IPv6"),
    }
}
