//! The capture port: receives what a capture file holds, writes what it is given to another.
//!
//! The capture's timestamps are the clock: a frame is received once the time that the caller
//! passes has come to it. Whoever replays asks for [`Capture::next_at`] and sets the time to it.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};
use thiserror::Error;

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::drops;
use crate::ids::PortId;
use crate::memory::{HEADROOM, Packet, Pool, RUN_BYTES, SMALL_BYTES, Size, TAILROOM};
use crate::offload::Capabilities;
use crate::time::Nanos;

/// Why a capture can't be used.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Not a pcap file, or cut short.
    #[error("not a readable capture: {0}")]
    Format(#[from] PcapError),
    /// A link type that is not Ethernet.
    #[error("the capture's link type is {0:?}, not Ethernet")]
    LinkType(DataLink),
}

/// A port between two captures.
pub struct Capture<R: Read, W: Write> {
    port: PortId,
    reader: Option<PcapReader<R>>,
    writer: PcapWriter<W>,
    /// The frame that comes next, with its time.
    next: Option<(Nanos, Vec<u8>)>,
    now: Nanos,
}

impl<R: Read, W: Write> Capture<R, W> {
    /// A port that receives what `reader` holds and writes what it transmits to `writer`, with
    /// nanoseconds. Without a reader nothing ever comes in.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] when the capture is unreadable or not of Ethernet.
    pub fn new(port: PortId, reader: Option<R>, writer: W) -> Result<Self, CaptureError> {
        let reader = reader.map(PcapReader::new).transpose()?;
        if let Some(link) = reader.as_ref().map(|reader| reader.header().datalink)
            && link != DataLink::ETHERNET
        {
            return Err(CaptureError::LinkType(link));
        }
        let header = PcapHeader { ts_resolution: TsResolution::NanoSecond, ..PcapHeader::default() };
        let writer = PcapWriter::with_header(writer, header)?;
        let mut this = Self { port, reader, writer, next: None, now: Nanos(0) };
        this.advance()?;
        Ok(this)
    }

    /// When the next frame comes in; `None` after the last.
    pub fn next_at(&self) -> Option<Nanos> {
        self.next.as_ref().map(|(at, _)| *at)
    }

    /// Reads the next frame of the capture.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Format`] when the file is cut short or damaged there.
    pub fn advance(&mut self) -> Result<(), CaptureError> {
        let record = self.reader.as_mut().and_then(PcapReader::next_packet).transpose()?;
        self.next = record.map(|record| (Nanos::from(record.timestamp), record.data.into_owned()));
        Ok(())
    }

    /// Takes the frame whose time has come.
    fn take(&mut self, pool: &mut Pool, counters: &PortCounters) -> Option<Packet> {
        let (_, bytes) = self.next.take_if(|(at, _)| *at <= self.now)?;
        let packet = packet_of(&bytes, self.port, pool);
        if packet.is_none() {
            counters.rx_packets.add(1);
            let reason = if longest(&bytes) { drops::OVERSIZED } else { drops::NO_MEMORY };
            counters.drops.of(reason).add(1);
        }
        // A damaged record ends the capture here; `advance` says so to whoever checks first.
        let _ = self.advance();
        packet
    }
}
