//! What changes between two models.

use std::sync::Arc;

use super::{Endpoint, Model, Network, Uplink};

/// One difference, with the objects concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An endpoint goes; its number is retired.
    EndpointRemoved(Arc<Endpoint>),
    /// A network goes; its number is retired.
    NetworkRemoved(Arc<Network>),
    /// A device is no parent any more; its number is retired.
    UplinkRemoved(Arc<Uplink>),
    /// A device becomes a parent.
    UplinkAdded(Arc<Uplink>),
    /// A parent keeps its number.
    UplinkChanged {
        /// As it was.
        old: Arc<Uplink>,
        /// As it will be.
        new: Arc<Uplink>,
    },
    /// A network comes.
    NetworkAdded(Arc<Network>),
    /// A network keeps its number.
    NetworkChanged {
        /// As it was.
        old: Arc<Network>,
        /// As it will be.
        new: Arc<Network>,
    },
    /// An endpoint comes, with a device of its own.
    EndpointAdded(Arc<Endpoint>),
    /// An endpoint keeps its number, its device and its network.
    EndpointChanged {
        /// As it was.
        old: Arc<Endpoint>,
        /// As it will be.
        new: Arc<Endpoint>,
    },
}

impl Change {
    /// Whether something goes: its tables go before its device, and that before what comes.
    pub fn is_removal(&self) -> bool {
        matches!(self, Self::EndpointRemoved(_) | Self::NetworkRemoved(_) | Self::UplinkRemoved(_))
    }
}

impl Model {
    /// What leads from `old` to `new`, in an order in which it can be done: endpoints go before
    /// their networks and come after them, and so do networks with their uplinks. An endpoint or
    /// network whose number differs is another one, which is removed and added.
    pub fn diff(old: &Self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let stays =
            |e: &Arc<Endpoint>| new.endpoints.get(&e.spec.name).is_some_and(|n| n.id == e.id);
        let gone = old.endpoints.values().filter(|endpoint| !stays(endpoint));
        changes.extend(gone.cloned().map(Change::EndpointRemoved));
        let stays = |n: &Arc<Network>| new.networks.get(&n.spec.name).is_some_and(|m| m.id == n.id);
        let gone = old.networks.values().filter(|network| !stays(network));
        changes.extend(gone.cloned().map(Change::NetworkRemoved));
        let stays = |u: &Arc<Uplink>| new.uplinks.contains_key(&u.device);
        let gone = old.uplinks.values().filter(|uplink| !stays(uplink));
        changes.extend(gone.cloned().map(Change::UplinkRemoved));
        changes.extend(new.uplinks.values().filter_map(|u| uplink(old, u)));
        changes.extend(new.networks.values().filter_map(|n| network(old, n)));
        changes.extend(new.endpoints.values().filter_map(|e| endpoint(old, e)));
        changes
    }
}

fn uplink(old: &Model, new: &Arc<Uplink>) -> Option<Change> {
    match old.uplinks.get(&new.device) {
        None => Some(Change::UplinkAdded(new.clone())),
        Some(old) if old == new => None,
        Some(old) => Some(Change::UplinkChanged { old: old.clone(), new: new.clone() }),
    }
}

fn network(old: &Model, new: &Arc<Network>) -> Option<Change> {
    match old.networks.get(&new.spec.name).filter(|old| old.id == new.id) {
        None => Some(Change::NetworkAdded(new.clone())),
        Some(old) if old == new => None,
        Some(old) => Some(Change::NetworkChanged { old: old.clone(), new: new.clone() }),
    }
}

fn endpoint(old: &Model, new: &Arc<Endpoint>) -> Option<Change> {
    match old.endpoints.get(&new.spec.name).filter(|old| old.id == new.id) {
        None => Some(Change::EndpointAdded(new.clone())),
        Some(old) if old == new => None,
        Some(old) => Some(Change::EndpointChanged { old: old.clone(), new: new.clone() }),
    }
}
