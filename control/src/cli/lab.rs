//! `heddle lab`.

use perf::lab::{self, Cancel, Error, Options, Report};

use super::args::Lab;
use super::{Failure, print};

/// Runs a scenario with this very binary in each host, and shows what came out.
pub(super) fn run(arguments: Lab) -> Result<(), Failure> {
    let heddle = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("where this program is: {error}")))?;
    let cancel = Cancel::new();
    cancel_on_signals(&cancel)?;
    let options = Options { scenario: arguments.scenario, heddle, keep: arguments.keep };
    let mut shown = Ok(());
    let report = lab::run(&options, &cancel, |report| shown = show(report, arguments.json))?;
    shown?;
    if report.passed() { Ok(()) } else { Err(Failure::shown()) }
}

fn show(report: &Report, json: bool) -> Result<(), Failure> {
    if !json {
        return print(report);
    }
    let text = serde_json::to_string_pretty(report);
    print(text.map_err(|error| Failure::failed(error.to_string()))?)
}

/// Ctrl-C and SIGTERM end the lab early, which then cleans up.
fn cancel_on_signals(cancel: &Cancel) -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("listening for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let cancel = cancel.clone();
    let listen = move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let interrupt = signal(SignalKind::interrupt());
            let terminate = signal(SignalKind::terminate());
            if let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) {
                tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
                cancel.cancel();
            }
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(failed)?;
    Ok(())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::UnknownScenario(_) => Self::wrong(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
