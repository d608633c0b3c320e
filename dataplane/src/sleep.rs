//! How a worker goes to sleep without missing what arrives at that moment.
//!
//! The sleeper declares itself asleep, *then* looks once more for work, then sleeps. Whoever has
//! work for it makes that visible, *then* looks whether it is asleep, and only then pays for a
//! wake-up. A sequentially consistent fence stands between the two lines on either side: at
//! least one side sees the other. Were either pair swapped, or a fence missing, both could miss, and the
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

/// Wakes one worker, if it sleeps. Shared by the worker and everyone who has work for it.
pub struct Doorbell<W> {
    asleep: CachePadded<AtomicBool>,
    waker: W,
}

impl<W: Wake> Doorbell<W> {
    /// The doorbell of a worker that is awake.
    pub fn new(waker: W) -> Self {
        Self { asleep: CachePadded::new(AtomicBool::new(false)), waker }
    }

    /// Declares the worker, the only one who may call this, asleep until the value is dropped. It must
    /// look for work afterwards, and sleep only if there is none:
    ///
    /// ```
    /// # fn sleep_until_woken() {}
    /// # fn example<W: dataplane::sleep::Wake>(doorbell: &dataplane::sleep::Doorbell<W>, found_work: impl Fn() -> bool) {
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
