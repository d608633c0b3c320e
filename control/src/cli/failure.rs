//! How a command fails: a message for people and an exit code for programs.

use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;

use crate::config::Report;
use crate::daemon;
use crate::run::RunError;

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    code: u8,
}

/// It worked.
const DONE: u8 = 0;
/// It was tried, and did not work.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const WRONG: u8 = 2;

impl Failure {
    /// What was tried and did not work: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: FAILED }
    }

    /// What is wrong in usage or configuration: exit code 2.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: WRONG }
    }

    /// A failure that its output has shown already.
    pub fn shown() -> Self {
        Self::failed("")
    }

    /// No failure, but a reason to end: whoever reads the output has seen enough.
    pub fn enough() -> Self {
        Self { message: String::new(), code: DONE }
    }

    /// Prints the message and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            let colour = std::io::stderr().is_terminal();
            let (red, plain) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
            let message = self.message.trim_end();
            let message = message.strip_prefix("error: ").unwrap_or(message);
            eprintln!("{red}error:{plain} {message}");
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::wrong(report.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Daemon(daemon::Error::Config(report)) => report.into(),
            RunError::Daemon(error @ daemon::Error::Plan(_)) => Self::wrong(error.to_string()),
            other => Self::failed(other.to_string()),
        }
    }
}
