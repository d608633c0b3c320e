//! Coalescing a run of segments into one super-packet, without copying: the head's headers are
//! patched, and the payloads of the others are sent behind it in one vectored write.
//!
//! The rules are those of Linux's receive offload, so that a forwarded flow is not changed: cutting
//! the super-packet gives back the segments. Segments of a run have the same addresses, ports,
//! acknowledgement, window, TCP options, ECN, DF, TTL and link header; they are in sequence and of
//! one size; IPv4 identifications rise by one, or stay the same with DF, where they mean nothing
//! (RFC 6864, 4.1). PSH, FIN and a shorter segment end a run; SYN, RST, URG, CWR, IPv4 options,
//! IPv6 extension headers and fragments are never part of one. What has a wrong checksum goes
//! alone, as it came.

use std::ops::Range;

use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::checksum::{self, Sum};
use super::layers::{Layers, Version};
use super::{ipv4, ipv6, protocol, tcp, udp};
use crate::offload::{Checksum, Gso, Offload};

/// The longest headers of a segment: Ethernet with two tags, IPv6, TCP with all options.
const MAX_HEADERS: usize = 22 + 40 + 60;

/// The longest super-packet, link header included, so that every offset and length has 16 bits.
const MAX_FRAME: usize = 65_535;

/// Datagrams of one super-packet: the kernel coalesces no more (`UDP_GRO_CNT_MAX`), and refuses
/// more than this (before 6.9) or 128 behind a virtio-net header (`UDP_MAX_SEGMENTS`).
const MAX_DATAGRAMS: usize = 64;

/// A run of segments that will be one super-packet.
#[derive(Clone, Debug)]
pub struct Run {
    /// The head's headers, as they came.
    headers: [u8; MAX_HEADERS],
    head: Segment,
    /// What the head owed when it came, if nothing is coalesced with it.
    offload: Offload,
    /// Payload bytes of all segments.
    bytes: usize,
    identifications: Identifications,
    /// PSH and FIN of the last segment.
    closing: u8,
    /// Whether nothing may follow.
    ended: bool,
}

/// A frame that may be part of a run.
#[derive(Clone, Copy, Debug)]
struct Segment {
    layers: Layers,
    /// Into what the run is to be cut.
    gso: Gso,
    /// Where the payload starts; it ends with the IP packet.
    payload: usize,
    /// Payload bytes of each segment in it, of which a super-packet has several.
    unit: usize,
    /// The TCP sequence number of the first byte; zero for UDP.
    sequence_number: u32,
    /// The TCP control bits; zero for UDP.
    flags: u8,
}

/// How IPv4 identifications go on.
#[derive(Clone, Copy, Debug)]
struct Identifications {
    last: u16,
    /// Whether they stay the same; not known before the second segment.
    fixed: Option<bool>,
}

impl Run {
    /// Starts a run with `frame`, if another segment could follow it.
    ///
    /// An unverified checksum is verified here; see [`Run::finish`] for the use of it.
    #[inline]
    pub fn start(frame: &[u8], mut offload: Offload) -> Option<Self> {
        let head = Segment::of(frame, offload)?;
        // A padded head would have its padding in the middle of the super-packet.
        let whole = head.layers.end == frame.len();
        let open = head.flags & (tcp::PSH | tcp::FIN) == 0 && head.bytes() % head.unit == 0;
        if !whole || !open || !is_right(frame, &head.layers, offload) {
            return None;
        }
        if offload.checksum == Checksum::Unverified {
            offload.checksum = Checksum::Verified;
        }
        let mut headers = [0; MAX_HEADERS];
        headers.get_mut(..head.payload)?.copy_from_slice(frame.get(..head.payload)?);
        Some(Self {
            headers,
            head,
            offload,
            bytes: head.bytes(),
            identifications: Identifications::first(frame, &head),
            closing: 0,
            ended: false,
        })
    }

    /// Extends the run by `frame`, if it is the next segment: returns where its payload lies,
    /// without the Ethernet padding of a short one. Otherwise the run is as it was.
    #[inline]
    pub fn accept(&mut self, frame: &[u8], offload: Offload) -> Option<Range<usize>> {
        if self.ended {
            return None;
        }
        let next = Segment::of(frame, offload)?;
        let bytes = self.bytes + next.bytes();
        let fits = next.layers.l4 == self.head.layers.l4
            && next.payload == self.head.payload
            && self.follows(&next)
            && self.head.payload + bytes <= MAX_FRAME
            && (next.gso != Gso::Udp || bytes <= self.head.unit * MAX_DATAGRAMS)
            && self.same_flow(frame);
        let identifications = self.identifications.followed_by(frame, &next)?;
        if !fits || !is_right(frame, &next.layers, offload) {
            return None;
        }
        self.identifications = identifications;
        self.bytes = bytes;
        self.closing = next.flags & (tcp::PSH | tcp::FIN);
        self.ended = self.closing != 0 || next.bytes() % self.head.unit != 0;
        Some(next.payload..next.layers.end)
    }

    /// Whether another segment may still follow.
    #[inline(always)]
    pub const fn is_open(&self) -> bool {
        !self.ended
    }

    /// Length of the super-packet: the head and all payloads behind it, in bytes.
    #[inline(always)]
    pub const fn frame_len(&self) -> usize {
        self.head.payload + self.bytes
    }

    /// Makes the headers of `head`, the frame that started the run, those of the super-packet that
    /// it is with all later payloads behind it, and returns the super-packet's state.
    ///
    /// A run of one leaves the bytes alone; its state is the one it came with, but for a checksum
    /// that was unverified: it is verified now.
    #[inline]
    pub fn finish(self, head: &mut [u8]) -> Offload {
        if self.bytes == self.head.bytes() {
            return self.offload;
        }
        let Segment { layers, gso, payload, unit, .. } = self.head;
        let layer4 = word(payload - layers.l4 + self.bytes);
        let seed = checksum::pseudo(head, &layers, layer4).fold();
        set_length(head, &layers, layer4);
        let transport = head.get_mut(layers.l4..).unwrap_or_default();
        let csum_offset = if gso == Gso::Udp {
            finish_udp(transport, layer4, seed)
        } else {
            finish_tcp(transport, self.closing, seed)
        };
        Offload {
            checksum: Checksum::Partial,
            gso,
            gso_size: word(unit),
            csum_start: word(layers.l4),
            csum_offset,
        }
    }

    /// Whether kind, size and sequence of `next` are those of the next segment. Its IP version is
    /// the same if its ethertype is, which is part of the flow.
    #[inline(always)]
    fn follows(&self, next: &Segment) -> bool {
        let is_super = next.bytes() > next.unit;
        let expected = match self.head.gso {
            Gso::Udp => 0,
            _ => self.head.sequence_number.wrapping_add(long(self.bytes)),
        };
        next.gso == self.head.gso
            && next.sequence_number == expected
            && (next.unit == self.head.unit || (next.unit < self.head.unit && !is_super))
    }

    /// Whether all header fields that the segments of a run share are equal.
    #[inline(always)]
    fn same_flow(&self, frame: &[u8]) -> bool {
        let Layers { version, l3, l4, .. } = self.head.layers;
        let (Some(ours), Some(theirs)) =
            (self.headers.get(..self.head.payload), frame.get(..self.head.payload))
        else {
            return false;
        };
        let same_network = match version {
            Version::V4 => same(&ours[l3..l4], &theirs[l3..l4], blank_ipv4),
            Version::V6 => same(&ours[l3..l4], &theirs[l3..l4], blank_ipv6),
        };
        let same_transport = match self.head.gso {
            Gso::Udp => same(&ours[l4..], &theirs[l4..], blank_udp),
            _ => same(&ours[l4..], &theirs[l4..], blank_tcp),
        };
        ours[..l3] == theirs[..l3] && same_network && same_transport
    }
}

impl Segment {
    /// The segment in `frame`; `None` if it must go alone, whatever comes before or after.
    #[inline]
    fn of(frame: &[u8], offload: Offload) -> Option<Self> {
        let layers = Layers::of(frame)?;
        let header = match layers.version {
            Version::V4 => ipv4::HEADER_LEN,
            Version::V6 => ipv6::HEADER_LEN,
        };
        if layers.fragment || layers.l4 - layers.l3 != header {
            return None;
        }
        let segment = match (layers.protocol, layers.version) {
            (protocol::TCP, Version::V4) => Self::of_tcp(frame, layers, Gso::Tcp4)?,
            (protocol::TCP, Version::V6) => Self::of_tcp(frame, layers, Gso::Tcp6)?,
            (protocol::UDP, _) => Self::of_udp(frame, layers)?,
            _ => return None,
        };
        segment.with_unit(offload)
    }

    #[inline(always)]
    fn of_tcp(frame: &[u8], layers: Layers, gso: Gso) -> Option<Self> {
        let (header, _) = tcp::Header::ref_from_prefix(frame.get(layers.l4..)?).ok()?;
        let payload = layers.l4 + header.length()?;
        let plain = header.has(tcp::ACK) && !header.has(tcp::SYN | tcp::RST | tcp::URG | tcp::CWR);
        (plain && payload < layers.end).then(|| Self {
            layers,
            gso,
            payload,
            unit: layers.end - payload,
            sequence_number: header.sequence_number.get(),
            flags: header.flags,
        })
    }

    /// A datagram without a checksum goes alone, since a super-packet's pieces would have one.
    #[inline(always)]
    fn of_udp(frame: &[u8], layers: Layers) -> Option<Self> {
        let (header, _) = udp::Header::ref_from_prefix(frame.get(layers.l4..)?).ok()?;
        let payload = layers.l4 + udp::HEADER_LEN;
        let whole = layers.l4 + usize::from(header.length.get()) == layers.end;
        (whole && payload < layers.end && header.checksum.get() != 0).then(|| Self {
            layers,
            gso: Gso::Udp,
            payload,
            unit: layers.end - payload,
            sequence_number: 0,
            flags: 0,
        })
    }

    /// The segment with the size of its units, if what it owes is of the layer that is coalesced.
    #[inline(always)]
    fn with_unit(mut self, offload: Offload) -> Option<Self> {
        let csum_offset = match self.gso {
            Gso::Udp => udp::CHECKSUM_OFFSET,
            _ => tcp::CHECKSUM_OFFSET,
        };
        let ours =
            usize::from(offload.csum_start) == self.layers.l4 && offload.csum_offset == csum_offset;
        if offload.checksum == Checksum::Partial && !ours {
            return None;
        }
        if offload.is_super() {
            self.unit = usize::from(offload.gso_size);
            // An unverified super-packet has one checksum that means nothing for its pieces.
            let sane = offload.gso == self.gso && (1..=self.bytes()).contains(&self.unit);
            return (sane && offload.checksum != Checksum::Unverified).then_some(self);
        }
        Some(self)
    }

    /// Bytes of the payload.
    #[inline(always)]
    const fn bytes(&self) -> usize {
        self.layers.end - self.payload
    }
}

impl Identifications {
    fn first(frame: &[u8], head: &Segment) -> Self {
        let pieces = head.bytes().div_ceil(head.unit);
        let last = identification(frame, &head.layers).wrapping_add(word(pieces - 1));
        Self { last, fixed: (pieces > 1).then_some(false) }
    }

    /// How they go on after `next`; `None` if it does not belong here.
    #[inline(always)]
    fn followed_by(self, frame: &[u8], next: &Segment) -> Option<Self> {
        if next.layers.version == Version::V6 {
            return Some(self);
        }
        let pieces = next.bytes().div_ceil(next.unit);
        let first = identification(frame, &next.layers);
        let last = first.wrapping_add(word(pieces - 1));
        if self.fixed != Some(true) && first == self.last.wrapping_add(1) {
            return Some(Self { last, fixed: Some(false) });
        }
        let may_stay = self.fixed != Some(false) && pieces == 1 && dont_fragment(frame, next);
        (may_stay && first == self.last).then_some(Self { last, fixed: Some(true) })
    }
}

/// Whether the checksums are right, or are trusted to be: that of the IPv4 header is looked at in
/// any case, since the super-packet's would hide what was wrong.
#[inline(always)]
fn is_right(frame: &[u8], layers: &Layers, offload: Offload) -> bool {
    // Without options, so that the length is known and the sum unrolled.
    let header = || frame.get(layers.l3..)?.first_chunk::<{ ipv4::HEADER_LEN }>();
    let network =
        layers.version == Version::V6 || header().is_some_and(|header| Sum::of(header).is_right());
    network && (offload.checksum != Checksum::Unverified || checksum::verify(frame, layers))
}

/// Whether two headers are equal but for the fields that `blank` blanks, options included.
#[inline(always)]
fn same<H>(ours: &[u8], theirs: &[u8], blank: impl Fn(&H) -> H) -> bool
where
    H: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned + PartialEq,
{
    match (H::ref_from_prefix(ours), H::ref_from_prefix(theirs)) {
        (Ok((ours, our_options)), Ok((theirs, their_options))) => {
            blank(ours) == blank(theirs) && our_options == their_options
        }
        _ => false,
    }
}

#[inline(always)]
fn blank_ipv4(header: &ipv4::Header) -> ipv4::Header {
    let (total_length, identification, header_checksum) = (U16::ZERO, U16::ZERO, U16::ZERO);
    ipv4::Header { total_length, identification, header_checksum, ..*header }
}

#[inline(always)]
fn blank_ipv6(header: &ipv6::Header) -> ipv6::Header {
    ipv6::Header { payload_length: U16::ZERO, ..*header }
}

#[inline(always)]
fn blank_udp(header: &udp::Header) -> udp::Header {
    udp::Header { length: U16::ZERO, checksum: U16::ZERO, ..*header }
}

#[inline(always)]
fn blank_tcp(header: &tcp::Header) -> tcp::Header {
    let flags = header.flags & !(tcp::PSH | tcp::FIN);
    tcp::Header { sequence_number: U32::ZERO, checksum: U16::ZERO, flags, ..*header }
}

#[inline(always)]
fn ipv4_header<'a>(frame: &'a [u8], layers: &Layers) -> Option<&'a ipv4::Header> {
    let (header, _) = ipv4::Header::ref_from_prefix(frame.get(layers.l3..)?).ok()?;
    (layers.version == Version::V4).then_some(header)
}

/// The identification; zero for IPv6, which has none.
#[inline(always)]
fn identification(frame: &[u8], layers: &Layers) -> u16 {
    ipv4_header(frame, layers).map_or(0, |header| header.identification.get())
}

#[inline(always)]
fn dont_fragment(frame: &[u8], segment: &Segment) -> bool {
    ipv4_header(frame, &segment.layers).is_some_and(ipv4::Header::dont_fragment)
}

/// Sets the length in the IP header for `layer4` bytes behind it.
#[inline(always)]
fn set_length(frame: &mut [u8], layers: &Layers, layer4: u16) {
    let packet = frame.get_mut(layers.l3..).unwrap_or_default();
    match layers.version {
        Version::V4 => {
            if let Ok((header, _)) = ipv4::Header::mut_from_prefix(packet) {
                header.set_total_length(layer4 + word(ipv4::HEADER_LEN));
            }
        }
        Version::V6 => {
            if let Ok((header, _)) = ipv6::Header::mut_from_prefix(packet) {
                header.payload_length = U16::new(layer4);
            }
        }
    }
}

/// Returns where the checksum field is, from the header's start.
#[inline(always)]
fn finish_tcp(segment: &mut [u8], closing: u8, seed: U16) -> u16 {
    if let Ok((header, _)) = tcp::Header::mut_from_prefix(segment) {
        header.flags |= closing;
        header.checksum = seed;
    }
    tcp::CHECKSUM_OFFSET
}

/// Returns where the checksum field is, from the header's start.
#[inline(always)]
fn finish_udp(datagram: &mut [u8], length: u16, seed: U16) -> u16 {
    if let Ok((header, _)) = udp::Header::mut_from_prefix(datagram) {
        header.length = U16::new(length);
        header.checksum = seed;
    }
    udp::CHECKSUM_OFFSET
}

/// A length within a super-packet: at most [`MAX_FRAME`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most MAX_FRAME, see above")]
const fn word(value: usize) -> u16 {
    value as u16
}

/// The same in 32 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most MAX_FRAME, see above")]
const fn long(value: usize) -> u32 {
    value as u32
}
