//! heddle itself as a host: what a network's gateway answers beyond ARP, ND and a small echo.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use perf::lab::traffic::ping::ping;
use tests::{Family, PATIENCE, Plan, World, eventually};

/// Before a client would have tried again (RFC 6298, 2.1).
const AT_ONCE: Duration = Duration::from_millis(900);

fn two_networks() -> Plan {
    Plan::new().network("web", "").port("a", "").network("db", "").port("d", "")
}

#[test]
fn a_fragmented_echo_is_answered() {
    let world = World::start(two_networks());
    let gateway = world.plan().gateway(1, Family::V4);
    for payload in [8000, 65_507] {
        let trips = ping(world.netns("a"), gateway, 3, payload, world.cancel()).unwrap();
        assert_eq!(trips.lost(), 0, "{payload} bytes");
    }
}

#[test]
fn a_connection_is_refused_at_once() {
    let world = World::start(two_networks());
    for family in Family::BOTH {
        let gateway = world.plan().gateway(1, family);
        // Until then its own IPv6 address is tentative.
        eventually("the gateway answers", PATIENCE, || {
            let trips = ping(world.netns("a"), gateway, 1, 56, world.cancel()).unwrap();
            (trips.lost() == 0).then_some(())
        });
        assert_refused(&world, "a", gateway);
    }
}

#[test]
fn a_datagram_to_a_closed_port_is_refused() {
    let world = World::start(two_networks());
    for family in Family::BOTH {
        let to = SocketAddr::new(world.plan().gateway(1, family), 67);
        let error = eventually("a refusal", PATIENCE, || world.netns("a").run(|| ask(to)).unwrap());
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
    }
}

#[test]
fn a_network_that_floods_its_gateway_costs_others_nothing() {
    let world = World::start(two_networks());
    let to = SocketAddr::new(world.plan().gateway(1, Family::V4), 67);
    let flood = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..5000).filter(|_| socket.send_to(b"question", to).is_ok()).count()
    };
    let sent = world.netns("a").run(flood).unwrap();
    assert!(sent > 2500, "{sent} datagrams sent");
    assert_refused(&world, "d", world.plan().gateway(2, Family::V4));
    eventually("the flood is seen", PATIENCE, || (world.drops("punt_limit") > 0).then_some(()));
}

#[test]
fn a_gateway_goes_and_comes_back_with_its_network() {
    let mut world = World::start(two_networks());
    let gateways = [1, 2].map(|number| world.plan().gateway(number, Family::V4));
    for _ in 0..2 {
        assert_refused(&world, "d", gateways[1]);
        world.reload(Plan::new().network("web", "").port("a", ""));
        assert_refused(&world, "a", gateways[0]);
        world.reload(two_networks());
    }
    assert_refused(&world, "d", gateways[1]);
}

#[track_caller]
fn assert_refused(world: &World, port: &str, gateway: IpAddr) {
    let begin = Instant::now();
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(gateway, 80), PATIENCE);
    let error = world.netns(port).run(connect).unwrap().expect_err("nothing listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{gateway}: {error}");
    assert!(begin.elapsed() < AT_ONCE, "{gateway}: after {:?}", begin.elapsed());
}

/// What a connected socket is told after a question; `None` if it can't ask, or nothing is said.
fn ask(to: SocketAddr) -> Option<io::Error> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    socket.connect(to).ok()?;
    socket.send(b"question").ok()?;
    let error = socket.recv(&mut [0; 64]).err()?;
    (error.kind() != ErrorKind::WouldBlock).then_some(error)
}
