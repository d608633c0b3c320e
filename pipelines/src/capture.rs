//! What a capture takes from the walk: frames, copied into bounded rings that control empties.
//!
//! | shared state | writer | reader |
//! |---|---|---|
//! | records, and the bytes of their frames | the worker | control |
//! | records that were missed, by port | the worker | control |
//!
//! A frame's bytes are pushed before its record, and taken after it: who sees the record finds the
//! bytes. What does not fit is counted and forgotten; the worker waits for nobody.

use std::sync::Arc;

use dataplane::counters::Counter;
use dataplane::drops::Reason;
use dataplane::ids::PortId;
use dataplane::memory::Packet;
use dataplane::offload::Offload;
use dataplane::pipeline::{Egress, Verdict};
use dataplane::time::Nanos;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::filter::Filter;

/// What was seen of a frame at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It came in.
    Received,
    /// It came in, and the walk ended with a drop.
    Dropped(Reason),
    /// It had come in, as a record of its own says; then it, a copy of it or a segment went no
    /// further on the way out.
    Lost(Reason),
    /// It left.
    Sent,
}

/// What is known of a frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The time of its batch.
    pub at: Nanos,
    /// The port that it came in or left by.
    pub port: PortId,
    /// What was seen.
    pub event: Event,
    /// What it still owed to the wire.
    pub offload: Offload,
    /// Its bytes, a super-packet whole.
    pub len: u32,
    /// How many of them were copied.
    pub captured: u32,
}

/// Which frames are copied, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Came in or left by this port; `None` for any.
    pub port: Option<PortId>,
    /// Meet these conditions as well.
    pub filter: Filter,
    /// Bytes of each frame at most.
    pub snaplen: usize,
}

/// The recorder of one worker, for as long as a capture goes on.
#[derive(Debug)]
pub struct Recorder {
    wanted: Wanted,
    records: Producer<Record>,
    bytes: Producer<u8>,
    missed: Arc<[Counter]>,
    /// The frame on its walk, whose bytes are on the ring as they came in: steps may change them.
    open: Option<Record>,
}

/// The other end of a [`Recorder`].
#[derive(Debug)]
pub struct Recording {
    records: Consumer<Record>,
    bytes: Consumer<u8>,
    missed: Arc<[Counter]>,
}

/// The smallest frames are about as long: there is a record for so many bytes of the ring.
const BYTES_PER_RECORD: usize = 128;
/// Port numbers that there can be: ports may come while a capture goes on.
const PORTS: usize = 1 << 16;

impl Wanted {
    /// A recorder of what is wanted and what it records. Its rings hold so many `bytes` of frames,
    /// and a record for every 128 of them.
    pub fn recorder(self, bytes: usize) -> (Recorder, Recording) {
        let (records, bytes) = (ring(bytes / BYTES_PER_RECORD, BLANK), ring(bytes, 0));
        let missed: Arc<[Counter]> = (0..PORTS).map(|_| Counter::default()).collect();
        let recording =
            Recording { records: records.1, bytes: bytes.1, missed: Arc::clone(&missed) };
        let (records, bytes) = (records.0, bytes.0);
        (Recorder { wanted: self, records, bytes, missed, open: None }, recording)
    }
}

impl Recorder {
    /// A packet begins its walk.
    pub fn enter(&mut self, packet: &Packet, at: Nanos) {
        self.open = self.copy(packet, packet.in_port, Event::Received, at);
    }

    /// Its walk has ended.
    pub fn decided(&mut self, verdict: Verdict) {
        if let Some(mut record) = self.open.take() {
            if let Verdict::Drop(reason) = verdict {
                record.event = Event::Dropped(reason);
            }
            self.push(record);
        }
    }

    /// A packet, or a copy or segment of one, leaves.
    pub fn sent(&mut self, way: Egress, packet: &Packet, at: Nanos) {
        if let Some(record) = self.copy(packet, way.port, Event::Sent, at) {
            self.push(record);
        }
    }

    /// A packet, or a copy or segment of one, goes no further on its way out.
    pub fn lost(&mut self, reason: Reason, packet: &Packet, at: Nanos) {
        if let Some(record) = self.copy(packet, packet.in_port, Event::Lost(reason), at) {
            self.push(record);
        }
    }

    /// Copies a frame's bytes, if it is wanted and there is room for it and its record.
    fn copy(&mut self, packet: &Packet, port: PortId, event: Event, at: Nanos) -> Option<Record> {
        let Wanted { port: wanted, filter, snaplen } = &self.wanted;
        if wanted.is_some_and(|wanted| wanted != port) || !filter.matches(packet) {
            return None;
        }
        let captured = packet.len().min(*snaplen);
        if self.records.is_full()
            || self.bytes.push_entire_slice(&packet.data()[..captured]).is_err()
        {
            self.missed[port.index()].add(1);
            return None;
        }
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (len, captured) = (length(packet.len()), length(captured));
        Some(Record { at, port, event, offload: packet.offload, len, captured })
    }

    /// There is room: it was looked for before the bytes were copied.
    fn push(&mut self, record: Record) {
        let pushed = self.records.push(record);
        debug_assert!(pushed.is_ok(), "bytes without a record");
    }
}

impl Recording {
    /// The time of the next record, if there is one.
    pub fn next_at(&self) -> Option<Nanos> {
        self.records.peek().ok().map(|record| record.at)
    }

    /// Takes the next record, and puts its frame's bytes in place of those in `frame`.
    pub fn take(&mut self, frame: &mut Vec<u8>) -> Option<Record> {
        let record = self.records.pop().ok()?;
        frame.clear();
        if let Ok(chunk) = self.bytes.read_chunk(usize::try_from(record.captured).ok()?) {
            let (first, second) = chunk.as_slices();
            frame.extend_from_slice(first);
            frame.extend_from_slice(second);
            chunk.commit_all();
        }
        Some(record)
    }

    /// Records of frames at a port for which there was no room so far.
    pub fn missed(&self, port: PortId) -> u64 {
        self.missed[port.index()].read()
    }
}

/// A ring whose memory is there already, so that the worker does not wait for it page by page.
fn ring<T: Copy>(capacity: usize, blank: T) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1);
    let (mut producer, mut consumer) = RingBuffer::new(capacity);
    let filled = producer.push_entire_slice(&vec![blank; capacity]);
    debug_assert!(filled.is_ok(), "it was empty");
    if let Ok(chunk) = consumer.read_chunk(capacity) {
        chunk.commit_all();
    }
    (producer, consumer)
}

const BLANK: Record = Record {
    at: Nanos(0),
    port: PortId(0),
    event: Event::Received,
    offload: Offload::PLAIN,
    len: 0,
    captured: 0,
};

#[cfg(all(test, not(loom)))]
mod tests {
    use dataplane::ids::SegmentId;
    use dataplane::memory::{Arena, Geometry, Pool};

    use super::*;
    use crate::drops;

    const ANY: Wanted = Wanted { port: None, filter: Filter::ANY, snaplen: 257 };
    const WAY: Egress = Egress { port: PortId(2), segment: SegmentId(1) };

    fn pool() -> Pool {
        Arena::create(Geometry { owners: 1, small: 8, runs: 1 }).unwrap().remove(0)
    }

    /// What is on the rings: time, port, event, length and bytes of each record.
    fn drain(recording: &mut Recording) -> Vec<(u64, u16, Event, u32, Vec<u8>)> {
        let mut frame = Vec::new();
        let mut next = || {
            let record = recording.take(&mut frame)?;
            assert_eq!(record.captured as usize, frame.len());
            Some((record.at.0, record.port.0, record.event, record.len, frame.clone()))
        };
        std::iter::from_fn(&mut next).collect()
    }

    #[test]
    fn a_frame_is_recorded_as_it_came_in() {
        let mut pool = pool();
        let (mut recorder, mut recording) = ANY.recorder(4096);
        let mut packet = Packet::holding(&mut pool, PortId(1), &[7; 67]).unwrap();
        recorder.enter(&packet, Nanos(5));
        assert_eq!(recording.next_at(), None, "the walk goes on");
        packet.data_mut().fill(9);
        recorder.decided(Verdict::Forward(WAY));
        recorder.sent(WAY, &packet, Nanos(5));
        recorder.enter(&packet, Nanos(6));
        recorder.decided(Verdict::Drop(drops::SPOOFED_IP));
        recorder.lost(drops::TOO_BIG, &packet, Nanos(7));
        // A packet whose walk another worker has done.
        recorder.decided(Verdict::Forward(WAY));
        assert_eq!(recording.next_at(), Some(Nanos(5)));
        let expected = [
            (5, 1, Event::Received, 67, vec![7; 67]),
            (5, 2, Event::Sent, 67, vec![9; 67]),
            (6, 1, Event::Dropped(drops::SPOOFED_IP), 67, vec![9; 67]),
            (7, 1, Event::Lost(drops::TOO_BIG), 67, vec![9; 67]),
        ];
        assert_eq!(drain(&mut recording), expected);
        pool.give(packet.into_frame());
    }

    #[test]
    fn only_what_is_wanted_is_copied_and_no_further() {
        let mut pool = pool();
        let wanted = Wanted { port: Some(PortId(2)), snaplen: 14, ..ANY };
        let (mut recorder, mut recording) = wanted.recorder(4096);
        let packet = Packet::holding(&mut pool, PortId(1), &[7; 67]).unwrap();
        recorder.enter(&packet, Nanos(5));
        recorder.decided(Verdict::Drop(drops::SPOOFED_IP));
        recorder.sent(Egress { port: PortId(3), ..WAY }, &packet, Nanos(5));
        recorder.sent(WAY, &packet, Nanos(5));
        assert_eq!(drain(&mut recording), [(5, 2, Event::Sent, 67, vec![7; 14])]);
        assert_eq!(recording.missed(PortId(1)), 0, "it was not wanted");
        pool.give(packet.into_frame());
    }

    #[test]
    fn full_rings_drop_and_count() {
        let mut pool = pool();
        // Room for 4 records, and for 7 frames of 67 bytes.
        let (mut recorder, mut recording) = ANY.recorder(4 * BYTES_PER_RECORD);
        let small = Packet::holding(&mut pool, PortId(1), &[7; 67]).unwrap();
        let large = Packet::holding(&mut pool, PortId(1), &[8; 257]).unwrap();
        // More often than the rings are long, so that frames lie across their ends.
        for round in 0..67 {
            for _ in 0..5 {
                recorder.enter(&small, Nanos(round));
                recorder.decided(Verdict::Forward(WAY));
            }
            let frame = (round, 1, Event::Received, 67, vec![7; 67]);
            assert_eq!(drain(&mut recording), vec![frame; 4], "bound by the number");
            for _ in 0..3 {
                recorder.sent(WAY, &large, Nanos(round));
            }
            let frame = (round, 2, Event::Sent, 257, vec![8; 257]);
            assert_eq!(drain(&mut recording), [frame], "bound by the bytes");
        }
        assert_eq!((recording.missed(PortId(1)), recording.missed(PortId(2))), (67, 2 * 67));
        pool.give(small.into_frame());
        pool.give(large.into_frame());
    }
}
