//! A capture as pcapng (draft-ietf-opsawg-pcapng): one section, an interface per port, times in
//! nanoseconds since 1970.

use std::borrow::Cow;
use std::time::Duration;

use dataplane::drops::Reason;
use dataplane::offload::{Checksum, Offload};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};
use pipelines::capture::{Event, Record};

use crate::trace::explain;

/// Blocks that wait to be taken away.
pub(super) struct Pcapng {
    writer: PcapNgWriter<Vec<u8>>,
    /// The wall clock at the zero of the workers' time.
    origin: Duration,
    snaplen: u32,
    interfaces: u32,
}

/// What a capture came to at one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Statistics {
    /// When it began and ended, since 1970.
    pub(super) time: [Duration; 2],
    /// Frames written.
    pub(super) written: u64,
    /// Frames for which there was no room on the way from the workers.
    pub(super) missed: u64,
    /// More about it, if there is more.
    pub(super) comment: Option<String>,
}

/// Exponent of ten of the times' unit (`if_tsresol`).
const NANOSECONDS: u8 = 9;
/// The direction in `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

impl Pcapng {
    /// Begins a section. `origin` is the wall clock at the zero of the workers' time.
    pub(super) fn begin(origin: Duration, snaplen: u32) -> Result<Self, PcapError> {
        let application = concat!("heddle ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(application))],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        Ok(Self { writer, origin, snaplen, interfaces: 0 })
    }

    /// Describes an interface; answers its number.
    pub(super) fn interface(&mut self, name: &str, description: &str) -> u32 {
        use InterfaceDescriptionOption::{IfDescription, IfName, IfTsResol};
        let options = vec![
            IfName(Cow::Borrowed(name)),
            IfDescription(Cow::Borrowed(description)),
            IfTsResol(NANOSECONDS),
        ];
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snaplen,
            options,
        };
        // The writer keeps descriptions.
        self.write(block.into_owned());
        self.interfaces += 1;
        self.interfaces - 1
    }

    /// Writes a frame.
    pub(super) fn frame(&mut self, interface: u32, record: &Record, bytes: &[u8]) {
        use EnhancedPacketOption::{Comment, Flags};
        let direction = if record.event == Event::Sent { OUTBOUND } else { INBOUND };
        let mut options = vec![Flags(direction)];
        options.extend(fate(record.event).map(|text| Comment(text.into())));
        options.extend(debt(record.offload).map(|text| Comment(text.into())));
        self.write(EnhancedPacketBlock {
            interface_id: interface,
            timestamp: self.origin + Duration::from(record.at),
            original_len: record.len,
            data: Cow::Borrowed(bytes),
            options,
        });
    }

    /// Writes what the capture came to at an interface.
    pub(super) fn statistics(&mut self, interface: u32, statistics: &Statistics) {
        use InterfaceStatisticsOption::{
            Comment, IsbEndTime, IsbIfDrop, IsbIfRecv, IsbStartTime, IsbUsrDeliv,
        };
        let Statistics { time: [start, end], written, missed, ref comment } = *statistics;
        let mut options = vec![
            IsbStartTime(halves(start)),
            IsbEndTime(halves(end)),
            IsbIfRecv(written + missed),
            IsbIfDrop(missed),
            IsbUsrDeliv(written),
        ];
        options.extend(comment.as_deref().map(|text| Comment(Cow::Borrowed(text))));
        self.write(InterfaceStatisticsBlock {
            interface_id: interface,
            timestamp: halves(end),
            options,
        });
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.writer.get_ref().len()
    }

    /// Takes what has been written so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    fn write<'a>(&mut self, block: impl PcapNgBlock<'a>) {
        let written = self.writer.write_pcapng_block(block);
        debug_assert!(written.is_ok(), "memory takes everything, and the interface is known");
    }
}

/// Times in statistics are two words, the high one first, whatever the order of bytes in each; the
/// library writes the number as one.
fn halves(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).rotate_left(32)
}

/// Why a frame went no further.
fn fate(event: Event) -> Option<String> {
    let say = |what: &str, reason: Reason| {
        let (symbol, sentence) = explain(reason);
        Some(format!("{what}, {symbol}: {sentence}"))
    };
    match event {
        Event::Received | Event::Sent => None,
        Event::Dropped(reason) => say("dropped", reason),
        Event::Lost(reason) => say("dropped on the way out", reason),
    }
}

/// What a frame still owes to the wire, which a reader of the capture would take for damage.
fn debt(offload: Offload) -> Option<String> {
    let open = offload.checksum == Checksum::Partial;
    match (offload.is_super(), open) {
        (false, false) => None,
        (false, true) => Some("checksum left to the device".to_owned()),
        (true, _) => {
            let size = offload.gso_size;
            let checksums = if open { ", checksums left to the device" } else { "" };
            Some(format!("super-packet of segments of {size} bytes{checksums}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane::ids::PortId;
    use dataplane::offload::Gso;
    use dataplane::time::Nanos;

    use super::*;

    /// 2023-11-14 22:13:20 UTC.
    const ORIGIN: Duration = Duration::from_secs(1_700_000_000);

    fn record(event: Event, offload: Offload) -> Record {
        Record { at: Nanos(67), port: PortId(1), event, offload, len: 257, captured: 5 }
    }

    /// The words of a block, as little-endian numbers.
    fn words(bytes: &[u8]) -> Vec<u32> {
        let (words, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty(), "blocks are aligned");
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// Text as words.
    fn text(text: &str) -> Vec<u32> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        words(&bytes)
    }

    fn option(code: u32, length: usize) -> u32 {
        code | u32::try_from(length).unwrap() << 16
    }

    #[test]
    fn a_section_and_an_interface_are_what_the_format_says() {
        let mut file = Pcapng::begin(ORIGIN, 65_549).unwrap();
        let application = concat!("heddle ", env!("CARGO_PKG_VERSION"));
        let body = text(application);
        let length = 4 * u32::try_from(7 + 1 + body.len() + 1).unwrap();
        // Type, length, magic, version 1.0, unknown length of the section, shb_userappl, end.
        let head = [0x0a0d_0d0a, length, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX];
        let expected = [&head[..], &[option(4, application.len())], &body, &[0, length]].concat();
        assert_eq!(words(&file.take()), expected);

        assert_eq!(file.interface("web-1", "network web"), 0);
        let options = [
            &[option(2, 5)][..],
            &text("web-1"),
            &[option(3, 11)],
            &text("network web"),
            &[option(9, 1), 9, 0],
        ]
        .concat();
        let length = 4 * u32::try_from(4 + options.len() + 1).unwrap();
        // Type, length, link type 1 (Ethernet), snap length.
        let expected = [&[1, length, 1, 65_549][..], &options, &[length]].concat();
        assert_eq!(words(&file.take()), expected);
        assert_eq!(file.interface("web-2", "network web"), 1);
    }

    #[test]
    fn a_frame_is_what_the_format_says() {
        let mut file = Pcapng::begin(ORIGIN, 65_549).unwrap();
        file.interface("web-1", "network web");
        file.take();
        for (event, direction) in [(Event::Received, 1), (Event::Sent, 2)] {
            file.frame(0, &record(event, Offload::PLAIN), &[1, 2, 3, 4, 5]);
            let time = 1_700_000_000_000_000_067_u64;
            let (high, low) = ((time >> 32) as u32, u32::try_from(time & 0xffff_ffff).unwrap());
            let frame = [0, high, low, 5, 257, 0x0403_0201, 5];
            let options = [option(2, 4), direction, 0];
            let expected = [&[6, 52][..], &frame, &options, &[52]].concat();
            assert_eq!(words(&file.take()), expected);
        }
    }

    #[test]
    fn statistics_are_what_the_format_says() {
        let mut file = Pcapng::begin(ORIGIN, 65_549).unwrap();
        file.interface("web-1", "network web");
        file.take();
        let time = [Duration::from_nanos(1 << 32), Duration::from_nanos((7 << 32) + 9)];
        let comment = Some("seven".to_owned());
        file.statistics(0, &Statistics { time, written: 67, missed: 257, comment });
        let options = [
            &[option(2, 8), 1, 0, option(3, 8), 7, 9][..],
            &[option(4, 8), 67 + 257, 0, option(5, 8), 257, 0, option(8, 8), 67, 0],
            &[option(1, 5)],
            &text("seven"),
            &[0],
        ]
        .concat();
        let length = 4 * u32::try_from(5 + options.len() + 1).unwrap();
        let expected = [&[5, length, 0, 7, 9][..], &options, &[length]].concat();
        assert_eq!(words(&file.take()), expected);
    }

    #[test]
    fn comments_say_why_and_what_is_owed() {
        let partial = Offload { checksum: Checksum::Partial, ..Offload::PLAIN };
        let large = Offload { gso: Gso::Tcp4, gso_size: 1448, ..partial };
        let comments = [Offload::PLAIN, partial, large].map(debt);
        let owed = [
            None,
            Some("checksum left to the device".to_owned()),
            Some("super-packet of segments of 1448 bytes, checksums left to the device".to_owned()),
        ];
        assert_eq!(comments, owed);
        let reason = pipelines::drops::SPOOFED_MAC;
        let sentence = "The source MAC was not the endpoint's own.";
        for (event, said) in [
            (Event::Dropped(reason), "dropped, spoofed_mac"),
            (Event::Lost(reason), "dropped on the way out, spoofed_mac"),
        ] {
            assert_eq!(fate(event), Some(format!("{said}: {sentence}")));
        }
    }
}
