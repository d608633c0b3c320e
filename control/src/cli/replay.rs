//! `heddle replay`.

use std::io::BufWriter;

use super::args::Replay;
use super::{Failure, print};
use crate::replay::{self, Error, Options};

/// Replays captures, and says what came of them.
pub(super) fn run(arguments: Replay) -> Result<(), Failure> {
    let Replay { config, input: inputs, out, json } = arguments;
    let mut lines = BufWriter::new(std::io::stdout().lock());
    let summary = replay::run(&Options { config, inputs, out, json }, &mut lines)?;
    drop(lines);
    if json { Ok(()) } else { print(summary) }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(report) => report.into(),
            Error::NoPort { .. } | Error::Overwritten(_) => Self::wrong(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
