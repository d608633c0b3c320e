//! `heddle run`: the switch in the foreground.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dataplane::worker::Event;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Config, Report};
use crate::ipam::Ipam;
use crate::model::Desired;
use crate::plane::remove_strays;
use crate::switch::{Switch, SwitchError};

/// Why the switch has ended, or never began.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] Report),
    /// The switch failed.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The system refused something.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// How long a released address rests.
const REST: Duration = Duration::from_secs(60);
/// How often containers are looked after.
const CONTAINERS: Duration = Duration::from_millis(200);

/// Runs the switch until it is told to stop.
///
/// # Errors
///
/// [`RunError`] when it can't start, or a worker is gone.
pub fn run(path: &Path) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::System("starting the control thread", error))?;
    runtime.block_on(control(path.to_owned()))
}

async fn control(path: PathBuf) -> Result<(), RunError> {
    let config = Config::load(&path)?;
    let (events, mut told) = unbounded_channel();
    let tell: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(move |event| {
        let _ = events.send(event);
    });
    let mut switch = Switch::start(&config, Ipam::new(REST), &tell)?;
    if let Err(error) = remove_strays(switch.instance()) {
        tracing::warn!(%error, "devices of an earlier run are left behind");
    }
    let (desired, _) = Desired::new(&config, &[]);
    let plan = switch.plan(&desired)?;
    switch.carry_out(plan)?;
    let mut stop = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut reload = listen(SignalKind::hangup())?;
    let mut containers = interval(CONTAINERS);
    containers.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut second = interval(Duration::from_secs(1));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready");
    loop {
        tokio::select! {
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => apply(&mut switch, &path)?,
            Some(event) = told.recv() => tracing::debug!(?event, "worker"),
            _ = containers.tick() => switch.look_after_containers()?,
            _ = second.tick() => switch.tend()?,
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

/// Takes the changed configuration up; one that is wrong changes nothing.
fn apply(switch: &mut Switch, path: &Path) -> Result<(), RunError> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(report) => {
            tracing::error!("{report}");
            return Ok(());
        }
    };
    let (desired, _) = Desired::new(&config, &[]);
    match switch.plan(&desired) {
        Ok(plan) => switch.carry_out(plan)?,
        Err(error) => tracing::error!(%error, "nothing was changed"),
    }
    Ok(())
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, RunError> {
    signal(kind).map_err(|error| RunError::System("listening for signals", error))
}
