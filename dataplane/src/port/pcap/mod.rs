//! The capture port: writes what it is given to a capture file.
//!
//! Nothing comes in by it: who replays captures merges the records of several [`Reader`]s by
//! their times, and so decides which frame is next and what time it is.

mod reader;

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{PcapError, TsResolution};

use super::{Intake, Port, Refused};
use crate::counters::PortCounters;
use crate::ids::PortId;
use crate::memory::{Packet, Pool};
use crate::offload::Capabilities;
use crate::time::Nanos;

pub use reader::{CaptureError, Fault, Reader, Record};

/// What all captures of one replay share: the time that it is, and the first failure to write.
#[derive(Debug, Default)]
pub struct Tape {
    now: AtomicU64,
    failed: Mutex<Option<(PortId, io::Error)>>,
}

impl Tape {
    /// Sets the time that what is written from now on gets.
    pub fn set(&self, now: Nanos) {
        self.now.store(now.0, Ordering::Relaxed);
    }

    /// The first failure since this was last asked, and the port whose capture it concerns.
    pub fn failure(&self) -> Option<(PortId, io::Error)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, port: PortId, error: io::Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((port, error));
    }
}

/// A port that writes a capture, with the tape's time in nanoseconds.
pub struct Capture<W: Write> {
    port: PortId,
    writer: PcapWriter<W>,
    tape: Arc<Tape>,
}

/// The longest record, which is more than a slot of packet memory holds; what tcpdump writes too.
const SNAPLEN: u32 = 256 << 10;

impl<W: Write> Capture<W> {
    /// A port that writes to `writer`, which is flushed when the port is closed.
    ///
    /// # Errors
    ///
    /// That of the writer.
    pub fn new(port: PortId, writer: W, tape: Arc<Tape>) -> io::Result<Self> {
        let header = PcapHeader {
            ts_resolution: TsResolution::NanoSecond,
            snaplen: SNAPLEN,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(writer, header).map_err(of_the_writer)?;
        Ok(Self { port, writer, tape })
    }

    fn write(&mut self, packet: &Packet) -> io::Result<()> {
        let now = Nanos(self.tape.now.load(Ordering::Relaxed));
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let record = PcapPacket::new(Duration::from(now), length, packet.data());
        self.writer.write_packet(&record).map(|_| ()).map_err(of_the_writer)
    }
}

impl<W: Write + Send> Port for Capture<W> {
    fn receive(
        &mut self,
        _pool: &mut Pool,
        _batch: &mut Vec<Packet>,
        _budget: usize,
        _now: Nanos,
        _counters: &PortCounters,
    ) -> Intake {
        Intake::Empty
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Refused {
        let mut refused = Refused::default();
        for packet in packets.drain(..) {
            if let Err(error) = self.write(&packet) {
                refused.failed(&packet);
                self.tape.fail(self.port, error);
            }
            pool.give(packet.into_frame());
        }
        refused
    }

    /// None: a capture shows frames as they would be on a wire.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn close(self: Box<Self>, _pool: &mut Pool) {
        if let Err(error) = self.writer.into_writer().flush() {
            self.tape.fail(self.port, error);
        }
    }
}

fn of_the_writer(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Arena, Geometry};

    /// Takes `left` bytes, then refuses.
    struct Full {
        left: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.left {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.left -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pool() -> Pool {
        Arena::create(Geometry { owners: 1, small: 8, runs: 2 }).unwrap().remove(0)
    }

    fn packets(pool: &mut Pool, lengths: &[usize]) -> Vec<Packet> {
        let bytes = vec![7; 66_000];
        let holding = |len: &usize| Packet::holding(pool, PortId(0), &bytes[..*len]).unwrap();
        lengths.iter().map(holding).collect()
    }

    #[test]
    fn what_is_written_can_be_read_with_its_times() {
        let (mut pool, tape, mut file) = (pool(), Arc::new(Tape::default()), Vec::new());
        let mut port = Capture::new(PortId(3), &mut file, Arc::clone(&tape)).unwrap();
        for (at, len) in [(67, 1), (1_000_000_257, 66_000)] {
            tape.set(Nanos(at));
            let mut batch = packets(&mut pool, &[len]);
            assert_eq!(port.transmit(&mut pool, &mut batch), Refused::default());
        }
        Box::new(port).close(&mut pool);
        assert_eq!(pool.free(), (8, 2));
        assert!(tape.failure().is_none());
        let mut reader = Reader::new(&file[..]).unwrap();
        let mut next =
            || reader.record().unwrap().map(|record| (record.time.0, record.bytes.len()));
        assert_eq!(next(), Some((67, 1)));
        assert_eq!(next(), Some((1_000_000_257, 66_000)));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_full_disk_is_told() {
        let (mut pool, tape) = (pool(), Arc::new(Tape::default()));
        assert!(Capture::new(PortId(3), Full { left: 3 }, Arc::clone(&tape)).is_err());
        let full = Full { left: 24 + 16 + 67 };
        let mut port = Capture::new(PortId(3), full, Arc::clone(&tape)).unwrap();
        let mut batch = packets(&mut pool, &[67, 67]);
        let refused = port.transmit(&mut pool, &mut batch);
        assert_eq!(refused, Refused { failed: 1, bytes: 67, ..Refused::default() });
        assert!(
            matches!(tape.failure(), Some((PortId(3), error)) if error.kind() == io::ErrorKind::StorageFull)
        );
        assert_eq!(pool.free(), (8, 2));
    }
}
