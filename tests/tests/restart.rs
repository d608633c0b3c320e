//! heddle dies or stops under load and starts again: containers keep everything, and traffic
//! goes on. Containers come and go under the running heddle.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::device::netlink::Netlink;
use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use tests::{DEVICE, End, Family, Kind, PATIENCE, Paced, Plan, World, eventually};

/// On a machine that is busy with other things one start may take longer, but not all.
const STARTS: usize = 5;

#[test]
fn tcp_survives_a_crash() {
    Kind::ALL.into_iter().for_each(|kind| tcp_survives(End::Killed, kind));
}

#[test]
fn tcp_survives_a_stop() {
    Kind::ALL.into_iter().for_each(|kind| tcp_survives(End::Stopped, kind));
}

#[test]
fn traffic_goes_on_soon_after_a_crash() {
    Kind::ALL.into_iter().for_each(|kind| traffic_goes_on(End::Killed, kind));
}

#[test]
fn traffic_goes_on_soon_after_a_stop() {
    Kind::ALL.into_iter().for_each(|kind| traffic_goes_on(End::Stopped, kind));
}

#[test]
fn a_crash_leaves_nothing_but_state() {
    let mut world = World::start(Plan::pair(""));
    let before = traces(&world);
    for end in [End::Killed, End::Stopped] {
        world.restart(end);
        world.wait_until_running();
        assert_eq!(traces(&world), before, "{end:?}");
    }
    world.end(End::Killed);
    let host = world.host().netlink(Netlink::links).unwrap();
    assert_eq!(host.len(), 1, "only lo: {host:?}");
}

#[test]
fn a_device_of_an_endpoint_that_went_meanwhile_is_removed() {
    let mut world = World::start(Plan::pair(""));
    world.end(End::Killed);
    assert!(world.link("b").is_some(), "containers keep their devices");
    world.launch_with(Plan::new().network("web", "").port("a", ""));
    eventually("the device is gone", PATIENCE, || world.link("b").is_none().then_some(()));
    world.wait_until_running();
}

#[test]
fn a_container_made_anew_is_served_again() {
    let mut world = World::start(Plan::pair(""));
    for _ in 0..3 {
        world.remove_container("b");
        world.make_containers();
        world.wait_until_running();
        for family in Family::BOTH {
            assert_eq!(world.ping("a", "b", family).lost(), 0, "{family:?}");
        }
    }
}

#[test]
fn a_container_that_comes_late_is_served() {
    let mut world = World::start(Plan::pair(""));
    world.remove_container("b");
    world.restart(End::Stopped);
    let log = world.switch().log_tail();
    assert!(log.contains("waiting for its device"), "{log}");
    world.make_containers();
    world.wait_until_running();
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
}

#[test]
fn a_device_deleted_in_its_container_is_made_again() {
    let mut world = World::start(Plan::pair(""));
    let deleted = world.link("b").expect("heddle's device");
    world.netlink("b", |netlink| netlink.delete(deleted.index));
    eventually("there is another device", PATIENCE, || {
        world.link("b").filter(|link| link.index != deleted.index)
    });
    world.wait_until_running();
    let made = world.link("b").expect("heddle's device");
    assert_eq!((made.mac, made.mtu, made.alias), (deleted.mac, deleted.mtu, deleted.alias));
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
}

#[test]
fn a_device_name_that_is_taken_is_named() {
    let mut world = World::start(Plan::pair(""));
    world.end(End::Stopped);
    // What has the name now is not heddle's: it has no alias.
    world.netlink("b", |netlink| {
        let index = netlink.link(DEVICE)?.expect("heddle's device").index;
        netlink.delete(index)?;
        netlink.add_veth(DEVICE, "other", 1, None)
    });
    let plan = world.plan().clone();
    world.launch_with(plan);
    let log = eventually("the log says so", PATIENCE, || {
        let log = world.switch().log_tail();
        log.contains("has a device `eth0` that is not heddle's").then_some(log)
    });
    assert!(log.contains("waiting for its device"), "{log}");
    assert!(log.lines().any(|line| line.contains("port=\"b\"")), "{log}");
    assert_eq!(world.link("b").unwrap().kind.as_deref(), Some("veth"), "it was not touched");
}

fn pair_of(kind: Kind) -> Plan {
    Plan::new().network("web", "").port("a", "").of(kind).port("b", "").of(kind)
}

/// What a new heddle has for its start until traffic goes on. For AF_XDP it makes all packet memory
/// known to the kernel first, which is not optimised in tests.
fn goes_on(kind: Kind) -> Duration {
    Duration::from_millis(if kind.is_xdp() { 1000 } else { 100 })
}

fn tcp_survives(end: End, kind: Kind) {
    let mut world = World::start(pair_of(kind));
    let before = ["a", "b"].map(|port| identity(&world, port));
    let amount = Amount::Time(Duration::from_secs(2));
    let [four, six] = Family::BOTH.map(|family| {
        let (client, server) = (world.netns("a").path(), world.netns("b").path());
        let address = world.plan().address("b", family);
        (client.to_owned(), server.to_owned(), address)
    });
    let cancel = world.cancel().clone();
    let transfers = [four, six].map(|(client, server, address)| {
        let cancel = cancel.clone();
        thread::spawn(move || {
            let open = dataplane::device::netns::Netns::open;
            let (client, server) = (open(client).unwrap(), open(server).unwrap());
            let pair = perf::lab::traffic::Pair { client: &client, server: &server, address };
            let direction = Direction::ClientSends;
            let plan = Bulk { streams: 3, amount, direction, verify: Some(67) };
            tcp::bulk(&pair, &plan, &cancel)
        })
    });
    wait_for_traffic(&world);
    for _ in 0..2 {
        world.restart(end);
        world.wait_until_running();
        wait_for_traffic(&world);
    }
    for transfer in transfers {
        let done = transfer.join().unwrap().unwrap();
        assert_eq!(done.checksum_errors(), 0);
    }
    assert_eq!(["a", "b"].map(|port| identity(&world, port)), before);
}

/// Waits until some MB more have arrived.
fn wait_for_traffic(world: &World) {
    let before = world.device_counters("b").rx_bytes;
    eventually("TCP goes on", PATIENCE, || {
        (world.device_counters("b").rx_bytes > before + (1 << 20)).then_some(())
    });
}

fn traffic_goes_on(end: End, kind: Kind) {
    let mut world = World::start(pair_of(kind));
    let flows = Family::BOTH
        .map(|family| Paced::start(&world.pair("a", "b", family), Duration::from_millis(1)));
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        world.end(end);
        // Only now has the kernel forgotten its neighbours: the worst moment for a start.
        eventually("the kernel notices", PATIENCE, || {
            let ready = |port: &&str| kind != Kind::Tap || !world.link(port).unwrap().running;
            ["a", "b"].iter().all(ready).then_some(())
        });
        let plan = world.plan().clone();
        starts.push(Instant::now());
        world.launch_with(plan);
        for family in Family::BOTH {
            eventually("traffic goes on", PATIENCE, || {
                world.answers("b", "a", family).then_some(())
            });
        }
    }
    for (flow, family) in flows.into_iter().zip(Family::BOTH) {
        let arrivals = flow.stop();
        let after = |start: &Instant| arrivals.first_after(*start).expect("an arrival");
        let mut times: Vec<Duration> = starts.iter().map(after).collect();
        times.sort_unstable();
        println!(
            "figure: {kind:?}, {family:?}, {end:?}: traffic goes on {times:?} after the start"
        );
        assert!(times[0] < goes_on(kind), "{kind:?}, {family:?}, {end:?}: {times:?}");
    }
}

/// What must be the same before and after: the device, its addresses, and all routes.
fn identity(world: &World, port: &str) -> impl PartialEq + std::fmt::Debug + use<> {
    let (link, mut addresses) = world.netlink(port, |netlink| {
        let link = netlink.link(DEVICE)?.expect("the device");
        let addresses = netlink.addresses(link.index)?;
        Ok(((link.index, link.mac, link.mtu, link.alias), addresses))
    });
    addresses.retain(|(address, _)| !address.to_string().starts_with("fe80"));
    addresses.sort();
    let routes = || {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        // Metrics and reference counts of IPv6 routes change by use, and the kernel's own to its
        // link-local address come late (RFC 4862, 5.4).
        let six = read("ipv6_route");
        let six = six.lines().filter(|line| !line.starts_with("fe80")).map(|line| &line[..70]);
        let six: Vec<String> = six.map(str::to_owned).collect();
        (read("route"), six)
    };
    (link, addresses, world.netns(port).run(routes).unwrap())
}

/// Everything that a heddle could leave: devices in all namespaces, and files.
fn traces(world: &World) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let containers = [world.host(), world.container("a"), world.container("b")];
    for container in containers {
        let links = container.netlink(Netlink::links).unwrap();
        found.extend(links.iter().map(|link| format!("{}: {}", container.name(), link.name)));
    }
    let mut directories = vec![world.lab().directory().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_none_or(|extension| extension != "pid") {
                found.insert(path.display().to_string());
            }
        }
    }
    found
}
