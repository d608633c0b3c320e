//! The header that a kernel device puts before each packet when offloads are on (virtio 1.2,
//! 5.1.6; `struct virtio_net_hdr` of `linux/virtio_net.h`), in its legacy form of 10 bytes.

use thiserror::Error;
use zerocopy::byteorder::{NativeEndian, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{tcp, udp};
use crate::offload::{Checksum, Gso, Offload};

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();

/// In [`Header::flags`]: the checksum is partial.
const NEEDS_CSUM: u8 = 1;
/// In [`Header::flags`]: the checksum was found right.
const DATA_VALID: u8 = 2;

/// In [`Header::gso_type`]: not a super-packet.
const GSO_NONE: u8 = 0;
/// In [`Header::gso_type`]: TCP over IPv4.
const GSO_TCPV4: u8 = 1;
/// In [`Header::gso_type`]: TCP over IPv6.
const GSO_TCPV6: u8 = 4;
/// In [`Header::gso_type`]: UDP datagrams.
const GSO_UDP_L4: u8 = 5;
/// In [`Header::gso_type`], with TCP: the first segment has CWR set, the others not.
const GSO_ECN: u8 = 0x80;

/// The header before a packet. Fields are in the machine's byte order, which is what TAP and
/// AF_PACKET use unless told otherwise (`TUNSETVNETLE`, `TUNSETVNETBE`).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Checksum state, in bits.
    pub flags: u8,
    /// Into what the packet is to be cut.
    pub gso_type: u8,
    /// Bytes of all headers of a super-packet: a hint.
    pub hdr_len: U16<NativeEndian>,
    /// Payload bytes of each segment.
    pub gso_size: U16<NativeEndian>,
    /// Where to start summing, in bytes from the frame's start.
    pub csum_start: U16<NativeEndian>,
    /// Where the checksum field is, in bytes from `csum_start`.
    pub csum_offset: U16<NativeEndian>,
}

/// What is wrong in a header that a device gave us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VnetError {
    /// The checksum would lie behind the packet's end.
    #[error("checksum at {start} + {offset} does not fit in a packet of {length} bytes")]
    ChecksumOutside {
        /// Where the sum starts.
        start: u16,
        /// Where the field is, from there.
        offset: u16,
        /// The packet, in bytes.
        length: usize,
    },
    /// We did not ask the device for super-packets of this kind.
    #[error("unknown segmentation type {0:#04x}")]
    UnknownGso(u8),
    /// A super-packet says nothing about the size of its segments.
    #[error("segmentation type {0:#04x} with segments of no bytes")]
    NoSize(u8),
}

impl Header {
    /// The state of the packet of `frame_len` bytes behind this header.
    ///
    /// # Errors
    /// If a checksum lies outside the packet, or the packet is to be cut in a way we don't know.
    #[inline]
    pub fn to_offload(&self, frame_len: usize) -> Result<Offload, VnetError> {
        let gso = self.gso()?;
        let mut offload = Offload { gso, ..Offload::PLAIN };
        if gso != Gso::None {
            offload.gso_size = self.gso_size.get();
        }
        if self.flags & NEEDS_CSUM != 0 {
            (offload.csum_start, offload.csum_offset) = self.checksum_place(frame_len)?;
            offload.checksum = Checksum::Partial;
        } else if self.flags & DATA_VALID != 0 {
            offload.checksum = Checksum::Verified;
        }
        Ok(offload)
    }

    /// The header for `frame`, of which at least all headers are given.
    ///
    /// The kernel takes a super-packet only with a partial checksum, which every super-packet has
    /// that a kernel or [`gro`](super::gro) made.
    #[inline]
    pub fn from_offload(offload: Offload, frame: &[u8]) -> Self {
        let mut header = Self::default();
        match offload.checksum {
            Checksum::Unverified => {}
            Checksum::Verified => header.flags = DATA_VALID,
            Checksum::Partial => {
                header.flags = NEEDS_CSUM;
                header.csum_start = U16::new(offload.csum_start);
                header.csum_offset = U16::new(offload.csum_offset);
            }
        }
        if offload.is_super() {
            header.describe_super(offload, frame);
        }
        header
    }

    #[inline]
    fn describe_super(&mut self, offload: Offload, frame: &[u8]) {
        let start = usize::from(offload.csum_start);
        let layer4 = frame.get(start..).unwrap_or_default();
        let transport = match offload.gso {
            Gso::Udp => udp::HEADER_LEN,
            _ => tcp_length(layer4),
        };
        self.gso_type = gso_type(offload.gso, layer4);
        self.gso_size = U16::new(offload.gso_size);
        self.hdr_len = U16::new(u16::try_from(start + transport).unwrap_or(u16::MAX));
    }

    #[inline(always)]
    fn gso(&self) -> Result<Gso, VnetError> {
        let gso = match self.gso_type {
            GSO_NONE => return Ok(Gso::None),
            kind if kind & !GSO_ECN == GSO_TCPV4 => Gso::Tcp4,
            kind if kind & !GSO_ECN == GSO_TCPV6 => Gso::Tcp6,
            GSO_UDP_L4 => Gso::Udp,
            unknown => return Err(VnetError::UnknownGso(unknown)),
        };
        if self.gso_size.get() == 0 { Err(VnetError::NoSize(self.gso_type)) } else { Ok(gso) }
    }

    #[inline(always)]
    fn checksum_place(&self, length: usize) -> Result<(u16, u16), VnetError> {
        let (start, offset) = (self.csum_start.get(), self.csum_offset.get());
        if usize::from(start) + usize::from(offset) + 2 > length {
            return Err(VnetError::ChecksumOutside { start, offset, length });
        }
        Ok((start, offset))
    }
}

/// The TCP header's length in bytes; that of a plain one if there is none to look at.
#[inline(always)]
fn tcp_length(layer4: &[u8]) -> usize {
    tcp::Header::ref_from_prefix(layer4)
        .ok()
        .and_then(|(header, _)| header.length())
        .unwrap_or(tcp::HEADER_LEN)
}

#[inline(always)]
fn gso_type(gso: Gso, layer4: &[u8]) -> u8 {
    let kind = match gso {
        Gso::None => return GSO_NONE,
        Gso::Udp => return GSO_UDP_L4,
        Gso::Tcp4 => GSO_TCPV4,
        Gso::Tcp6 => GSO_TCPV6,
    };
    match tcp::Header::ref_from_prefix(layer4) {
        Ok((header, _)) if header.has(tcp::CWR) => kind | GSO_ECN,
        _ => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, gso_type: u8, gso_size: u16, start: u16, offset: u16) -> Header {
        Header {
            flags,
            gso_type,
            hdr_len: U16::new(0),
            gso_size: U16::new(gso_size),
            csum_start: U16::new(start),
            csum_offset: U16::new(offset),
        }
    }

    const SUPER: Offload = Offload {
        checksum: Checksum::Partial,
        gso: Gso::Tcp4,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };

    #[test]
    fn the_layout_is_the_kernels() {
        let frame = [0x80; 100];
        let written = Header::from_offload(SUPER, &frame);
        let mut expected = vec![1, 0x81];
        for field in [34u16 + 32, 1448, 34, 16] {
            expected.extend_from_slice(&field.to_ne_bytes());
        }
        assert_eq!(written.as_bytes(), expected);
    }

    #[test]
    fn states_round_trip() {
        let plain = |checksum| Offload { checksum, ..Offload::PLAIN };
        let udp = Offload { gso: Gso::Udp, csum_offset: 6, ..SUPER };
        let tcp6 = Offload { gso: Gso::Tcp6, ..SUPER };
        for offload in [SUPER, udp, tcp6, plain(Checksum::Unverified), plain(Checksum::Verified)] {
            let written = Header::from_offload(offload, &[0; 100]);
            assert_eq!(written.to_offload(100), Ok(offload));
        }
        assert_eq!(Header::from_offload(udp, &[0; 100]).hdr_len.get(), 42);
    }

    #[test]
    fn a_super_packet_without_its_headers_is_still_described() {
        let written = Header::from_offload(SUPER, &[]);
        assert_eq!((written.gso_type, written.hdr_len.get()), (GSO_TCPV4, 54));
        let far = Offload { csum_start: u16::MAX, ..SUPER };
        assert_eq!(Header::from_offload(far, &[]).hdr_len.get(), u16::MAX);
    }

    #[test]
    fn checksums_must_lie_in_the_packet() {
        assert!(header(1, 0, 0, 34, 16).to_offload(52).is_ok());
        for (start, offset, length) in [(34, 16, 51), (u16::MAX, u16::MAX, 65_535), (0, 0, 1)] {
            let expected = VnetError::ChecksumOutside { start, offset, length };
            assert_eq!(header(1, 0, 0, start, offset).to_offload(length), Err(expected));
        }
        assert!(header(2, 0, 0, 34, 16).to_offload(20).is_ok(), "not looked at");
    }

    #[test]
    fn unknown_super_packets_are_refused() {
        for kind in [2, 3, 6, 0x20, 0x40, 0x80, 0x83, 0x85, 0xff] {
            let refused = Err(VnetError::UnknownGso(kind));
            assert_eq!(header(1, kind, 1448, 34, 16).to_offload(100), refused);
        }
        for kind in [1, 4, 5, 0x81, 0x84] {
            let refused = Err(VnetError::NoSize(kind));
            assert_eq!(header(1, kind, 0, 34, 16).to_offload(100), refused);
        }
    }
}
