//! The running switch: the inventory of what is desired, the data plane that carries it out, and
//! the one way in which the one follows the other.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dataplane::worker::WorkerError;
use thiserror::Error;

use crate::compile;
use crate::config::{Config, Workers};
use crate::ipam::Ipam;
use crate::model::{Change, Desired, Endpoint, Inventory, Model, Plan, PlanError};
use crate::plane::{Device, Plane, PlaneError, Ports, Settings};

/// The switch as control runs it.
pub struct Switch {
    /// What there is.
    pub inventory: Inventory,
    /// What carries it out.
    pub plane: Plane,
    /// The endpoints' ports.
    pub ports: Ports,
    /// Begins the alias of every device that this heddle makes.
    instance: String,
    /// The core of each worker.
    cores: Vec<Option<usize>>,
}

/// Why the switch can't do what is asked.
#[derive(Debug, Error)]
pub enum SwitchError {
    /// The data plane failed.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// A worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// What is desired can't be had.
    #[error("{}", list(.0))]
    Plan(Vec<PlanError>),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(rustix::io::Errno),
}

impl Switch {
    /// Starts the data plane for the host's settings, without any network yet.
    ///
    /// # Errors
    ///
    /// [`SwitchError`] when memory or threads can't be had.
    pub fn start(config: &Config, ipam: Ipam) -> Result<Self, SwitchError> {
        let cores = cores(&config.host.workers);
        let instance = format!("heddle:{}:", config.host.state.display());
        let settings = Settings {
            cores: cores.clone(),
            memory: usize::try_from(config.host.memory.0).unwrap_or(usize::MAX),
            linger: Duration::from_micros(20),
            netns: config.host.netns.clone(),
        };
        let tables = compile::compile_all(&Model::default(), random()?);
        let plane = Plane::start(&settings, tables, [random()?, random()?])?;
        let (inventory, ports) = (Inventory::new(ipam), Ports::default());
        Ok(Self { inventory, plane, ports, instance, cores })
    }

    /// The core that each worker is pinned to; `None` leaves the choice to the scheduler.
    pub fn cores(&self) -> &[Option<usize>] {
        &self.cores
    }

    /// Begins the alias of every device that this heddle makes.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Plans the way to what is desired; [`Switch::carry_out`] takes it.
    ///
    /// # Errors
    ///
    /// [`SwitchError::Plan`] with everything that can't be had.
    pub fn plan(&self, desired: &Desired) -> Result<Plan, SwitchError> {
        self.inventory.plan(desired, since_epoch()).map_err(SwitchError::Plan)
    }

    /// Carries a plan out, once its records are stored. What goes is out of the tables before its
    /// device is removed, and removed before what comes is made, which may be of the same name;
    /// what comes is served before the tables name it. Untouched ports lose nothing.
    ///
    /// # Errors
    ///
    /// [`SwitchError`] when a worker is gone or stuck.
    pub fn carry_out(&mut self, plan: Plan) -> Result<(), SwitchError> {
        let Plan { next, changes, retired, .. } = plan;
        let (going, coming): (Vec<_>, Vec<_>) = changes.into_iter().partition(Change::is_removal);
        self.remove(&going, next.model())?;
        self.add(&coming, next.model())?;
        self.inventory = next;
        if let Err(error) = self.inventory.release(&retired) {
            tracing::error!(%error, "a number was given back twice");
        }
        Ok(())
    }

    fn remove(&mut self, changes: &[Change], model: &Model) -> Result<(), SwitchError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.plane.publish(compile::apply(&self.plane.tables(), changes, model))?;
        for change in changes {
            match change {
                Change::EndpointRemoved(endpoint) => self.ports.detach(&self.plane, endpoint.id)?,
                Change::NetworkRemoved(network) => self.plane.leave(network)?,
                Change::UplinkRemoved(uplink) => self.ports.detach(&self.plane, uplink.id)?,
                _ => {}
            }
        }
        self.replug(changes, model)?;
        // What was learned behind removed ports goes before their numbers are given again.
        self.plane.sweep()?;
        Ok(())
    }

    fn add(&mut self, changes: &[Change], model: &Model) -> Result<(), SwitchError> {
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            self.prepare(change, model)?;
        }
        self.replug(changes, model)?;
        self.plane.publish(compile::apply(&self.plane.tables(), changes, model))?;
        let added: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::EndpointAdded(endpoint) => Some(endpoint.id),
                _ => None,
            })
            .collect();
        self.ports.raise(&self.plane, &added);
        Ok(())
    }

    /// What is done every second or so.
    ///
    /// # Errors
    ///
    /// [`SwitchError`] when a worker is gone or stuck.
    pub fn tend(&mut self) -> Result<(), SwitchError> {
        self.plane.sweep()?;
        Ok(())
    }

    /// Looks after containers that came and went.
    ///
    /// # Errors
    ///
    /// [`SwitchError`] when a worker is gone.
    pub fn look_after_containers(&mut self) -> Result<(), SwitchError> {
        self.ports.look_after(&self.plane)?;
        Ok(())
    }

    /// Removes every device, so that nothing of heddle is left behind.
    ///
    /// # Errors
    ///
    /// [`SwitchError`] when a worker is gone.
    pub fn remove_devices(&mut self) -> Result<(), SwitchError> {
        let all: Vec<_> = self.ports.iter().map(|(id, _)| *id).collect();
        for port in all {
            self.ports.detach(&self.plane, port)?;
        }
        if let Err(error) = self.plane.backstage_mut().remove() {
            tracing::warn!(%error, "heddle's own namespace is left behind");
        }
        Ok(())
    }

    fn prepare(&mut self, change: &Change, model: &Model) -> Result<(), SwitchError> {
        match change {
            Change::EndpointAdded(endpoint) => {
                if let Some(network) = model.networks.get(&endpoint.spec.network) {
                    self.ports.attach(&self.plane, &self.instance, endpoint, network)?;
                    self.warn_of(endpoint.id);
                }
            }
            Change::EndpointChanged { new, .. } => {
                if let Some(network) = model.networks.get(&new.spec.network) {
                    self.ports.change(&self.plane, &self.instance, new, network)?;
                }
            }
            Change::NetworkAdded(network) => self.plane.join(network)?,
            Change::NetworkChanged { new, .. } => {
                self.plane.rejoin(new);
                for endpoint in model.endpoints_of(&new.spec.name) {
                    self.ports.change(&self.plane, &self.instance, endpoint, new)?;
                }
            }
            Change::UplinkAdded(uplink) => {
                self.ports.plug(&self.plane, uplink, model)?;
                self.warn_of(uplink.id);
            }
            Change::UplinkChanged { new, .. } => self.ports.replug(&self.plane, new, model)?,
            Change::EndpointRemoved(_) | Change::NetworkRemoved(_) | Change::UplinkRemoved(_) => {}
        }
        Ok(())
    }

    /// Tells uplinks which stations are behind them now.
    fn replug(&mut self, changes: &[Change], model: &Model) -> Result<(), WorkerError> {
        let network = |endpoint: &Endpoint| model.networks.get(&endpoint.spec.network);
        let networks = changes.iter().filter_map(|change| match change {
            Change::EndpointAdded(endpoint)
            | Change::EndpointRemoved(endpoint)
            | Change::EndpointChanged { new: endpoint, .. } => network(endpoint),
            Change::NetworkAdded(network)
            | Change::NetworkRemoved(network)
            | Change::NetworkChanged { new: network, .. } => Some(network),
            // They are told when they are plugged in, or changed.
            Change::UplinkAdded(_) | Change::UplinkRemoved(_) | Change::UplinkChanged { .. } => {
                None
            }
        });
        let parents = networks.filter_map(|network| network.spec.parent.as_ref());
        let devices: BTreeSet<&str> = parents.map(|parent| &*parent.device).collect();
        for uplink in devices.into_iter().filter_map(|device| model.uplinks.get(device)) {
            self.ports.replug(&self.plane, uplink, model)?;
        }
        Ok(())
    }

    fn warn_of(&self, port: dataplane::ids::PortId) {
        if let Some(port) = self.ports.port(port)
            && let Device::Waiting { reason, .. } = &port.device
        {
            tracing::warn!(port = port.name(), reason, "waiting for its device");
        }
    }
}

/// The core of each worker. By default one worker per two cores, so that containers' own work,
/// which takes the larger part, keeps the others.
fn cores(workers: &Workers) -> Vec<Option<usize>> {
    match workers {
        Workers::Cores(cores) => cores.iter().copied().map(Some).collect(),
        Workers::Auto => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            vec![None; (cores / 2).clamp(1, 8)]
        }
    }
}

/// Time since 1970: addresses rest across restarts, so their clock must too.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn random() -> Result<u64, SwitchError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(SwitchError::Random)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn list(errors: &[PlanError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
