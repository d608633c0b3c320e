//! Reads captures of Ethernet frames, in pcap and in pcapng.

use std::io::{Chain, Cursor, Read};
use std::time::Duration;

use pcap_file::pcap::{PcapReader, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};
use thiserror::Error;

use crate::time::Nanos;

/// One captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was captured, in nanoseconds since 1970.
    pub time: Nanos,
    /// The frame, from its Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Why a capture can't be used, and from which record on.
#[derive(Debug, Error)]
#[error("record {record}: {fault}")]
pub struct CaptureError {
    /// The number of the record, counted from 1 as protocol analysers do; 0 is the file's header.
    pub record: u64,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a record, or with the file's header.
#[derive(Debug, Error)]
pub enum Fault {
    /// Neither format, cut short, or a field that contradicts another.
    #[error("not a readable capture: {}", in_full(.0))]
    Format(#[from] PcapError),
    /// A link type that is not Ethernet.
    #[error("its link type is {0:?}, not Ethernet")]
    LinkType(DataLink),
    /// The record is of an interface that was not described.
    #[error("its interface {0} was not described")]
    Interface(u32),
    /// A block of a kind that says no time.
    #[error("it is a block without a time stamp")]
    Timeless,
    /// A time later than captures can hold: the year 2106.
    #[error("its time is {0:?} after 1970, later than a capture can say")]
    Time(Duration),
    /// The rest of the frame was not captured.
    #[error("it holds {captured} of {original} bytes: capture whole frames (`tcpdump -s 0`)")]
    Snapped {
        /// Bytes in the record.
        captured: usize,
        /// Bytes that the frame had.
        original: u32,
    },
}

/// Reads the records of one capture, in the order of the file.
pub struct Reader<R: Read> {
    format: Format<R>,
    /// Records read so far.
    records: u64,
}

/// The first bytes, which were read to tell the formats apart, and the rest.
type Whole<R> = Chain<Cursor<[u8; 4]>, R>;

enum Format<R: Read> {
    Pcap(PcapReader<Whole<R>>),
    PcapNg(PcapNgReader<Whole<R>>),
}

/// The type of a pcapng section header block, the same in both byte orders.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

impl<R: Read> Reader<R> {
    /// Begins to read a capture.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] of record 0 when it is not a capture, or not of Ethernet.
    pub fn new(source: R) -> Result<Self, CaptureError> {
        let failed = |fault| CaptureError { record: 0, fault };
        Ok(Self { format: Format::open(source).map_err(failed)?, records: 0 })
    }

    /// The next record; `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] when the record is unreadable, without a time, or not a whole frame.
    pub fn record(&mut self) -> Result<Option<Record>, CaptureError> {
        let record = match &mut self.format {
            Format::Pcap(reader) => next_of_pcap(reader),
            Format::PcapNg(reader) => next_of_pcapng(reader),
        };
        self.records += 1;
        record.map_err(|fault| CaptureError { record: self.records, fault })
    }
}

impl<R: Read> Format<R> {
    fn open(mut source: R) -> Result<Self, Fault> {
        let mut magic = [0; 4];
        source.read_exact(&mut magic).map_err(PcapError::IoError)?;
        let source = Cursor::new(magic).chain(source);
        if magic == PCAPNG {
            return Ok(Self::PcapNg(PcapNgReader::new(source)?));
        }
        let reader = PcapReader::new(source)?;
        check_link(reader.header().datalink)?;
        Ok(Self::Pcap(reader))
    }
}

fn next_of_pcap<R: Read>(reader: &mut PcapReader<R>) -> Result<Option<Record>, Fault> {
    let resolution = reader.header().ts_resolution;
    // Raw, since a checked one must not be longer on the wire than the capture's limit.
    let Some(raw) = reader.next_raw_packet().transpose()? else { return Ok(None) };
    let RawPcapPacket { ts_sec, ts_frac, orig_len, data, .. } = raw;
    let unit = if resolution == TsResolution::MicroSecond { 1_000 } else { 1 };
    let nanos = u64::from(ts_frac) * unit;
    record(Duration::from_secs(ts_sec.into()) + Duration::from_nanos(nanos), orig_len, &data)
}

/// The next frame, past all other blocks.
fn next_of_pcapng<R: Read>(reader: &mut PcapNgReader<R>) -> Result<Option<Record>, Fault> {
    loop {
        let Some(block) = reader.next_block().transpose()? else { return Ok(None) };
        let packet = match block {
            Block::EnhancedPacket(packet) => packet.into_owned(),
            Block::SimplePacket(_) | Block::Packet(_) => return Err(Fault::Timeless),
            _ => continue,
        };
        let interface = reader.packet_interface(&packet);
        let interface = interface.ok_or(Fault::Interface(packet.interface_id))?;
        check_link(interface.linktype)?;
        // The library answers the field's number as if it were nanoseconds.
        let units = packet.timestamp.as_nanos();
        return record(time_of(interface, units), packet.original_len, &packet.data);
    }
}

/// A time in an interface's units: microseconds, unless it says otherwise (draft-ietf-opsawg-pcapng,
/// 4.2: `if_tsresol`, `if_tsoffset`).
fn time_of(interface: &InterfaceDescriptionBlock<'_>, units: u128) -> Duration {
    const NANOS: u128 = 1_000_000_000;
    let (mut per_second, mut offset) = (1_000_000, 0);
    for option in &interface.options {
        match *option {
            InterfaceDescriptionOption::IfTsResol(bits) if bits & 0x80 != 0 => {
                per_second = 1_u128.checked_shl(u32::from(bits & 0x7f)).unwrap_or(u128::MAX);
            }
            InterfaceDescriptionOption::IfTsResol(digits) => {
                per_second = 10_u128.checked_pow(digits.into()).unwrap_or(u128::MAX);
            }
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = seconds,
            _ => {}
        }
    }
    // Units have 64 bits, so neither product overflows.
    let (seconds, rest) = (units / per_second, units % per_second);
    let nanos = rest * NANOS / per_second;
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).saturating_add(offset);
    Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.try_into().unwrap_or(0)))
}

/// A record whose time fits into any capture, so that it can be written again.
fn record(time: Duration, original: u32, bytes: &[u8]) -> Result<Option<Record>, Fault> {
    if u32::try_from(time.as_secs()).is_err() {
        return Err(Fault::Time(time));
    }
    if usize::try_from(original).is_ok_and(|original| original > bytes.len()) {
        return Err(Fault::Snapped { captured: bytes.len(), original });
    }
    Ok(Some(Record { time: Nanos::from(time), bytes: bytes.to_vec() }))
}

fn check_link(link: DataLink) -> Result<(), Fault> {
    if link == DataLink::ETHERNET { Ok(()) } else { Err(Fault::LinkType(link)) }
}

/// The library's message leaves out what the system said.
fn in_full(error: &PcapError) -> String {
    match error {
        PcapError::IoError(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
    use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};

    use super::*;

    fn pcap(header: PcapHeader, records: &[(Duration, u32, usize)]) -> Vec<u8> {
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for &(time, original, captured) in records {
            let data = vec![7; captured];
            writer.write_packet(&PcapPacket::new(time, original, &data)).unwrap();
        }
        writer.into_writer()
    }

    /// A pcapng file of one frame on an interface with these options, at a time in its units.
    fn pcapng(options: Vec<InterfaceDescriptionOption<'static>>, units: u64) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let interface =
            InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
        writer.write_block(&interface.into_block()).unwrap();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(units),
            original_len: 67,
            data: vec![7; 67].into(),
            options: vec![],
        };
        writer.write_block(&packet.into_block()).unwrap();
        writer.into_inner()
    }

    fn first(file: &[u8]) -> Result<Option<Record>, CaptureError> {
        Reader::new(file)?.record()
    }

    #[test]
    fn times_are_read_in_their_units() {
        let time = Duration::new(1_700_000_000, 123_456_789);
        for (resolution, nanos) in
            [(TsResolution::MicroSecond, 123_456_000), (TsResolution::NanoSecond, 123_456_789)]
        {
            let header = PcapHeader { ts_resolution: resolution, ..PcapHeader::default() };
            let record = first(&pcap(header, &[(time, 67, 67)])).unwrap().unwrap();
            assert_eq!(record.time.0, 1_700_000_000_000_000_000 + nanos);
        }
        let resolution = InterfaceDescriptionOption::IfTsResol;
        for (options, units, nanos) in [
            (vec![], 1_700_000_000_123_456, 1_700_000_000_123_456_000),
            (vec![resolution(9)], 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
            (vec![resolution(0x81)], 3, 1_500_000_000),
            (vec![resolution(3), InterfaceDescriptionOption::IfTsOffset(7)], 67, 7_067_000_000),
            (vec![resolution(127)], u64::MAX, 0),
            (vec![resolution(0xff)], u64::MAX, 0),
        ] {
            let record = first(&pcapng(options, units)).unwrap().unwrap();
            assert_eq!((record.time.0, record.bytes.len()), (nanos, 67));
        }
    }

    #[test]
    fn a_record_that_is_no_whole_frame_is_named() {
        let header = PcapHeader { snaplen: 96, ..PcapHeader::default() };
        let second = Duration::from_secs(1);
        let file = pcap(header, &[(second, 67, 67), (second, 1514, 96)]);
        let mut reader = Reader::new(&file[..]).unwrap();
        assert!(reader.record().unwrap().is_some());
        let error = reader.record().unwrap_err();
        assert_eq!(
            error.to_string(),
            "record 2: it holds 96 of 1514 bytes: capture whole frames (`tcpdump -s 0`)"
        );
    }

    #[test]
    fn what_is_no_ethernet_capture_is_refused() {
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        let refused = |file: &[u8]| first(file).unwrap_err();
        let CaptureError { record, fault } = refused(&pcap(header, &[]));
        assert!(record == 0 && matches!(fault, Fault::LinkType(DataLink::RAW)), "{fault}");
        assert!(matches!(refused(b"").fault, Fault::Format(_)));
        assert!(matches!(refused(b"this is no capture").fault, Fault::Format(_)));
        let late = pcapng(vec![InterfaceDescriptionOption::IfTsResol(0)], u64::from(u32::MAX) + 1);
        assert!(matches!(refused(&late).fault, Fault::Time(_)));
    }

    #[test]
    fn a_block_without_a_time_is_refused() {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
        writer.write_block(&interface.into_block()).unwrap();
        let packet = SimplePacketBlock { original_len: 4, data: vec![7; 4].into() };
        writer.write_block(&packet.into_block()).unwrap();
        let CaptureError { record, fault } = first(&writer.into_inner()).unwrap_err();
        assert!(record == 1 && matches!(fault, Fault::Timeless), "{fault}");
    }

    #[test]
    fn a_file_cut_anywhere_gives_an_error_or_an_end() {
        let whole = pcap(PcapHeader::default(), &[(Duration::from_secs(1), 67, 67)]);
        for length in 0..whole.len() {
            // After the file's header there is no record yet, and that is an end.
            assert_eq!(first(&whole[..length]).is_ok(), length == 24, "of {length} bytes");
        }
        let whole = pcapng(vec![], 1);
        for length in 0..whole.len() {
            assert!(!matches!(first(&whole[..length]), Ok(Some(_))), "of {length} bytes");
        }
    }
}
