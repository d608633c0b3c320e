//! The capture port: receives what a capture file holds, writes what it is given to another.
//!
//! A frame is received once the time that the caller passes has come to its timestamp.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};
use thiserror::Error;

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::ids::PortId;
use crate::memory::{Packet, Pool};
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
        let header =
            PcapHeader { ts_resolution: TsResolution::NanoSecond, ..PcapHeader::default() };
        let writer = PcapWriter::with_header(writer, header)?;
        let mut this = Self { port, reader, writer, next: None, now: Nanos(0) };
        this.advance()?;
        Ok(this)
    }

    fn advance(&mut self) -> Result<(), CaptureError> {
        let record = self.reader.as_mut().and_then(PcapReader::next_packet).transpose()?;
        self.next = record.map(|record| (Nanos::from(record.timestamp), record.data.into_owned()));
        Ok(())
    }

    fn write(&mut self, packet: &Packet) -> Result<(), CaptureError> {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let record = PcapPacket::new(Duration::from(self.now), length, packet.data());
        self.writer.write_packet(&record)?;
        Ok(())
    }
}

impl<R: Read + Send, W: Write + Send> Port for Capture<R, W> {
    fn receive(
        &mut self,
        pool: &mut Pool,
        batch: &mut Vec<Packet>,
        budget: usize,
        now: Nanos,
        counters: &PortCounters,
    ) -> Intake {
        self.now = now;
        for _ in 0..budget {
            let Some((_, bytes)) = self.next.take_if(|(at, _)| *at <= now) else { break };
            match Packet::holding(pool, self.port, &bytes) {
                Ok(packet) => batch.push(packet),
                Err(reason) => {
                    counters.rx_packets.add(1);
                    counters.drops.of(reason).add(1);
                }
            }
            if self.advance().is_err() {
                return Intake::Gone;
            }
        }
        if self.next.is_some() { Intake::More } else { Intake::Empty }
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        let mut refused = Refused::default();
        for packet in packets.drain(..) {
            if self.write(&packet).is_err() {
                refused.failed(&packet);
            }
            pool.give(packet.into_frame());
        }
        refused
    }

    /// None: a capture shows frames as they would be on a wire.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {}
}
