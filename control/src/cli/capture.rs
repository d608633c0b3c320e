//! `heddle capture`.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgParser};
use pipelines::classify;

use super::args::Capture;
use super::client::Client;
use super::{Failure, print};
use crate::api::query;
use crate::trace::Head;

/// Bytes of a frame that a line needs.
const FOR_A_LINE: u32 = 128;
/// Frames longer than this are no frames: a file may say anything.
const LONGEST: u32 = 1 << 18;

/// Captures frames until they are enough, or Ctrl-C.
pub(super) fn run(client: &Client, arguments: &Capture) -> Result<(), Failure> {
    let to_output = arguments.write.as_deref() == Some(Path::new("-"));
    if to_output && io::stdout().is_terminal() {
        let advice = "a capture is not for a terminal: pipe it to a program, name a file with \
                      -w, or leave -w out to see a line per frame";
        return Err(Failure::wrong(advice));
    }
    let mut sink = match &arguments.write {
        None => Sink::Lines,
        Some(_) if to_output => Sink::Output,
        Some(path) => Sink::NewFile(path.clone()),
    };
    let (mut blocks, mut reader) = (Blocks::default(), Reader::default());
    client.until_interrupted("/v1/capture", &asked(arguments), |piece| {
        blocks.add(piece);
        while let Some(block) = blocks.next() {
            reader.read(block, &mut sink)?;
            sink.write(block)?;
        }
        sink.flush()
    })?;
    eprintln!("{}", reader.summary());
    Ok(())
}

/// What the API is asked for.
fn asked(arguments: &Capture) -> String {
    let Capture { port, filter, write, count, snaplen, buffer } = arguments;
    let (port, filter) = (query::encode(port), query::encode(&filter.join(" ")));
    let mut asked = format!("port={port}&filter={filter}");
    let snaplen = snaplen.or(write.is_none().then_some(FOR_A_LINE));
    for (key, value) in [
        ("count", *count),
        ("snaplen", snaplen.map(u64::from)),
        ("buffer", buffer.as_ref().map(|buffer| buffer.0)),
    ] {
        asked.extend(value.map(|value| format!("&{key}={value}")));
    }
    asked
}

/// Where frames go.
enum Sink {
    Lines,
    Output,
    /// Made with the first block, so that a request that is refused leaves no file.
    NewFile(PathBuf),
    File(PathBuf, File),
}

impl Sink {
    fn is_for_people(&self) -> bool {
        matches!(self, Self::Lines)
    }

    /// Writes a block of the file.
    fn write(&mut self, block: &[u8]) -> Result<(), Failure> {
        if let Self::NewFile(path) = self {
            let file = File::create(&*path).map_err(|error| of_file(path, &error))?;
            *self = Self::File(std::mem::take(path), file);
        }
        match self {
            Self::Lines | Self::NewFile(_) => Ok(()),
            Self::Output => io::stdout().lock().write_all(block).map_err(|e| of_output(&e)),
            Self::File(path, file) => file.write_all(block).map_err(|e| of_file(path, &e)),
        }
    }

    /// Shows whoever reads beside us what there is so far.
    fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Output => io::stdout().lock().flush().map_err(|e| of_output(&e)),
            _ => Ok(()),
        }
    }
}

fn of_file(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

fn of_output(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::enough(),
        _ => Failure::failed(format!("standard output: {error}")),
    }
}

/// Finds the ends of blocks, so that a file never ends within one.
#[derive(Default)]
struct Blocks {
    bytes: Vec<u8>,
    /// Where the next block begins.
    next: usize,
}

impl Blocks {
    fn add(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.next);
        self.next = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// The next block, if all of it has come. Its second word is its length; heddle writes it
    /// with the low byte first.
    fn next(&mut self) -> Option<&[u8]> {
        let rest = self.bytes.get(self.next..)?;
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?);
        let block = rest.get(..usize::try_from(length).ok()?.max(12))?;
        self.next += block.len();
        Some(block)
    }
}

/// Reads blocks back: frames for people, and statistics.
#[derive(Default)]
struct Reader {
    parser: Option<PcapNgParser>,
    frames: u64,
    missed: u64,
    comments: Vec<String>,
    /// Whether statistics have come, which end a capture.
    whole: bool,
}

/// What begins blocks with frames.
const FRAME: [u8; 4] = 6_u32.to_le_bytes();

impl Reader {
    fn read(&mut self, block: &[u8], sink: &mut Sink) -> Result<(), Failure> {
        let frame = block.starts_with(&FRAME);
        self.frames += u64::from(frame);
        if frame && !sink.is_for_people() {
            return Ok(());
        }
        let other = |error| Failure::failed(format!("heddle is of another version: {error}"));
        let Some(parser) = &mut self.parser else {
            self.parser = Some(PcapNgParser::new(block).map_err(other)?.1);
            return Ok(());
        };
        match parser.next_block(block).map_err(other)?.1 {
            Block::EnhancedPacket(frame) => print(line(&frame, &port(parser, &frame))),
            Block::InterfaceStatistics(statistics) => {
                self.whole = true;
                for option in &statistics.options {
                    match option {
                        InterfaceStatisticsOption::IsbIfDrop(missed) => self.missed += missed,
                        InterfaceStatisticsOption::Comment(text) => {
                            self.comments.push(text.to_string());
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn summary(&self) -> String {
        let mut lines = vec![match (self.frames, self.missed) {
            (frames, 0) => format!("{frames} frames"),
            (frames, missed) => format!(
                "{frames} frames, and {missed} that were missed: a filter, a smaller --snaplen or \
                 a larger --buffer lets fewer be missed"
            ),
        }];
        if !self.whole {
            let why = "note: the end is missing, and with it what was missed: heddle ends a \
                       capture when nothing is taken for 30 seconds";
            lines.push(why.to_owned());
        }
        lines.extend(self.comments.iter().map(|comment| format!("note: {comment}")));
        lines.join("\n")
    }
}

/// The name of the port that a frame was seen at.
fn port(parser: &PcapNgParser, frame: &EnhancedPacketBlock<'_>) -> String {
    let options = parser.packet_interface(frame).map_or(&[][..], |i| &i.options);
    let name = options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// A frame for people: time of day (UTC), port, direction, length, headers, comments.
fn line(frame: &EnhancedPacketBlock<'_>, port: &str) -> String {
    let mut direction = "in";
    let mut comments = String::new();
    for option in &frame.options {
        match option {
            EnhancedPacketOption::Flags(flags) if flags & 3 == 2 => direction = "out",
            EnhancedPacketOption::Comment(text) => comments.push_str(&format!("; {text}")),
            _ => {}
        }
    }
    // What was cut off does not change where headers are.
    let mut bytes = frame.data.to_vec();
    bytes.resize(bytes.len().max(usize::try_from(frame.original_len.min(LONGEST)).unwrap_or(0)), 0);
    let head = Head { layers: classify::parse(&bytes), bytes: &bytes };
    let (time, length) = (time_of_day(frame.timestamp), frame.original_len);
    format!("{time} {port} {direction}, {length} bytes: {head}{comments}")
}

fn time_of_day(since_epoch: Duration) -> String {
    let (seconds, nanos) = (since_epoch.as_secs() % 86_400, since_epoch.subsec_nanos());
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{nanos:09}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn blocks_are_whole_wherever_pieces_end() {
        let block = |kind: u32, words: usize| {
            let length = u32::try_from(4 * words).unwrap();
            let mut block = [kind.to_le_bytes(), length.to_le_bytes()].concat();
            block.resize(4 * words, 7);
            block
        };
        let written = [block(1, 3), block(6, 67), block(5, 4), block(6, 257)];
        let bytes = written.concat();
        for size in [1, 3, 7, 67, 257, bytes.len()] {
            let mut blocks = Blocks::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                blocks.add(piece);
                while let Some(block) = blocks.next() {
                    found.push(block.to_vec());
                }
            }
            assert_eq!(found, written, "pieces of {size}");
        }
        // A length that can't be does not stop it for ever.
        let mut blocks = Blocks::default();
        blocks.add(&[0; 24]);
        assert_eq!((blocks.next().map(<[u8]>::len), blocks.next.min(12)), (Some(12), 12));
    }

    #[test]
    fn a_frame_reads_like_a_line() {
        let mut data = Vec::new();
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 9, 65], [10, 0, 9, 66], 64);
        ip.tcp(49_152, 443, 1, 2).write(&mut data, &[7; 257]).unwrap();
        let original_len = u32::try_from(data.len()).unwrap();
        data.truncate(60);
        let comment = "dropped, spoofed_mac: It was.";
        let mut frame = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::new(1_700_000_000, 67),
            original_len,
            data: Cow::Owned(data),
            options: vec![
                EnhancedPacketOption::Flags(1),
                EnhancedPacketOption::Comment(Cow::Borrowed(comment)),
            ],
        };
        let expected = "22:13:20.000000067 web-1 in, 311 bytes: 02:02:02:02:02:02 > \
                        04:04:04:04:04:04 ip 10.0.9.65 > 10.0.9.66 tcp 49152 > 443; \
                        dropped, spoofed_mac: It was.";
        assert_eq!(line(&frame, "web-1"), expected);
        frame.options = vec![EnhancedPacketOption::Flags(2)];
        assert!(line(&frame, "web-1").contains(" web-1 out, 311 bytes: "));
    }

    #[test]
    fn a_capture_is_asked_for_as_the_api_reads_it() {
        let arguments = Capture {
            port: "web-1".to_owned(),
            filter: vec!["tcp".to_owned(), "l4 port 443".to_owned()],
            write: None,
            count: Some(67),
            snaplen: None,
            buffer: Some(crate::config::units::Size(1 << 20)),
        };
        let expected =
            "port=web-1&filter=tcp%20l4%20port%20443&count=67&snaplen=128&buffer=1048576";
        assert_eq!(asked(&arguments), expected);
    }
}
