//! `heddle run`: the switch in the foreground.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::{Api, Group, Socket, SocketError};
use crate::daemon::{self, Daemon, End, Reloaded};
use crate::switch::{Switch, SwitchError};

/// Why the switch has ended, or never began.
#[derive(Debug, Error)]
pub enum RunError {
    /// It can't be as the configuration and the stored state say.
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    /// The API can't be served.
    #[error(transparent)]
    Api(#[from] SocketError),
    /// The data plane failed.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The data plane failed on a request.
    #[error("the data plane failed: start heddle again")]
    Failed,
    /// The system refused something.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// Files that are open whatever ports there are, and some for those who use the API.
const FILES: usize = 64;
/// How often containers are looked after.
const CONTAINERS: Duration = Duration::from_millis(200);
/// How often what has aged is removed.
const AGEING: Duration = Duration::from_secs(1);

/// Runs the switch with the configuration at `path` until it is told to stop.
///
/// # Errors
///
/// [`RunError`] when it can't start, or a worker is gone.
pub fn run(path: &Path) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::System("starting the control thread", error))?;
    LocalSet::new().block_on(&runtime, control(path.to_owned()))
}

async fn control(path: PathBuf) -> Result<(), RunError> {
    let mut signals = Signals::listen()?;
    let most_files = raise_open_files();
    // Containers first: they may be waiting for their traffic to go on.
    let daemon = Daemon::start(&path)?;
    warn_of_few_files(daemon.switch(), most_files);
    let api = serve(daemon)?;
    let (daemon, ending) = (&api.daemon, api.daemon.borrow().ending());
    let (mut containers, mut second) = (interval(CONTAINERS), interval(AGEING));
    containers.set_missed_tick_behavior(MissedTickBehavior::Delay);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tell_systemd(&[NotifyState::Ready]);
    tracing::info!("ready");
    let end = loop {
        tokio::select! {
            end = ending.wished() => break end,
            _ = signals.terminate.recv() => break End::Leave,
            _ = signals.interrupt.recv() => break End::Leave,
            _ = signals.hangup.recv() => {
                if let Err(error) = reload(&mut daemon.borrow_mut()) {
                    tracing::error!("nothing was changed: {error}");
                }
            }
            _ = containers.tick() => daemon.borrow_mut().switch_mut().look_after_containers()?,
            _ = second.tick() => tend(&mut daemon.borrow_mut())?,
        }
    };
    tell_systemd(&[NotifyState::Stopping]);
    api.close(end).await
}

/// Lets heddle have as many files open as it may be allowed: some are every port's, and the usual
/// limit is for programs that use select(2). Answers how many; `None` is any number.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// Says beforehand what would keep ports from being served, if all were driven by AF_XDP: a socket
/// for each worker, and a program's two maps and lock.
fn warn_of_few_files(switch: &Switch, most: Option<u64>) {
    let ports = switch.ports.iter().count();
    let wanted = FILES + ports * (3 + switch.plane.workers().len());
    if let Some(most) = most.filter(|&most| u64::try_from(wanted).is_ok_and(|n| n > most)) {
        tracing::warn!(most, wanted, ports, "the limit of open files (RLIMIT_NOFILE) is low");
    }
}

/// Takes up the changed configuration file, and tells systemd meanwhile.
///
/// # Errors
///
/// [`enum@daemon::Error`]; a file that is wrong changes nothing.
pub fn reload(daemon: &mut Daemon) -> Result<Reloaded, daemon::Error> {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell_systemd(&[NotifyState::Reloading, now]);
    }
    let reloaded = daemon.reload();
    tell_systemd(&[NotifyState::Ready]);
    reloaded
}

fn tend(daemon: &mut Daemon) -> Result<(), SwitchError> {
    if let Err(error) = daemon.expire() {
        tracing::error!(%error, "expired addresses could not be stored");
    }
    daemon.switch_mut().tend()
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The API while it is served.
struct Served {
    daemon: Rc<RefCell<Daemon>>,
    end: Rc<Notify>,
    task: JoinHandle<()>,
}

fn serve(daemon: Daemon) -> Result<Served, RunError> {
    let group = Group::of_heddle();
    let socket = Socket::bind(&daemon.host().api, group.as_ref())?;
    let (daemon, end) = (Rc::new(RefCell::new(daemon)), Rc::new(Notify::new()));
    let api = Api::new(Rc::clone(&daemon), group);
    let task = spawn_local(api.serve(socket, Rc::clone(&end)));
    Ok(Served { daemon, end, task })
}

impl Served {
    /// Ends the API, and the switch as it was wished.
    async fn close(self, end: End) -> Result<(), RunError> {
        if end == End::Detach {
            self.daemon.borrow_mut().switch_mut().remove_devices()?;
        }
        self.end.notify_one();
        let _ = self.task.await;
        tracing::info!("stopped");
        if end == End::Failed { Err(RunError::Failed) } else { Ok(()) }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, RunError> {
        let listen =
            |kind| signal(kind).map_err(|error| RunError::System("listening for signals", error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}
