//! Many ports on one host: what they cost, and that an idle one costs next to nothing.
//!
//! `HEDDLE_PORTS` says how many of each kind; the default takes some seconds.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use perf::lab::Cancel;
use perf::lab::host::{Container, Lab};
use perf::lab::process::cpu_time;
use perf::lab::switch::Switch;
use perf::lab::traffic::ping::ping;
use tests::{Kind, Memory, PATIENCE, Turn, eventually, heddle};

/// Ports, unless the environment says otherwise.
const PORTS: usize = 67;

/// How long heddle is watched that has nothing to do.
const WINDOW: Duration = Duration::from_secs(3);

#[test]
fn taps() {
    many(Kind::Tap);
}

#[test]
fn veths_by_packet_sockets() {
    many(Kind::VethPacket);
}

#[test]
fn veths_by_af_xdp() {
    many(Kind::VethXdp);
}

fn many(kind: Kind) {
    let ports = std::env::var("HEDDLE_PORTS")
        .map_or(PORTS, |ports| ports.parse().expect("HEDDLE_PORTS is a number"));
    let _turn = Turn::take();
    let lab = Lab::new(Cancel::new()).unwrap();
    let containers = ["host", "a", "b", "rest"].map(|name| silent(&lab, name));
    let [host, one, other, rest] = &containers;
    let place = |port: usize| [one, other].get(port).copied().unwrap_or(rest);
    let before = kernel_memory();
    let started = Instant::now();
    let text = configuration(&lab, host, kind, ports, place);
    let switch = Switch::start(&lab, host, &heddle(), &text).unwrap();
    let start = started.elapsed();
    for port in [0, 1, ports - 1] {
        let (device, container) = (device(port), place(port));
        container.wait_until_running(&device, PATIENCE, lab.cancel()).unwrap();
    }
    let (memory, files) = (Memory::of(switch.pid()), open_files(switch.pid()));
    let kernel = kernel_memory();
    let spent = when_idle(&switch);
    println!(
        "figure: {ports} of {kind:?}: ready after {start:.1?}; {} KiB of its own and {} of packet \
         memory in use, {files} open files; idle {spent:?} of CPU in {WINDOW:?}; the kernel has {}",
        memory.anonymous >> 10,
        memory.shared >> 10,
        difference(&before, &kernel)
    );
    assert!(spent < WINDOW / 20, "{spent:?} in {WINDOW:?}");
    let address = [10, 200, 0, 3].into();
    let trips = ping(one.netns(), address, 3, 56, lab.cancel()).unwrap();
    assert_eq!(trips.lost(), 0, "{}", drops(&lab));
}

/// A container whose kernel says nothing by itself.
fn silent(lab: &Lab, name: &str) -> Container {
    let container = lab.container(name).unwrap();
    let quiet = || fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    container.netns().run(quiet).unwrap().unwrap();
    container
}

fn device(port: usize) -> String {
    format!("eth{port}")
}

/// One network of ports, each with a device of its own.
fn configuration<'a>(
    lab: &Lab,
    host: &Container,
    kind: Kind,
    ports: usize,
    place: impl Fn(usize) -> &'a Container,
) -> String {
    let (directory, own) = (lab.directory().display(), host.own_netns());
    let mut text = format!(
        "[host]\nname = \"host\"\nmemory = \"512MiB\"\nstate = \"{directory}/state\"\n\
         api = \"{directory}/api.sock\"\nnetns = \"{own}\"\n\
         [[network]]\nname = \"web\"\ndriver = \"bridge\"\nsubnets = [\"10.200.0.0/16\"]\n"
    );
    for port in 0..ports {
        let (netns, device, word) = (place(port).netns_name(), device(port), kind.word());
        let (third, fourth) = ((port + 2) / 256, (port + 2) % 256);
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "[[port]]\nnetwork = \"web\"\nname = \"p{port}\"\nkind = \"{word}\"\n\
             netns = \"{netns}\"\ndevice = \"{device}\"\naddress = [\"10.200.{third}.{fourth}/16\"]\n"
        );
        let _ = kind.io().map_or(Ok(()), |io| writeln!(text, "io = \"{io}\""));
    }
    text
}

/// The CPU time of a window in which nothing happens any more.
fn when_idle(switch: &Switch) -> Duration {
    let spent = || cpu_time(switch.pid()).unwrap();
    eventually("heddle comes to rest", PATIENCE, || {
        let before = spent();
        thread::sleep(WINDOW / 10);
        (spent() - before < WINDOW / 100).then_some(())
    });
    let before = spent();
    thread::sleep(WINDOW);
    spent() - before
}

/// What heddle says has become of the packets.
fn drops(lab: &Lab) -> String {
    let (api, topic) = (lab.directory().join("api.sock"), ["show", "drops"]);
    let output = Command::new(heddle()).arg("--api").arg(api).args(topic).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// What the kernel uses for itself, in KiB by purpose (`/proc/meminfo`). It is the whole machine's.
fn kernel_memory() -> BTreeMap<&'static str, u64> {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let value = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let names = ["MemAvailable", "Slab", "VmallocUsed", "Percpu", "Shmem"];
    names.into_iter().map(|name| (name, value(name))).collect()
}

fn difference(before: &BTreeMap<&str, u64>, now: &BTreeMap<&str, u64>) -> String {
    let more = now.iter().map(|(name, now)| {
        let before = i128::from(before.get(name).copied().unwrap_or(0));
        format!("{name} {:+} KiB", i128::from(*now) - before)
    });
    more.collect::<Vec<_>>().join(", ")
}
