//! One thread: against a model, at its limits, and with a million addresses.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const AGEING: u32 = 300;
const SEED: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
const NO_LIMIT: u32 = u32::MAX;

fn key(station: u32) -> Key {
    let [a, b, c, d] = station.to_be_bytes();
    Key::new(SegmentId(7), MacAddr([2, 0, a, b, c, d])).unwrap()
}

fn at(port: u16) -> Entry {
    Entry { port: PortId(port), generation: PortGeneration::FIRST }
}

fn table(lines: usize, ports: usize) -> Arc<Table> {
    Arc::new(Table::new(SharedLines::heap(lines), ports, SEED).unwrap())
}

fn sweep(table: &Arc<Table>, keep: impl FnMut(&Row) -> bool) -> usize {
    let mut sweeper = Sweeper::new(table.clone());
    let retired = sweeper.sweep(usize::MAX, keep);
    let count = retired.len();
    sweeper.recycle(retired);
    count
}

fn assert_counted(table: &Table) {
    let mut found = HashMap::new();
    for row in table.iter() {
        *found.entry(row.entry.port).or_insert(0) += 1;
    }
    for port in (0..table.counts.len()).map(|n| PortId(u16::try_from(n).unwrap())) {
        assert_eq!(found.get(&port).copied().unwrap_or(0), table.port_len(port), "of {port}");
    }
}

#[test]
fn only_stations_within_a_segment_have_keys() {
    let station = MacAddr([2, 0, 0, 0, 0, 1]);
    assert_eq!(Key::new(SegmentId(1), MacAddr::BROADCAST), None);
    assert_eq!(Key::new(SegmentId::NONE, station), None);
    let key = Key::new(SegmentId(0xffff), station).unwrap();
    assert_eq!((key.segment(), key.mac()), (SegmentId(0xffff), station));
}

#[test]
fn a_port_generation_skips_zero() {
    let last = PortGeneration::new(u16::MAX).unwrap();
    assert_eq!(last.next(), PortGeneration::FIRST);
    assert_eq!(PortGeneration::new(0), None);
}

#[test]
fn a_table_has_a_size() {
    let error = Table::new(SharedLines::heap(0), 1, SEED).err();
    assert_eq!(error, Some(BadSize { lines: 0 }));
}

#[test]
fn what_is_heard_is_found_until_it_ages() {
    let table = table(lines_for(67), 4);
    assert_eq!(table.learn(key(1), at(3), Tick(10), 1), Learned::New);
    assert_eq!(table.learn(key(1), at(3), Tick(10), 1), Learned::Known);
    assert_eq!(table.learn(key(1), at(3), Tick(9), 1), Learned::Known, "a slower clock");
    assert_eq!(table.lookup(key(1), Tick(310), AGEING), Some(at(3)));
    assert_eq!(table.lookup(key(1), Tick(311), AGEING), None);
    assert_eq!(table.learn(key(1), at(3), Tick(311), 1), Learned::Refreshed);
    assert_eq!(table.lookup(key(1), Tick(311), AGEING), Some(at(3)));
    assert_eq!(table.lookup(key(2), Tick(311), AGEING), None);
}

#[test]
fn a_move_respects_the_limit_of_the_new_port() {
    let table = table(lines_for(67), 4);
    assert_eq!(table.learn(key(1), at(1), Tick(1), 1), Learned::New);
    assert_eq!(table.learn(key(2), at(2), Tick(1), 1), Learned::New);
    assert_eq!(table.learn(key(1), at(2), Tick(1), 1), Learned::Refused);
    assert_eq!(table.learn(key(1), at(2), Tick(1), 2), Learned::Moved { from: PortId(1) });
    assert_eq!(table.lookup(key(1), Tick(1), AGEING), Some(at(2)));
    assert_counted(&table);
}

#[test]
fn a_port_beyond_the_table_learns_nothing() {
    let table = table(1, 2);
    assert_eq!(table.learn(key(1), at(2), Tick(1), NO_LIMIT), Learned::Refused);
    assert!(table.is_empty());
}

#[test]
fn an_address_heard_between_removal_and_retirement_revives_its_slot() {
    let table = table(1, 2);
    assert_eq!(table.learn(key(1), at(1), Tick(1), 1), Learned::New);
    let slot = bucket::find(&table.lines[0], key(1)).unwrap();
    assert!(table.kill(slot, slot.value()));
    assert_eq!((table.lookup(key(1), Tick(1), AGEING), table.len()), (None, 0));
    assert_eq!(table.learn(key(1), at(1), Tick(2), 1), Learned::New);
    assert_eq!((sweep(&table, |_| true), table.len()), (0, 1));
}

#[test]
fn a_slot_is_used_again_only_after_recycling() {
    let table = table(1, 2);
    for station in 0..4 {
        assert_eq!(table.learn(key(station), at(0), Tick(1), NO_LIMIT), Learned::New);
    }
    let mut sweeper = Sweeper::new(table.clone());
    let retired = sweeper.sweep(1, |row| row.key != key(2));
    assert_eq!(table.learn(key(2), at(0), Tick(1), NO_LIMIT), Learned::Full);
    sweeper.recycle(retired);
    assert_eq!(table.learn(key(9), at(1), Tick(1), NO_LIMIT), Learned::New);
    assert_eq!(table.lookup(key(9), Tick(1), AGEING), Some(at(1)));
    assert_counted(&table);
}

#[test]
fn the_fullest_port_gives_way_but_not_for_one_entry() {
    let table = table(1, 3);
    for (station, port) in [(0, 0), (1, 0), (2, 0), (3, 1)] {
        assert_eq!(table.learn(key(station), at(port), Tick(1), NO_LIMIT), Learned::New);
    }
    assert_eq!(table.learn(key(9), at(0), Tick(1), NO_LIMIT), Learned::Full);
    assert_eq!(table.learn(key(9), at(1), Tick(1), NO_LIMIT), Learned::Evicted { from: PortId(0) });
    assert_eq!(table.learn(key(9), at(1), Tick(1), NO_LIMIT), Learned::Full, "one at a time");
    assert_eq!(sweep(&table, |_| true), 1);
    assert_eq!(table.learn(key(9), at(1), Tick(1), NO_LIMIT), Learned::New);
    assert_eq!(table.learn(key(8), at(1), Tick(1), NO_LIMIT), Learned::Full, "two against two");
    assert_counted(&table);
}

#[test]
fn a_flood_evicts_nobody_but_itself() {
    let table = table(lines_for(257), 3);
    let slots = table.slots();
    for station in 0..67 {
        assert_eq!(table.learn(key(station), at(1), Tick(1), NO_LIMIT), Learned::New);
    }
    for station in 1000..101_000 {
        let outcome = table.learn(key(station), at(0), Tick(1), NO_LIMIT);
        assert!(matches!(outcome, Learned::New | Learned::Full), "{outcome:?}");
    }
    assert!((0..67).all(|n| table.lookup(key(n), Tick(1), AGEING) == Some(at(1))));
    assert_eq!(table.slots(), slots);

    // Others still find room, a few sweeps later at most: each evicts, then inserts.
    let mut late: Vec<_> = (200..267).collect();
    for _ in 0..8 {
        late.retain(|&station| table.learn(key(station), at(2), Tick(1), NO_LIMIT) != Learned::New);
        sweep(&table, |_| true);
    }
    assert!(late.is_empty(), "{late:?} not learned after eight sweeps");
    assert_eq!((table.port_len(PortId(1)), table.port_len(PortId(2))), (67, 67));
    assert_counted(&table);
}

#[test]
fn a_flood_stops_at_the_ports_limit() {
    let table = table(lines_for(1000), 2);
    let refused = (0..10_000)
        .filter(|&station| table.learn(key(station), at(1), Tick(1), 67) == Learned::Refused)
        .count();
    assert_eq!((table.len(), refused), (67, 10_000 - 67));
}

#[test]
fn a_million_addresses_fit_in_forty_bytes_each() {
    const MILLION: u32 = 1_000_000;
    let lines = SharedLines::create("heddle-test-fdb", LAYOUT, lines_for(MILLION)).unwrap();
    assert!(lines.len() * size_of::<Line>() <= 40 * MILLION as usize + 64);
    let table = Arc::new(Table::new(lines, 1, SEED).unwrap());
    for station in 0..MILLION {
        let outcome = table.learn(key(station), at(0), Tick(1), NO_LIMIT);
        assert!(matches!(outcome, Learned::New | Learned::Full));
    }
    let found = (0..MILLION).filter(|&n| table.lookup(key(n), Tick(1), AGEING).is_some()).count();
    assert_eq!(found, table.len());
    assert!(found > 998_000, "{found} found");
    assert_eq!(sweep(&table, |row| row.key.mac().0[5] % 2 == 0), found - table.len());
    assert!((table.len()..=table.len() + 2000).contains(&500_000));
    assert_eq!(table.iter().count(), table.len());
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Hear { station: u32, port: u16 },
    Pass { seconds: u32 },
    Sweep,
    Reuse { port: u16 },
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        12 => (0..67u32, 0..5u16).prop_map(|(station, port)| Happening::Hear { station, port }),
        2 => (0..200u32).prop_map(|seconds| Happening::Pass { seconds }),
        1 => Just(Happening::Sweep),
        1 => (0..5u16).prop_map(|port| Happening::Reuse { port }),
    ];
    prop::collection::vec(happening, 0..257)
}

/// What a table of any size must agree with: where each address was last learned.
struct Model {
    table: Arc<Table>,
    limit: u32,
    now: Tick,
    generations: [PortGeneration; 5],
    heard: HashMap<u32, (Entry, Tick)>,
}

impl Model {
    fn new(lines: usize, limit: u32) -> Self {
        // Close to the wrap of ticks, so that some runs cross it.
        let (now, generations) = (Tick(u32::MAX - 500), [PortGeneration::FIRST; 5]);
        Self { table: table(lines, 5), limit, now, generations, heard: HashMap::new() }
    }

    fn is_current(&self, entry: Entry, seen: Tick) -> bool {
        let generation = self.generations[entry.port.index()];
        entry.generation == generation && seen.age(self.now) <= AGEING
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Hear { station, port } => self.hear(station, port),
            Happening::Pass { seconds } => self.now = self.now.after(seconds),
            Happening::Sweep => self.sweep(),
            Happening::Reuse { port } => {
                let generation = &mut self.generations[usize::from(port)];
                *generation = generation.next();
            }
        }
        assert_counted(&self.table);
    }

    fn hear(&mut self, station: u32, port: u16) {
        let entry = Entry { port: PortId(port), generation: self.generations[usize::from(port)] };
        let known = self.heard.get(&station).copied();
        let before = self.table.port_len(entry.port);
        match self.table.learn(key(station), entry, self.now, self.limit) {
            Learned::Known => assert_eq!(known, Some((entry, self.now))),
            Learned::Refreshed => assert_eq!(known.map(|(e, _)| e.port), Some(entry.port)),
            Learned::New => assert_eq!(known, None),
            Learned::Moved { from } => assert_eq!(known.map(|(e, _)| e.port), Some(from)),
            Learned::Refused => return assert!(before >= self.limit),
            Learned::Evicted { from } => return self.evicted(from, before),
            Learned::Full => return assert!(self.table.slots() < 300, "room for all"),
            Learned::Busy => panic!("busy with one thread"),
        }
        self.heard.insert(station, (entry, self.now));
    }

    /// Exactly one address is gone, of a port that had at least two more than the other.
    fn evicted(&mut self, from: PortId, other: u32) {
        assert!(self.table.port_len(from) > other);
        let present: Vec<_> = self.table.iter().map(|row| row.key).collect();
        let before = self.heard.len();
        self.heard.retain(|&station, (entry, _)| {
            let kept = present.contains(&key(station));
            assert!(kept || entry.port == from);
            kept
        });
        assert_eq!(self.heard.len(), before - 1);
    }

    fn sweep(&mut self) {
        sweep(&self.table.clone(), |row| self.is_current(row.entry, row.seen));
        let (now, generations) = (self.now, self.generations);
        self.heard.retain(|_, (entry, seen)| {
            entry.generation == generations[entry.port.index()] && seen.age(now) <= AGEING
        });
    }

    fn assert_agrees(&self) {
        for station in 0..67 {
            let heard = self.heard.get(&station).filter(|(_, seen)| seen.age(self.now) <= AGEING);
            let found = self.table.lookup(key(station), self.now, AGEING);
            assert_eq!(found, heard.map(|&(entry, _)| entry), "station {station}");
        }
        assert_eq!(self.table.iter().count(), self.heard.len());
    }
}

proptest! {
    #[test]
    fn a_roomy_table_agrees_with_a_map(happenings in happenings(), limit in 1..67u32) {
        let mut model = Model::new(257, limit);
        for happening in happenings {
            model.happen(happening);
        }
        model.assert_agrees();
    }

    #[test]
    fn a_crowded_table_agrees_with_a_map(happenings in happenings(), lines in 1..8usize) {
        let mut model = Model::new(lines, NO_LIMIT);
        for happening in happenings {
            model.happen(happening);
        }
        model.assert_agrees();
    }
}
