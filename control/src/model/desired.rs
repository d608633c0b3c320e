//! What was asked for: the file's objects and those made at run time, put together.

use std::collections::HashSet;

use thiserror::Error;

use super::Origin;
use crate::config::{self, Census, Config, Problem};

/// An object made at run time, as it is stored: the body that the API was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A body with the keys of `[[network]]`.
    Network(serde_json::Value),
    /// A body with the keys of `[[port]]`.
    Endpoint(serde_json::Value),
}

impl Stored {
    /// The object's name; empty if it has none.
    pub fn name(&self) -> &str {
        let (Self::Network(body) | Self::Endpoint(body)) = self;
        body.get("name").and_then(serde_json::Value::as_str).unwrap_or_default()
    }
}

/// A stored object that is not part of what is desired, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Skipped {
    /// The file has a network of this name, and owns it.
    #[error("the network `{0}` made at run time gives way to that of the configuration file")]
    NetworkOwnedByFile(String),
    /// The file has a port of this name, and owns it.
    #[error("the endpoint `{0}` made at run time gives way to that of the configuration file")]
    EndpointOwnedByFile(String),
    /// It does not fit the other objects any more.
    #[error("`{name}`, made at run time, is left out: {problem}")]
    Clash {
        /// The object's name; empty if it has none.
        name: String,
        /// The first thing that is wrong.
        problem: Box<Problem>,
    },
    /// There is no address or number for it any more.
    #[error("`{}`, made at run time, is left out: {reason}", object.name())]
    Unplaced {
        /// As it is stored.
        object: Stored,
        /// What can't be had.
        reason: String,
    },
}

/// All objects that there should be, checked beside each other.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    pub(super) networks: Vec<(Origin, config::Network)>,
    pub(super) ports: Vec<(Origin, config::Port)>,
    census: Census,
}

impl Desired {
    /// The file's objects, and those of `stored` that fit beside them. The file owns what it
    /// names.
    pub fn new(config: &Config, stored: &[Stored]) -> (Self, Vec<Skipped>) {
        let mut desired = Self::default();
        let mut skipped = Vec::new();
        for network in &config.networks {
            note(&mut skipped, &network.name, desired.network(Origin::File, network.clone()));
        }
        for port in &config.ports {
            note(&mut skipped, &port.name, desired.port(Origin::File, port.clone()));
        }
        desired.add_stored(config, stored, &mut skipped);
        (desired, skipped)
    }

    fn add_stored(&mut self, config: &Config, stored: &[Stored], skipped: &mut Vec<Skipped>) {
        let networks: HashSet<&str> = config.networks.iter().map(|n| &*n.name).collect();
        let ports: HashSet<&str> = config.ports.iter().map(|p| &*p.name).collect();
        // Networks first, since endpoints name them.
        let is_network = |object: &&Stored| matches!(object, Stored::Network(_));
        let (first, second): (Vec<_>, Vec<_>) = stored.iter().partition(is_network);
        for object in first.into_iter().chain(second) {
            let name = object.name();
            let fits = match object {
                Stored::Network(_) if networks.contains(name) => {
                    skipped.push(Skipped::NetworkOwnedByFile(name.to_owned()));
                    continue;
                }
                Stored::Endpoint(_) if ports.contains(name) => {
                    skipped.push(Skipped::EndpointOwnedByFile(name.to_owned()));
                    continue;
                }
                Stored::Network(body) => {
                    config::Network::from_json(body.clone()).and_then(|n| self.add_network(n))
                }
                Stored::Endpoint(body) => {
                    config::Port::from_json(body.clone()).and_then(|p| self.add_port(p))
                }
            };
            note(skipped, name, fits);
        }
    }

    /// Adds a network made at run time.
    ///
    /// # Errors
    ///
    /// Everything that keeps it from fitting beside the others; nothing was added then.
    pub fn add_network(&mut self, network: config::Network) -> Result<(), Vec<Problem>> {
        self.network(Origin::Api, network)
    }

    /// Adds an endpoint made at run time.
    ///
    /// # Errors
    ///
    /// Everything that keeps it from fitting beside the others; nothing was added then.
    pub fn add_port(&mut self, port: config::Port) -> Result<(), Vec<Problem>> {
        self.port(Origin::Api, port)
    }

    fn network(&mut self, origin: Origin, network: config::Network) -> Result<(), Vec<Problem>> {
        self.census.add_network(&network)?;
        self.networks.push((origin, network));
        Ok(())
    }

    fn port(&mut self, origin: Origin, port: config::Port) -> Result<(), Vec<Problem>> {
        self.census.add_port(&port)?;
        self.ports.push((origin, port));
        Ok(())
    }
}

fn note(skipped: &mut Vec<Skipped>, name: &str, fits: Result<(), Vec<Problem>>) {
    let first = fits.err().and_then(|problems| problems.into_iter().next());
    skipped.extend(
        first.map(|problem| Skipped::Clash { name: name.to_owned(), problem: Box::new(problem) }),
    );
}
