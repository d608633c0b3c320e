//! A frame's token with what is known about its contents: 32 bytes, moved through the pipeline.
#![allow(unsafe_code)]

use super::frame::{Frame, SMALL_BYTES, Size};
use super::pool::Pool;
use crate::cpu::prefetch_read;
use crate::drops::{self, Reason};
use crate::ids::PortId;
use crate::offload::Offload;
use crate::wire::ethernet;
use crate::wire::vlan::Marking;

/// Bytes in front of a received frame, at least: room for outer headers and for a device's own.
pub const HEADROOM: usize = 256;

/// Bytes behind the largest received frame, at least: room for an ICV and padding.
pub const TAILROOM: usize = 64;

/// Which family the bytes after the Ethernet header and its tags belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Kind {
    /// Anything that is not one of the others.
    #[default]
    Other,
    /// An IPv4 header, complete and of version 4.
    Ipv4,
    /// An IPv6 header, complete and of version 6.
    Ipv6,
    /// An ARP packet for IPv4 over Ethernet, complete.
    Arp,
    /// The header contradicts its ethertype or the frame's length.
    Malformed,
}

/// What parsing found, 8 bytes, two of them free. Offsets count from the frame's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(4))]
pub struct Layers {
    /// What follows the Ethernet header and its tags.
    pub kind: Kind,
    /// Where that is; zero when that was not looked for.
    pub l3: u8,
    /// Where the transport header is; zero when there is none in this frame (a later fragment,
    /// a truncated or unknown header).
    pub l4: u8,
    /// The IP protocol number of the transport header; zero when `l4` is.
    pub protocol: u8,
    /// What the tag that was taken off said, and the next one is to say.
    pub marking: Marking,
}

impl Layers {
    /// Whether parsing found nothing wrong and no tag in front of layer 3.
    #[inline(always)]
    pub const fn are_plain(self) -> bool {
        self.l3 as usize == ethernet::HEADER_LEN
    }
}

/// One packet: the frame that holds it, where it lies, what it still owes, what parsing found.
///
/// `start + len` never leaves the slot; everything else about the bytes is untrusted.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct Packet {
    frame: Frame,
    len: u32,
    start: u16,
    /// The port it came in by.
    pub in_port: PortId,
    /// Checksum and segmentation state.
    pub offload: Offload,
    /// What parsing found.
    pub layers: Layers,
}

const _: () = assert!(size_of::<Packet>() == 32);

impl Packet {
    /// An empty packet in `frame`, with its head where received frames begin.
    ///
    /// Frames would all begin at the same offset of a 4 KiB page and so compete for the same few
    /// sets of the first-level cache: 256 headers would not fit. The head is therefore coloured
    /// by the slot's number.
    #[inline(always)]
    pub fn new(frame: Frame, in_port: PortId) -> Self {
        let colour = (frame.start().addr() / SMALL_BYTES) % COLOURS;
        #[expect(clippy::cast_possible_truncation, reason = "below 256 + 16 * 64")]
        let start = (HEADROOM + colour * LINE) as u16;
        Self {
            frame,
            len: 0,
            start,
            in_port,
            offload: Offload::PLAIN,
            layers: Layers { kind: Kind::Other, l3: 0, l4: 0, protocol: 0, marking: Marking::NONE },
        }
    }

    /// A packet of `len` bytes that a device has written to `frame`, `start` bytes from its head.
    ///
    /// # Errors
    ///
    /// Gives the frame back when they don't lie inside.
    #[inline(always)]
    pub fn received(
        frame: Frame,
        in_port: PortId,
        start: usize,
        len: usize,
    ) -> Result<Self, Frame> {
        let inside = start.checked_add(len).is_some_and(|end| end <= frame.size().bytes());
        match (u16::try_from(start), u32::try_from(len)) {
            (Ok(start), Ok(len)) if inside => Ok(Self { len, start, ..Self::new(frame, in_port) }),
            _ => Err(frame),
        }
    }

    /// A packet in a free frame of the smallest class that holds `bytes` and its tailroom.
    ///
    /// # Errors
    ///
    /// [`drops::NO_MEMORY`] when all such frames are in use, [`drops::OVERSIZED`] when no slot is
    /// that large.
    pub fn holding(pool: &mut Pool, in_port: PortId, bytes: &[u8]) -> Result<Self, Reason> {
        let mut packet = Self::with_room(pool, in_port, bytes.len())?;
        packet.room()[..bytes.len()].copy_from_slice(bytes);
        let fits = packet.set_len(bytes.len());
        debug_assert!(fits, "room was asked for");
        Ok(packet)
    }

    /// An empty packet that can grow to `len` bytes and leave the tailroom free.
    ///
    /// # Errors
    ///
    /// As [`Packet::holding`].
    pub fn with_room(pool: &mut Pool, in_port: PortId, len: usize) -> Result<Self, Reason> {
        for size in [Size::Small, Size::Run] {
            if len > size.bytes() - HEADROOM - COLOURS * LINE - TAILROOM {
                continue;
            }
            let frame = pool.take(size).ok_or(drops::NO_MEMORY)?;
            return Ok(Self::new(frame, in_port));
        }
        Err(drops::OVERSIZED)
    }

    /// Bytes of the packet.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "an empty packet is not a state worth a name")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The packet's bytes, from the Ethernet header on.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        // SAFETY: every method that moves `start` or `len` keeps their sum inside the slot.
        unsafe { self.frame.window(usize::from(self.start), self.len as usize) }
    }

    /// The packet's bytes, writable.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`.
        unsafe { self.frame.window_mut(usize::from(self.start), self.len as usize) }
    }

    /// Asks for the line of the packet's first header.
    #[inline(always)]
    pub fn prefetch(&self) {
        // An empty packet has no first byte.
        if let Some(first) = self.data().first() {
            prefetch_read(first);
        }
    }

    /// Bytes free in front of the packet.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Bytes that the packet could grow to without moving.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        self.frame.size().bytes() - usize::from(self.start)
    }

    /// Everything behind the packet's first byte, to be filled; [`Packet::set_len`] follows.
    #[inline(always)]
    pub fn room(&mut self) -> &mut [u8] {
        let (start, capacity) = (usize::from(self.start), self.capacity());
        // SAFETY: `start + capacity` is the slot's end.
        unsafe { self.frame.window_mut(start, capacity) }
    }

    /// Sets the length, or answers false and changes nothing when the slot is smaller.
    #[inline(always)]
    #[must_use = "the length is unchanged when it does not fit"]
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.capacity();
        if fits {
            #[expect(clippy::cast_possible_truncation, reason = "a slot is below 4 GiB")]
            let len = len as u32;
            self.len = len;
        }
        fits
    }

    /// Opens `bytes` in front of the packet; `None` when the headroom is smaller. What they held
    /// is left over from earlier packets. Layer and checksum offsets are not moved.
    #[inline(always)]
    pub fn push_front(&mut self, bytes: u16) -> Option<()> {
        self.start = self.start.checked_sub(bytes)?;
        self.len += u32::from(bytes);
        Some(())
    }

    /// Cuts `bytes` off the packet's front; `None`, and nothing changed, when it is shorter.
    #[inline(always)]
    pub fn pull_front(&mut self, bytes: u16) -> Option<()> {
        let len = self.len.checked_sub(u32::from(bytes))?;
        self.start = self.start.checked_add(bytes)?;
        self.len = len;
        Some(())
    }

    /// The packet's bytes with `bytes` of headroom in front of them: a device's own header goes
    /// there. `None` when the headroom is smaller.
    #[inline(always)]
    pub fn data_behind(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let start = usize::from(self.start).checked_sub(bytes)?;
        // SAFETY: `start` moved towards the slot's head only, the end is the packet's own.
        Some(unsafe { self.frame.window_mut(start, bytes + self.len as usize) })
    }

    /// The slot without the packet: its metadata is forgotten.
    #[inline(always)]
    pub fn into_frame(self) -> Frame {
        self.frame
    }

    /// The slot that holds the packet.
    #[inline(always)]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }
}

/// Empties `batch`, packet by packet in order.
///
/// What `Vec::drain` does, without an `Option<Packet>` in between: that one is told apart by a
/// byte in the middle of the packet, so each would be copied in pieces that the processor can't
/// forward to the next copy.
#[inline(always)]
pub fn drain_each(batch: &mut Vec<Packet>, mut each: impl FnMut(Packet)) {
    let length = batch.len();
    // SAFETY: zero is within the capacity. If `each` panics, the packets left are slots lost.
    unsafe { batch.set_len(0) };
    let first = batch.as_ptr();
    for index in 0..length {
        // SAFETY: the first `length` packets are initialised, the vector no longer counts them
        // as its own, and each is read once; `each` can't reach the vector, which is borrowed.
        each(unsafe { first.add(index).read() });
    }
}

const LINE: usize = 64;
const COLOURS: usize = 16;

// `start` stays a u16 while `pull_front` moves it: a run is longer than that, a header is not.
const _: () = assert!(HEADROOM + COLOURS * LINE + TAILROOM + 2048 < SMALL_BYTES);

#[cfg(test)]
mod tests {
    use super::super::{Arena, Geometry, Size};
    use super::*;

    fn packet() -> (super::super::Pool, Packet) {
        let geometry = Geometry { owners: 1, small: 8, runs: 1 };
        let mut pool = Arena::create(geometry).unwrap().remove(0);
        let packet = Packet::new(pool.take(Size::Small).unwrap(), PortId(3));
        (pool, packet)
    }

    #[test]
    fn length_stays_inside_the_slot() {
        let (mut pool, mut packet) = packet();
        assert!(packet.set_len(packet.capacity()));
        assert!(!packet.set_len(packet.capacity() + 1));
        assert_eq!(packet.len(), packet.capacity());
        assert_eq!(packet.headroom() + packet.len(), SMALL_BYTES);
        pool.give(packet.into_frame());
    }

    #[test]
    fn headers_are_pushed_and_pulled() {
        let (mut pool, mut packet) = packet();
        assert!(packet.set_len(4));
        packet.data_mut().copy_from_slice(b"body");
        packet.push_front(3).unwrap();
        packet.data_mut()[..3].copy_from_slice(b"the");
        assert_eq!(packet.data(), b"thebody");
        packet.pull_front(5).unwrap();
        assert_eq!(packet.data(), b"dy");
        assert_eq!(packet.pull_front(3), None);
        assert_eq!(packet.push_front(u16::MAX), None);
        assert_eq!(packet.data(), b"dy");
        pool.give(packet.into_frame());
    }

    #[test]
    fn a_batch_is_emptied_in_order() {
        let (mut pool, first) = packet();
        let mut batch = vec![first];
        batch.extend((4..7).map(|n| Packet::new(pool.take(Size::Small).unwrap(), PortId(n))));
        let mut ports = Vec::new();
        drain_each(&mut batch, |packet| {
            ports.push(packet.in_port.0);
            pool.give(packet.into_frame());
        });
        assert_eq!(ports, [3, 4, 5, 6]);
        assert!(batch.is_empty() && pool.free().0 == 8);
    }

    #[test]
    fn a_copy_has_its_own_bytes() {
        let (mut pool, mut packet) = packet();
        assert!(packet.set_len(5));
        packet.data_mut().copy_from_slice(b"hello");
        packet.layers.l3 = 14;
        let copy = pool.duplicate(&packet).unwrap();
        packet.data_mut()[0] = b'j';
        assert_eq!((copy.data(), copy.layers.l3, copy.in_port), (&b"hello"[..], 14, PortId(3)));
        pool.give(packet.into_frame());
        pool.give(copy.into_frame());
    }
}
