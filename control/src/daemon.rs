//! heddle as it runs: the configuration file, what is stored, and the switch that follows both.
//!
//! Every change goes the same way: what is desired from then on is put together and planned, the
//! plan's records are stored together with the change that was asked for, and only then is it
//! carried out and answered. So nothing that was acknowledged is lost by a crash, and what is
//! refused has changed nothing.

mod change;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Notify;

use crate::config::{Config, Host, Problem, Report};
use crate::ipam::{self, Ipam};
use crate::model::{Change, Desired, Inventory, Origin, Plan, PlanError, Skipped, Stored};
use crate::plane::{Site, remove_strays, site};
use crate::store::{self, Edit, Store};
use crate::switch::{Switch, SwitchError, since_epoch};

pub use change::Kind;

/// The running heddle.
pub struct Daemon {
    path: PathBuf,
    config: Config,
    /// The settings that were in force at the start: they last as long as the process.
    host: Host,
    store: Store,
    /// The objects made at run time, as they are stored.
    stored: Vec<Stored>,
    /// Those of them that are not in force.
    skipped: Vec<Skipped>,
    switch: Switch,
    /// The devices that the store knows of.
    sites: HashSet<Site>,
    /// Those of them that are to be forgotten once they are gone.
    leaving: Vec<Site>,
    ending: Rc<Ending>,
}

/// The wish to end, and whoever waits for it.
#[derive(Debug, Default)]
pub struct Ending {
    wish: std::cell::Cell<Option<End>>,
    wished: Notify,
}

/// How a heddle ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Containers keep their devices, for a successor.
    Leave,
    /// Nothing of heddle stays.
    Detach,
    /// The data plane failed, and a successor is to take over.
    Failed,
}

/// Why a change was refused. But for [`Error::Switch`], nothing has changed.
#[derive(Debug, Error)]
pub enum Error {
    /// The file is wrong.
    #[error("{0}")]
    Config(#[from] Report),
    /// The object is wrong in itself.
    #[error("this {kind} can't be: {}", list(problems))]
    Invalid {
        /// What was to be made or changed.
        kind: Kind,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
    /// An object would not fit beside the others.
    #[error("`{name}` would not fit: {problem}")]
    Clash {
        /// The object's name: of what was to be made or changed, or of another one.
        name: String,
        /// The first thing that is wrong.
        problem: Box<Problem>,
    },
    /// There is one of that name.
    #[error("there is {kind} `{name}` already, from the {}", place(*origin))]
    Exists {
        /// What was to be made.
        kind: Kind,
        /// Its name.
        name: String,
        /// Whom the other one belongs to.
        origin: Origin,
    },
    /// There is none of that name.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// What was asked for.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The file names it, and so it owns it.
    #[error(
        "the {kind} `{name}` belongs to the configuration file: change it there, then `heddle \
         reload`"
    )]
    OwnedByFile {
        /// What was to be changed.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// An object keeps its name.
    #[error("the {kind} `{name}` can't be renamed to {found}: make another one")]
    Renamed {
        /// What was to be changed.
        kind: Kind,
        /// Its name.
        name: String,
        /// What stood for it.
        found: String,
    },
    /// A network has endpoints.
    #[error("the network `{name}` has endpoints ({}): remove them first", endpoints.join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// Some of their names.
        endpoints: Vec<String>,
    },
    /// Numbers or addresses can't be had.
    #[error("{}", list(.0))]
    Plan(Vec<PlanError>),
    /// It can't be stored.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The data plane failed.
    #[error(transparent)]
    Switch(SwitchError),
}

/// What taking up a changed configuration came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Networks and endpoints that came.
    pub added: usize,
    /// Those that changed and kept their devices.
    pub changed: usize,
    /// Those that went.
    pub removed: usize,
    /// What was made at run time and is not in force beside the new file, a sentence each.
    pub left_out: Vec<String>,
    /// Keys of `[host]` whose new values count from the next start.
    pub needs_restart: Vec<String>,
}

impl Daemon {
    /// Starts the switch with what the file at `path` and the stored state say.
    ///
    /// # Errors
    ///
    /// [`enum@Error`] when the file is wrong, its objects can't be had, the state can't be read, or
    /// the data plane can't be started.
    pub fn start(path: &Path) -> Result<Self, Error> {
        let config = Config::load(path)?;
        let store = Store::open(&config.host.state)?;
        let state = store.load()?;
        let switch = Switch::start(&config, Ipam::default()).map_err(Error::Switch)?;
        // They have our state directory's mark, and the open store says that it is ours alone.
        if let Err(error) = remove_strays(switch.instance()) {
            tracing::warn!(%error, "devices of an earlier run are left behind");
        }
        let mut daemon = Self {
            path: path.to_owned(),
            host: config.host.clone(),
            config,
            store,
            stored: state.objects,
            skipped: Vec::new(),
            switch,
            sites: state.sites.into_iter().collect(),
            leaving: Vec::new(),
            ending: Rc::default(),
        };
        daemon.take_up(state.leases)?;
        Ok(daemon)
    }

    /// The switch.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The same, for what is done from time to time.
    pub fn switch_mut(&mut self) -> &mut Switch {
        &mut self.switch
    }

    /// The settings in force.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where the wish to end is told.
    pub fn ending(&self) -> Rc<Ending> {
        Rc::clone(&self.ending)
    }

    /// Takes up the changed configuration file.
    ///
    /// # Errors
    ///
    /// [`enum@Error`]; a file that is wrong changes nothing.
    pub fn reload(&mut self) -> Result<Reloaded, Error> {
        let config = Config::load(&self.path)?;
        let (plan, skipped) =
            self.plan_around(&config, &self.stored, |object| self.is_unplaced(object))?;
        let reloaded = Reloaded {
            left_out: skipped.iter().map(ToString::to_string).collect(),
            needs_restart: differences(&self.host, &config.host),
            ..counted(&plan.changes)
        };
        self.carry_out(plan, &[])?;
        (self.config, self.skipped) = (config, skipped);
        self.warn_of_skipped();
        for key in &reloaded.needs_restart {
            tracing::warn!(key, "the new value counts from the next start");
        }
        let Reloaded { added, changed, removed, .. } = reloaded;
        tracing::info!(added, changed, removed, "reloaded");
        Ok(reloaded)
    }

    /// Forgets addresses that have rested enough, and devices that are gone.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; after a restart they rest again, and are forgotten then.
    pub fn expire(&mut self) -> Result<(), Error> {
        let records = self.switch.inventory.expire(since_epoch());
        self.write(&records, Vec::new())
    }

    /// The first plan. What was made at run time, and addresses that others had, never keep the
    /// file's objects from what they name.
    fn take_up(&mut self, mut leases: Vec<ipam::Record>) -> Result<(), Error> {
        let (plan, skipped) = loop {
            let ipam = Ipam::restore(ipam::REST, leases.iter().cloned(), since_epoch());
            self.switch.inventory = Inventory::new(ipam);
            match self.plan_around(&self.config, &self.stored, |_| true) {
                Err(Error::Plan(errors)) => {
                    let before = leases.len();
                    leases.retain(|lease| !errors.iter().any(|e| is_held(e, lease)));
                    if leases.len() == before {
                        return Err(Error::Plan(errors));
                    }
                    tracing::error!(error = list(&errors), "not all can be as it was");
                }
                planned => break planned?,
            }
        };
        self.skipped = skipped;
        self.warn_of_skipped();
        self.clear_stale(&plan);
        self.carry_out(plan, &[])?;
        if let Err(error) = self.switch.plane.backstage_mut().sweep() {
            tracing::warn!(%error, "something of an earlier run is left behind");
        }
        Ok(())
    }

    /// Removes devices of endpoints that are no more: they went while heddle was down, or just
    /// before it died.
    fn clear_stale(&mut self, plan: &Plan) {
        let model = plan.next.model();
        let wanted = model.endpoints.values().filter_map(|e| site(self.switch.instance(), e));
        let wanted: HashSet<Site> = wanted.collect();
        for site in self.sites.difference(&wanted) {
            self.switch.ports.clear(site.clone());
            self.leaving.push(site.clone());
        }
    }

    /// Plans for what the file and `stored` say, without those objects that can't have what they
    /// need, where `may_go` lets them go.
    fn plan_around(
        &self,
        config: &Config,
        stored: &[Stored],
        may_go: impl Fn(&Stored) -> bool,
    ) -> Result<(Plan, Vec<Skipped>), Error> {
        let mut wished = stored.to_vec();
        let mut unplaced = Vec::new();
        loop {
            let (desired, mut skipped) = Desired::new(config, &wished);
            let errors = match self.plan(&desired) {
                Err(Error::Plan(errors)) => errors,
                planned => {
                    skipped.append(&mut unplaced);
                    return planned.map(|plan| (plan, skipped));
                }
            };
            let before = wished.len();
            wished.retain(|object| {
                let error = errors.iter().find(|e| concerns(e, object) && may_go(object));
                unplaced.extend(error.map(|error| Skipped::Unplaced {
                    object: object.clone(),
                    reason: error.to_string(),
                }));
                error.is_none()
            });
            if wished.len() == before {
                return Err(Error::Plan(errors));
            }
        }
    }

    /// Whether an object was left out, as it is, for want of something: it may go on waiting.
    fn is_unplaced(&self, object: &Stored) -> bool {
        let waits = |skipped: &Skipped| matches!(skipped, Skipped::Unplaced { object: o, .. } if o == object);
        self.skipped.iter().any(waits)
    }

    fn plan(&self, desired: &Desired) -> Result<Plan, Error> {
        self.switch.plan(desired).map_err(|error| match error {
            SwitchError::Plan(errors) => Error::Plan(errors),
            other => Error::Switch(other),
        })
    }

    /// Stores what a plan comes to, and then does it. A device is known to the store before it is
    /// made, and until it is gone.
    fn carry_out(&mut self, plan: Plan, edits: &[Edit]) -> Result<(), Error> {
        let (mut coming, mut going) = (Vec::new(), Vec::new());
        for change in &plan.changes {
            match change {
                Change::EndpointAdded(e) => coming.extend(site(self.switch.instance(), e)),
                Change::EndpointRemoved(e) => going.extend(site(self.switch.instance(), e)),
                _ => {}
            }
        }
        let new = coming.iter().filter(|&site| !self.sites.contains(site)).cloned();
        let edits = edits.iter().cloned().chain(new.map(Edit::Occupy)).collect();
        self.write(&plan.records, edits)?;
        self.leaving.extend(going);
        self.leaving.retain(|site| !coming.contains(site));
        self.sites.extend(coming);
        self.switch.carry_out(plan).map_err(|error| {
            // A worker is gone or stuck: what is stored is right, and a new start does it.
            self.ending.wish(End::Failed);
            Error::Switch(error)
        })
    }

    /// Writes, if there is anything to write, and forgets the devices that are gone.
    fn write(&mut self, records: &[ipam::Record], edits: Vec<Edit>) -> Result<(), Error> {
        let ports = &self.switch.ports;
        let gone: Vec<_> =
            self.leaving.iter().filter(|site| !ports.is_orphan(site)).cloned().collect();
        let edits: Vec<_> = gone.iter().cloned().map(Edit::Vacate).chain(edits).collect();
        if records.is_empty() && edits.is_empty() {
            return Ok(());
        }
        self.store.write(records, &edits)?;
        self.leaving.retain(|site| !gone.contains(site));
        gone.iter().for_each(|site| _ = self.sites.remove(site));
        Ok(())
    }

    fn warn_of_skipped(&self) {
        for skipped in &self.skipped {
            tracing::warn!("{skipped}");
        }
    }
}

impl Ending {
    /// Wishes for the end. The first wish counts.
    pub fn wish(&self, end: End) {
        if self.wish.get().is_none() {
            self.wish.set(Some(end));
        }
        self.wished.notify_one();
    }

    /// Waits for the wish. One waits at a time.
    pub async fn wished(&self) -> End {
        loop {
            if let Some(end) = self.wish.get() {
                return end;
            }
            self.wished.notified().await;
        }
    }
}

/// Whether an address is not to be had because of this lease.
fn is_held(error: &PlanError, lease: &ipam::Record) -> bool {
    let PlanError::Address { source, .. } = error else { return false };
    match source {
        ipam::Error::Taken { network, address, .. }
        | ipam::Error::Resting { network, address, .. } => {
            (network, address) == (&lease.network, &lease.address)
        }
        _ => false,
    }
}

/// Whether an object made at run time can't be had.
fn concerns(error: &PlanError, object: &Stored) -> bool {
    let is_endpoint = matches!(object, Stored::Endpoint(_));
    match error {
        PlanError::Address {
            source: ipam::Error::Taken { .. } | ipam::Error::Resting { .. },
            ..
        } => false,
        PlanError::Address { endpoint, .. } | PlanError::GatewayMac { endpoint, .. } => {
            is_endpoint && endpoint == object.name()
        }
        PlanError::Vlans { network, .. } => !is_endpoint && network == object.name(),
        PlanError::Number { name, .. } => name == object.name(),
    }
}

fn counted(changes: &[Change]) -> Reloaded {
    let mut reloaded = Reloaded::default();
    for change in changes {
        match change {
            Change::NetworkAdded(_) | Change::EndpointAdded(_) => reloaded.added += 1,
            Change::NetworkRemoved(_) | Change::EndpointRemoved(_) => reloaded.removed += 1,
            Change::NetworkChanged { .. } | Change::EndpointChanged { .. } => reloaded.changed += 1,
            // They come and go with their networks.
            Change::UplinkAdded(_) | Change::UplinkRemoved(_) | Change::UplinkChanged { .. } => {}
        }
    }
    reloaded
}

/// The keys whose values differ.
fn differences(old: &Host, new: &Host) -> Vec<String> {
    let keys = [
        ("host.name", old.name != new.name),
        ("host.workers", old.workers != new.workers),
        ("host.state", old.state != new.state),
        ("host.api", old.api != new.api),
        ("host.memory", old.memory != new.memory),
        ("host.netns", old.netns != new.netns),
    ];
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned()).collect()
}

fn list<T: ToString>(errors: &[T]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn place(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "configuration file",
        Origin::Api => "API",
    }
}
