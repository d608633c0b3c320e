//! The command line.

mod args;
mod failure;
mod lab;
mod log;

use std::process::ExitCode;

use clap::Parser;

use crate::config;
use args::{Arguments, Command};
pub use failure::Failure;

/// Runs the process: reads its arguments, does what they say, and reports how it went.
pub fn main() -> ExitCode {
    // Wrong usage ends here, with the exit code 2.
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Run { config } => {
            log::start();
            Ok(crate::run::run(&config)?)
        }
        Command::Check { config } => print(config::check(&config)?),
        Command::Lab(options) => lab::run(options),
    }
}

/// Writes to standard output. Whoever closes it early, such as `head`, has seen enough.
fn print(text: impl std::fmt::Display) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.to_string().trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::failed(format!("standard output: {error}"))),
    }
}
