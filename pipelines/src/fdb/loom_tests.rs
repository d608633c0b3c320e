//! Every interleaving of a few threads on buckets of two slots.

use dataplane::ids::WorkerId;
use dataplane::publish::{Publication, Subscriber};
use dataplane::sync::Arc;
use loom::thread;

use super::*;

const BLUE: SegmentId = SegmentId(1);
const RED: SegmentId = SegmentId(2);
const AGEING: u32 = 300;
const LIMIT: u32 = 2;

fn key(segment: SegmentId, station: u8) -> Key {
    Key::new(segment, MacAddr([2, 0, 0, 0, 0, station])).unwrap()
}

fn at(port: u16) -> Entry {
    Entry { port: PortId(port), generation: PortGeneration::FIRST }
}

fn one_bucket() -> Arc<Table> {
    Arc::new(Table::new(SharedLines::heap(1), 3, [3, 5]).unwrap())
}

/// The counts are what a walk through the table finds.
fn assert_counted(table: &Table) {
    for port in (0..3).map(PortId) {
        let found = table.iter().filter(|row| row.entry.port == port).count();
        assert_eq!(found, table.port_len(port) as usize, "entries of {port}");
    }
}

#[test]
fn loom_an_inserted_key_has_its_own_value() {
    loom::model(|| {
        let table = one_bucket();
        let theirs = table.clone();
        let writer = thread::spawn(move || theirs.learn(key(BLUE, 1), at(1), Tick(9), LIMIT));
        let found = table.lookup(key(BLUE, 1), Tick(9), AGEING);
        assert!(found.is_none_or(|entry| entry == at(1)));
        assert_eq!(writer.join().unwrap(), Learned::New);
        assert_eq!(table.lookup(key(BLUE, 1), Tick(9), AGEING), Some(at(1)));
    });
}

#[test]
fn loom_a_key_is_inserted_once() {
    loom::model(|| {
        let table = one_bucket();
        // Twice, so that a lock given back by whoever failed to take it would be noticed.
        let insert = |table: &Table, port| {
            [(); 2].map(|()| table.learn(key(BLUE, 1), at(port), Tick(9), LIMIT))
        };
        let theirs = table.clone();
        let other = thread::spawn(move || insert(&theirs, 1));
        let ours = insert(&table, 2);
        let theirs = other.join().unwrap();
        assert!(ours.contains(&Learned::New) != theirs.contains(&Learned::New));
        assert_eq!(table.iter().count(), 1);
        assert_counted(&table);
    });
}

#[test]
fn loom_a_mover_is_here_or_there() {
    loom::model(|| {
        let table = one_bucket();
        assert_eq!(table.learn(key(BLUE, 1), at(0), Tick(8), LIMIT), Learned::New);
        let movers = [1, 2].map(|port| {
            let table = table.clone();
            thread::spawn(move || {
                let outcome = table.learn(key(BLUE, 1), at(port), Tick(9), LIMIT);
                assert!(matches!(outcome, Learned::Moved { .. } | Learned::Busy));
            })
        });
        assert!(table.lookup(key(BLUE, 1), Tick(9), AGEING).is_some());
        for mover in movers {
            mover.join().unwrap();
        }
        assert_eq!((table.iter().count(), table.port_len(PortId(0))), (1, 0));
        assert_counted(&table);
    });
}

fn old_entry() -> Arc<Table> {
    let table = one_bucket();
    assert_eq!(table.learn(key(BLUE, 1), at(1), Tick(1), LIMIT), Learned::New);
    table
}

fn hear_again(table: &Table) -> Learned {
    table.learn(key(BLUE, 1), at(1), Tick(999), LIMIT)
}

fn sweep_old(table: Arc<Table>) -> Retired {
    Sweeper::new(table).sweep(1, |row| row.seen.age(Tick(999)) <= AGEING)
}

/// Either the worker learned it, and it is there, or the sweep has it.
fn assert_kept_or_swept(table: &Table, outcome: Learned, retired: &Retired) {
    let kept = matches!(outcome, Learned::Refreshed | Learned::New);
    assert_eq!(table.lookup(key(BLUE, 1), Tick(999), AGEING).is_some(), kept);
    assert!(kept || retired.len() == 1);
    assert_counted(table);
}

#[test]
fn loom_an_entry_heard_again_is_not_swept() {
    loom::model(|| {
        let table = old_entry();
        let theirs = table.clone();
        let sweeper = thread::spawn(move || sweep_old(theirs));
        let outcome = hear_again(&table);
        assert_kept_or_swept(&table, outcome, &sweeper.join().unwrap());
    });
}

/// The same with the roles exchanged: the order in which threads first run decides which
/// interleavings loom takes for equivalent.
#[test]
fn loom_a_swept_entry_is_heard_again() {
    loom::model(|| {
        let table = old_entry();
        let theirs = table.clone();
        let worker = thread::spawn(move || hear_again(&theirs));
        let retired = sweep_old(table.clone());
        assert_kept_or_swept(&table, worker.join().unwrap(), &retired);
    });
}

/// The old network's worker: what it finds under a blue key was learned there, and counts only
/// while the port is the blue network's.
fn look_up_blue(worker: &Subscriber<PortGeneration>, table: &Table) {
    if let Some(entry) = table.lookup(key(BLUE, 1), Tick(9), AGEING) {
        assert_eq!(entry, at(1), "another key's value");
        assert_eq!(**worker.current(), PortGeneration::FIRST, "outdated, but still found");
    }
}

/// Port 1 leaves the blue network and its number is used in the red one, where a red address
/// takes the blue one's slot.
fn reuse_port_and_slot(publication: &Publication<PortGeneration>, table: &Arc<Table>) {
    let second = PortGeneration::FIRST.next();
    let mut sweeper = Sweeper::new(table.clone());
    let retired = sweeper.sweep(1, |row| row.key != key(BLUE, 1));
    let generation = publication.publish(Arc::new(second));
    if publication.quiesced(generation) {
        sweeper.recycle(retired);
        let red = Entry { port: PortId(1), generation: second };
        assert_eq!(table.learn(key(RED, 1), red, Tick(9), LIMIT), Learned::New);
    }
}

#[test]
fn loom_a_slot_and_a_port_used_again_leak_nothing() {
    loom::model(|| {
        let publication = Publication::new(Arc::new(PortGeneration::FIRST), 1);
        let table = one_bucket();
        for (station, port) in [(1, 1), (2, 2)] {
            let outcome = table.learn(key(BLUE, station), at(port), Tick(9), LIMIT);
            assert_eq!(outcome, Learned::New);
        }
        let mut worker = publication.subscribe(WorkerId(0)).unwrap();
        let theirs = table.clone();
        let reader = thread::spawn(move || {
            look_up_blue(&worker, &theirs);
            worker.refresh();
            look_up_blue(&worker, &theirs);
        });
        reuse_port_and_slot(&publication, &table);
        reader.join().unwrap();
        assert_counted(&table);
    });
}
