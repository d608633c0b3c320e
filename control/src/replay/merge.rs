//! The frames of all captures, in the order of their times.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::path::{Path, PathBuf};

use dataplane::ids::PortId;
use dataplane::port::pcap::{Reader, Record};
use dataplane::time::Nanos;

use super::Error;

/// One frame that comes in.
#[derive(Debug)]
pub(super) struct Frame {
    /// When.
    pub(super) time: Nanos,
    /// By which port.
    pub(super) port: PortId,
    /// How many came in by that port before.
    pub(super) index: u64,
    /// From the Ethernet header on.
    pub(super) bytes: Vec<u8>,
}

/// Captures, each with the frame that comes next. Frames of equal time are taken in the order in
/// which their captures were added, those of one capture always in its own order: where a time
/// steps back, it counts as that of the frame before.
#[derive(Default)]
pub(super) struct Merge {
    sources: Vec<Source>,
    /// The time of each source's next frame.
    next: BinaryHeap<Reverse<(Nanos, usize)>>,
    /// Frames taken so far, by port.
    taken: BTreeMap<PortId, u64>,
}

struct Source {
    port: PortId,
    file: PathBuf,
    reader: Reader<File>,
    /// Not later than any frame of this source that is still to come.
    time: Nanos,
    bytes: Vec<u8>,
}

impl Merge {
    /// Adds a capture whose frames come in by `port`.
    pub(super) fn add(&mut self, port: PortId, path: &Path, file: File) -> Result<(), Error> {
        let path = path.to_owned();
        let reader = match Reader::new(file) {
            Ok(reader) => reader,
            Err(source) => return Err(Error::Capture { file: path, source }),
        };
        let (time, bytes) = Default::default();
        self.sources.push(Source { port, file: path, reader, time, bytes });
        self.advance(self.sources.len() - 1)
    }

    /// The frame that comes next, `None` after the last.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        let Some(Reverse((time, index))) = self.next.pop() else { return Ok(None) };
        let source = &mut self.sources[index];
        let (port, bytes) = (source.port, std::mem::take(&mut source.bytes));
        self.advance(index)?;
        let taken = self.taken.entry(port).or_default();
        *taken += 1;
        Ok(Some(Frame { time, port, index: *taken - 1, bytes }))
    }

    /// Reads the next frame of a source.
    fn advance(&mut self, index: usize) -> Result<(), Error> {
        let source = &mut self.sources[index];
        let record = source.reader.record();
        let record =
            record.map_err(|error| Error::Capture { file: source.file.clone(), source: error })?;
        if let Some(Record { time, bytes }) = record {
            source.time = source.time.max(time);
            source.bytes = bytes;
            self.next.push(Reverse((source.time, index)));
        }
        Ok(())
    }
}
