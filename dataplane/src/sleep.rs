//! How a worker goes to sleep without missing what arrives at that moment.
//!
//! The sleeper declares itself asleep, *then* looks once more for work, then sleeps. Whoever has
//! work for it makes that visible, *then* looks whether it is asleep, and only then pays for a
//! wake-up. A sequentially consistent fence stands between the two lines on either side: at least
//! one side sees the other. Were either pair swapped, or a fence missing, both could miss, and the
//! worker would sleep on work until something else wakes it.
//!
//! | state | writer | reader |
//! |---|---|---|
//! | `asleep` | the worker sets it; the worker or the first ringer clears it | ringers |

use std::io;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicBool, Ordering, fence};

/// What ends the sleep of a worker. A wake before the sleep has begun must end it too, as with
/// an eventfd.
pub trait Wake {
    /// Ends the sleep, or the next one.
    fn wake(&self) -> io::Result<()>;
}

impl Wake for mio::Waker {
    fn wake(&self) -> io::Result<()> {
        Self::wake(self)
    }
}

/// Wakes a thread that sleeps on readiness.
pub type Bell = Doorbell<mio::Waker>;

/// Wakes one worker, if it sleeps. Shared by the worker and everyone who has work for it.
#[derive(Debug)]
pub struct Doorbell<W> {
    asleep: CachePadded<AtomicBool>,
    waker: W,
}

impl<W: Wake> Doorbell<W> {
    /// The doorbell of a worker that is awake.
    pub fn new(waker: W) -> Self {
        Self { asleep: CachePadded::new(AtomicBool::new(false)), waker }
    }

    /// Declares the worker, the only one who may call this, asleep until the value is dropped. It
    /// must look for work afterwards, and sleep only if there is none:
    ///
    /// ```
    /// # fn sleep_until_woken() {}
    /// # use dataplane::sleep::{Doorbell, Wake};
    /// # fn example<W: Wake>(doorbell: &Doorbell<W>, found_work: impl Fn() -> bool) {
    /// let asleep = doorbell.prepare();
    /// if !found_work() {
    ///     sleep_until_woken();
    /// }
    /// drop(asleep);
    /// # }
    /// ```
    #[must_use = "the worker is asleep until this is dropped"]
    pub fn prepare(&self) -> Asleep<'_> {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Asleep { flag: &self.asleep }
    }

    /// To be called after work for the worker was made visible (a push to its ring, a
    /// publication): wakes it, if it sleeps and nobody else has. One fence and one load
    /// otherwise, so ring once per batch.
    ///
    /// # Errors
    ///
    /// Those of the waker; the worker then sleeps on until its own timeout.
    #[inline]
    pub fn ring(&self) -> io::Result<()> {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.waker.wake()?;
        }
        Ok(())
    }
}

/// While this lives, its worker counts as asleep.
pub struct Asleep<'a> {
    flag: &'a AtomicBool,
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.flag.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Default)]
    struct Rings(std::sync::atomic::AtomicU32);

    impl Wake for &Rings {
        fn wake(&self) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let rings = Rings::default();
        let doorbell = Doorbell::new(&rings);
        let ring = || {
            doorbell.ring().unwrap();
            rings.0.load(Ordering::Relaxed)
        };
        assert_eq!(ring(), 0, "awake");
        let asleep = doorbell.prepare();
        assert_eq!((ring(), ring()), (1, 1));
        drop(asleep);
        assert_eq!(ring(), 1, "awake again");
        drop(doorbell.prepare());
        assert_eq!(ring(), 1, "found work before it slept");
    }

    #[test]
    fn a_ring_before_the_sleep_ends_it() {
        let mut poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let doorbell = Doorbell::new(waker);
        let asleep = doorbell.prepare();
        doorbell.ring().unwrap();
        let (begin, patience) = (Instant::now(), Duration::from_secs(10));
        poll.poll(&mut mio::Events::with_capacity(1), Some(patience)).unwrap();
        drop(asleep);
        assert!(begin.elapsed() < patience);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Condvar, thread};

    use super::*;
    use crate::sync::{Arc, AtomicU32, Mutex};

    /// An eventfd: a wake before the wait ends it, too.
    #[derive(Default)]
    struct Event {
        woken: Mutex<bool>,
        condition: Condvar,
    }

    impl Event {
        fn wait(&self) {
            let mut woken = self.woken.lock().unwrap();
            while !*woken {
                woken = self.condition.wait(woken).unwrap();
            }
            *woken = false;
        }
    }

    impl Wake for Event {
        fn wake(&self) -> io::Result<()> {
            *self.woken.lock().unwrap() = true;
            self.condition.notify_one();
            Ok(())
        }
    }

    /// Sleeps until `amount` of work has come. If a wake-up is lost, all threads wait for each
    /// other, which loom reports.
    fn work_until(amount: u32, doorbell: &Doorbell<Event>, work: &AtomicU32) {
        while work.load(Ordering::Relaxed) < amount {
            let asleep = doorbell.prepare();
            if work.load(Ordering::Relaxed) < amount {
                doorbell.waker.wait();
            }
            drop(asleep);
        }
    }

    fn ringers_against_sleeper(ringers: u32) {
        let mut model = loom::model::Builder::new();
        // With two ringers, all interleavings would take hours.
        model.preemption_bound = Some(3);
        model.check(move || {
            let doorbell = Arc::new(Doorbell::new(Event::default()));
            let work = Arc::new(AtomicU32::new(0));
            let threads: Vec<_> = (0..ringers)
                .map(|_| {
                    let (doorbell, work) = (doorbell.clone(), work.clone());
                    thread::spawn(move || {
                        work.fetch_add(1, Ordering::Relaxed);
                        doorbell.ring().unwrap();
                    })
                })
                .collect();
            work_until(ringers, &doorbell, &work);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_no_wake_up_is_lost() {
        ringers_against_sleeper(1);
    }

    #[test]
    fn loom_no_wake_up_is_lost_between_two_ringers() {
        ringers_against_sleeper(2);
    }
}
