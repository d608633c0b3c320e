//! One parent with an untagged network, a VLAN, and a trunk of both and one more: what comes in
//! tagged or not, and how it looks where it leaves.

use super::*;

const CONFIG: &str = r#"
[host]
memory = "64MiB"

[[network]]
name    = "house"
driver  = "bridge"
parent  = "eth1"
subnets = ["192.168.57.0/24"]
gateway = "192.168.57.11"

[[network]]
name    = "lan10"
driver  = "vlan"
parent  = "eth1"
vlan    = 10
subnets = ["10.0.10.0/24"]

[[network]]
name   = "all"
driver = "vlan"
parent = "eth1"
trunk  = [10, 20]
native = 1

[[port]]
network = "house"
name    = "h"
kind    = "memory"
address = "192.168.57.70"
mac     = "02:00:00:00:57:70"

[[port]]
network = "lan10"
name    = "a"
kind    = "memory"
address = "10.0.10.2"
mac     = "02:00:00:00:10:02"

[[port]]
network = "lan10"
name    = "b"
kind    = "memory"
address = "10.0.10.3"
mac     = "02:00:00:00:10:03"

[[port]]
network = "all"
name    = "vm"
kind    = "veth"
netns   = "vm"
mac     = "02:00:00:00:99:01"

[[port]]
network = "all"
name    = "router"
kind    = "device"
device  = "router0"
mac     = "02:00:00:00:99:02"
"#;

const H: [u8; 6] = [2, 0, 0, 0, 0x57, 0x70];
const A: [u8; 6] = [2, 0, 0, 0, 0x10, 2];
const VM: [u8; 6] = [2, 0, 0, 0, 0x99, 1];
const ALL: [u8; 6] = [0xff; 6];
/// heddle itself, in `house`.
const HEDDLE: [u8; 6] = [2, 0x42, 192, 168, 57, 11];
/// Stations on the wire, one in each VLAN.
const UNTAGGED: [u8; 6] = [2, 0, 0, 0, 1, 1];
const IN_10: [u8; 6] = [2, 0, 0, 0, 1, 10];
const IN_20: [u8; 6] = [2, 0, 0, 0, 1, 20];

const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;

/// The frame with a tag in front of everything else.
fn tagged(protocol: u16, priority: u16, vid: u16, frame: &[u8]) -> Vec<u8> {
    let tag = [protocol.to_be_bytes(), (priority << 13 | vid).to_be_bytes()].concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

fn data(source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
    let address = |mac: [u8; 6]| match mac {
        H => [192, 168, 57, 70],
        A => [10, 0, 10, 2],
        ALL => [255; 4],
        other => [192, 168, 57, other[5]],
    };
    udp(source, destination, address(source), address(destination))
}

fn ask_heddle() -> Vec<u8> {
    arp_request(UNTAGGED, [192, 168, 57, 1], [192, 168, 57, 11])
}

const fn forward(port: &'static str, index: u64, to: &'static [&'static str]) -> Expected {
    (port, index, "forward", None, to)
}

const fn flood(port: &'static str, index: u64, to: &'static [&'static str]) -> Expected {
    (port, index, "flood", None, to)
}

const fn drop(port: &'static str, index: u64, reason: &'static str) -> Expected {
    (port, index, "drop", Some(reason), &[])
}

/// What comes in, one nanosecond after the other, and what it comes to.
fn script() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let c = |vid, frame: &[u8]| tagged(CUSTOMER, 0, vid, frame);
    let wire: Vec<(Vec<u8>, Expected)> = vec![
        (data(UNTAGGED, ALL), flood("eth1", 0, &["h", "vm", "router"])),
        (tagged(CUSTOMER, 5, 10, &data(IN_10, A)), forward("eth1", 1, &["a"])),
        (tagged(SERVICE, 3, 20, &data(IN_20, ALL)), flood("eth1", 2, &["vm", "router"])),
        (c(30, &data(IN_20, ALL)), drop("eth1", 3, "unknown_vlan")),
        // The native VLAN is untagged, and may say what it is.
        (c(1, &data(UNTAGGED, H)), forward("eth1", 4, &["h"])),
        (tagged(CUSTOMER, 7, 0, &data(UNTAGGED, H)), forward("eth1", 5, &["h"])),
        // What is behind the first tag is carried, but not where it would be the first.
        (c(10, &c(7, &data(IN_10, ALL))), flood("eth1", 6, &["a", "b", "vm", "router"])),
        (c(1, &c(7, &data(UNTAGGED, ALL))), ("eth1", 7, "flood", Some("native_tag"), &["h"])),
        (ask_heddle(), ("eth1", 8, "reply", None, &["eth1"])),
        (c(1, &ask_heddle()), ("eth1", 9, "reply", None, &["eth1"])),
    ];
    let back: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("a", data(A, IN_10), forward("a", 0, &["eth1"])),
        ("a", data(A, ALL), flood("a", 1, &["eth1", "b", "vm", "router"])),
        ("a", c(10, &data(A, ALL)), drop("a", 2, "own_vlan")),
        ("h", data(H, UNTAGGED), forward("h", 0, &["eth1"])),
        ("vm", data(VM, UNTAGGED), forward("vm", 0, &["eth1"])),
        ("vm", tagged(CUSTOMER, 6, 10, &data(VM, A)), forward("vm", 1, &["a"])),
        ("vm", tagged(SERVICE, 2, 20, &data(VM, IN_20)), forward("vm", 2, &["eth1"])),
        ("vm", c(30, &data(VM, ALL)), drop("vm", 3, "unknown_vlan")),
        // A station is looked for in its own VLAN only.
        ("vm", c(20, &data(VM, IN_10)), flood("vm", 4, &["eth1", "router"])),
        // Heard in VLAN 10 before, behind a trunk.
        ("a", data(A, VM), forward("a", 3, &["vm"])),
    ];
    wire.into_iter().map(|(frame, fate)| ("eth1", frame, fate)).chain(back).collect()
}

#[test]
fn a_parents_vlans_are_told_apart_and_tagged_again() {
    let (mut shots, mut fates) = (Vec::new(), Vec::new());
    for (at, (port, frame, fate)) in (0..).zip(script()) {
        shots.push((port, at, frame));
        fates.push(fate);
    }
    let scene = Scene::with(CONFIG, &shots);
    let (summary, lines) = scene.run();
    assert_fates(&shots, &fates, &lines);
    assert_eq!(summary.ports.values().find(|port| port.name == "eth1").unwrap().frames_in, 10);

    let left_by = |port: &str| -> Vec<Vec<u8>> {
        scene.left_by(port).into_iter().map(|(_, frame)| frame).collect()
    };
    let c = |vid, frame: &[u8]| tagged(CUSTOMER, 0, vid, frame);
    // Access: never a tag of its network.
    let nested = c(7, &data(IN_10, ALL));
    let untagged = [data(UNTAGGED, ALL), data(UNTAGGED, H), data(UNTAGGED, H)];
    assert_eq!(left_by("h")[..3], untagged);
    assert_eq!(left_by("h")[3..], [c(7, &data(UNTAGGED, ALL))]);
    assert_eq!(left_by("a"), [data(IN_10, A), nested.clone(), data(VM, A)]);
    assert_eq!(left_by("b"), [nested.clone(), data(A, ALL)]);
    // Trunk: tagged as it came, the native VLAN not.
    let service = tagged(SERVICE, 3, 20, &data(IN_20, ALL));
    let to_trunk = [data(UNTAGGED, ALL), service, c(10, &nested), c(10, &data(A, ALL))];
    assert_eq!(left_by("vm")[..4], to_trunk);
    assert_eq!(left_by("vm")[4..], [c(10, &data(A, VM))]);
    assert_eq!(left_by("router")[..4], to_trunk);
    assert_eq!(left_by("router")[4..], [c(20, &data(VM, IN_10))]);
    // And back on the wire.
    let wire = left_by("eth1");
    for reply in &wire[..2] {
        assert_eq!((&reply[..6], &reply[6..12]), (&UNTAGGED[..], &HEDDLE[..]));
        assert_eq!(reply[12..14], [8, 6]);
    }
    let back = [
        c(10, &data(A, IN_10)),
        c(10, &data(A, ALL)),
        data(H, UNTAGGED),
        data(VM, UNTAGGED),
        tagged(SERVICE, 2, 20, &data(VM, IN_20)),
        c(20, &data(VM, IN_10)),
    ];
    assert_eq!(wire[2..], back);
}
