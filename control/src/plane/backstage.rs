//! heddle's own namespace, where the host's stack neither answers for heddle's ends of veths nor
//! filters them, and what AF_XDP needs beside its sockets.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dataplane::device::netlink::{self, Monitor, Netlink, News};
use dataplane::device::netns::{self, Netns};
use dataplane::device::xdp::{self, MOUNT_POINT, OURS, Pins};
use dataplane::memory::{Arena, Ledger};
use dataplane::port::af_xdp::{self, Umem};
use thiserror::Error;

/// What ports share that are driven by sockets. All of it is made when it is first needed.
pub struct Backstage {
    name: String,
    ledger: Arc<Ledger>,
    netns: OnceCell<Netns>,
    umem: OnceCell<Umem>,
    pins: OnceCell<Pins>,
    /// Of that namespace.
    near: RefCell<Option<Monitor>>,
    /// Of the one that heddle was started in.
    host: RefCell<Option<Monitor>>,
}

/// Frames that an AF_XDP queue holds for arrivals at most: 4 MiB.
const MOST_FILLED: u32 = 1024;
/// And at least.
const LEAST_FILLED: u32 = 8;

/// What was heard of devices since it was last asked, by where they are.
#[derive(Debug)]
pub(super) struct Hearsay {
    /// In heddle's own namespace.
    pub backstage: News,
    /// In the one that heddle was started in.
    pub host: News,
    /// Anywhere else: nobody listens there.
    pub elsewhere: News,
}

/// Why it can't be had.
#[derive(Debug, Error)]
pub enum BackstageError {
    /// No namespace.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// IPv6 stays on there.
    #[error("heddle's own namespace can't do without IPv6: {0}")]
    Sysctl(io::Error),
    /// The packet memory can't be registered.
    #[error(transparent)]
    Umem(#[from] af_xdp::Error),
    /// No place for what outlives heddle.
    #[error(transparent)]
    Pins(#[from] xdp::Error),
    /// The namespace's kernel does not answer.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

impl Backstage {
    /// Nothing yet, for the packet memory in `arena`. `name` is the namespace's, which stays when
    /// heddle dies, and also of the directory of what is pinned.
    pub(super) fn new(name: String, arena: Arc<Arena>) -> Self {
        let (netns, umem, pins, near, host) = Default::default();
        Self { name, ledger: Arc::new(Ledger::new(arena)), netns, umem, pins, near, host }
    }

    /// The namespace.
    ///
    /// # Errors
    ///
    /// [`BackstageError::Netns`] and [`BackstageError::Sysctl`].
    pub(super) fn netns(&self) -> Result<&Netns, BackstageError> {
        get_or_make(&self.netns, || {
            let netns = match Netns::open(&self.name) {
                Err(error) if error.is_not_found() => Netns::create(&self.name)?,
                // What was bound there went with a mount namespace of an earlier heddle's.
                Err(netns::Error::NotNamespace(_)) => {
                    Netns::remove(&self.name)?;
                    Netns::create(&self.name)?
                }
                netns => netns?,
            };
            match netns.run(silence)? {
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(netns),
                done => done.map(|()| netns).map_err(BackstageError::Sysctl),
            }
        })
    }

    /// The packet memory, as the kernel knows it.
    ///
    /// # Errors
    ///
    /// [`BackstageError`].
    pub(super) fn umem(&self) -> Result<&Umem, BackstageError> {
        get_or_make(&self.umem, || {
            let ledger = Arc::clone(&self.ledger);
            Ok(self.netns()?.run(|| Umem::register(ledger))??)
        })
    }

    /// Where programs and their maps outlive heddle.
    ///
    /// # Errors
    ///
    /// [`BackstageError::Pins`].
    pub(super) fn pins(&self) -> Result<&Pins, BackstageError> {
        get_or_make(&self.pins, || Ok(Pins::open(MOUNT_POINT, &self.name)?))
    }

    /// Frames that the next AF_XDP queue is to hold for arrivals: a quarter of a worker's, divided
    /// by the queues that each worker has then. A burst of some super-packets' segments fits in
    /// while there are few. From the eighth on each holds less than that, so that hundreds leave
    /// something for packets on their way: 2 / n max(n, 8) comes to 0.91, summed over all n.
    pub(super) fn fill_depth(&self, workers: usize) -> u32 {
        // Every open queue has the ledger.
        let queues = Arc::strong_count(&self.ledger).div_ceil(workers.max(1));
        let depth = 2 * self.ledger.arena().geometry().small / (queues * queues.max(8));
        u32::try_from(depth).unwrap_or(u32::MAX).clamp(LEAST_FILLED, MOST_FILLED)
    }

    /// What was heard of devices since the last call. At first any may have changed.
    pub(super) fn listen(&self) -> Hearsay {
        let backstage = match self.netns.get() {
            Some(netns) => hear(&self.near, || Ok(netns.run(Monitor::open)??)),
            None => News::Of(BTreeSet::new()),
        };
        let host = hear(&self.host, || Ok(Monitor::open()?));
        Hearsay { backstage, host, elsewhere: News::OfAny }
    }

    /// Removes what earlier runs have left for devices that are not wanted any more. To be called
    /// at the start, when all that is wanted has been taken up.
    ///
    /// # Errors
    ///
    /// [`BackstageError`].
    pub fn sweep(&mut self) -> Result<(), BackstageError> {
        if Path::new(MOUNT_POINT).join(OURS).join(&self.name).exists() {
            self.pins()?.sweep()?;
        }
        if self.netns.get().is_none() {
            self.remove_netns()?;
        }
        Ok(())
    }

    /// Removes all of it. To be called when no port is left.
    ///
    /// # Errors
    ///
    /// [`BackstageError`].
    pub fn remove(&mut self) -> Result<(), BackstageError> {
        (self.umem, self.near) = Default::default();
        if let Some(pins) = self.pins.take() {
            pins.close()?;
        }
        self.remove_netns()
    }

    /// Removes the namespace, if it is there and empty: another heddle may use it as well.
    fn remove_netns(&mut self) -> Result<(), BackstageError> {
        self.netns.take();
        let netns = match Netns::open(&self.name) {
            Err(error) if error.is_not_found() => return Ok(()),
            netns => netns?,
        };
        // Nothing but `lo`.
        if netns.run(|| Netlink::open()?.links())??.len() <= 1 {
            Netns::remove(&self.name)?;
        }
        Ok(())
    }
}

/// Keeps the near ends of this namespace from speaking for themselves (RFC 4861, RFC 3810).
fn silence() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
}

fn get_or_make<T>(
    cell: &OnceCell<T>,
    make: impl FnOnce() -> Result<T, BackstageError>,
) -> Result<&T, BackstageError> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// What a monitor has to tell; one that there is not yet listens from now on.
fn hear(
    monitor: &RefCell<Option<Monitor>>,
    open: impl FnOnce() -> Result<Monitor, BackstageError>,
) -> News {
    match &mut *monitor.borrow_mut() {
        Some(monitor) => monitor.take(),
        none => {
            *none = open().ok();
            News::OfAny
        }
    }
}
