//! What heddle logs, and where: one line per event on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, such as `debug` or `control::plane=trace`.
const VARIABLE: &str = "HEDDLE_LOG";

/// Starts logging, at `info` unless the environment says otherwise.
pub(super) fn start() {
    let wanted = EnvFilter::try_from_env(VARIABLE);
    let filter = wanted.unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    // The journal has its own time stamps.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
    // An error means that a log was started already, which then goes on.
    let _ = result;
}
