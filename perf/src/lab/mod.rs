//! The lab: hosts and containers as network namespaces of this machine, a heddle in each host,
//! real traffic by the namespaces' own kernels, and the kernel's bridge beside it to compare.
//!
//! [`run`] is `heddle lab`. The pieces serve `heddle perf compare` and the end-to-end tests:
//! [`host`] makes containers and cleans up, [`bridge`] connects them by the kernel, [`switch`]
//! by heddle, [`traffic`] talks, [`cpu`] says what it cost.

pub mod bridge;
pub mod cancel;
mod checks;
pub mod cpu;
mod forwarding;
pub mod host;
mod line;
mod network;
pub mod process;
pub mod report;
pub mod scenario_bridge;
pub mod scenario_ports;
pub mod spread;
pub mod switch;
pub mod traffic;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use dataplane::device::{netlink, netns, xdp};
use dataplane::memory::ArenaError;
use dataplane::port::af_packet::socket::SocketError;
use thiserror::Error;

use crate::pipeline;

pub use cancel::Cancel;
pub use report::Report;

/// Why a lab could not be made or did not end. A check that fails is not an error but a row of
/// the [`Report`].
#[derive(Debug, Error)]
pub enum Error {
    /// Namespaces and devices need root.
    #[error("the lab makes network namespaces and devices: run it as root")]
    NeedsRoot,
    /// `/proc` can't be read.
    #[error("/proc is not mounted")]
    NoProc,
    /// No scenario is called like this.
    #[error("`{0}` is not a scenario: expected one of {names}", names = Scenario::NAMES.join(", "))]
    UnknownScenario(String),
    /// A namespace failed.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// A device failed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Traffic failed where it had to succeed.
    #[error(transparent)]
    Traffic(traffic::Error),
    /// The bare forwarder failed.
    #[error(transparent)]
    Forwarder(#[from] dataplane::forwarder::ForwarderError),
    /// An XDP program failed.
    #[error(transparent)]
    Program(#[from] xdp::Error),
    /// A packet socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No memory for packets.
    #[error(transparent)]
    Memory(#[from] ArenaError),
    /// A thread can't be pinned to its core.
    #[error(transparent)]
    Pin(#[from] pipeline::Error),
    /// A thread can't be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// heddle does not say how it drives its ports.
    #[error("`heddle show ports` said: {0}")]
    Shown(String),
    /// A file of the lab failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// The operation, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A container's device did not come up.
    #[error("{device} in container {container} lets no packets through after {within:?}")]
    NotRunning {
        /// The container's name.
        container: String,
        /// The device.
        device: String,
        /// How long it was given.
        within: Duration,
    },
    /// heddle ended by itself.
    #[error("heddle ended with {status}; its log ends with:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// heddle did not say that it is ready.
    #[error("heddle was not ready after {within:?}; its log ends with:\n{log}")]
    NotReady {
        /// How long it was given.
        within: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// The end was wished for.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    fn file(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { operation, path: path.to_owned(), source }
    }
}

impl From<traffic::Error> for Error {
    fn from(error: traffic::Error) -> Self {
        match error {
            traffic::Error::Cancelled => Self::Cancelled,
            other => Self::Traffic(other),
        }
    }
}

/// A topology with its traffic and checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scenario {
    /// Containers on two networks of one host.
    #[default]
    Bridge,
    /// Containers by every kind of port.
    Ports,
}

impl Scenario {
    /// The names of all scenarios, as on the command line.
    pub const NAMES: [&str; 2] = ["bridge", "ports"];
}

impl FromStr for Scenario {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "bridge" => Ok(Self::Bridge),
            "ports" => Ok(Self::Ports),
            other => Err(Error::UnknownScenario(other.to_owned())),
        }
    }
}

/// What `heddle lab` is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which topology and traffic.
    pub scenario: Scenario,
    /// The heddle binary to test.
    pub heddle: PathBuf,
    /// Leave the lab as it is at the end, until [`Cancel`] is set, to look around in it.
    pub keep: bool,
}

/// Builds the scenario, sends its traffic, hands the report to `show`, and removes everything.
/// A progress bar on standard error shows how far it is, if that is a terminal.
///
/// # Errors
/// If the lab could not be made, heddle ended, or `cancel` was set before the report was
/// complete. Nothing is left behind in any case.
pub fn run(
    options: &Options,
    cancel: &Cancel,
    mut show: impl FnMut(&Report),
) -> Result<Report, Error> {
    let lab = host::Lab::new(cancel.clone())?;
    let (mut report, standing) = match options.scenario {
        Scenario::Bridge => scenario_bridge::run(&lab, &options.heddle)?,
        Scenario::Ports => scenario_ports::run(&lab, &options.heddle)?,
    };
    if options.keep {
        report.kept.clone_from(&standing.containers);
    }
    show(&report);
    while options.keep && !cancel.is_cancelled() {
        thread::sleep(cancel::LOOK);
    }
    standing.stop()?;
    Ok(report)
}

/// What a scenario leaves running: the namespaces go with the lab.
#[derive(Debug)]
pub struct Standing {
    containers: Vec<report::Kept>,
    switches: Vec<switch::Switch>,
}

impl Standing {
    fn new<'a>(
        containers: impl IntoIterator<Item = &'a host::Container>,
        switches: Vec<switch::Switch>,
    ) -> Self {
        let containers = containers.into_iter().map(|container| report::Kept {
            container: container.name().to_owned(),
            netns: container.netns_name().to_owned(),
        });
        Self { containers: containers.collect(), switches }
    }

    fn and(mut self, other: Self) -> Self {
        self.containers.extend(other.containers);
        self.switches.extend(other.switches);
        self
    }

    /// Stops every heddle in good order.
    fn stop(self) -> Result<(), Error> {
        self.switches.into_iter().try_for_each(switch::Switch::stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Instant;

    /// The directory of the lab that has a container of this name.
    fn directory_of(container: &str) -> Option<PathBuf> {
        let own = format!("hdl-{}-", std::process::id());
        let mut names = fs::read_dir(netns::RUN_DIR).ok()?.flatten();
        let mut names = names.by_ref().filter_map(|entry| entry.file_name().into_string().ok());
        let name = names.find(|name| name.starts_with(&own) && name.ends_with(container))?;
        Some(std::env::temp_dir().join(name.strip_suffix(container)?.trim_end_matches('-')))
    }

    fn recorded(directory: &Path) -> Option<process::Identity> {
        let mut files = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
        let record = files.find(|path| path.extension().is_some_and(|e| e == "pid"))?;
        process::Identity::of(record.file_stem()?.to_str()?.parse().ok()?)
    }

    #[test]
    fn cancelling_leaves_nothing_behind() {
        let cancel = Cancel::new();
        let heddle = switch::tests::stand_in();
        let options = Options { scenario: Scenario::Bridge, heddle, keep: true };
        let (outcome, directory, heddle) = thread::scope(|scope| {
            let lab = scope.spawn(|| run(&options, &cancel, |_| ()));
            let deadline = Instant::now() + Duration::from_secs(10);
            let (directory, heddle) = loop {
                let directory = directory_of("bridged-1");
                let process = directory.as_deref().and_then(recorded);
                if let Some(found) = directory.zip(process) {
                    break found;
                }
                assert!(Instant::now() < deadline, "heddle was not started");
            };
            cancel.cancel();
            (lab.join().unwrap(), directory, heddle)
        });
        assert!(matches!(outcome, Err(Error::Cancelled)));
        assert!(!directory.exists() && !heddle.is_alive());
        assert_eq!(directory_of("bridged-1"), None);
    }

    #[test]
    fn scenarios_are_known_by_name() {
        assert!(Scenario::NAMES.iter().all(|name| name.parse::<Scenario>().is_ok()));
        let unknown = "brigde".parse::<Scenario>().unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "`brigde` is not a scenario: expected one of bridge, ports"
        );
    }
}
