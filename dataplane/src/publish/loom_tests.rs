//! Every interleaving of control and one worker.

use loom::{cell::UnsafeCell, thread};

use super::*;

/// What only the old snapshot lets workers read, and what control writes once it may:
/// loom refuses every read that is not over before the write.
struct Reused(UnsafeCell<()>);

impl Reused {
    fn read(&self) {
        self.0.with(|_| ());
    }

    fn write(&self) {
        self.0.with_mut(|_| ());
    }
}

fn use_by_snapshot(worker: &Subscriber<bool>, reused: &Reused) {
    if **worker.current() {
        reused.read();
    }
}

fn withdraw_and_reuse(publication: &Publication<bool>, reused: &Reused) {
    let generation = publication.publish(Arc::new(false));
    if publication.quiesced(generation) {
        reused.write();
    }
}

#[test]
fn loom_nothing_is_used_after_its_grace_period() {
    loom::model(|| {
        let publication = Publication::new(Arc::new(true), 1);
        let reused = Arc::new(Reused(UnsafeCell::new(())));
        let mut worker = publication.subscribe(WorkerId(0)).unwrap();
        let theirs = reused.clone();
        let thread = thread::spawn(move || {
            use_by_snapshot(&worker, &theirs);
            worker.refresh();
            use_by_snapshot(&worker, &theirs);
        });
        withdraw_and_reuse(&publication, &reused);
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_worker_comes_back_to_the_new_snapshot() {
    loom::model(|| {
        let publication = Publication::new(Arc::new(true), 1);
        let reused = Arc::new(Reused(UnsafeCell::new(())));
        let mut worker = publication.subscribe(WorkerId(0)).unwrap();
        let theirs = reused.clone();
        let thread = thread::spawn(move || {
            use_by_snapshot(&worker, &theirs);
            worker.offline(thread::yield_now);
            use_by_snapshot(&worker, &theirs);
        });
        withdraw_and_reuse(&publication, &reused);
        thread.join().unwrap();
    });
}

/// Fails when freed on a thread that isn't control's.
struct Large(thread::ThreadId);

impl Drop for Large {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.0, "a worker freed a snapshot");
    }
}

#[test]
fn loom_no_worker_frees_a_snapshot() {
    loom::model(|| {
        let control = thread::current().id();
        let publication = Publication::new(Arc::new(Large(control)), 1);
        let mut worker = publication.subscribe(WorkerId(0)).unwrap();
        let thread = thread::spawn(move || {
            worker.refresh();
        });
        publication.publish(Arc::new(Large(control)));
        publication.collect();
        thread.join().unwrap();
        assert_eq!(publication.collect(), 0);
    });
}

#[test]
fn loom_a_report_fits_its_snapshot() {
    loom::model(|| {
        let publication = Publication::new(Arc::new(1), 1);
        let mut worker = publication.subscribe(WorkerId(0)).unwrap();
        let control = thread::spawn(move || {
            publication.publish(Arc::new(2));
            publication.publish(Arc::new(3));
        });
        worker.refresh();
        assert_eq!(**worker.current(), worker.generation().number());
        control.join().unwrap();
    });
}
