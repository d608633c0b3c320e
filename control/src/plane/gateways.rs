//! heddle itself on each network: the host stack's port there, and what it is.

use std::sync::Arc;

use dataplane::drops::Reason;
use dataplane::engine::Place;
use dataplane::worker::WorkerError;

use super::{CountersByWorker, Plane};
use crate::host::{Counters, Site};
use crate::model::Network;

impl Plane {
    /// Puts the host stack on a network, before tables name its port there.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn join(&mut self, network: &Network) -> Result<(), WorkerError> {
        let mut by_worker = CountersByWorker::new();
        for worker in &self.workers {
            let counters = Arc::default();
            worker.attach(network.host, Place::Host, Arc::clone(&counters))?;
            by_worker.push(counters);
        }
        self.gateways.insert(network.host, by_worker);
        self.host.join(network.host, Site::of(network));
        Ok(())
    }

    /// Changes what the host stack is on a network.
    pub fn rejoin(&mut self, network: &Network) {
        self.host.join(network.host, Site::of(network));
    }

    /// Takes the host stack off a network, when no tables name its port any more.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when a worker is gone.
    pub fn leave(&mut self, network: &Network) -> Result<(), WorkerError> {
        self.host.leave(network.host);
        self.gateways.remove(&network.host);
        self.workers.iter().try_for_each(|worker| worker.detach(network.host))
    }

    /// What the host stack has counted for a network.
    pub fn host_counters(&self, network: &Network) -> Option<&Arc<Counters>> {
        self.host.counters(network.host)
    }

    /// Drops of what the host stack was given from a network, made by itself, and of what it sent
    /// there, made by workers.
    pub fn gateway_drops(&self, network: &Network, reason: Reason) -> u64 {
        let by_workers = self.gateways.get(&network.host).map_or(0, |counters| {
            counters.iter().map(|counters| counters.drops.of(reason).read()).sum()
        });
        let own = self.host_counters(network);
        by_workers + own.map_or(0, |counters| counters.drops.of(reason).read())
    }
}
