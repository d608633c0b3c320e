//! One thread, or one at a time.

use super::*;

/// Counts itself out on the thread that drops it.
struct Snapshot(&'static str, std::sync::mpsc::Sender<(&'static str, std::thread::ThreadId)>);

impl Drop for Snapshot {
    fn drop(&mut self) {
        // Nobody listens any more at the end of a test.
        let _ = self.1.send((self.0, std::thread::current().id()));
    }
}

#[test]
fn a_worker_takes_a_snapshot_once() {
    let publication = Publication::new(Arc::new(1), 1);
    let mut worker = publication.subscribe(WorkerId(0)).unwrap();
    assert!(!worker.refresh());
    let generation = publication.publish(Arc::new(2));
    assert!(worker.is_stale() && **worker.current() == 1);
    assert!(worker.refresh() && **worker.current() == 2);
    assert!(!worker.refresh());
    assert_eq!(worker.generation(), generation);
}

#[test]
fn a_generation_quiesces_when_the_last_worker_reports_it() {
    let publication = Publication::new(Arc::new(()), 67);
    let mut workers: Vec<_> =
        (0..67).map(|n| publication.subscribe(WorkerId(n)).unwrap()).collect();
    let generation = publication.advance();
    for worker in &mut workers {
        assert!(!publication.quiesced(generation));
        assert!(worker.refresh());
    }
    assert!(publication.quiesced(generation));
}

#[test]
fn nobody_waits_for_a_worker_that_is_offline_or_gone() {
    let publication = Publication::new(Arc::new(1), 2);
    let mut sleeper = publication.subscribe(WorkerId(0)).unwrap();
    let gone = publication.subscribe(WorkerId(1)).unwrap();
    let first = publication.publish(Arc::new(2));
    assert!(!publication.quiesced(first));
    drop(gone);
    sleeper.offline(|| assert!(publication.quiesced(first)));
    assert_eq!(**sleeper.current(), 2, "back online, it is up to date");
    assert!(!publication.quiesced(publication.advance()));
}

#[test]
fn control_frees_what_a_worker_used_last() {
    let (drops, dropped) = std::sync::mpsc::channel();
    let publication = Publication::new(Arc::new(Snapshot("old", drops.clone())), 1);
    let mut worker = publication.subscribe(WorkerId(0)).unwrap();
    publication.publish(Arc::new(Snapshot("new", drops)));
    assert_eq!(publication.collect(), 1, "the worker still uses it");
    std::thread::scope(|scope| scope.spawn(|| worker.refresh()).join().unwrap());
    assert!(dropped.try_recv().is_err(), "the worker freed it");
    assert_eq!(publication.collect(), 0);
    assert_eq!(dropped.try_recv(), Ok(("old", std::thread::current().id())));
}

#[test]
fn a_report_has_one_writer() {
    let publication = Publication::new(Arc::new(()), 1);
    let worker = publication.subscribe(WorkerId(0)).unwrap();
    let refused = |id| publication.subscribe(WorkerId(id)).err();
    assert_eq!(refused(0), Some(SubscribeError::Taken(WorkerId(0))));
    let unknown = SubscribeError::Unknown { worker: WorkerId(1), workers: 1 };
    assert_eq!(refused(1), Some(unknown));
    drop(worker);
    assert_eq!(refused(0), None);
}
