//! A NIC that heddle shares with the host: a veth whose other end is in a namespace that stands for
//! the world. The host keeps its own traffic on it whatever heddle does, while containers talk to
//! the world on the same wire.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use perf::lab::host::Container;
use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use perf::lab::traffic::{Pair, ping};
use tests::{End, Family, NIC, PATIENCE, Plan, World, assign, eventually};

/// The world's device.
const WIRE: &str = "wire0";

/// The last parts of the host's and the world's addresses.
const HOST: u8 = 201;
const OUTSIDE: u8 = 202;
/// Those that each finds anew now and then. What is found anew may lose a packet, so that the
/// session is between the others.
const ANEW: [u8; 2] = [203, 204];

/// What the host's session may be kept waiting; TCP sends again after 200 ms what was lost.
const PAUSE: Duration = Duration::from_millis(150);

#[test]
fn the_host_keeps_its_network_beside_packet_sockets() {
    share("af_packet", "af_packet");
}

#[test]
fn the_host_keeps_its_network_beside_af_xdp() {
    share("af_xdp", "af_xdp, driver mode, copy");
}

#[test]
fn a_parent_is_driven_by_what_suits_it() {
    share("auto", "af_packet (auto: super-packets cross a veth whole)");
}

fn share(io: &str, shown: &str) {
    let lan = |ports: &[&str]| {
        let settings = format!("parent = \"{NIC}\"\nio = \"{io}\"");
        ports.iter().fold(Plan::new().network("lan", &settings), |plan, port| plan.port(port, ""))
    };
    let mut world = World::prepare(lan(&["a", "b"]));
    let outside = wire(&world);
    let session = Session::start(&world, &outside);
    world.launch();
    eventually("the parent is driven", PATIENCE, || world.driven().filter(|io| io == shown));
    world.wait_until_running();
    check_containers(&world, &outside);
    check_host(&world, &outside);

    world.reload(lan(&["a", "b", "c"]));
    check_containers(&world, &outside);
    check_host(&world, &outside);

    world.end(End::Killed);
    check_host(&world, &outside);
    let plan = world.plan().clone();
    world.launch_with(plan);
    world.wait_until_running();
    check_containers(&world, &outside);
    check_host(&world, &outside);

    world.end(End::Stopped);
    check_host(&world, &outside);
    session.check();
}

/// Connects the host with the world, and gives both ends addresses of the network.
fn wire(world: &World) -> Container {
    let outside = world.lab().container("outside").unwrap();
    world.connect(&outside, WIRE, 1500);
    let ends = [(world.host(), NIC, [HOST, ANEW[0]]), (&outside, WIRE, [OUTSIDE, ANEW[1]])];
    for (container, device, numbers) in ends {
        let both = numbers
            .into_iter()
            .flat_map(|number| Family::BOTH.map(|family| address(family, number)));
        assign(container, device, &both.collect::<Vec<_>>());
    }
    outside
}

fn address(family: Family, number: u8) -> IpAddr {
    Plan::address_of(1, number, family)
}

/// Containers and the world reach each other: TCP with checked contents, both ways.
fn check_containers(world: &World, outside: &Container) {
    for family in Family::BOTH {
        let inside = world.plan().address("a", family);
        let pairs = [
            (world.netns("a"), outside.netns(), address(family, OUTSIDE)),
            (outside.netns(), world.netns("a"), inside),
            (world.netns("a"), world.netns("b"), world.plan().address("b", family)),
        ];
        for (client, server, address) in pairs {
            let pair = Pair { client, server, address };
            eventually("a first answer", PATIENCE, || {
                tcp::reaches(&pair, Duration::from_secs(1)).ok().filter(|reached| *reached)
            });
            let (amount, direction) = (Amount::BytesPerStream(1 << 20), Direction::ClientSends);
            let plan = Bulk { streams: 2, amount, direction, verify: Some(67) };
            let done = tcp::bulk(&pair, &plan, world.cancel());
            let done = done.unwrap_or_else(|error| panic!("{family:?} to {address}: {error}"));
            assert_eq!((done.bytes, done.checksum_errors()), (2 << 20, 0), "{address}");
        }
    }
}

/// The host and the world find each other anew, and the host hears broadcasts, as DHCP needs.
fn check_host(world: &World, outside: &Container) {
    for family in Family::BOTH {
        let [host, world_end] = ANEW.map(|number| address(family, number));
        for (container, to) in [(world.host(), world_end), (outside, host)] {
            let forget = || Command::new("ip").args(["neigh", "flush", &to.to_string()]).status();
            assert!(container.netns().run(forget).unwrap().unwrap().success());
            let trips = ping::ping(container.netns(), to, 3, 67, world.cancel()).unwrap();
            assert_eq!(trips.lost(), 0, "{to}");
        }
    }
    let listen = || UdpSocket::bind(("0.0.0.0", 68)).unwrap();
    let client = world.host().netns().run(listen).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let broadcast = || {
        let server = UdpSocket::bind((address(Family::V4, OUTSIDE), 67)).unwrap();
        server.set_broadcast(true).unwrap();
        server.send_to(b"DHCPOFFER", ("255.255.255.255", 68)).unwrap();
    };
    outside.netns().run(broadcast).unwrap();
    let mut offer = [0; 67];
    let (length, from) = client.recv_from(&mut offer).expect("the host hears broadcasts");
    assert_eq!((&offer[..length], from.ip()), (&b"DHCPOFFER"[..], address(Family::V4, OUTSIDE)));
}

/// TCP between the host and the world, as SSH has it: a few bytes there and back, all the time.
struct Session {
    ends: Arc<AtomicBool>,
    client: JoinHandle<(u64, Duration)>,
}

impl Session {
    fn start(world: &World, outside: &Container) -> Self {
        let listen = || TcpListener::bind((address(Family::V4, OUTSIDE), 0)).unwrap();
        let server = outside.netns().run(listen).unwrap();
        let to = server.local_addr().unwrap();
        thread::spawn(move || echo(server.accept().unwrap().0));
        let client = world.host().netns().run(|| TcpStream::connect(to).unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        Self { ends, client: thread::spawn(move || talk(client, &end)) }
    }

    fn check(self) {
        self.ends.store(true, Ordering::Relaxed);
        let (exchanges, longest) = self.client.join().unwrap();
        println!("figure: the host's session: {exchanges} exchanges, the longest {longest:?}");
        assert!(exchanges > 100 && longest < PAUSE, "{exchanges} exchanges, {longest:?}");
    }
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 67];
    while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
}

/// Answers how often it went there and back, and the longest that it took.
fn talk(mut stream: TcpStream, ends: &AtomicBool) -> (u64, Duration) {
    let (mut exchanges, mut longest) = (0_u64, Duration::ZERO);
    while !ends.load(Ordering::Relaxed) {
        let sent = [exchanges.to_le_bytes()[0]; 67];
        let (started, mut answer) = (Instant::now(), [0; 67]);
        stream.write_all(&sent).unwrap();
        stream.read_exact(&mut answer).expect("the session lives");
        assert_eq!(answer, sent);
        longest = longest.max(started.elapsed());
        exchanges += 1;
    }
    (exchanges, longest)
}
