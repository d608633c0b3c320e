//! How cost grows: with idle ports, with learned addresses, and of one change to large tables.

mod busy;
pub mod changes;
pub mod macs;
pub mod ports;

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use super::Error;
use super::measure;
use super::report;
use crate::lab::spread::Spread;

/// The curves.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Curves {
    /// The worker's loop with one busy port among many.
    pub ports: Vec<ports::Point>,
    /// The learned FDB, filled to what it was made for.
    pub macs: Vec<macs::Point>,
    /// One change to tables with many endpoints.
    pub changes: Vec<changes::Point>,
}

const REPEATS: usize = 5;

/// Measures all points, which takes some seconds. Workers are pinned to the first of `cores`, the
/// calling thread to the second, from where it publishes changes.
///
/// # Errors
///
/// [`Error`](enum@Error) when descriptors, threads or memory can't be had.
pub fn draw([core, other]: [usize; 2]) -> Result<Curves, Error> {
    allow_descriptors()?;
    measure::pin(other)?;
    Ok(Curves { ports: ports::draw(core)?, macs: macs::draw()?, changes: changes::draw(core)? })
}

impl Curves {
    /// Whether the busy worker had its core.
    pub fn undisturbed(&self) -> bool {
        self.ports.iter().all(|point| point.share.median >= report::UNDISTURBED)
    }
}

/// A thousand ports need more descriptors than a process usually may have.
fn allow_descriptors() -> Result<(), Error> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| Error::System { call: "setrlimit", source: error.into() })
}

/// The spread of some repeats.
fn repeated(mut measure: impl FnMut() -> Result<f64, Error>) -> Result<Spread, Error> {
    let values = (0..REPEATS).map(|_| measure()).collect::<Result<Vec<_>, _>>()?;
    Spread::of(values).ok_or(Error::NoRepeats)
}

impl fmt::Display for Curves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        report::table(f, &ports::HEADINGS, self.ports.iter().map(ports::Point::cells))?;
        writeln!(f, "{}\n", ports::ABOUT)?;
        report::table(f, &macs::HEADINGS, self.macs.iter().map(macs::Point::cells))?;
        writeln!(f, "{}\n", macs::ABOUT)?;
        report::table(f, &changes::HEADINGS, self.changes.iter().map(changes::Point::cells))?;
        writeln!(f, "{}", changes::ABOUT)
    }
}
