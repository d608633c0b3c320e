//! A switch without traffic costs next to nothing, and is back at once.

use std::fs;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use perf::lab::bridge::{self, Member};
use perf::lab::process::cpu_time;
use perf::lab::traffic::Pair;
use tests::{DEVICE, Family, PATIENCE, Plan, World};

#[test]
fn an_idle_switch_sleeps() {
    const WINDOW: Duration = Duration::from_secs(3);
    let ports = ["a", "b", "c", "d"];
    let plan = ports.iter().fold(Plan::new().network("web", ""), |plan, port| plan.port(port, ""));
    let mut world = World::start(plan);
    let pid = world.switch().pid();
    let frames = || ports.iter().map(|port| world.device_counters(port).tx_packets).sum::<u64>();
    // Containers' kernels look for routers and report groups for some seconds: not idle yet.
    ports.iter().for_each(|port| look_for_no_routers(&world, port));
    let spent = (0..5).find_map(|_| {
        let (frames_before, before) = (frames(), cpu_time(pid).unwrap());
        thread::sleep(WINDOW);
        let spent = cpu_time(pid).unwrap() - before;
        (frames() == frames_before).then_some(spent)
    });
    let spent = spent.expect("a window without frames");
    println!("figure: {spent:?} of CPU in {WINDOW:?} without frames");
    assert!(spent < WINDOW / 100, "{spent:?} in {WINDOW:?}");
}

#[test]
fn a_sleeping_switch_wakes_at_once() {
    let world = World::start(Plan::pair(""));
    let ours = after_silence(&world.pair("a", "b", Family::V4));
    let members = ["c", "d"].map(|name| world.lab().container(name).unwrap());
    let addresses: [IpNet; 2] = ["10.201.0.1/24", "10.201.0.2/24"].map(|a| a.parse().unwrap());
    let plugged = members.iter().zip(&addresses).map(|(container, address)| Member {
        container,
        device: DEVICE,
        addresses: std::slice::from_ref(address),
    });
    bridge::connect(world.lab(), "bridge", 1500, &plugged.collect::<Vec<_>>()).unwrap();
    let [client, server] = &members;
    let address = addresses[1].addr();
    let theirs = after_silence(&Pair { client: client.netns(), server: server.netns(), address });
    // What both have in common is the containers' own kernels and wake-ups.
    let wakes = ours.saturating_sub(theirs) / 2;
    println!(
        "figure: after 50 ms of silence a frame is {wakes:?} later than by the kernel's bridge \
         (half the difference of round trips, p50: {ours:?} and {theirs:?})"
    );
    assert!(wakes < Duration::from_millis(2), "{wakes:?}");
}

/// The median round trip of requests that each follow a silence.
fn after_silence(pair: &Pair<'_>) -> Duration {
    const ROUNDS: usize = 67;
    const SILENCE: Duration = Duration::from_millis(50);
    let server = pair.server.run(|| UdpSocket::bind((pair.address, 0)).unwrap()).unwrap();
    let address = server.local_addr().unwrap();
    let client = pair.client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    client.connect(address).unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut times = thread::scope(|scope| {
        scope.spawn(|| echo(&server, ROUNDS + 1));
        // The first one needs ARP.
        ask(&client);
        let after_silence = |_| {
            thread::sleep(SILENCE);
            ask(&client)
        };
        (0..ROUNDS).map(after_silence).collect::<Vec<_>>()
    });
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn look_for_no_routers(world: &World, port: &str) {
    let setting = format!("/proc/sys/net/ipv6/conf/{DEVICE}/router_solicitations");
    world.netns(port).run(|| fs::write(setting, "0")).unwrap().unwrap();
}

fn ask(client: &UdpSocket) -> Duration {
    let started = Instant::now();
    client.send(b"67").unwrap();
    client.recv(&mut [0; 8]).unwrap();
    started.elapsed()
}

fn echo(server: &UdpSocket, requests: usize) {
    let mut buffer = [0; 8];
    for _ in 0..requests {
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], from).unwrap();
    }
}
