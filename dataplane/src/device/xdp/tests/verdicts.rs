//! What the compiled program says of a frame, by running it in the kernel without a device
//! (BPF_PROG_TEST_RUN): each kind of rule by itself, and all of them against the oracle.

use std::cell::RefCell;

use aya::maps::{HashMap, Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::{Config, TestRunner};
use rustix::time::{ClockId, clock_gettime};

use super::super::*;
use super::Scene;
use super::frames::{
    Extension, HERE, HOST, Network, Payload, STATION, Shape, Transport as Upper, any_frame,
};
use super::oracle::{Oracle, Whose};
use crate::ids::{MacAddr, Vni};
use crate::wire::{ethernet, protocol};

/// What `enum xdp_action` calls the answers of the programs (`linux/bpf.h`).
const DROP: u32 = 1;
const PASS: u32 = 2;

/// The program that follows rules, loaded for a device that it is never attached to.
struct Bench {
    program: Program,
    _scene: Scene,
}

impl Bench {
    fn new() -> Self {
        let scene = Scene::new();
        let pins = scene.pins();
        let program = scene.run(|| Program::load_with_rules(&pins, scene.index).unwrap());
        Self { program, _scene: scene }
    }

    fn with(rules: &[Rule]) -> Self {
        let mut bench = Self::new();
        bench.program.set_rules(rules.iter().copied()).unwrap();
        bench
    }

    /// Runs the program, whose counters must say the same as its answer.
    fn judge(&mut self, frame: &[u8]) -> Whose {
        let before = self.program.counters().unwrap();
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let answer = self.program.xdp().unwrap().test_run(options).unwrap().return_value;
        let after = self.program.counters().unwrap();
        let grown = [
            after.taken - before.taken,
            after.passed - before.passed,
            after.unserved - before.unserved,
            after.malformed - before.malformed,
        ];
        match (answer, grown) {
            (DROP, [0, 0, 1, 0]) => Whose::Ours,
            (PASS, [0, 1, 0, 0]) => Whose::Others,
            (PASS, [0, 1, 0, 1]) => Whose::Malformed,
            other => panic!("answer and counters {other:?} of {frame:02x?}"),
        }
    }

    /// Makes the first fragments that came look as old as that.
    fn age_fragments(&mut self, seconds: i64) {
        let map = MapData::from_pin(self.program.pins.file("fragments")).unwrap();
        let mut map = HashMap::<_, [u8; 40], u64>::try_from(Map::LruHashMap(map)).unwrap();
        let now = clock_gettime(ClockId::Monotonic);
        let then = u64::try_from((now.tv_sec - seconds).max(0) * 1_000_000_000).unwrap();
        let keys: Vec<_> = map.keys().map(Result::unwrap).collect();
        assert!(!keys.is_empty());
        keys.iter().for_each(|key| map.insert(key, then, 0).unwrap());
    }

    fn takes(&mut self, shape: &Shape) -> bool {
        self.judge(&shape.bytes()) == Whose::Ours
    }
}

fn ports(family: usize, transport: Transport, first: u16, last: u16) -> Rule {
    Rule::Ports { address: HERE[family], transport, ports: PortRange::new(first, last).unwrap() }
}

fn vxlan(family: usize, port: u16, vni: u32) -> Rule {
    Rule::Vxlan { address: HERE[family], port, vni: Vni::new(vni).unwrap() }
}

fn esp(family: usize) -> Rule {
    Rule::Esp { address: HERE[family], spis: SpiPrefix::new(0xd000_0000, 4).unwrap() }
}

fn to_vni(family: usize, vni: u32) -> Shape {
    Shape::udp(family, 4789, Payload::Vxlan { flags: 8, vni })
}

#[test]
fn program_and_oracle_agree_on_any_frame_under_any_rules() {
    let pool = vec![
        Rule::Station(STATION),
        Rule::Station(MacAddr([2, 0, 0, 0, 0, 7])),
        ports(0, Transport::Udp, 53, 53),
        ports(0, Transport::Tcp, 2040, 2060),
        ports(1, Transport::Tcp, 2040, 2060),
        ports(1, Transport::Udp, 1, 65535),
        vxlan(0, 4789, 7),
        vxlan(0, 4789, 8),
        vxlan(0, 4500, 7),
        vxlan(1, 4789, 7),
        esp(0),
        esp(1),
    ];
    let most = pool.len();
    let cases = (subsequence(pool, 0..=most), vec(any_frame(), 1..17));
    let state = RefCell::new((Bench::new(), Oracle::default()));
    let config = Config { cases: 2_000, failure_persistence: None, ..Config::default() };
    let seen = RefCell::new([0; 3]);
    let outcome = TestRunner::new(config).run(&cases, |(rules, frames)| {
        let (bench, oracle) = &mut *state.borrow_mut();
        bench.program.set_rules(rules.iter().copied()).unwrap();
        oracle.rules = rules;
        for frame in frames {
            let expected = oracle.judge(&frame);
            seen.borrow_mut()[expected as usize] += 1;
            prop_assert_eq!(bench.judge(&frame), expected, "{:02x?}", frame);
        }
        Ok(())
    });
    outcome.unwrap();
    let seen = seen.into_inner();
    assert!(seen.iter().all(|count| *count > 500), "others, ours and malformed: {seen:?}");
}

#[test]
fn a_station_is_taken_in_any_vlan_and_groups_are_not() {
    let mut bench = Bench::with(&[Rule::Station(STATION)]);
    for tags in [vec![], vec![(0x8100, 42)], vec![(0x88a8, 7), (0x8100, 42), (0x8100, 1)]] {
        let to = |destination| Shape { destination, tags: tags.clone(), ..to_vni(0, 7) };
        assert!(bench.takes(&to(STATION)));
        assert!(!bench.takes(&to(HOST)) && !bench.takes(&to(MacAddr::BROADCAST)));
    }
    let arp =
        Shape { destination: STATION, network: Network::Other(ethernet::ARP), ..to_vni(0, 7) };
    assert!(bench.takes(&arp));
}

#[test]
fn a_range_of_ports_has_both_its_ends() {
    let rules = [0, 1].map(|family| ports(family, Transport::Tcp, 2047, 2049));
    let mut bench = Bench::with(&rules);
    for family in [0, 1] {
        for port in 2040..2060 {
            let tcp = bench.takes(&Shape::of(family, Upper::Tcp { port }));
            assert_eq!(tcp, (2047..=2049).contains(&port), "{port}");
            assert!(!bench.takes(&Shape::udp(family, port, Payload::Bytes(vec![]))));
        }
        let elsewhere = Network::Ipv4 {
            destination: 2,
            option_words: 0,
            fragment: 0,
            id: 0,
            transport: Upper::Tcp { port: 2048 },
        };
        assert!(!bench.takes(&Shape { network: elsewhere, ..to_vni(0, 7) }));
    }
}

#[test]
fn only_our_networks_are_taken_of_vxlan() {
    let mut bench = Bench::with(&[vxlan(0, 4789, 7), vxlan(1, 4789, 7)]);
    for family in [0, 1] {
        assert!(bench.takes(&to_vni(family, 7)));
        assert!(!bench.takes(&to_vni(family, 8)), "a neighbour's network");
        assert!(!bench.takes(&Shape::udp(family, 8472, Payload::Vxlan { flags: 8, vni: 7 })));
        let no_vni = Payload::Vxlan { flags: 0, vni: 7 };
        assert!(!bench.takes(&Shape::udp(family, 4789, no_vni)));
        let tagged = |control| Shape { tags: vec![(ethernet::VLAN, control)], ..to_vni(family, 7) };
        assert!(bench.takes(&tagged(0xa000)), "a priority tag");
        assert!(!bench.takes(&tagged(42)), "the address in another VLAN");
    }
}

#[test]
fn ike_and_the_esp_of_others_are_left_alone() {
    let mut bench = Bench::with(&[esp(0), esp(1)]);
    for family in [0, 1] {
        for (spi, ours) in [(0xd000_0001, true), (0xdfff_ffff, true), (0xc000_0001, false)] {
            assert_eq!(bench.takes(&Shape::of(family, Upper::Esp { spi })), ours);
            assert_eq!(bench.takes(&Shape::udp(family, 4500, Payload::Spi(spi))), ours);
            assert!(!bench.takes(&Shape::udp(family, 4501, Payload::Spi(spi))));
        }
        assert!(!bench.takes(&Shape::udp(family, 4500, Payload::Spi(0))), "the non-ESP marker");
        let keepalive = Shape::udp(family, 4500, Payload::Bytes(vec![0xff]));
        assert!(!bench.takes(&Shape { padding: 18, ..keepalive }), "what pads it is no SPI");
    }
}

#[test]
fn options_and_extension_headers_are_passed_over() {
    let mut bench = Bench::with(&[vxlan(0, 4789, 7), vxlan(1, 4789, 7)]);
    for option_words in 0..=10 {
        let mut shape = to_vni(0, 7);
        let Network::Ipv4 { option_words: words, .. } = &mut shape.network else { unreachable!() };
        *words = option_words;
        assert!(bench.takes(&shape), "{option_words}");
    }
    let options = |length| Extension::Options { kind: protocol::DESTINATION_OPTIONS, length };
    let mut after = |extensions: Vec<Extension>| {
        let mut shape = to_vni(1, 7);
        let Network::Ipv6 { extensions: headers, .. } = &mut shape.network else { unreachable!() };
        *headers = extensions;
        bench.takes(&shape)
    };
    assert!(after(vec![options(0), Extension::Routing { segments_left: 0 }, options(3)]));
    assert!(!after(vec![Extension::Routing { segments_left: 1 }]), "the host is on the way");
    assert!(after(vec![Extension::Fragment { offset_more: 0, id: 1 }]), "an atomic fragment");
    assert!(after((0..4).map(options).collect()) && !after((0..5).map(options).collect()));
    let mut both: Vec<_> = (0..4).map(options).collect();
    both.push(Extension::Fragment { offset_more: 0, id: 1 });
    both.extend((0..4).map(options));
    assert!(after(both));
}

#[test]
fn fragments_follow_their_first() {
    let mut bench = Bench::with(&[vxlan(0, 4789, 7), vxlan(1, 4789, 7)]);
    let fragment = |family, vni, first: bool| {
        let mut shape = to_vni(family, vni);
        match &mut shape.network {
            Network::Ipv4 { fragment, .. } => *fragment = if first { 0x2000 } else { 0x0010 },
            Network::Ipv6 { extensions, .. } => {
                let offset_more = if first { 1 } else { 0x80 };
                extensions.push(Extension::Fragment { offset_more, id: 5 });
            }
            Network::Other(_) => unreachable!(),
        }
        shape
    };
    for family in [0, 1] {
        let [ours, theirs] = [7, 8].map(|vni| fragment(family, vni, true));
        // What a later fragment has where a header would be says nothing.
        let later = [7, 8].map(|vni| fragment(family, vni, false));
        assert!(!later.iter().any(|later| bench.takes(later)), "nobody knows its first");
        assert!(bench.takes(&ours));
        assert!(later.iter().all(|later| bench.takes(later)));
        bench.age_fragments(31);
        assert!(!later.iter().any(|later| bench.takes(later)), "its first came long ago");
        assert!(bench.takes(&ours) && bench.takes(&later[0]));
        assert!(!bench.takes(&theirs), "the same number, used again");
        assert!(!later.iter().any(|later| bench.takes(later)));
    }
}

#[test]
fn a_frame_of_many_buffers_is_judged_by_its_first() {
    let mut bench = Bench::with(&[vxlan(0, 4789, 7)]);
    let long = |vni| {
        let mut frame = to_vni(0, vni).bytes();
        frame.resize(9014, 0);
        frame
    };
    assert_eq!(bench.judge(&long(7)), Whose::Ours);
    assert_eq!(bench.judge(&long(8)), Whose::Others);
}
