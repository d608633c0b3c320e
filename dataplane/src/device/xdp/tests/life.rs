//! The life of an attachment: attached, left behind, adopted, replaced, swept, detached.

use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData, MapInfo};
use rustix::net::{AddressFamily, SocketType, socket};

use super::super::*;
use super::{Scene, add_veth};
use crate::device::netlink::Netlink;
use crate::ids::MacAddr;

const DEADLINE: Duration = Duration::from_secs(10);

const STATION: Rule = Rule::Station(MacAddr([2, 0, 0, 0, 0, 1]));
const OTHER_STATION: Rule = Rule::Station(MacAddr([2, 0, 0, 0, 0, 2]));

fn attached(pins: &Pins, index: u32) -> (Program, Attached) {
    let mut program = Program::load(pins, index).unwrap();
    let attached = program.attach(None).unwrap();
    (program, attached)
}

/// Makes the peer say something: a device that comes up asks for its neighbours.
fn provoke() {
    let mut netlink = Netlink::open().unwrap();
    let peer = netlink.link("b0").unwrap().unwrap().index;
    netlink.set_down(peer).unwrap();
    netlink.set_up(peer).unwrap();
}

fn wait_for(program: &Program, enough: impl Fn(Counters) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !enough(program.counters().unwrap()) {
        assert!(Instant::now() < deadline, "{:?}", program.counters());
        std::thread::yield_now();
    }
}

#[test]
fn a_clean_detach_leaves_nothing() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        for mode in [None, Some(Mode::Skb), Some(Mode::Driver)] {
            let mut program = Program::load(&pins, scene.index).unwrap();
            let attached = program.attach(mode).unwrap();
            let mode = mode.unwrap_or(Mode::Driver);
            assert_eq!(attached, Attached { mode, adoption: Adoption::New });
            assert_eq!(scene.occupant().unwrap().mode, mode);
            assert_eq!(scene.pinned(), ["counters", "link", "sockets"]);
            program.detach().unwrap();
            assert_eq!(scene.occupant(), None);
            assert!(scene.pinned().is_empty());
        }
    });
}

#[test]
fn an_abandoned_program_leaves_nothing_either() {
    let scene = Scene::new();
    let (pins, program) = scene.run(|| {
        let pins = scene.pins();
        let (program, _) = attached(&pins, scene.index);
        (pins, program)
    });
    // Outside of the device's namespace, where detaching can't tell whether it is done.
    program.abandon().unwrap();
    assert!(scene.pinned().is_empty());
    let deadline = Instant::now() + DEADLINE;
    while scene.occupant().is_some() {
        assert!(Instant::now() < deadline, "the program is still there");
    }
    pins.close().unwrap();
}

#[test]
fn what_was_loaded_only_leaves_nothing() {
    let scene = Scene::new();
    scene.run(|| {
        drop(Program::load_with_rules(&scene.pins(), scene.index).unwrap());
        assert!(scene.pinned().is_empty());
    });
}

#[test]
fn frames_go_to_sockets_or_nowhere() {
    let scene = Scene::new();
    scene.run(|| {
        let (mut program, _) = attached(&scene.pins(), scene.index);
        provoke();
        wait_for(&program, |counters| counters.unserved > 0);
        let first = socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
        program.insert_socket(0, &first).unwrap();
        provoke();
        wait_for(&program, |counters| counters.taken > 0);
        program.remove_socket(0).unwrap();
        program.remove_socket(0).unwrap();
        let unserved = program.counters().unwrap().unserved;
        provoke();
        wait_for(&program, |counters| counters.unserved > unserved);
        assert_eq!(program.counters().unwrap().passed, 0);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = program.insert_socket(0, &udp).unwrap_err();
        assert!(
            error.to_string().contains("program of a0: `bpf_map_update_elem` failed"),
            "{error}"
        );
        assert!(program.insert_socket(256, &first).is_err());
        program.detach().unwrap();
    });
}

#[test]
fn a_dead_heddle_is_silent_and_its_successor_goes_on() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let (first, _) = attached(&pins, scene.index);
        provoke();
        wait_for(&first, |counters| counters.unserved > 0);
        let before = first.counters().unwrap();
        let there = scene.occupant().unwrap();
        // What the kernel does with the descriptors of a process that ends.
        drop(first);
        provoke();
        assert_eq!(scene.occupant(), Some(there));
        let (second, attached) = attached(&pins, scene.index);
        assert_eq!(attached, Attached { mode: Mode::Driver, adoption: Adoption::Kept });
        assert_eq!(scene.occupant(), Some(there));
        wait_for(&second, |counters| counters.unserved > before.unserved);
        assert_eq!(second.counters().unwrap().passed, 0, "the host saw none");
        second.detach().unwrap();
        assert_eq!(scene.occupant(), None);
    });
}

#[test]
fn another_version_replaces_the_program_and_keeps_the_maps() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let (first, _) = attached(&pins, scene.index);
        provoke();
        wait_for(&first, |counters| counters.unserved > 0);
        let counted = first.counters().unwrap().unserved;
        let old = scene.occupant().unwrap();
        drop(first);
        let mut second = Program::load_with_rules(&pins, scene.index).unwrap();
        assert_eq!(second.attach(None).unwrap().adoption, Adoption::Replaced);
        assert_ne!(scene.occupant().unwrap().program, old.program);
        assert!(second.counters().unwrap().unserved >= counted, "the same counters");
        assert_eq!(scene.pinned().len(), 9);
        drop(second);
        // And back: maps of the other program go.
        let (third, attached) = attached(&pins, scene.index);
        assert_eq!(attached.adoption, Adoption::Replaced);
        assert_eq!(scene.pinned(), ["counters", "link", "sockets"]);
        third.detach().unwrap();
    });
}

#[test]
fn maps_of_another_shape_are_made_anew() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let mut first = Program::load_with_rules(&pins, scene.index).unwrap();
        first.set_rules([STATION]).unwrap();
        first.attach(None).unwrap();
        let file = first.pins.file("stations");
        drop(first);
        std::fs::remove_file(&file).unwrap();
        HashMap::<MapData, u32, u32>::create(3, 0).unwrap().pin(&file).unwrap();
        let mut second = Program::load_with_rules(&pins, scene.index).unwrap();
        second.set_rules([STATION]).unwrap();
        // Its instructions are the same, but not its maps.
        assert_eq!(second.attach(None).unwrap().adoption, Adoption::Replaced);
        assert_eq!(MapInfo::from_pin(&file).unwrap().max_entries(), 8192);
        second.detach().unwrap();
    });
}

#[test]
fn rules_of_an_earlier_heddle_hold_until_they_change() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let mut first = Program::load_with_rules(&pins, scene.index).unwrap();
        first.set_rules([STATION]).unwrap();
        first.add_rule(OTHER_STATION).unwrap();
        first.attach(None).unwrap();
        drop(first);
        let mut second = Program::load_with_rules(&pins, scene.index).unwrap();
        assert_eq!(second.attach(None).unwrap().adoption, Adoption::Kept);
        let stations = |program: &Program| {
            let map = MapData::from_pin(program.pins.file("stations")).unwrap();
            let map = HashMap::<_, [u8; 8], u32>::try_from(aya::maps::Map::HashMap(map)).unwrap();
            map.keys().count()
        };
        assert_eq!((stations(&second), second.rules().len()), (2, 0));
        second.set_rules([STATION, OTHER_STATION]).unwrap();
        second.remove_rule(&STATION).unwrap();
        assert_eq!((stations(&second), second.rules().len()), (1, 1));
        let group = second.add_rule(Rule::Station(MacAddr::BROADCAST)).unwrap_err();
        assert!(
            group.to_string().starts_with("cannot set the XDP rules of a0: ff:ff:ff"),
            "{group}"
        );
        assert_eq!(stations(&second), 1);
        second.detach().unwrap();
    });
}

#[test]
fn all_that_there_may_be_fits_twice() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let mut program = Program::load_with_rules(&pins, scene.index).unwrap();
        let stations = |from: u64| {
            let macs = (from..).take(MOST_STATIONS).map(MacAddr::from_u64);
            macs.map(Rule::Station).collect::<Vec<_>>()
        };
        program.set_rules(stations(0)).unwrap();
        program.set_rules(stations(1 << 20)).unwrap();
        let room = MapInfo::from_pin(program.pins.file("stations")).unwrap().max_entries();
        assert_eq!(usize::try_from(room).unwrap(), 2 * MOST_STATIONS);
    });
}

#[test]
fn two_heddles_and_other_programs_are_named() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let (first, _) = attached(&pins, scene.index);
        let second = Program::load(&pins, scene.index).unwrap_err();
        assert!(second.to_string().starts_with("another heddle runs on a0"), "{second}");
        assert!(first.counters().is_ok() && scene.occupant().is_some());
        // One with its pins elsewhere sees a program that is not its own.
        let elsewhere = Scene::new();
        let mut stranger = Program::load(&elsewhere.pins(), scene.index).unwrap();
        let there = scene.occupant().unwrap().program;
        let error = stranger.attach(None).unwrap_err();
        let expected =
            format!("a0 has an XDP program already: number {there}, called `heddle_all`");
        assert!(error.to_string().starts_with(&expected), "{error}");
        first.detach().unwrap();
        stranger.attach(None).unwrap();
        stranger.detach().unwrap();
    });
}

#[test]
fn pins_of_a_device_that_is_gone_are_swept_and_others_are_not() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let (gone, _) = attached(&pins, scene.index);
        Netlink::open().unwrap().delete(scene.index).unwrap();
        let index = add_veth();
        let (held, _) = attached(&pins, index);
        assert!(pins.sweep().unwrap().is_empty(), "both are held");
        drop(gone);
        let swept = pins.sweep().unwrap();
        assert_eq!(swept.len(), 1);
        assert!(swept[0].starts_with(&format!("{}@", scene.index)), "{swept:?}");
        assert_eq!(scene.pinned(), ["counters", "link", "sockets"]);
        held.detach().unwrap();
    });
}

#[test]
fn a_device_that_is_gone_is_detached_from() {
    let scene = Scene::new();
    scene.run(|| {
        let (program, _) = attached(&scene.pins(), scene.index);
        Netlink::open().unwrap().delete(scene.index).unwrap();
        program.detach().unwrap();
        assert!(scene.pinned().is_empty());
        let error = Program::load(&scene.pins(), scene.index).unwrap_err();
        assert!(matches!(error, Error::NoDevice(index) if index == scene.index));
    });
}

#[test]
fn loopback_takes_skb_mode_and_a_program_of_everything_takes_no_rules() {
    let scene = Scene::new();
    scene.run(|| {
        let (mut program, attached) = attached(&scene.pins(), 1);
        assert_eq!(attached, Attached { mode: Mode::Skb, adoption: Adoption::New });
        let error = program.set_rules([STATION]).unwrap_err();
        assert!(matches!(error, Error::TakesEverything { device } if device == "lo"));
        program.detach().unwrap();
        let mut program = Program::load(&scene.pins(), 1).unwrap();
        let error = program.attach(Some(Mode::Driver)).unwrap_err();
        assert!(error.to_string().starts_with("cannot attach to lo in driver mode"), "{error}");
    });
}

#[test]
fn it_is_attached_in_its_own_namespace_only() {
    let (scene, other) = (Scene::new(), Scene::new());
    let pins = scene.pins();
    let mut program = scene.run(|| Program::load(&pins, scene.index).unwrap());
    let error = other.run(|| program.attach(None).unwrap_err());
    assert!(matches!(error, Error::OtherNamespace { .. }), "{error}");
}
