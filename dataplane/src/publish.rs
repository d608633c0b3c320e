//! Publication of immutable snapshots to workers, and the grace periods that follow.
//!
//! Control publishes a whole new snapshot under a new [`Generation`]; each worker compares one
//! number per batch and takes the snapshot only when that number moved. A worker that reports
//! generation `g` promises that it uses nothing older any more, so what control made
//! unreachable before it published `g` may be used again once every worker has reported at
//! least `g` or is offline: that is the grace period.
//!
//! | state | writer | reader | freed |
//! |---|---|---|---|
//! | `generation` | control, inside the mutex | workers, once per batch | never |
//! | `current`, `retired` | control, in the mutex | workers, in the mutex, on change only | by control, as the last to refer to it |
//! | a worker's report | that worker | control | never |
//!
//! Lines that must not swap:
//!
//! - In `Subscriber::adopt`, the report comes after the last use of the old snapshot, and it is
//!   the number that was kept beside the snapshot taken. Were it the newest generation, control
//!   could hand out a port number again by which the worker still forwards.
//! - In `Subscriber::rejoin`, the report ends being offline before the generation is read, with a
//!   fence between; in [`Publication::quiesced`], the generation was published before the reports
//!   are read, with a fence between. Swapped on either side, a worker may come back with an old
//!   generation at the moment in which control finds it offline.
//!
//! Workers hold an `Arc` each, but a snapshot's last reference is always control's: it is kept
//! in `retired` until the count says that it is the only one left, so a large table is never
//! freed by a worker.

use std::fmt;
use std::sync::PoisonError;

use crossbeam_utils::CachePadded;
use thiserror::Error;

use crate::ids::WorkerId;
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, fence};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// The number of a publication, counted from one; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Generation(u64);

impl Generation {
    const FIRST: Self = Self(1);

    /// The number itself, for people.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The report of a worker that uses no snapshot: newer than any generation.
const OFFLINE: u64 = u64::MAX;

/// Why a worker could not subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SubscribeError {
    /// The publication was made for fewer workers.
    #[error("worker {worker} subscribes to a publication made for {workers} workers")]
    Unknown {
        /// Who asked.
        worker: WorkerId,
        /// For how many workers the publication was made.
        workers: usize,
    },
    /// The worker has subscribed already, and a report has one writer.
    #[error("worker {0} has subscribed already")]
    Taken(WorkerId),
}

/// Control's side: the current snapshot and what workers reported.
pub struct Publication<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    generation: CachePadded<AtomicU64>,
    /// One per worker: the generation that it uses, or [`OFFLINE`].
    reports: Box<[CachePadded<AtomicU64>]>,
    snapshots: Mutex<Snapshots<T>>,
}

struct Snapshots<T> {
    generation: u64,
    current: Arc<T>,
    retired: Vec<Arc<T>>,
    subscribed: Box<[bool]>,
}

impl<T> Publication<T> {
    /// Publishes a first snapshot to `workers` workers, none of which has subscribed yet.
    pub fn new(first: Arc<T>, workers: usize) -> Self {
        let report = || CachePadded::new(AtomicU64::new(OFFLINE));
        let snapshots = Snapshots {
            generation: Generation::FIRST.0,
            current: first,
            retired: Vec::new(),
            subscribed: vec![false; workers].into(),
        };
        Self {
            shared: Arc::new(Shared {
                generation: CachePadded::new(AtomicU64::new(Generation::FIRST.0)),
                reports: (0..workers).map(|_| report()).collect(),
                snapshots: Mutex::new(snapshots),
            }),
        }
    }

    /// Makes `next` the current snapshot, frees retired ones that no worker uses any more, and
    /// returns the new generation. Sleeping workers are not woken: ring their
    /// [`Doorbell`](crate::sleep::Doorbell)s afterwards.
    pub fn publish(&self, next: Arc<T>) -> Generation {
        let mut snapshots = self.shared.lock();
        let previous = std::mem::replace(&mut snapshots.current, next);
        snapshots.retired.push(previous);
        let generation = self.shared.step(&mut snapshots);
        drop(snapshots);
        self.collect();
        generation
    }

    /// Begins a new generation with the snapshot as it is: the start of a grace period for what
    /// is not part of a snapshot, such as slots of a shared table.
    pub fn advance(&self) -> Generation {
        self.shared.step(&mut self.shared.lock())
    }

    /// The newest generation.
    pub fn generation(&self) -> Generation {
        Generation(self.shared.generation.load(Ordering::Acquire))
    }

    /// The newest snapshot.
    pub fn current(&self) -> Arc<T> {
        self.shared.lock().current.clone()
    }

    /// Whether every worker has reported `generation` or a newer one, or is offline. Whatever
    /// was unreachable before `generation` was published is then used by no worker.
    pub fn quiesced(&self, generation: Generation) -> bool {
        // Between the generation's store, which came before this call, and the reports' loads:
        // see the module's head.
        fence(Ordering::SeqCst);
        self.shared.reports.iter().all(|report| report.load(Ordering::Acquire) >= generation.0)
    }

    /// Frees retired snapshots that no worker refers to; returns how many are left. Each worker
    /// keeps at most one from being freed, until its batch or its sleep ends.
    pub fn collect(&self) -> usize {
        let mut snapshots = self.shared.lock();
        // Workers take only the current snapshot, so a count of one can't grow again.
        let unused: Vec<_> =
            snapshots.retired.extract_if(.., |old| Arc::strong_count(old) == 1).collect();
        let left = snapshots.retired.len();
        drop(snapshots);
        // Freed outside the mutex: a worker that takes a snapshot doesn't wait for it.
        drop(unused);
        left
    }

    /// Gives `worker` its side, online and up to date.
    ///
    /// # Errors
    ///
    /// [`SubscribeError::Unknown`] beyond the number of workers, [`SubscribeError::Taken`] while
    /// an earlier subscriber of the same worker lives.
    pub fn subscribe(&self, worker: WorkerId) -> Result<Subscriber<T>, SubscribeError> {
        let mut snapshots = self.shared.lock();
        let workers = snapshots.subscribed.len();
        let unknown = SubscribeError::Unknown { worker, workers };
        let taken = snapshots.subscribed.get_mut(worker.index()).ok_or(unknown)?;
        if std::mem::replace(taken, true) {
            return Err(SubscribeError::Taken(worker));
        }
        let current = snapshots.current.clone();
        let seen = snapshots.generation;
        drop(snapshots);
        let mut subscriber = Subscriber { shared: self.shared.clone(), worker, seen, current };
        subscriber.rejoin();
        Ok(subscriber)
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Snapshots<T>> {
        // No code that holds the lock can leave half a change behind.
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next generation, and says so to workers.
    fn step(&self, snapshots: &mut Snapshots<T>) -> Generation {
        snapshots.generation += 1;
        self.generation.store(snapshots.generation, Ordering::Release);
        Generation(snapshots.generation)
    }
}

/// A worker's side: its snapshot, and its report.
pub struct Subscriber<T> {
    shared: Arc<Shared<T>>,
    worker: WorkerId,
    seen: u64,
    current: Arc<T>,
}

impl<T> Subscriber<T> {
    /// Takes the newest snapshot, if there is a newer one, and reports its generation; says whether
    /// there was. Call it between batches, when nothing found in the old snapshot or in a shared
    /// table is still in use. One load and one compare in the common case.
    #[inline(always)]
    pub fn refresh(&mut self) -> bool {
        let stale = self.is_stale();
        if stale {
            self.adopt();
        }
        stale
    }

    /// The snapshot, as of the last refresh.
    #[inline(always)]
    pub fn current(&self) -> &Arc<T> {
        &self.current
    }

    /// The generation, as of the last refresh.
    pub fn generation(&self) -> Generation {
        Generation(self.seen)
    }

    /// Whether a newer generation awaits a refresh: to be asked again before going to sleep.
    #[inline(always)]
    pub fn is_stale(&self) -> bool {
        self.shared.generation.load(Ordering::Acquire) != self.seen
    }

    /// Runs `sleep` offline, so that no grace period waits for this worker; afterwards it is up
    /// to date again. The borrow keeps the snapshot out of reach of `sleep`, and like
    /// [`Subscriber::refresh`] this is for the time between batches.
    pub fn offline<R>(&mut self, sleep: impl FnOnce() -> R) -> R {
        // Release: all earlier reads of shared tables are over before control sees this.
        self.report(OFFLINE);
        let result = sleep();
        self.rejoin();
        result
    }

    #[cold]
    fn adopt(&mut self) {
        let snapshots = self.shared.lock();
        self.current = snapshots.current.clone();
        self.seen = snapshots.generation;
        drop(snapshots);
        self.report(self.seen);
    }

    /// Ends being offline. The report comes first, with the last generation that was used, so
    /// that either control sees it or the refresh sees what control published.
    fn rejoin(&mut self) {
        self.report(self.seen);
        fence(Ordering::SeqCst);
        self.refresh();
    }

    fn report(&self, generation: u64) {
        if let Some(report) = self.shared.reports.get(self.worker.index()) {
            report.store(generation, Ordering::Release);
        }
    }
}

impl<T> Drop for Subscriber<T> {
    fn drop(&mut self) {
        self.report(OFFLINE);
        if let Some(taken) = self.shared.lock().subscribed.get_mut(self.worker.index()) {
            *taken = false;
        }
    }
}
