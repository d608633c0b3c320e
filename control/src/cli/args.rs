//! The grammar of the command line. Its help texts are the documentation of every command and
//! flag.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use perf::lab::Scenario;

/// A virtual switch for containers: one process per host that carries their frames.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "heddle", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the configuration is when no `--config` says otherwise.
const CONFIG: &str = "/etc/heddle/heddle.toml";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the switch in the foreground.
    ///
    /// Tells systemd when it is ready. SIGHUP reloads the configuration. SIGTERM stops and leaves
    /// containers their devices, so that the next heddle goes on where this one ended; `heddle
    /// stop --detach` removes them. HEDDLE_LOG says what is logged: error, warn, info (the
    /// default), debug or trace.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Read a configuration and say in words what it comes to.
    ///
    /// Everything that is wrong is shown with its line, what was found and what was expected.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Build a small world of namespaces, send real traffic through heddle, and show how it did.
    ///
    /// Containers are network namespaces of this machine, traffic comes from their own kernels,
    /// and the kernel's bridge runs beside heddle to compare. Nothing is left behind. Needs root.
    Lab(Lab),
}

#[derive(Debug, Args)]
pub(super) struct Lab {
    /// What is built and tried: bridge.
    #[arg(default_value = "bridge")]
    pub(super) scenario: Scenario,
    /// Leave everything as it is at the end, until Ctrl-C, to look around in it.
    #[arg(long)]
    pub(super) keep: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
}
