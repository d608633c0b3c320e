//! `heddle replay`: the walk, offline. Captures come in, captures and verdicts go out.
//!
//! Every port of the configuration is a capture, whatever its kind, and no device is opened; the
//! uplink of networks with a parent is the port that is called like that device. The
//! captures' times are the clock: learned addresses age by it, and once in each of its
//! seconds old ones are swept out, as the running switch does it. One worker without a thread takes one frame at
//! a time, and seeds are fixed, so that the same captures give the same bytes again.
//!
//! Endpoints without a fixed address get the ones that a first start would give them.

mod merge;
mod report;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use dataplane::ids::PortId;
use dataplane::port::pcap::{Capture, CaptureError, Tape};
use thiserror::Error as ThisError;

use crate::config::{self, Report};
use crate::model::Model;
use crate::plane::PlaneError;
use merge::Merge;
use report::Line;
use stage::Stage;

pub use report::Summary;

/// What to replay, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration.
    pub config: PathBuf,
    /// What comes in by which ports. Several captures of one port are put together.
    pub inputs: Vec<Input>,
    /// The directory that `PORT.pcap` is written to for each port; made if it is not there.
    pub out: PathBuf,
    /// Whether to write one line of JSON per frame.
    pub json: bool,
}

/// One capture and the port that its frames come in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The port's name, or that of a parent's device.
    pub port: String,
    /// The capture, in pcap or pcapng.
    pub file: PathBuf,
}

/// A text that is not a port and a file.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("`{0}` is not PORT=FILE, such as web-1=web-1.pcap")]
pub struct BadInput(pub String);

impl FromStr for Input {
    type Err = BadInput;

    fn from_str(text: &str) -> Result<Self, BadInput> {
        match text.split_once('=') {
            Some((port, file)) if !port.is_empty() && !file.is_empty() => {
                Ok(Self { port: port.to_owned(), file: PathBuf::from(file) })
            }
            _ => Err(BadInput(text.to_owned())),
        }
    }
}

/// Why a replay can't be.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Report),
    /// A capture is for a port that there is not.
    #[error("the configuration has no port `{port}`{}", known(.ports))]
    NoPort {
        /// The port's name.
        port: String,
        /// Those that there are.
        ports: Vec<String>,
    },
    /// A capture is where the frames that leave by a port are to be written.
    #[error("{} would be overwritten: choose another directory with --out", .0.display())]
    Overwritten(PathBuf),
    /// A file can't be opened, made or written.
    #[error("{}: {source}", .file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A capture is unreadable.
    #[error("{}: {source}", .file.display())]
    Capture {
        /// Which capture.
        file: PathBuf,
        /// Which record, and what is wrong with it.
        source: CaptureError,
    },
    /// No memory for the data plane.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The verdicts can't be written.
    #[error("writing verdicts: {0}")]
    Lines(io::Error),
}

/// Replays captures. With [`Options::json`], `lines` gets one line per frame that came in: its
/// time in nanoseconds since 1970, the port and the frame's index there, the verdict, the reason if
/// anything of it was dropped, and the ports that its copies left by.
///
/// # Errors
///
/// [`Error`] when something can't be read or written; what was written until then stays.
pub fn run(options: &Options, lines: &mut dyn Write) -> Result<Summary, Error> {
    let config::Summary { config, model, .. } = config::check(&options.config)?;
    let names = names(&model);
    let mut merge = open_inputs(options, &model)?;
    let tape = Arc::new(Tape::default());
    let memory = usize::try_from(config.host.memory.0).unwrap_or(usize::MAX);
    let mut stage = Stage::new(&model, memory)?;
    for (&port, name) in &names {
        let file = create_output(options, name)?;
        let capture = Capture::new(port, BufWriter::new(file), Arc::clone(&tape));
        let failed = |source| Error::File { file: output(options, name), source };
        stage.attach(port, Box::new(capture.map_err(failed)?));
    }
    let mut summary = Summary::new(&names);
    while let Some(frame) = merge.next_frame()? {
        tape.set(frame.time);
        let fate = stage.take(&frame);
        check_written(options, &names, &tape)?;
        if options.json {
            Line::new(&names, &frame, &fate).write_to(lines).map_err(Error::Lines)?;
        }
        summary.count(&frame, &fate);
    }
    stage.close();
    check_written(options, &names, &tape)?;
    lines.flush().map_err(Error::Lines)?;
    Ok(summary)
}

/// The names of all ports, by number.
type Names = BTreeMap<PortId, String>;

fn names(model: &Model) -> Names {
    model.ports().map(|(port, name)| (port, name.to_owned())).collect()
}

fn open_inputs(options: &Options, model: &Model) -> Result<Merge, Error> {
    let mut merge = Merge::default();
    for Input { port, file } in &options.inputs {
        let id = model.port(port).ok_or_else(|| Error::NoPort {
            port: port.clone(),
            ports: model.ports().map(|(_, name)| name.to_owned()).collect(),
        })?;
        if model.ports().any(|(_, name)| is_same(file, &output(options, name))) {
            return Err(Error::Overwritten(file.clone()));
        }
        let opened = File::open(file);
        let opened = opened.map_err(|source| Error::File { file: file.clone(), source })?;
        merge.add(id, file, opened)?;
    }
    Ok(merge)
}

fn create_output(options: &Options, port: &str) -> Result<File, Error> {
    let file = output(options, port);
    fs::create_dir_all(&options.out)
        .and_then(|()| File::create(&file))
        .map_err(|source| Error::File { file, source })
}

fn output(options: &Options, port: &str) -> PathBuf {
    options.out.join(format!("{port}.pcap"))
}

/// Whether both paths lead to one file that exists.
fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn check_written(options: &Options, names: &Names, tape: &Tape) -> Result<(), Error> {
    let Some((port, source)) = tape.failure() else { return Ok(()) };
    let name = names.get(&port).map_or("", String::as_str);
    Err(Error::File { file: output(options, name), source })
}

fn known(ports: &[String]) -> String {
    const SHOWN: usize = 8;
    match ports.len() {
        0 => "; it has none".to_owned(),
        more if more > SHOWN => format!("; it has {}, ...", ports[..SHOWN].join(", ")),
        _ => format!("; it has {}", ports.join(", ")),
    }
}
