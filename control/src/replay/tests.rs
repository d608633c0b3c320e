//! A small corpus: frames by etherparse, captures by pcap-file, replayed under a configuration of
//! three networks.

mod vlans;

use std::net::Ipv6Addr;
use std::time::Duration;

use etherparse::icmpv6::TYPE_NEIGHBOR_SOLICITATION;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use pcap_file::TsResolution;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const CONFIG: &str = r#"
[host]
memory = "64MiB"

[[network]]
name    = "web"
driver  = "bridge"
subnets = ["10.0.9.0/24", "fd00:9::/64"]

[[network]]
name       = "lan"
driver     = "bridge"
anti_spoof = false

[[network]]
name     = "alone"
driver   = "bridge"
subnets  = ["10.0.8.0/24"]
isolated = true
"#;

/// The endpoints of each network, in the order of their numbers.
const PORTS: [(&str, &[&str]); 3] =
    [("alone", &["alone-1", "alone-2"]), ("lan", &["a", "b", "c"]), ("web", &["w1", "w2", "w3"])];

const W1: [u8; 6] = [2, 0, 0, 0, 9, 1];
const W2: [u8; 6] = [2, 0, 0, 0, 9, 2];
const GATEWAY: [u8; 6] = [2, 0x42, 10, 0, 9, 1];
/// A station behind a port of `lan` that the configuration does not know.
const STRANGER: [u8; 6] = [2, 0, 0, 0, 7, 7];
const V6: [u8; 16] = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x11).octets();
const V6_GATEWAY: [u8; 16] = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1).octets();

/// The time of all captures' beginning, in seconds.
const START: u64 = 1_700_000_000;

/// One frame of the corpus: port, nanoseconds since the start, bytes.
type Shot = (&'static str, u64, Vec<u8>);

struct Scene {
    dir: TempDir,
    options: Options,
}

impl Scene {
    /// Writes the configuration, and one capture for each port that frames come in by.
    fn new(shots: &[Shot]) -> Self {
        Self::with(&configuration(), shots)
    }

    fn with(configuration: &str, shots: &[Shot]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("heddle.toml");
        std::fs::write(&config, configuration).unwrap();
        let mut inputs: Vec<Input> = Vec::new();
        for &(port, ..) in shots {
            if inputs.iter().all(|input| input.port != port) {
                let file = dir.path().join(format!("{port}.in"));
                std::fs::write(&file, capture(shots.iter().filter(|shot| shot.0 == port))).unwrap();
                inputs.push(Input { port: port.to_owned(), file });
            }
        }
        let out = dir.path().join("out");
        let options = Options { config, inputs, out, json: true };
        Self { dir, options }
    }

    fn run(&self) -> (Summary, String) {
        let mut lines = Vec::new();
        let summary = run(&self.options, &mut lines).unwrap();
        (summary, String::from_utf8(lines).unwrap())
    }

    /// What left by a port: nanoseconds since the start, and bytes.
    fn left_by(&self, port: &str) -> Vec<(u64, Vec<u8>)> {
        let file = File::open(self.options.out.join(format!("{port}.pcap"))).unwrap();
        let mut reader = PcapReader::new(file).unwrap();
        let mut frames = Vec::new();
        while let Some(record) = reader.next_packet() {
            let record = record.unwrap();
            let time = record.timestamp - Duration::from_secs(START);
            frames.push((u64::try_from(time.as_nanos()).unwrap(), record.data.into_owned()));
        }
        frames
    }
}

fn configuration() -> String {
    let mut text = CONFIG.to_owned();
    for (network, ports) in PORTS {
        for (number, port) in (1..).zip(ports) {
            let third = if network == "alone" { 8 } else { 9 };
            let (address, mac) = match network {
                "lan" => (String::new(), format!("02:00:00:00:07:0{number}")),
                "web" => (
                    format!("address = [\"10.0.9.1{number}\", \"fd00:9::1{number}\"]"),
                    format!("02:00:00:00:09:0{number}"),
                ),
                _ => (
                    format!("address = [\"10.0.8.1{number}\"]"),
                    format!("02:00:00:00:0{third}:0{number}"),
                ),
            };
            text += &format!(
                "[[port]]\nnetwork = \"{network}\"\nname = \"{port}\"\nkind = \"memory\"\n\
                 mac = \"{mac}\"\n{address}\n"
            );
        }
    }
    text
}

fn capture<'a>(shots: impl Iterator<Item = &'a Shot>) -> Vec<u8> {
    let header = PcapHeader { ts_resolution: TsResolution::NanoSecond, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (_, at, bytes) in shots {
        let time = Duration::from_secs(START) + Duration::from_nanos(*at);
        let length = u32::try_from(bytes.len()).unwrap();
        writer.write_packet(&PcapPacket::new(time, length, bytes)).unwrap();
    }
    writer.into_writer()
}

/// A UDP datagram of an odd length.
fn udp(source: [u8; 6], destination: [u8; 6], from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(source, destination).ipv4(from, to, 64).udp(67, 257);
    builder.write(&mut frame, &[7; 67]).unwrap();
    frame
}

fn arp_request(source: [u8; 6], from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &source,
        &from,
        &[0; 6],
        &to,
    );
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(source, [0xff; 6]).arp(arp.unwrap()).write(&mut frame).unwrap();
    frame
}

fn echo(source: [u8; 6], from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(source, GATEWAY).ipv4(from, to, 64);
    builder.icmpv4_echo_request(1, 2).write(&mut frame, b"odd").unwrap();
    frame
}

fn solicitation(source: [u8; 6], from: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let body = [&target[..], &[1, 1], &source].concat();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1).octets();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(source, [0x33, 0x33, 0xff, 0, 0, 1])
        .ipv6(from, group, 255)
        .icmpv6_raw(TYPE_NEIGHBOR_SOLICITATION, 0, [0; 4])
        .write(&mut frame, &body)
        .unwrap();
    frame
}

fn echo_v6(source: [u8; 6], from: [u8; 16]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(source, GATEWAY).ipv6(from, V6_GATEWAY, 64);
    builder.icmpv6_echo_request(1, 2).write(&mut frame, b"odd").unwrap();
    frame
}

const SECOND: u64 = 1_000_000_000;

/// Every fate of a frame in the three networks, ageing included.
fn corpus() -> Vec<Shot> {
    let (w1, gateway) = ([10, 0, 9, 11], [10, 0, 9, 1]);
    let known = [2, 0, 0, 0, 7, 2];
    let alone = [2, 0, 0, 0, 8, 1];
    vec![
        ("w1", 0, udp(W1, W2, w1, [10, 0, 9, 12])),
        ("w1", 1, arp_request(W1, w1, [10, 0, 9, 13])),
        ("w1", 2, arp_request(W1, w1, gateway)),
        ("w1", 3, solicitation(W1, V6, V6_GATEWAY)),
        ("w1", 4, echo(W1, w1, gateway)),
        ("w1", 5, echo_v6(W1, V6)),
        ("w1", 6, udp(W2, W1, w1, [10, 0, 9, 12])),
        ("w1", 7, udp(W1, W2, [10, 0, 9, 12], [10, 0, 9, 12])),
        ("w1", 8, udp(W1, GATEWAY, w1, gateway)),
        ("w1", 9, udp(W1, GATEWAY, w1, [192, 0, 2, 1])),
        ("w1", 10, vec![0xff; 13]),
        ("w1", 11, udp(W1, W1, w1, w1)),
        ("alone-1", 20, udp(alone, [2, 0, 0, 0, 8, 2], [10, 0, 8, 11], [10, 0, 8, 12])),
        ("alone-1", 21, arp_request(alone, [10, 0, 8, 11], [10, 0, 8, 12])),
        ("a", 30, udp(STRANGER, known, [192, 0, 2, 7], [192, 0, 2, 2])),
        ("b", SECOND, udp(known, STRANGER, [192, 0, 2, 2], [192, 0, 2, 7])),
        ("b", 300 * SECOND, udp(known, STRANGER, [192, 0, 2, 2], [192, 0, 2, 7])),
        ("b", 301 * SECOND, udp(known, STRANGER, [192, 0, 2, 2], [192, 0, 2, 7])),
        ("c", 301 * SECOND, udp(STRANGER, known, [192, 0, 2, 7], [192, 0, 2, 2])),
        ("b", 302 * SECOND, udp(known, STRANGER, [192, 0, 2, 2], [192, 0, 2, 7])),
    ]
}

/// What one frame comes to: port, index, verdict, reason, and where copies went.
type Expected = (&'static str, u64, &'static str, Option<&'static str>, &'static [&'static str]);

/// What the corpus comes to.
const FATES: [Expected; 20] = [
    ("w1", 0, "forward", None, &["w2"]),
    ("w1", 1, "flood", None, &["w2", "w3"]),
    ("w1", 2, "reply", None, &["w1"]),
    ("w1", 3, "reply", None, &["w1"]),
    ("w1", 4, "reply", None, &["w1"]),
    ("w1", 5, "reply", None, &["w1"]),
    ("w1", 6, "drop", Some("spoofed_mac"), &[]),
    ("w1", 7, "drop", Some("spoofed_ip"), &[]),
    ("w1", 8, "punt", None, &[]),
    ("w1", 9, "drop", Some("no_route"), &[]),
    ("w1", 10, "drop", Some("runt"), &[]),
    ("w1", 11, "drop", Some("hairpin"), &[]),
    ("alone-1", 0, "drop", Some("isolated"), &[]),
    ("alone-1", 1, "drop", Some("no_receiver"), &[]),
    ("a", 0, "forward", None, &["b"]),
    ("b", 0, "forward", None, &["a"]),
    ("b", 1, "forward", None, &["a"]),
    // Heard 301 s ago, which is more than the network's ageing time.
    ("b", 2, "flood", None, &["a", "c"]),
    ("c", 0, "forward", None, &["b"]),
    ("b", 3, "forward", None, &["c"]),
];

/// Compares the lines with what frames should come to, in the order of their times.
#[track_caller]
fn assert_fates(shots: &[Shot], fates: &[Expected], lines: &str) {
    let mut timed: Vec<_> = shots.iter().map(|shot| shot.1).collect();
    timed.sort_unstable();
    let expected = timed.iter().zip(fates).map(|(at, (port, index, verdict, reason, to))| {
        let time = START * SECOND + at;
        json!({ "time": time, "port": port, "index": index, "verdict": verdict, "reason": reason,
            "to": to })
    });
    let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found, expected.collect::<Vec<_>>());
    assert_eq!(shots.len(), fates.len());
}

#[test]
fn every_frame_gets_its_line() {
    let corpus = corpus();
    let scene = Scene::new(&corpus);
    let (summary, lines) = scene.run();
    assert_fates(&corpus, &FATES, &lines);
    assert_eq!(summary.punted, 1);
    assert_eq!(summary.dropped.values().sum::<u64>(), 7);
    let text = summary.to_string();
    assert!(text.starts_with("302.000000000 s of frames\nPORT "), "{text}");
    assert!(text.contains("1 dropped, spoofed_mac: The source MAC"), "{text}");
}

#[test]
fn what_leaves_is_in_the_captures() {
    let scene = Scene::new(&corpus());
    scene.run();
    let corpus = corpus();
    let untouched = |shots: &[usize]| -> Vec<_> {
        shots.iter().map(|&shot| (corpus[shot].1, corpus[shot].2.clone())).collect()
    };
    assert_eq!(scene.left_by("w2"), untouched(&[0, 1]));
    assert_eq!(scene.left_by("w3"), untouched(&[1]));
    assert_eq!(scene.left_by("alone-2"), []);
    assert_eq!(scene.left_by("a"), untouched(&[15, 16, 17]));
    assert_eq!(scene.left_by("c"), untouched(&[17, 19]));
    // In place, and by the host stack.
    let replies = scene.left_by("w1");
    assert_eq!(replies.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2, 3, 4, 5, 8]);
    for (_, reply) in replies {
        assert_eq!((&reply[..6], &reply[6..12]), (&W1[..], &GATEWAY[..]));
    }
}

#[test]
fn two_runs_give_the_same_bytes() {
    let mut runs = (0..2).map(|_| {
        let scene = Scene::new(&corpus());
        let (summary, lines) = scene.run();
        let read =
            |port: &&str| std::fs::read(scene.options.out.join(format!("{port}.pcap"))).unwrap();
        let captures: Vec<_> = PORTS.iter().flat_map(|(_, ports)| ports.iter().map(read)).collect();
        (summary, lines, captures)
    });
    let (first, second) = (runs.next().unwrap(), runs.next().unwrap());
    assert!(first == second);
    assert_eq!(first.2.len(), 8);
}

#[test]
fn equal_times_go_by_the_order_of_the_arguments() {
    let frame = |source: u8| udp([2, 0, 0, 0, 7, source], [0xff; 6], [0; 4], [255; 4]);
    let shots =
        vec![("b", 5, frame(2)), ("a", 5, frame(1)), ("a", 4, frame(1)), ("c", 5, frame(3))];
    let mut scene = Scene::new(&shots);
    let order = |scene: &Scene| -> Vec<String> {
        let (_, lines) = scene.run();
        let port = |line| serde_json::from_str::<Value>(line).unwrap()["port"].to_string();
        lines.lines().map(port).collect()
    };
    // A time that steps back inside a capture counts as the one before.
    assert_eq!(order(&scene), ["\"b\"", "\"a\"", "\"a\"", "\"c\""]);
    scene.options.inputs.reverse();
    assert_eq!(order(&scene), ["\"c\"", "\"a\"", "\"a\"", "\"b\""]);
}

#[test]
fn mistakes_are_named() {
    let mut scene = Scene::new(&corpus());
    let fails = |options: &Options| run(options, &mut Vec::new()).unwrap_err().to_string();
    scene.options.inputs[0].port = "w9".to_owned();
    let error = fails(&scene.options);
    assert!(error.starts_with("the configuration has no port `w9`; it has a, alone-1,"), "{error}");

    scene.options.inputs[0].port = "w1".to_owned();
    let snapped = scene.dir.path().join("snapped.pcap");
    let mut file = capture(corpus()[..2].iter());
    let second_original_length = file.len() - corpus()[1].2.len() - 4;
    file[second_original_length] = 1;
    std::fs::write(&snapped, file).unwrap();
    scene.options.inputs[0].file = snapped.clone();
    let error = fails(&scene.options);
    assert!(
        error.starts_with(&format!("{}: record 2: it holds 42 of", snapped.display())),
        "{error}"
    );

    scene.options.inputs[0].file = scene.dir.path().join("none.pcap");
    assert!(fails(&scene.options).contains("none.pcap: No such file"));
    assert!("web-1".parse::<Input>().is_err() && "=x".parse::<Input>().is_err());
    let input = Input { port: "web-1".to_owned(), file: "a=b.pcap".into() };
    assert_eq!("web-1=a=b.pcap".parse(), Ok(input));
}

#[test]
fn a_capture_is_never_written_over_itself() {
    let mut scene = Scene::new(&corpus());
    std::fs::create_dir(&scene.options.out).unwrap();
    let file = scene.options.out.join("w2.pcap");
    std::fs::rename(&scene.options.inputs[0].file, &file).unwrap();
    let before = std::fs::read(&file).unwrap();
    scene.options.inputs[0].file = scene.dir.path().join("out/../out/w2.pcap");
    assert!(matches!(run(&scene.options, &mut Vec::new()), Err(Error::Overwritten(_))));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}
