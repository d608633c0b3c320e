//! Cutting a super-packet into segments, as a device with TSO or USO does it (`net/ipv4/
//! tcp_offload.c` and `udp_offload.c` of Linux are the reference for which field changes how).
//!
//! [`Cut::plan`] looks at the super-packet once: it checks everything, and sums what all segments
//! have in common. [`Cut::write`] then makes any segment, in any order, in one pass over its
//! payload.

use std::ops::Range;

use thiserror::Error;
use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::checksum::{self, Sum};
use super::layers::{Layers, Version};
use super::{ipv4, ipv6, protocol, tcp, udp};
use crate::offload::{Checksum, Gso, Offload};

/// What a segment's layer 4 checksum is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// Complete: summed while the payload is copied.
    Complete,
    /// The pseudo-header's sum only: the port completes it.
    Partial,
}

/// Why a frame can't be cut as its offload state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CutError {
    /// The frame is not a super-packet.
    #[error("the packet is not to be cut")]
    NotSuper,
    /// The size of a segment's payload is zero.
    #[error("the size of segments is zero")]
    NoSize,
    /// The frame is not a whole IP packet.
    #[error("the frame of {0} bytes holds no whole IP packet")]
    NotIp(usize),
    /// The IP packet is a fragment.
    #[error("a fragment can't be cut")]
    Fragment,
    /// The packet is not of the version and protocol that are to be cut.
    #[error("{gso:?} was asked for, but the packet is IP{version:?} with protocol {protocol}")]
    Mismatch {
        /// Into what it was to be cut.
        gso: Gso,
        /// The IP version of the packet.
        version: Version,
        /// The protocol in the packet.
        protocol: u8,
    },
    /// The layer 4 header, or the length in it, does not fit the packet.
    #[error("the layer 4 header does not fit in {0} bytes")]
    BadHeader(usize),
    /// There is nothing to cut.
    #[error("the packet has no payload")]
    Empty,
    /// The partial checksum is not the one of the layer that is cut.
    #[error(
        "the checksum starts at {start} with its field at {offset}, the layer 4 header at {l4}"
    )]
    Checksum {
        /// Where the sum was to start.
        start: u16,
        /// Where the field was to be, from there.
        offset: u16,
        /// Where the layer 4 header starts.
        l4: usize,
    },
}

/// Why a segment can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteError {
    /// There is no such segment.
    #[error("segment {index} of {count}")]
    NoSegment {
        /// Which was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The slot is too small.
    #[error("a segment of {needed} bytes in a slot of {available}")]
    TooSmall {
        /// Bytes of the segment.
        needed: usize,
        /// Bytes of the slot.
        available: usize,
    },
    /// The frame is shorter than the one that was planned.
    #[error("the frame shrank to {0} bytes since it was planned")]
    Shrank(usize),
}

/// The plan of a cut: what the segments of one super-packet have in common.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    network: Network,
    transport: Transport,
    l3: usize,
    l4: usize,
    /// Where the payload starts.
    payload: usize,
    /// Where the payload ends.
    end: usize,
    gso_size: usize,
    count: usize,
}

/// What changes in the IP header from segment to segment.
#[derive(Clone, Copy, Debug)]
enum Network {
    V4 {
        /// Of the first segment; the others follow by one.
        identification: u16,
        /// Of the header without total length, identification and checksum.
        rest: Sum,
    },
    V6,
}

/// What changes in the layer 4 header from segment to segment. The sum is that of pseudo-header
/// and header without the fields that change, both lengths and the checksum.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp { sequence_number: u32, data_offset: u8, flags: u8, pseudo: Sum, rest: Sum },
    Udp { pseudo: Sum, rest: Sum },
}

impl Cut {
    /// Plans the cutting of `frame`, a super-packet from its Ethernet header on.
    ///
    /// # Errors
    /// If the frame is not what `offload` says, see [`CutError`]. Whatever bytes it holds, a
    /// planned frame can be cut.
    pub fn plan(frame: &[u8], offload: Offload) -> Result<Self, CutError> {
        if !offload.is_super() {
            return Err(CutError::NotSuper);
        }
        let layers = Layers::of(frame).ok_or(CutError::NotIp(frame.len()))?;
        check_protocol(offload.gso, &layers)?;
        check_checksum(offload, &layers)?;
        let (transport, header) = Transport::plan(frame, &layers)?;
        let payload = layers.l4 + header;
        let gso_size = usize::from(offload.gso_size);
        if gso_size == 0 {
            return Err(CutError::NoSize);
        }
        if payload >= layers.end {
            return Err(CutError::Empty);
        }
        Ok(Self {
            network: Network::plan(frame, &layers)?,
            transport,
            l3: layers.l3,
            l4: layers.l4,
            payload,
            end: layers.end,
            gso_size,
            count: (layers.end - payload).div_ceil(gso_size),
        })
    }

    /// How many segments there will be: at least 1, and up to 65,515 if the sender chose a size
    /// of one byte, so bound it where senders are not trusted.
    #[inline(always)]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Length of the longest segment, in bytes from its Ethernet header on.
    #[inline]
    pub fn segment_len(&self) -> usize {
        self.payload + self.gso_size.min(self.end - self.payload)
    }

    /// Writes segment `index` of the planned `frame` to the start of `into`; returns its length
    /// and what it still owes.
    ///
    /// # Errors
    /// If there is no such segment, it does not fit, or the frame is not the planned one; `into`
    /// is untouched then.
    #[inline]
    pub fn write(
        &self,
        index: usize,
        frame: &[u8],
        into: &mut [u8],
        finish: Finish,
    ) -> Result<(usize, Offload), WriteError> {
        let payload = self.payload_of(index)?;
        let needed = self.payload + payload.len();
        let (Some(headers), Some(source)) = (frame.get(..self.payload), frame.get(payload)) else {
            return Err(WriteError::Shrank(frame.len()));
        };
        let available = into.len();
        let segment = into.get_mut(..needed).ok_or(WriteError::TooSmall { needed, available })?;
        let (new_headers, target) = segment.split_at_mut(self.payload);
        new_headers.copy_from_slice(headers);
        let sum = match finish {
            Finish::Complete => Some(checksum::copy_and_sum(source, target)),
            Finish::Partial => {
                target.copy_from_slice(source);
                None
            }
        };
        self.patch(new_headers, index, source.len(), sum);
        Ok((needed, self.offload(finish)))
    }

    /// Where the payload of segment `index` lies in the super-packet.
    #[inline(always)]
    fn payload_of(&self, index: usize) -> Result<Range<usize>, WriteError> {
        if index >= self.count {
            return Err(WriteError::NoSegment { index, count: self.count });
        }
        let start = self.payload + index * self.gso_size;
        Ok(start..self.end.min(start + self.gso_size))
    }

    /// Makes the super-packet's headers those of segment `index`, whose payload has `length`
    /// bytes and this sum, if the checksum is to be complete.
    #[inline(always)]
    fn patch(&self, headers: &mut [u8], index: usize, length: usize, payload: Option<Sum>) {
        let layer4 = word(self.payload - self.l4 + length);
        let Some((network, transport)) = headers
            .get_mut(self.l3..)
            .and_then(|rest| rest.split_at_mut_checked(self.l4 - self.l3))
        else {
            return;
        };
        self.network.patch(network, index, layer4);
        let place = Place { index, last: index + 1 == self.count, gso_size: self.gso_size };
        self.transport.patch(transport, place, layer4, payload);
    }

    #[inline(always)]
    fn offload(&self, finish: Finish) -> Offload {
        match finish {
            Finish::Complete => Offload { checksum: Checksum::Verified, ..Offload::PLAIN },
            Finish::Partial => Offload {
                checksum: Checksum::Partial,
                csum_start: word(self.l4),
                csum_offset: self.transport.csum_offset(),
                ..Offload::PLAIN
            },
        }
    }
}

/// Which of the segments one is.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    last: bool,
    gso_size: usize,
}

impl Network {
    fn plan(frame: &[u8], layers: &Layers) -> Result<Self, CutError> {
        if layers.version == Version::V6 {
            return Ok(Self::V6);
        }
        let whole = frame.get(layers.l3..layers.l4).unwrap_or_default();
        let (header, _) =
            ipv4::Header::ref_from_prefix(whole).map_err(|_| CutError::NotIp(frame.len()))?;
        let rest = Sum::of(whole)
            .without(Sum::word(header.total_length.get()))
            .without(Sum::word(header.identification.get()))
            .without(Sum::word(header.header_checksum.get()));
        Ok(Self::V4 { identification: header.identification.get(), rest })
    }

    /// Patches the IP header, with its options or extensions, for `layer4` bytes behind it.
    #[inline(always)]
    fn patch(&self, header: &mut [u8], index: usize, layer4: u16) {
        let length = word(header.len()).wrapping_add(layer4);
        match *self {
            Self::V4 { identification, rest } => {
                let Ok((header, _)) = ipv4::Header::mut_from_prefix(header) else { return };
                let id = identification.wrapping_add(word(index));
                let sum = rest.combine(Sum::word(length)).combine(Sum::word(id));
                header.total_length = U16::new(length);
                header.identification = U16::new(id);
                header.header_checksum = sum.checksum();
            }
            Self::V6 => {
                let Ok((header, _)) = ipv6::Header::mut_from_prefix(header) else { return };
                header.payload_length = U16::new(length.wrapping_sub(word(ipv6::HEADER_LEN)));
            }
        }
    }
}

impl Transport {
    /// The plan, and the header's length in bytes.
    fn plan(frame: &[u8], layers: &Layers) -> Result<(Self, usize), CutError> {
        let layer4 = frame.get(layers.l4..layers.end).unwrap_or_default();
        let pseudo = checksum::pseudo(frame, layers, 0);
        let planned = match layers.protocol {
            protocol::TCP => Self::plan_tcp(layer4, pseudo),
            _ => Self::plan_udp(layer4, pseudo),
        };
        planned.ok_or(CutError::BadHeader(layer4.len()))
    }

    fn plan_tcp(layer4: &[u8], pseudo: Sum) -> Option<(Self, usize)> {
        let (header, _) = tcp::Header::ref_from_prefix(layer4).ok()?;
        let length = header.length()?;
        let &tcp::Header { data_offset, flags, .. } = header;
        let sequence_number = header.sequence_number.get();
        let rest = pseudo
            .combine(Sum::of(layer4.get(..length)?))
            .without(Sum::long(sequence_number))
            .without(Sum::word(u16::from_be_bytes([data_offset, flags])))
            .without(Sum::word(header.checksum.get()));
        Some((Self::Tcp { sequence_number, data_offset, flags, pseudo, rest }, length))
    }

    fn plan_udp(layer4: &[u8], pseudo: Sum) -> Option<(Self, usize)> {
        let (header, _) = udp::Header::ref_from_prefix(layer4).ok()?;
        let rest = pseudo
            .combine(Sum::word(header.source_port.get()))
            .combine(Sum::word(header.destination_port.get()));
        let whole = usize::from(header.length.get()) == layer4.len();
        whole.then_some((Self::Udp { pseudo, rest }, udp::HEADER_LEN))
    }

    #[inline(always)]
    const fn csum_offset(&self) -> u16 {
        match self {
            Self::Tcp { .. } => tcp::CHECKSUM_OFFSET,
            Self::Udp { .. } => udp::CHECKSUM_OFFSET,
        }
    }

    /// Patches the layer 4 header of a segment of `length` bytes, header included.
    #[inline(always)]
    fn patch(&self, header: &mut [u8], place: Place, length: u16, payload: Option<Sum>) {
        match *self {
            Self::Tcp { sequence_number, data_offset, flags, pseudo, rest } => {
                let Ok((header, _)) = tcp::Header::mut_from_prefix(header) else { return };
                let sequence = sequence_number.wrapping_add(place.sequence_offset());
                let flags = flags & place.flags();
                header.sequence_number = U32::new(sequence);
                header.flags = flags;
                header.checksum = match payload {
                    None => pseudo.combine(Sum::word(length)).fold(),
                    Some(payload) => rest
                        .combine(Sum::long(sequence))
                        .combine(Sum::word(u16::from_be_bytes([data_offset, flags])))
                        .combine(Sum::word(length))
                        .combine(payload)
                        .checksum(),
                };
            }
            Self::Udp { pseudo, rest } => {
                let Ok((header, _)) = udp::Header::mut_from_prefix(header) else { return };
                // The length counts twice: in the pseudo-header and in the header.
                let length_sum = Sum::word(length);
                header.length = U16::new(length);
                header.checksum = match payload {
                    None => pseudo.combine(length_sum).fold(),
                    Some(payload) => {
                        rest.combine(length_sum).combine(length_sum).combine(payload).udp_checksum()
                    }
                };
            }
        }
    }
}

impl Place {
    /// Payload bytes before this segment.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below 65,536: it lies in an IP packet")]
    const fn sequence_offset(self) -> u32 {
        (self.index * self.gso_size) as u32
    }

    /// The control bits that this segment keeps: that the window was reduced is said once, at
    /// first (RFC 3168, 6.1.2); the end and the push come with the last byte.
    #[inline(always)]
    const fn flags(self) -> u8 {
        let first = if self.index == 0 { 0xff } else { !tcp::CWR };
        let last = if self.last { 0xff } else { !(tcp::FIN | tcp::PSH) };
        first & last
    }
}

/// A length within an IP packet, which is below 65,536 plus the link's header.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "layers of an IP packet, see above")]
const fn word(value: usize) -> u16 {
    value as u16
}

fn check_protocol(gso: Gso, layers: &Layers) -> Result<(), CutError> {
    let Layers { version, protocol, .. } = *layers;
    let fits = match gso {
        Gso::Tcp4 => (version, protocol) == (Version::V4, protocol::TCP),
        Gso::Tcp6 => (version, protocol) == (Version::V6, protocol::TCP),
        Gso::Udp => protocol == protocol::UDP,
        Gso::None => false,
    };
    match (fits, layers.fragment) {
        (false, _) => Err(CutError::Mismatch { gso, version, protocol }),
        (true, true) => Err(CutError::Fragment),
        (true, false) => Ok(()),
    }
}

/// A partial checksum of another layer would be left wrong in every segment.
fn check_checksum(offload: Offload, layers: &Layers) -> Result<(), CutError> {
    let Offload { checksum, gso, csum_start: start, csum_offset: offset, .. } = offload;
    let expected = if gso == Gso::Udp { udp::CHECKSUM_OFFSET } else { tcp::CHECKSUM_OFFSET };
    let ours = usize::from(start) == layers.l4 && offset == expected;
    if checksum == Checksum::Partial && !ours {
        return Err(CutError::Checksum { start, offset, l4: layers.l4 });
    }
    Ok(())
}
