//! The command line.

mod args;
mod capture;
mod client;
mod control;
mod failure;
mod lab;
mod log;
mod objects;
mod perf;
mod replay;
mod show;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use crate::config;
use args::{Arguments, Command, Perf};
use client::Client;

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
    let heddle = || Client::new(&arguments.api);
    match arguments.command {
        Command::Run { config } => {
            log::start();
            Ok(crate::run::run(&config)?)
        }
        Command::Check { config } => print(config::check(&config)?),
        Command::Lab(options) => lab::run(options),
        Command::Replay(options) => replay::run(options),
        Command::Show(options) => show::run(&heddle()?, &options),
        Command::Trace(options) => trace::run(&heddle()?, &options),
        Command::Capture(options) => capture::run(&heddle()?, &options),
        Command::Reload { json } => control::reload(&heddle()?, json),
        Command::Stop { detach } => control::stop(&heddle()?, detach),
        Command::Network(command) => objects::run(&heddle()?, command),
        Command::Endpoint(command) => objects::run(&heddle()?, command),
        Command::Perf(Perf::Pipeline(options)) => perf::pipeline(options),
    }
}

/// Writes to standard output. Whoever closes it early, such as `head`, ends the command with it.
fn print(text: impl std::fmt::Display) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.to_string().trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::enough()),
        written => written.map_err(|error| Failure::failed(format!("standard output: {error}"))),
    }
}
