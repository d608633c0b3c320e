//! What changes between two models.

use std::sync::Arc;

use super::{Endpoint, Model, Network};

/// One difference, with the objects concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An endpoint goes; its number is retired.
    EndpointRemoved(Arc<Endpoint>),
    /// A network goes; its number is retired.
    NetworkRemoved(Arc<Network>),
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

impl Model {
    /// What leads from `old` to `new`, in an order in which it can be done: endpoints go before
    /// their networks and come after them. An endpoint whose number differs is another one, which
    /// is removed and added.
    pub fn diff(old: &Self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let stays =
            |e: &Arc<Endpoint>| new.endpoints.get(&e.spec.name).is_some_and(|n| n.id == e.id);
        let gone = old.endpoints.values().filter(|endpoint| !stays(endpoint));
        changes.extend(gone.cloned().map(Change::EndpointRemoved));
        let stays = |n: &Arc<Network>| new.networks.get(&n.spec.name).is_some_and(|m| m.id == n.id);
        let gone = old.networks.values().filter(|network| !stays(network));
        changes.extend(gone.cloned().map(Change::NetworkRemoved));
        changes.extend(new.networks.values().filter_map(|n| network(old, n)));
        changes.extend(new.endpoints.values().filter_map(|e| endpoint(old, e)));
        changes
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
