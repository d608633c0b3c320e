//! Captures of a running heddle, read back by Wireshark's tshark.

use std::io::Read;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use rustix::process::{Pid, Signal, kill_process};
use tests::{DEVICE, End, Family, PATIENCE, Paced, Plan, World, eventually};

const WHOLE: &[&str] = &["all"];

/// A `heddle capture` that goes on.
struct Capture {
    child: Child,
    file: PathBuf,
}

/// A frame, as tshark reads it.
#[derive(Debug, Default)]
struct Frame {
    port: String,
    outbound: bool,
    comment: String,
    length: u64,
    captured: u64,
    time: f64,
    icmp_type: String,
    udp_port: String,
    tcp_payload: u64,
}

impl Capture {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let file = world.lab().directory().join("capture.pcapng");
        let mut command = world.command(&["capture"]);
        command.args(arguments).arg("-w").arg(&file).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let capture = Self { child, file };
        world.wait_until_watched("capturing", true);
        capture
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Ends it by Ctrl-C; answers what it has said, and the frames that are in the file.
    fn finish(mut self) -> (String, Vec<Frame>) {
        self.signal(Signal::INT);
        (self.last_words(), read(&self.file))
    }

    /// Waits for its end; answers what it has said.
    fn last_words(&mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has tshark read a file, which it must find whole.
fn read(file: &Path) -> Vec<Frame> {
    const FIELDS: [&str; 9] = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.comment",
        "frame.len",
        "frame.cap_len",
        "frame.time_epoch",
        "icmp.type",
        "udp.dstport",
        "tcp.len",
    ];
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-n", "-T", "fields", "-E", "separator=|"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = command.output().expect("tshark");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("cut short"), "{complaints}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(frame).collect()
}

fn frame(line: &str) -> Frame {
    let fields: Vec<&str> = line.split('|').collect();
    let number = |at: usize| fields[at].parse().unwrap_or_else(|_| panic!("{at} in {line}"));
    Frame {
        port: fields[0].to_owned(),
        outbound: match fields[1] {
            "0x00000001" => false,
            "0x00000002" => true,
            other => panic!("direction {other} in {line}"),
        },
        comment: fields[2].to_owned(),
        length: number(3),
        captured: number(4),
        time: fields[5].parse().unwrap(),
        icmp_type: fields[6].to_owned(),
        udp_port: fields[7].to_owned(),
        tcp_payload: fields[8].parse().unwrap_or(0),
    }
}

/// What was seen at a port in one direction.
fn at<'a>(frames: &'a [Frame], port: &str, outbound: bool) -> impl Iterator<Item = &'a Frame> {
    frames.iter().filter(move |frame| frame.port == port && frame.outbound == outbound)
}

fn since_epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// So much over one connection, every byte checked.
fn transfer(world: &World, bytes: u64) -> Duration {
    let (amount, direction) = (Amount::BytesPerStream(bytes), Direction::ClientSends);
    let plan = Bulk { streams: 1, amount, direction, verify: Some(257) };
    let started = Instant::now();
    let done = tcp::bulk(&world.pair("a", "b", Family::V4), &plan, world.cancel()).unwrap();
    assert_eq!(done.checksum_errors(), 0);
    started.elapsed()
}

#[test]
fn traffic_is_seen_in_both_directions_at_both_ports() {
    const BYTES: u64 = (1 << 20) + 67;
    let world = World::start(Plan::pair("").host("workers = [0, 1]"));
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let began = since_epoch();
    let capture = Capture::start(&world, WHOLE);
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    transfer(&world, BYTES);
    let (said, frames) = capture.finish();
    assert_eq!(said.trim(), format!("{} frames", frames.len()), "and nothing is missed");
    for (port, outbound, kind) in
        [("a", false, "8"), ("b", true, "8"), ("b", false, "0"), ("a", true, "0")]
    {
        let echoes = at(&frames, port, outbound).filter(|frame| frame.icmp_type == kind);
        assert_eq!(echoes.count(), 3, "{port} {outbound} {kind}");
    }
    let payload = |port, outbound| at(&frames, port, outbound).map(|f| f.tcp_payload).sum::<u64>();
    assert!(payload("a", false) >= BYTES);
    assert_eq!(payload("a", false), payload("b", true));
    let large: Vec<_> = frames.iter().filter(|frame| frame.length > 1514).collect();
    assert!(!large.is_empty(), "super-packets are seen whole");
    for frame in large {
        assert!(frame.comment.starts_with("super-packet of segments of "), "{frame:?}");
    }
    let now = since_epoch();
    for frame in &frames {
        assert_eq!(frame.captured, frame.length);
        assert!(frame.time > began - 1.0 && frame.time < now + 1.0, "{began} {now} {frame:?}");
    }
}

#[test]
fn a_spoofed_frame_is_seen_with_the_reason_of_its_drop() {
    const PORT: u16 = 6767;
    let world = World::start(Plan::pair(""));
    // Afterwards the neighbour is known, and no ARP from the wrong address goes before the frame.
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let foreign = world.plan().address("b", Family::V4).to_string().replace(".1.3", ".1.67");
    world.netlink("a", |netlink| {
        let index = netlink.link(DEVICE)?.expect("the device").index;
        netlink.add_address(index, (foreign.parse().unwrap(), 32))
    });
    let capture = Capture::start(&world, &["all", "udp", "and", "l4", "port", "6767"]);
    let to = (world.plan().address("b", Family::V4), PORT);
    let send = |from: &str| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(&[7; 67], to).unwrap();
    };
    let before = world.drops("spoofed_ip");
    world.netns("a").run(|| send(&foreign)).unwrap();
    let own = world.plan().address("a", Family::V4).to_string();
    world.netns("a").run(|| send(&own)).unwrap();
    let dropped = || world.drops("spoofed_ip") - before;
    eventually("the drop", PATIENCE, || (dropped() == 1).then_some(()));
    let (_, frames) = capture.finish();
    let udp: Vec<_> = frames.iter().filter(|f| f.udp_port == PORT.to_string()).collect();
    let seen: Vec<_> = udp.iter().map(|f| (&*f.port, f.outbound)).collect();
    assert_eq!(seen, [("a", false), ("a", false), ("b", true)], "{frames:#?}");
    let comment = "dropped, spoofed_ip: The source IP address was not one of the endpoint's own.";
    assert!(udp[0].comment.starts_with(comment), "{:?}", udp[0]);
    assert!(!udp[1].comment.contains("dropped"), "{:?}", udp[1]);
}

#[test]
fn a_reader_that_does_not_read_harms_nobody_but_itself() {
    const BYTES: u64 = (16 << 20) + 67;
    let world = World::start(Plan::pair("").host("workers = [0, 1]"));
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let without = transfer(&world, BYTES);
    let capture = Capture::start(&world, &["all", "--buffer", "128KiB"]);
    capture.signal(Signal::STOP);
    let flow = Paced::start(&world.pair("b", "a", Family::V4), Duration::from_millis(1));
    let with = transfer(&world, BYTES);
    let arrivals = flow.stop();
    assert_eq!(arrivals.lost(), [0; 0]);
    println!("figure: TCP of 16 MiB in {without:?}, and {with:?} beside a capture that is stuck");
    capture.signal(Signal::CONT);
    let (said, frames) = capture.finish();
    let missed = said.split(" and ").nth(1).and_then(|rest| rest.split(' ').next());
    let missed: u64 = missed.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(missed > 0);
    let written = format!("{} frames, and {missed} that were missed", frames.len());
    assert!(said.starts_with(&written), "{said}");
}

#[test]
fn a_client_that_is_killed_ends_its_capture() {
    let world = World::start(Plan::pair(""));
    let capture = Capture::start(&world, WHOLE);
    let refused = world.call(&["capture", "a"]).unwrap_err();
    assert!(refused.contains("somebody captures already"), "{refused}");
    capture.signal(Signal::KILL);
    world.wait_until_watched("capturing", false);
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    drop(capture);
    // Its file ends with a whole block, whatever was under way.
    let again = Capture::start(&world, &["a", "icmp"]);
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let (_, frames) = again.finish();
    assert_eq!(frames.len(), 6, "{frames:#?}");
    assert!(frames.iter().all(|frame| frame.port == "a"));
}

#[test]
fn heddle_ends_a_capture_in_good_order_when_it_stops() {
    let mut world = World::start(Plan::pair(""));
    let mut capture = Capture::start(&world, &["a", "icmp"]);
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    world.end(End::Stopped);
    assert_eq!(capture.last_words().trim(), "6 frames");
    assert_eq!(read(&capture.file).len(), 6);
}

#[test]
fn people_get_a_line_per_frame_and_programs_a_pipe() {
    // One worker, so that the order is certain.
    let world = World::start(Plan::pair("").host("workers = [0]"));
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        world.wait_until_watched("capturing", true);
        assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let lines = String::from_utf8(run(&["capture", "all", "icmp", "--count", "4"])).unwrap();
    let [a, b] = ["a", "b"].map(|port| world.plan().address(port, Family::V4));
    let expected = [
        format!(" a in, 98 bytes: {} ip {a} > {b} icmp type 8 code 0", stations(&world, "a", "b")),
        format!(" b out, 98 bytes: {} ip {a} > {b} icmp type 8 code 0", stations(&world, "a", "b")),
        format!(" b in, 98 bytes: {} ip {b} > {a} icmp type 0 code 0", stations(&world, "b", "a")),
        format!(" a out, 98 bytes: {} ip {b} > {a} icmp type 0 code 0", stations(&world, "b", "a")),
    ];
    let found: Vec<&str> = lines.lines().collect();
    assert_eq!(found.len(), 4, "{lines}");
    for (line, expected) in found.iter().zip(expected) {
        assert!(line.contains(&expected), "{line}\n{expected}");
    }
    let bytes = run(&["capture", "b", "icmp", "--count", "2", "--snaplen", "34", "-w", "-"]);
    let file = world.lab().directory().join("piped.pcapng");
    std::fs::write(&file, bytes).unwrap();
    let sizes: Vec<_> = read(&file).iter().map(|frame| (frame.length, frame.captured)).collect();
    assert_eq!(sizes, [(98, 34); 2]);
}

fn stations(world: &World, from: &str, to: &str) -> String {
    let mac = |port| world.link(port).unwrap().mac;
    format!("{} > {}", mac(from), mac(to))
}
