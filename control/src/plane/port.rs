//! One port, of an endpoint or to the outside: the device that it has, and how that is served.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::device::netlink::{self, Link, Netlink};
use dataplane::device::netns::{self, Identity, Netns};
use dataplane::engine::Place;
use dataplane::ids::PortId;
use dataplane::offload::Capabilities;
use dataplane::port::memory::{FarEnd, Memory};
use dataplane::port::tap::{Tap, device as tap_device};
use dataplane::worker::WorkerError;
use thiserror::Error;

use super::backstage::{BackstageError, Hearsay};
use super::device::{self, DeviceError, Wanted};
use super::drive::{self, Drive, DriveError, Task};
use super::wish::Wish;
use super::{CountersByWorker, Plane, only_owner, tap, veth};
use crate::config::Io;
use crate::model::{Endpoint, Uplink};

/// One port.
pub struct Port {
    /// Whose it is.
    pub owner: Owner,
    /// What it has counted.
    pub counters: CountersByWorker,
    /// How it is served.
    pub device: Device,
    pub(super) wish: Wish,
}

/// Whose a port is.
#[derive(Debug, Clone)]
pub enum Owner {
    /// An endpoint's.
    Endpoint(Arc<Endpoint>),
    /// That of networks which are plugged into the same device.
    Uplink(Arc<Uplink>),
}

impl Owner {
    /// The number of its port.
    pub fn id(&self) -> PortId {
        match self {
            Self::Endpoint(endpoint) => endpoint.id,
            Self::Uplink(uplink) => uplink.id,
        }
    }

    /// The endpoint's name, or the device's.
    pub fn name(&self) -> &str {
        match self {
            Self::Endpoint(endpoint) => &endpoint.spec.name,
            Self::Uplink(uplink) => &uplink.device,
        }
    }
}

/// How a port is served.
pub enum Device {
    /// By the queues of a TAP in this namespace.
    Tap {
        /// The namespace that it was found in.
        netns: Identity,
        /// One more descriptor of its first queue, to turn its carrier on and off.
        carrier: OwnedFd,
        /// Whether an earlier heddle has served it.
        adopted: bool,
    },
    /// By sockets on a device of the kernel's.
    Driven {
        /// The device: the near end of a veth, or one that was there.
        link: Link,
        /// The namespace that the far end of a veth was found in, or the other device.
        netns: Identity,
        /// The sockets.
        drive: Drive,
        /// Whether an earlier heddle has served it.
        adopted: bool,
    },
    /// By rings whose far end is kept here; nobody takes frames from it.
    Memory(FarEnd),
    /// Not yet, or no longer: the container is not there, or its device can't be had.
    Waiting {
        /// What was last tried, and how it failed.
        reason: String,
        /// When: tried again after a while, or as soon as there is another namespace.
        tried: Instant,
        /// The namespace in which it failed.
        netns: Option<Identity>,
    },
}

impl Device {
    pub(super) fn waiting(reason: String, netns: Option<Identity>) -> Self {
        Self::Waiting { reason, tried: Instant::now(), netns }
    }
}

/// Why a port can't be served.
#[derive(Debug, Error)]
enum PortError {
    /// No device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Nothing to drive it with.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// No worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// No descriptor left.
    #[error("no descriptor for the carrier: {0}")]
    Descriptor(#[from] std::io::Error),
    /// An existing device does not exist.
    #[error("there is no device `{name}` {}", place(netns.as_deref()))]
    NoDevice {
        /// Its name.
        name: String,
        /// Where it was looked for.
        netns: Option<PathBuf>,
    },
}

/// How long a device that can't be had is left alone.
const AGAIN: Duration = Duration::from_secs(2);

/// Packets in flight on each ring of a memory port.
const MEMORY_DEPTH: usize = 1024;

impl Port {
    /// A port that is not served yet.
    pub(super) fn new(plane: &Plane, owner: Owner, wish: Wish) -> Self {
        Self {
            owner,
            counters: plane.workers().iter().map(|_| Arc::default()).collect(),
            device: Device::waiting("not tried yet".to_owned(), None),
            wish,
        }
    }

    /// The port's name.
    pub fn name(&self) -> &str {
        self.owner.name()
    }

    fn reason(&self) -> Option<&str> {
        match &self.device {
            Device::Waiting { reason, .. } => Some(reason),
            _ => None,
        }
    }

    fn id(&self) -> PortId {
        self.owner.id()
    }

    /// Opens the device and attaches its queues; what can't be had is noted.
    pub(super) fn serve(&mut self, plane: &Plane) -> Result<(), WorkerError> {
        let served = match &self.wish {
            Wish::Tap(netns, wanted) => self.serve_tap(plane, netns, wanted),
            Wish::Veth(netns, wanted, io) => self.serve_veth(plane, netns, wanted, *io),
            Wish::Existing(netns, name, io) => {
                self.serve_existing(plane, netns.as_deref(), name, *io)
            }
            Wish::Parent(name, io, _) => self.serve_existing(plane, None, name, *io),
            Wish::Memory => self.serve_memory(plane),
        };
        self.device = match served {
            Ok(device) => device,
            Err(PortError::Worker(error @ WorkerError::Ended(_))) => return Err(error),
            Err(error) => {
                // Some workers may have theirs already.
                self.retire(plane)?;
                Device::waiting(error.to_string(), self.wish.netns())
            }
        };
        Ok(())
    }

    fn serve_tap(&self, plane: &Plane, netns: &Path, wanted: &Wanted) -> Result<Device, PortError> {
        let netns = Netns::open(netns).map_err(DeviceError::from)?;
        let identity = netns.identity().map_err(DeviceError::from)?;
        let tap::Opened { queues, adopted } = tap::open(&netns, wanted, plane.workers().len())?;
        let carrier = match queues.first() {
            Some(queue) => queue.try_clone()?,
            None => return Err(DeviceError::Vanished(wanted.name.clone()).into()),
        };
        let here = |queue| Place::Here(Box::new(Tap::new(self.id(), queue)));
        self.attach(plane, queues.into_iter().map(here).collect())?;
        Ok(Device::Tap { netns: identity, carrier, adopted })
    }

    fn serve_veth(
        &self,
        plane: &Plane,
        netns: &Path,
        wanted: &Wanted,
        io: Io,
    ) -> Result<Device, PortError> {
        let netns = Netns::open(netns).map_err(DeviceError::from)?;
        let identity = netns.identity().map_err(DeviceError::from)?;
        let backstage = plane.backstage().netns().map_err(DriveError::from)?;
        let queues = u32::try_from(plane.workers().len()).unwrap_or(1);
        let veth::Opened { near, adopted } = veth::open(&netns, backstage, wanted, queues)?;
        if io == Io::AfXdp {
            veth::keep_tags(&netns, wanted)?;
        }
        let drive = self.drive(plane, backstage, &near, io)?;
        Ok(Device::Driven { link: near, netns: identity, drive, adopted })
    }

    fn serve_existing(
        &self,
        plane: &Plane,
        path: Option<&Path>,
        name: &str,
        io: Io,
    ) -> Result<Device, PortError> {
        let netns = open_or_own(path).map_err(DeviceError::from)?;
        let identity = netns.identity().map_err(DeviceError::from)?;
        let find = || Netlink::open()?.link(name);
        let found = netns.run(find).map_err(DeviceError::from)?.map_err(DeviceError::from)?;
        let no_device =
            || PortError::NoDevice { name: name.to_owned(), netns: path.map(Path::to_owned) };
        let link = found.ok_or_else(no_device)?;
        let drive = self.drive(plane, &netns, &link, io)?;
        Ok(Device::Driven { link, netns: identity, drive, adopted: false })
    }

    fn drive(&self, plane: &Plane, netns: &Netns, link: &Link, io: Io) -> Result<Drive, PortError> {
        let (port, workers) = (self.id(), plane.workers().len());
        let (backstage, frames) = (plane.backstage(), plane.backstage().fill_depth(workers));
        let shared = match &self.wish {
            Wish::Parent(.., stations) => Some(stations),
            _ => None,
        };
        let made = matches!(self.wish, Wish::Veth(..));
        let task = Task { backstage, netns, link, port, io, workers, frames, shared, made };
        let drive::Opened { places, drive } = drive::open(&task)?;
        match self.attach(plane, places) {
            Ok(()) => Ok(drive),
            Err(error) => {
                self.retire(plane)?;
                drive.stop(netns)?;
                Err(error.into())
            }
        }
    }

    /// A memory port has one queue: the other workers hand what is for it to its owner.
    fn serve_memory(&self, plane: &Plane) -> Result<Device, PortError> {
        let owner = only_owner(self.id(), plane.workers().len());
        let (port, far_end) = Memory::pair(self.id(), MEMORY_DEPTH, Capabilities::default());
        let mut port = Some(port);
        let place = |worker| match port.take_if(|_| worker == owner) {
            Some(port) => Place::Here(Box::new(port) as _),
            None => Place::At(owner),
        };
        self.attach(plane, plane.workers().iter().map(|worker| worker.id()).map(place).collect())?;
        Ok(Device::Memory(far_end))
    }

    /// Gives each worker its place.
    fn attach(&self, plane: &Plane, places: Vec<Place>) -> Result<(), WorkerError> {
        let workers = plane.workers().iter().zip(&self.counters);
        for (place, (worker, counters)) in places.into_iter().zip(workers) {
            worker.attach(self.id(), place, Arc::clone(counters))?;
        }
        Ok(())
    }

    /// Tells the container that its device is served. One that is gone meanwhile is noticed by
    /// [`Port::look_after`].
    pub(super) fn raise(&self, plane: &Plane) {
        match (&self.device, &self.wish) {
            (Device::Tap { carrier, .. }, _) => {
                let _ = tap_device::set_carrier(carrier.as_fd(), true);
            }
            (Device::Driven { link, .. }, Wish::Veth(..)) => {
                if let Ok(backstage) = plane.backstage().netns() {
                    let _ = backstage.run(|| Netlink::open()?.set_up(link.index));
                }
            }
            _ => {}
        }
    }

    /// Does a step of `work` on a device that was adopted.
    pub(super) fn resume(&self, work: impl FnOnce(&Netns, &str) -> Result<(), DeviceError>) {
        let adopted = match &self.device {
            Device::Tap { adopted, .. } | Device::Driven { adopted, .. } => *adopted,
            Device::Memory(_) | Device::Waiting { .. } => false,
        };
        let (Wish::Tap(path, wanted) | Wish::Veth(path, wanted, _)) = &self.wish else { return };
        if !adopted {
            return;
        }
        let done = Netns::open(path)
            .map_err(DeviceError::from)
            .and_then(|netns| work(&netns, &wanted.name));
        if let Err(error) = done {
            tracing::warn!(port = self.name(), %error, "traffic may wait for a second");
        }
    }

    /// Changes what the port is to be made of. The device that it has follows; one that is to be
    /// driven otherwise is opened anew.
    pub(super) fn change(&mut self, plane: &Plane, wish: Wish) -> Result<(), WorkerError> {
        if self.wish == wish {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.wish, wish);
        if before.is_driven_otherwise_than(&self.wish) {
            self.lose(plane, "it is to be driven otherwise")?;
            return self.serve(plane);
        }
        self.adapt(plane);
        Ok(())
    }

    /// Has the device follow the wish.
    fn adapt(&mut self, plane: &Plane) {
        if let Device::Waiting { netns, .. } = &mut self.device {
            // What is wanted now may be had.
            *netns = None;
            return;
        }
        let changed = match &self.wish {
            Wish::Tap(path, wanted) => Netns::open(path)
                .map_err(DeviceError::from)
                .and_then(|netns| device::change(&netns, wanted)),
            Wish::Veth(path, wanted, _) => change_veth(plane, path, wanted),
            Wish::Parent(name, _, stations) => match &mut self.device {
                Device::Driven { drive, .. } => {
                    drive.set_stations(name, stations).map_err(DeviceError::from)
                }
                _ => Ok(()),
            },
            Wish::Existing(..) | Wish::Memory => Ok(()),
        };
        if let Err(error) = changed {
            tracing::warn!(port = self.name(), %error, "device not changed");
        }
    }

    /// Takes the port off all workers.
    pub(super) fn retire(&self, plane: &Plane) -> Result<(), WorkerError> {
        plane.workers().iter().try_for_each(|worker| worker.detach(self.id()))
    }

    /// Lets the device go, whose queues are closed. It stays, but for what heddle put on it.
    pub(super) fn release(&mut self, plane: &Plane, reason: &str) {
        let device = std::mem::replace(&mut self.device, Device::waiting(reason.to_owned(), None));
        let Device::Driven { drive, .. } = device else { return };
        let stopped = match self.home(plane) {
            Ok(netns) => drive.stop(&netns),
            Err(_) => drive.abandon(),
        };
        if let Err(error) = stopped {
            tracing::warn!(port = self.name(), %error, "something is left on its device");
        }
    }

    /// The namespace of what is driven.
    fn home(&self, plane: &Plane) -> Result<Netns, BackstageError> {
        match &self.wish {
            Wish::Existing(path, ..) => Ok(open_or_own(path.as_deref())?),
            Wish::Parent(..) => Ok(Netns::current()?),
            _ => Ok(Netns::open(plane.backstage().netns()?.path())?),
        }
    }

    /// Closes the queues of a device that is no more; with them its namespace can go.
    fn lose(&mut self, plane: &Plane, reason: &str) -> Result<(), WorkerError> {
        self.retire(plane)?;
        self.release(plane, reason);
        tracing::info!(port = self.name(), "{reason}");
        Ok(())
    }

    /// Notices what has become of the device and its namespace, and serves what is there now.
    pub(super) fn look_after(&mut self, plane: &Plane, heard: &Hearsay) -> Result<(), WorkerError> {
        let there = self.wish.netns();
        if let Some(reason) = self.fault(plane, there, heard) {
            self.lose(plane, reason)?;
        }
        let Device::Waiting { netns, tried, .. } = &self.device else { return Ok(()) };
        if there.is_none() || (*netns == there && tried.elapsed() < AGAIN) {
            return Ok(());
        }
        let before = self.reason().map(str::to_owned);
        self.serve(plane)?;
        match self.reason() {
            None => {
                self.raise(plane);
                self.resume(device::wait_until_running);
                self.resume(device::forget_neighbors);
                tracing::info!(port = self.name(), "its device is there");
            }
            // The same again is no news.
            Some(reason) if before.as_deref() != Some(reason) => {
                tracing::warn!(port = self.name(), reason, "no device");
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Why a device can't be served any more, if that is so.
    fn fault(
        &self,
        plane: &Plane,
        there: Option<Identity>,
        heard: &Hearsay,
    ) -> Option<&'static str> {
        match &self.device {
            Device::Memory(_) | Device::Waiting { .. } => None,
            Device::Tap { netns, .. } | Device::Driven { netns, .. } if there != Some(*netns) => {
                Some("its container is gone")
            }
            Device::Tap { carrier, .. } => {
                let gone = !tap_device::is_there(carrier.as_fd());
                gone.then_some("its device was deleted")
            }
            Device::Driven { link, drive, .. } => {
                let news = match &self.wish {
                    Wish::Existing(None, ..) | Wish::Parent(..) => &heard.host,
                    Wish::Existing(Some(_), ..) => &heard.elsewhere,
                    _ => &heard.backstage,
                };
                news.concern(link.index).then(|| self.fault_of_link(plane, link, drive)).flatten()
            }
        }
    }

    /// The same for a device of which something was heard.
    fn fault_of_link(&self, plane: &Plane, link: &Link, drive: &Drive) -> Option<&'static str> {
        let home = self.home(plane).ok()?;
        match home.run(|| Netlink::open()?.link_at(link.index)).ok()? {
            Ok(None) => Some("its device was deleted"),
            Ok(Some(now)) if drive.misses_queues(&home, &now) => {
                Some("its device has other queues")
            }
            // What can't be asked now is asked again with the next news.
            Ok(Some(_)) | Err(_) => None,
        }
    }
}

fn change_veth(plane: &Plane, path: &Path, wanted: &Wanted) -> Result<(), DeviceError> {
    let backstage = plane.backstage().netns().map_err(DriveError::from)?;
    veth::change(&Netns::open(path)?, backstage, wanted)
}

fn open_or_own(path: Option<&Path>) -> Result<Netns, netns::Error> {
    path.map_or_else(Netns::current, Netns::open)
}

fn place(netns: Option<&Path>) -> String {
    netns.map_or_else(|| "here".to_owned(), |netns| format!("in {}", netns.display()))
}

impl From<netlink::Error> for PortError {
    fn from(error: netlink::Error) -> Self {
        Self::Device(error.into())
    }
}
