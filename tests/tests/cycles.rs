//! Ports of each kind come and go under load: nothing is left of them, and the others lose nothing.
//!
//! `HEDDLE_CYCLES` says how often each comes and goes; the default takes some seconds.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use control::store::Store;
use perf::lab::host::Container;
use perf::lab::traffic::ping::ping;
use serde_json::{Value, json};
use tests::{
    DEVICE, End, Family, Holdings, Kind, Load, Loaded, Memory, PATIENCE, Paced, Plan, World,
    eventually, far_mac, near_end, plug,
};

/// Times that a port of each kind comes and goes, unless the environment says otherwise.
const CYCLES: usize = 10;

/// Before the first look: what is made once is made then.
const WARM_UP: usize = 2;

/// Of heddle's own memory: how much of what is free in it is given back is the allocator's choice.
const GROWTH: u64 = 2 << 20;

#[test]
fn ports_of_each_kind_come_and_go() {
    let cycles = std::env::var("HEDDLE_CYCLES")
        .map_or(CYCLES, |cycles| cycles.parse().expect("HEDDLE_CYCLES is a number"));
    let mut world = World::start(untouched());
    let flow = Paced::start(&world.pair("a", "b", Family::V4), Duration::from_millis(1));
    let load = Load::start(&world, "c", "d");
    let guests: Vec<Guest> = Kind::ALL
        .into_iter()
        .zip(101..)
        .map(|(kind, host)| Guest::new(&world, kind, host))
        .collect();
    let mut times = vec![Times::default(); guests.len()];
    come_and_go(&world, &guests, WARM_UP, &mut times);
    let containers: Vec<&str> = guests.iter().map(|guest| guest.container.netns_name()).collect();
    let pid = world.switch().pid();
    let (holds, loaded) = (at_rest(|| Holdings::of(&mut world, &containers)), Loaded::now());
    let memory = Memory::of(pid);
    times.fill(Times::default());
    come_and_go(&world, &guests, cycles, &mut times);
    let grown = Memory::of(pid).anonymous.saturating_sub(memory.anonymous);
    for (guest, times) in guests.iter().zip(&times) {
        println!("figure: {:?}, {cycles} times: {times}", guest.kind);
    }
    println!("figure: heddle's own memory grew by {} KiB of {memory:?}", grown >> 10);
    assert!(grown < GROWTH, "{grown} bytes more than {memory:?}");
    // The kernel gives sockets and programs back when nobody can be using them any more.
    settle(&holds, || Holdings::of(&mut world, &containers));
    eventually("programs and maps end", PATIENCE, || {
        let now = Loaded::now();
        (now.programs <= loaded.programs && now.maps <= loaded.maps).then_some(())
    });
    let (arrivals, moved) = (flow.stop(), load.stop());
    println!("figure: {} datagrams passed while {} MB of TCP did", arrivals.sent, moved >> 20);
    assert_eq!(arrivals.lost(), [0; 0], "of {}", arrivals.sent);
    assert!(moved > 1 << 20);
    is_forgotten(&mut world);
}

fn untouched() -> Plan {
    let ports = ["a", "b", "c", "d"];
    let plan = Plan::new().host("workers = [0, 1]").network("web", "");
    ports.iter().fold(plan, |plan, port| plan.port(port, ""))
}

/// A port that comes and goes.
struct Guest {
    kind: Kind,
    name: String,
    container: Container,
    address: IpAddr,
}

impl Guest {
    fn new(world: &World, kind: Kind, host: u8) -> Self {
        let (name, address) = (format!("guest{host}"), [10, 200, 1, host].into());
        let container = world.lab().container(&name).unwrap();
        if kind.is_existing() {
            plug(world.host(), &name, &container, &[address]);
        }
        Self { kind, name, container, address }
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "network": "web",
            "name": self.name,
            "kind": self.kind.word(),
            "address": [format!("{}/24", self.address)],
        });
        if let Some(io) = self.kind.io() {
            body["io"] = io.into();
        }
        if self.kind.is_existing() {
            body["device"] = near_end(&self.name).into();
            body["mac"] = far_mac(&self.name).to_string().into();
        } else {
            body["netns"] = self.container.netns_name().into();
        }
        body
    }
}

/// What requests took.
#[derive(Clone, Debug, Default)]
struct Times {
    added: Vec<Duration>,
    removed: Vec<Duration>,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (what, times) in [("added", &self.added), ("removed", &self.removed)] {
            let mut times = times.clone();
            times.sort_unstable();
            let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
            write!(f, "{what} in {median:.1?} (p50), {most:.1?} (most); ")?;
        }
        Ok(())
    }
}

fn come_and_go(world: &World, guests: &[Guest], cycles: usize, times: &mut [Times]) {
    let api = world.api();
    for cycle in 0..cycles {
        for (guest, times) in guests.iter().zip(times.iter_mut()) {
            let started = Instant::now();
            api.create("endpoints", &guest.body()).unwrap();
            times.added.push(started.elapsed());
            guest.container.wait_until_running(DEVICE, PATIENCE, world.cancel()).unwrap();
            let trips = ping(world.netns("a"), guest.address, 1, 56, world.cancel()).unwrap();
            assert_eq!(trips.lost(), 0, "{:?} does not answer in cycle {cycle}", guest.kind);
            let started = Instant::now();
            api.remove("endpoints", &guest.name).unwrap();
            times.removed.push(started.elapsed());
        }
    }
}

/// What heddle holds when two looks in a row find the same: a connection ends some time after its
/// answer.
fn at_rest(mut look: impl FnMut() -> Holdings) -> Holdings {
    let mut before = look();
    eventually("heddle comes to rest", PATIENCE, || {
        thread::sleep(Duration::from_millis(50));
        let now = look();
        (std::mem::replace(&mut before, now.clone()) == now).then_some(now)
    })
}

/// Waits until heddle holds what it held before.
fn settle(before: &Holdings, mut now: impl FnMut() -> Holdings) {
    let deadline = Instant::now() + PATIENCE;
    while now() != *before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(now(), *before);
}

/// The store knows nothing of the guests any more but which addresses they had, since these rest.
fn is_forgotten(world: &mut World) {
    world.end(End::Stopped);
    let state = Store::open(&world.lab().directory().join("state")).unwrap().load().unwrap();
    assert!(state.objects.is_empty(), "{:?}", state.objects);
    let mut devices: Vec<&str> = state.sites.iter().map(|site| &*site.alias).collect();
    devices.sort_unstable();
    let ports: Vec<&str> = devices.iter().filter_map(|alias| alias.rsplit(':').next()).collect();
    assert_eq!(ports, world.plan().ports().collect::<Vec<_>>());
    let held = state.leases.iter().filter_map(|record| record.lease.as_ref());
    let held = held.filter(|lease| lease.rests_until.is_none()).count();
    assert_eq!(held, Family::BOTH.len() * ports.len(), "{:?}", state.leases);
}
