//! What a network promises: neighbours and gateway answer, groups reach everybody in it and
//! nobody outside, and no container can be another.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::device::netlink::Netlink;
use dataplane::ids::MacAddr;
use perf::lab::traffic::{Pair, ping::ping, tcp};
use tests::{DEVICE, Family, PATIENCE, Plan, World, eventually};

/// How long what must not arrive is waited for.
const NOTHING: Duration = Duration::from_millis(300);
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 67, 67, 67);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x67, 0x67);

#[test]
fn neighbours_and_gateway_answer() {
    let world = World::start(two_networks());
    for family in Family::BOTH {
        for payload in [0, 56, 1400] {
            let others = [world.plan().address("b", family), world.plan().gateway(1, family)];
            for address in others {
                let trips = ping(world.netns("a"), address, 3, payload, world.cancel()).unwrap();
                assert_eq!(trips.lost(), 0, "{address}, {payload} bytes");
            }
        }
        assert_eq!(world.ping("d", "e", family).lost(), 0);
    }
    let neighbour = world.link("b").unwrap().mac;
    assert_eq!(neighbour_of(&world, "a", world.plan().address("b", Family::V4)), neighbour);
    let gateway = neighbour_of(&world, "a", world.plan().gateway(1, Family::V4));
    assert_ne!(gateway, neighbour);
    assert_ne!(gateway, neighbour_of_gateway(&world, "d", 2), "each network has its own");
}

#[test]
fn link_local_addresses_work() {
    let world = World::start(Plan::pair(""));
    let link_local = |port: &str| {
        eventually("a link-local address", PATIENCE, || {
            let addresses = world.netlink(port, |netlink| {
                let index = netlink.link(DEVICE)?.expect("the device").index;
                Ok((index, netlink.addresses(index)?))
            });
            let (index, addresses) = addresses;
            let found = addresses.iter().find_map(|(address, _)| match address {
                IpAddr::V6(six) if six.is_unicast_link_local() => Some(*six),
                _ => None,
            });
            found.map(|address| (address, index))
        })
    };
    let ((to, at_b), (_, at_a)) = (link_local("b"), link_local("a"));
    let server = eventually("the address can be used", PATIENCE, || {
        let address = SocketAddrV6::new(to, 0, 0, at_b);
        world.netns("b").run(|| UdpSocket::bind(address)).unwrap().ok()
    });
    let port = server.local_addr().unwrap().port();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    eventually("a datagram between link-local addresses", PATIENCE, || {
        let send =
            || UdpSocket::bind("[::]:0")?.send_to(b"67", SocketAddrV6::new(to, port, 0, at_a));
        // The sender's own address may still be tentative.
        world.netns("a").run(send).unwrap().ok()?;
        server.recv(&mut [0; 8]).ok()
    });
}

#[test]
fn groups_reach_the_network_and_nothing_else() {
    let world = World::start(two_networks());
    let receivers: Vec<_> = ["b", "c", "d"].map(|port| (port, Receiver::open(&world, port))).into();
    let sender = |address: &str| {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket
    };
    let index = world.link("a").unwrap().index;
    let (four, six) = (receivers[0].1.four_port, receivers[0].1.six_port);
    let send = || {
        let (v4, v6) = (sender("10.200.1.2"), sender("fd00:200:1::2"));
        v4.send_to(b"all", (Ipv4Addr::BROADCAST, four)).unwrap();
        v4.send_to(b"net", ("10.200.1.255", four)).unwrap();
        v4.send_to(b"group", (GROUP_V4, four)).unwrap();
        v6.send_to(b"group", SocketAddrV6::new(GROUP_V6, six, 0, index)).unwrap();
    };
    world.netns("a").run(send).unwrap();
    for (port, receiver) in &receivers {
        let expected: &[&[u8]] = if *port == "d" { &[] } else { &[b"all", b"net", b"group"] };
        assert_eq!(receiver.all(&receiver.four, expected.len()), expected, "v4 at {port}");
        let expected: &[&[u8]] = if *port == "d" { &[] } else { &[b"group"] };
        assert_eq!(receiver.all(&receiver.six, expected.len()), expected, "v6 at {port}");
    }
}

#[test]
fn networks_do_not_see_each_other() {
    let world = World::start(two_networks());
    let stranger = world.link("d").unwrap().mac;
    for family in Family::BOTH {
        let address = world.plan().address("d", family);
        // By the gateway, then as if it were a neighbour whose station is known.
        assert!(!reaches(&world.pair("a", "d", family)), "{family:?} by the gateway");
        for arguments in [
            format!("route add {address} dev {DEVICE}"),
            format!("neigh replace {address} lladdr {stranger} dev {DEVICE}"),
        ] {
            ip(&world, "a", &arguments);
        }
        assert!(!world.answers("d", "a", family), "{family:?} as a neighbour");
        assert!(!reaches(&world.pair("a", "d", family)), "{family:?} as a neighbour");
    }
}

#[test]
fn isolated_endpoints_reach_only_the_gateway() {
    let world = World::start(
        Plan::new().network("web", "isolated = true").port("a", "").port("b", "").port("c", ""),
    );
    for family in Family::BOTH {
        let gateway = world.plan().gateway(1, family);
        let trips = ping(world.netns("a"), gateway, 3, 56, world.cancel()).unwrap();
        assert_eq!(trips.lost(), 0, "{family:?}");
        assert!(!world.answers("b", "a", family), "{family:?}");
        assert!(!reaches(&world.pair("a", "b", family)));
        // A known station makes no difference.
        let (address, mac) = (world.plan().address("b", family), world.link("b").unwrap().mac);
        ip(&world, "a", &format!("neigh replace {address} lladdr {mac} dev {DEVICE}"));
        assert!(!world.answers("b", "a", family), "{family:?}");
    }
    assert!(world.drops("isolated") > 0);
}

#[test]
fn internal_networks_have_no_way_out() {
    let plan = |web| Plan::new().network("web", web).port("a", "").network("db", "internal = true");
    let mut world = World::start(plan("").port("d", "").port("e", ""));
    assert_eq!(default_routes(&world, "a"), 2);
    assert_eq!(default_routes(&world, "d"), 0);
    for family in Family::BOTH {
        assert_eq!(world.ping("d", "e", family).lost(), 0, "{family:?}");
    }
    for (web, routes) in [("internal = true", 0), ("", 2)] {
        world.reload(plan(web).port("d", "").port("e", ""));
        eventually("routes follow", PATIENCE, || {
            (default_routes(&world, "a") == routes).then_some(())
        });
    }
}

#[test]
fn another_mac_gets_nowhere() {
    let world = World::start(Plan::pair(""));
    let own = world.link("a").unwrap().mac;
    set_mac(&world, "02:67:67:67:67:67".parse().unwrap());
    for family in Family::BOTH {
        assert!(!world.answers("b", "a", family), "{family:?}");
    }
    assert!(world.drops("spoofed_mac") > 0);
    set_mac(&world, own);
    for family in Family::BOTH {
        eventually("its own MAC works again", PATIENCE, || {
            world.answers("b", "a", family).then_some(())
        });
    }
}

#[test]
fn another_address_gets_nowhere() {
    let world = World::start(Plan::pair(""));
    for (foreign, family, prefix) in
        [("10.200.1.99", Family::V4, 24), ("fd00:200:1::99", Family::V6, 64)]
    {
        let address: IpAddr = foreign.parse().unwrap();
        world.netlink("a", |netlink| {
            let index = netlink.link(DEVICE)?.expect("the device").index;
            netlink.add_address(index, (address, prefix))
        });
        // The neighbour is known, so that it is IP that must be refused, and not only ARP.
        let (to, mac) = (world.plan().address("b", family), world.link("b").unwrap().mac);
        ip(&world, "a", &format!("neigh replace {to} lladdr {mac} dev {DEVICE}"));
        let (server, at) = listener(&world, "b", to);
        let send = |from: IpAddr| {
            let sent = || UdpSocket::bind((from, 0)).and_then(|socket| socket.send_to(b"67", at));
            world.netns("a").run(sent).unwrap().unwrap();
            server.recv(&mut [0; 8])
        };
        let own = world.plan().address("a", family);
        assert_eq!(send(own).unwrap(), 2, "{own}");
        assert_eq!(send(address).unwrap_err().kind(), io::ErrorKind::WouldBlock, "{foreign}");
        // Nor can it answer for that address.
        let trips = ping(world.netns("b"), address, 1, 56, world.cancel()).unwrap();
        assert_eq!(trips.received, 0, "{foreign}");
    }
    for reason in ["spoofed_ip", "spoofed_arp"] {
        assert!(world.drops(reason) > 0, "{reason}");
    }
}

#[test]
fn networks_without_anti_spoofing_learn() {
    let world = World::start(Plan::pair("anti_spoof = false"));
    set_mac(&world, "02:67:67:67:67:67".parse().unwrap());
    for family in Family::BOTH {
        eventually("another MAC is learned", PATIENCE, || {
            world.answers("b", "a", family).then_some(())
        });
    }
}

#[test]
fn storms_are_limited() {
    const PER_SECOND: u64 = 100;
    let limits = format!("limits = {{ storm = \"{PER_SECOND}pps\" }}");
    let plan = Plan::new().network("web", "").port("a", &limits).port("b", "").port("c", "");
    let world = World::start(plan);
    let receiver = Receiver::open(&world, "b");
    let port = receiver.four_port;
    let started = Instant::now();
    let send = || {
        let socket = UdpSocket::bind("10.200.1.2:0").unwrap();
        socket.set_broadcast(true).unwrap();
        (0..2000).for_each(|_| drop(socket.send_to(b"storm", (Ipv4Addr::BROADCAST, port))));
    };
    world.netns("a").run(send).unwrap();
    let arrived = receiver.all(&receiver.four, usize::MAX).len() as u64;
    // The burst is a tenth of a second's; before it there were ARP and ND.
    let most = PER_SECOND / 10 + PER_SECOND * started.elapsed().as_secs().max(1);
    assert!((1..=most).contains(&arrived), "{arrived} of 2000 in {:?}", started.elapsed());
    assert!(world.drops("storm") >= 2000 - arrived);
    // What is for one station is no storm.
    let pair = world.pair("a", "b", Family::V4);
    let time = Duration::from_millis(300);
    eventually("unicast passes", PATIENCE, || {
        let trips = perf::lab::traffic::udp::round_trips(&pair, 67, time, world.cancel()).unwrap();
        (trips.lost() == 0 && trips.received > PER_SECOND).then_some(())
    });
}

fn two_networks() -> Plan {
    let web = Plan::new().network("web", "").port("a", "").port("b", "").port("c", "");
    web.network("db", "").port("d", "").port("e", "")
}

fn reaches(pair: &Pair<'_>) -> bool {
    tcp::reaches(pair, NOTHING).unwrap()
}

/// Listens to broadcasts and groups.
struct Receiver {
    four: UdpSocket,
    four_port: u16,
    six: UdpSocket,
    six_port: u16,
}

impl Receiver {
    const PORTS: (u16, u16) = (6767, 6768);

    fn open(world: &World, port: &str) -> Self {
        let (four_port, six_port) = Self::PORTS;
        let index = world.link(port).unwrap().index;
        let IpAddr::V4(own) = world.plan().address(port, Family::V4) else { unreachable!() };
        let open = || {
            let four = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, four_port))?;
            four.join_multicast_v4(&GROUP_V4, &own)?;
            let six = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, six_port))?;
            six.join_multicast_v6(&GROUP_V6, index)?;
            Ok::<_, io::Error>((four, six))
        };
        let (four, six) = world.netns(port).run(open).unwrap().unwrap();
        for socket in [&four, &six] {
            socket.set_read_timeout(Some(NOTHING)).unwrap();
        }
        Self { four, four_port, six, six_port }
    }

    /// What arrives until it is quiet, or until it is more than expected.
    fn all(&self, socket: &UdpSocket, expected: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut buffer = [0; 64];
        while found.len() <= expected {
            match socket.recv(&mut buffer) {
                Ok(length) => found.push(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        found
    }
}

fn listener(world: &World, port: &str, address: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = world.netns(port).run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(NOTHING)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn set_mac(world: &World, mac: MacAddr) {
    world.netlink("a", |netlink: &mut Netlink| {
        let index = netlink.link(DEVICE)?.expect("the device").index;
        netlink.set_mac(index, mac)
    });
}

/// Runs `ip` inside a container.
fn ip(world: &World, port: &str, arguments: &str) {
    let mut command = Command::new("ip");
    let output = world.netns(port).run(|| command.args(arguments.split(' ')).output()).unwrap();
    let output = output.unwrap_or_else(|error| panic!("ip is not installed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}

/// The station that ARP has found for an address.
fn neighbour_of(world: &World, port: &str, address: IpAddr) -> MacAddr {
    let read = || fs::read_to_string("/proc/thread-self/net/arp").unwrap();
    let table = world.netns(port).run(read).unwrap();
    let address = address.to_string();
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(&address));
    let line = line.unwrap_or_else(|| panic!("{address} is not in\n{table}"));
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

fn neighbour_of_gateway(world: &World, port: &str, network: u8) -> MacAddr {
    let gateway = world.plan().gateway(network, Family::V4);
    assert_eq!(ping(world.netns(port), gateway, 1, 56, world.cancel()).unwrap().lost(), 0);
    neighbour_of(world, port, gateway)
}

/// Routes to everything, over both families, by the device.
fn default_routes(world: &World, port: &str) -> usize {
    let read = || {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        (read("route"), read("ipv6_route"))
    };
    let (four, six) = world.netns(port).run(read).unwrap();
    let four = four.lines().filter(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some(DEVICE) && fields.next() == Some("00000000")
    });
    let nowhere = format!("{} 00 ", "0".repeat(32));
    let six = six.lines().filter(|line| line.starts_with(&nowhere) && line.ends_with(DEVICE));
    four.count() + six.count()
}
