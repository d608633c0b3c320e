//! The ports of all endpoints: which device each has, and what it has counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::PortCounters;
use dataplane::device::netns::{self, Identity, Netns};
use dataplane::engine::Place;
use dataplane::ids::PortId;
use dataplane::offload::Capabilities;
use dataplane::port::memory::{FarEnd, Memory};
use dataplane::port::tap::{Tap, device as tap};
use dataplane::worker::{Handle, WorkerError};
use pipelines::switch::Switch;
use thiserror::Error;

use super::device::{self, DeviceError, Opened, Site, Wanted};
use super::{CountersByWorker, Plane, only_owner};
use crate::config;
use crate::model::{Endpoint, Network};

/// The ports that there are, by number.
#[derive(Default)]
pub struct Ports {
    ports: BTreeMap<PortId, Port>,
    /// Devices without a port that could not be removed yet.
    orphans: Vec<Site>,
}

/// One endpoint's port.
pub struct Port {
    /// Whose it is.
    pub endpoint: Arc<Endpoint>,
    /// What it has counted.
    pub counters: CountersByWorker,
    /// How it is served.
    pub device: Device,
    wanted: Option<(PathBuf, Wanted)>,
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
    fn waiting(reason: String, netns: Option<Identity>) -> Self {
        Self::Waiting { reason, tried: Instant::now(), netns }
    }
}

/// Why a port can't be served.
#[derive(Debug, Error)]
enum PortError {
    /// No device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// No descriptor left.
    #[error("no descriptor for the carrier: {0}")]
    Descriptor(#[from] std::io::Error),
}

/// How long a device that can't be had is left alone.
const AGAIN: Duration = Duration::from_secs(2);

/// Packets in flight on each ring of a memory port.
const MEMORY_DEPTH: usize = 1024;

impl Ports {
    /// Every port, by number.
    pub fn iter(&self) -> impl Iterator<Item = (&PortId, &Port)> {
        self.ports.iter()
    }

    /// One endpoint's port.
    pub fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(&port)
    }

    /// Serves an endpoint: opens its device and puts a queue of it on every worker. The carrier
    /// stays off until [`Ports::raise`]. A container that is not there yet is waited for.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone; a device that can't be had is noted in the port.
    pub fn attach(
        &mut self,
        plane: &Plane,
        instance: &str,
        endpoint: &Arc<Endpoint>,
        network: &Network,
    ) -> Result<(), WorkerError> {
        let counters = plane.workers().iter().map(|_| Arc::default()).collect();
        let mut port = Port {
            endpoint: Arc::clone(endpoint),
            counters,
            device: Device::waiting("not tried yet".to_owned(), None),
            wanted: wanted(instance, endpoint, network),
        };
        let adopted = site(instance, endpoint);
        self.orphans.retain(|orphan| Some(orphan) != adopted.as_ref());
        port.serve(plane.workers())?;
        self.ports.insert(endpoint.id, port);
        Ok(())
    }

    /// Tells endpoints' devices that they are served. All that were adopted must let packets
    /// through before the first asks for its neighbours again, so that these can answer.
    pub fn raise(&self, ports: &[PortId]) {
        let ports = || ports.iter().filter_map(|port| self.ports.get(port));
        ports().for_each(Port::raise);
        ports().for_each(|port| port.resume(device::wait_until_running));
        ports().for_each(|port| port.resume(device::forget_neighbors));
    }

    /// Changes an endpoint that keeps its port and device.
    pub fn change(&mut self, instance: &str, endpoint: &Arc<Endpoint>, network: &Network) {
        let Some(port) = self.ports.get_mut(&endpoint.id) else { return };
        port.endpoint = Arc::clone(endpoint);
        let wanted = wanted(instance, endpoint, network);
        if port.wanted == wanted {
            return;
        }
        port.wanted = wanted;
        if let Device::Waiting { netns, .. } = &mut port.device {
            // What is wanted now may be had.
            *netns = None;
        }
        if let (Device::Tap { .. }, Some((netns, wanted))) = (&port.device, &port.wanted) {
            let changed = Netns::open(netns)
                .map_err(DeviceError::from)
                .and_then(|netns| device::change(&netns, wanted));
            if let Err(error) = changed {
                tracing::warn!(endpoint = endpoint.spec.name, %error, "device not changed");
            }
        }
    }

    /// Stops serving an endpoint and removes its device, now or as soon as that can be done.
    /// Nothing may refer to it any more.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn detach(&mut self, plane: &Plane, port: PortId) -> Result<(), WorkerError> {
        let Some(port) = self.ports.remove(&port) else { return Ok(()) };
        port.retire(plane.workers())?;
        let Some((netns, Wanted { name, alias, .. })) = port.wanted else { return Ok(()) };
        self.clear(Site { netns, name, alias });
        Ok(())
    }

    /// Removes a device that has no port, now or as soon as that can be done.
    pub fn clear(&mut self, site: Site) {
        if let Err(error) = site.clear() {
            tracing::warn!(netns = %site.netns.display(), name = site.name, %error, "device not removed");
            self.orphans.push(site);
        }
    }

    /// Whether a device without a port is still to be removed.
    pub fn is_orphan(&self, site: &Site) -> bool {
        self.orphans.contains(site)
    }

    /// Looks after containers that came, went, or were replaced by others of the same name.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn look_after(&mut self, plane: &Plane) -> Result<(), WorkerError> {
        self.orphans.retain(|site| site.clear().is_err());
        for port in self.ports.values_mut() {
            port.look_after(plane.workers())?;
        }
        Ok(())
    }
}

impl Port {
    /// The port's name.
    pub fn name(&self) -> &str {
        &self.endpoint.spec.name
    }

    fn reason(&self) -> Option<&str> {
        match &self.device {
            Device::Waiting { reason, .. } => Some(reason),
            Device::Tap { .. } | Device::Memory(_) => None,
        }
    }

    fn id(&self) -> PortId {
        self.endpoint.id
    }

    /// Opens the device and attaches its queues; what can't be had is noted.
    fn serve(&mut self, workers: &[Handle<Switch>]) -> Result<(), WorkerError> {
        let served = match (&self.endpoint.spec.device, &self.wanted) {
            (config::Device::Veth { .. } | config::Device::Existing { .. }, _) => {
                let kind = self.endpoint.spec.device.kind();
                self.device = Device::waiting(format!("kind = \"{kind}\" is not served yet"), None);
                return Ok(());
            }
            (_, Some((netns, wanted))) => self.serve_tap(workers, netns, wanted),
            (_, None) => self.serve_memory(workers),
        };
        self.device = match served {
            Ok(device) => device,
            Err(PortError::Worker(error @ WorkerError::Ended(_))) => return Err(error),
            Err(error) => {
                // Some workers may have theirs already.
                self.retire(workers)?;
                let netns =
                    self.wanted.as_ref().and_then(|(path, _)| netns::identity_of(path).ok());
                Device::waiting(error.to_string(), netns)
            }
        };
        Ok(())
    }

    fn serve_tap(
        &self,
        workers: &[Handle<Switch>],
        netns: &PathBuf,
        wanted: &Wanted,
    ) -> Result<Device, PortError> {
        let netns = Netns::open(netns).map_err(DeviceError::from)?;
        let identity = netns.identity().map_err(DeviceError::from)?;
        let Opened { queues, adopted } = device::open(&netns, wanted, workers.len())?;
        let carrier = match queues.first() {
            Some(queue) => queue.try_clone()?,
            None => return Err(DeviceError::Vanished(wanted.name.clone()).into()),
        };
        for ((queue, worker), counters) in queues.into_iter().zip(workers).zip(&self.counters) {
            let place = Place::Here(Box::new(Tap::new(self.id(), queue)));
            worker.attach(self.id(), place, Arc::clone(counters))?;
        }
        Ok(Device::Tap { netns: identity, carrier, adopted })
    }

    /// A memory port has one queue: the other workers hand what is for it to its owner.
    fn serve_memory(&self, workers: &[Handle<Switch>]) -> Result<Device, PortError> {
        let owner = only_owner(self.id(), workers.len());
        let (port, far_end) = Memory::pair(self.id(), MEMORY_DEPTH, Capabilities::default());
        let mut port = Some(port);
        for (worker, counters) in workers.iter().zip(&self.counters) {
            let place = match port.take_if(|_| worker.id() == owner) {
                Some(port) => Place::Here(Box::new(port)),
                None => Place::At(owner),
            };
            worker.attach(self.id(), place, Arc::clone(counters))?;
        }
        Ok(Device::Memory(far_end))
    }

    /// A device that is gone meanwhile is noticed by [`Port::look_after`].
    fn raise(&self) {
        if let Device::Tap { carrier, .. } = &self.device {
            let _ = tap::set_carrier(carrier.as_fd(), true);
        }
    }

    /// Does a step of `work` on a device that was adopted.
    fn resume(&self, work: impl FnOnce(&Netns, &str) -> Result<(), DeviceError>) {
        let (Device::Tap { adopted: true, .. }, Some((path, wanted))) =
            (&self.device, &self.wanted)
        else {
            return;
        };
        let done = Netns::open(path)
            .map_err(DeviceError::from)
            .and_then(|netns| work(&netns, &wanted.name));
        if let Err(error) = done {
            tracing::warn!(endpoint = self.name(), %error, "traffic may wait for a second");
        }
    }

    /// Takes the port off all workers.
    fn retire(&self, workers: &[Handle<Switch>]) -> Result<(), WorkerError> {
        workers.iter().try_for_each(|worker| worker.detach(self.id()))
    }

    /// Closes the queues of a device that is no more; with them its namespace can go.
    fn lose(&mut self, workers: &[Handle<Switch>], reason: &str) -> Result<(), WorkerError> {
        self.retire(workers)?;
        tracing::info!(endpoint = self.name(), "{reason}");
        self.device = Device::waiting(reason.to_owned(), None);
        Ok(())
    }

    fn look_after(&mut self, workers: &[Handle<Switch>]) -> Result<(), WorkerError> {
        let Some((path, _)) = &self.wanted else { return Ok(()) };
        let there = netns::identity_of(path).ok();
        match &self.device {
            Device::Tap { netns, carrier, .. } if there == Some(*netns) => {
                if tap::is_there(carrier.as_fd()) {
                    return Ok(());
                }
                self.lose(workers, "its device was deleted")?;
            }
            Device::Tap { .. } => self.lose(workers, "its container is gone")?,
            Device::Waiting { netns, tried, .. } if *netns == there && tried.elapsed() < AGAIN => {
                return Ok(());
            }
            Device::Waiting { .. } => {}
            Device::Memory(_) => return Ok(()),
        }
        if there.is_none() {
            return Ok(());
        }
        let before = self.reason().map(str::to_owned);
        self.serve(workers)?;
        match &self.device {
            Device::Tap { .. } => {
                self.raise();
                self.resume(device::wait_until_running);
                self.resume(device::forget_neighbors);
                tracing::info!(endpoint = self.name(), "its container is there");
            }
            // The same again is no news.
            Device::Waiting { reason, .. } if before.as_ref() != Some(reason) => {
                tracing::warn!(endpoint = self.name(), reason, "no device");
            }
            Device::Waiting { .. } => {}
            Device::Memory(_) => {}
        }
        Ok(())
    }
}

/// Where the device of an endpoint is to be, if heddle makes one for it.
pub fn site(instance: &str, endpoint: &Endpoint) -> Option<Site> {
    let config::Device::Tap { netns, name } = &endpoint.spec.device else { return None };
    let netns = match netns {
        config::Netns::Name(name) => PathBuf::from(name),
        config::Netns::Path(path) => path.clone(),
    };
    let alias = format!("{instance}{}", endpoint.spec.name);
    Some(Site { netns, name: name.clone(), alias })
}

/// The device that an endpoint is to have, and the namespace that it is to be in.
fn wanted(instance: &str, endpoint: &Endpoint, network: &Network) -> Option<(PathBuf, Wanted)> {
    let Site { netns, name, alias } = site(instance, endpoint)?;
    let reachable =
        |next_hop: &IpAddr| endpoint.addresses.iter().any(|address| address.contains(next_hop));
    let wanted = Wanted {
        name,
        alias,
        instance: instance.to_owned(),
        mac: endpoint.mac,
        mtu: network.spec.mtu,
        addresses: endpoint.addresses.clone(),
        gateways: first_of_each_family(network.spec.next_hops().filter(reachable)),
    };
    Some((netns, wanted))
}

fn first_of_each_family(gateways: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut first = Vec::new();
    for gateway in gateways {
        if !first.iter().any(|other: &IpAddr| other.is_ipv4() == gateway.is_ipv4()) {
            first.push(gateway);
        }
    }
    first
}

/// Sums one counter over all workers.
pub fn sum(counters: &[Arc<PortCounters>], of: impl Fn(&PortCounters) -> u64) -> u64 {
    counters.iter().map(|counters| of(counters)).sum()
}
