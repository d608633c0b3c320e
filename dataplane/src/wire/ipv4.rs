//! The internet protocol, version 4 (RFC 791, 3.1).

use std::fmt;
use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{self, Sum};

/// Length of the header without options, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();

/// In [`Header::flags_fragment_offset`]: don't fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// In [`Header::flags_fragment_offset`]: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// In [`Header::flags_fragment_offset`]: the offset's 13 bits, in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The fixed part of the header.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits) and header length in words of 32 bits (4 bits).
    pub version_ihl: u8,
    /// Differentiated services (6 bits, RFC 2474) and ECN (2 bits, RFC 3168).
    pub type_of_service: u8,
    /// Bytes of header and data.
    pub total_length: U16,
    /// Tells the fragments of one packet from those of others.
    pub identification: U16,
    /// Flags (3 bits) and fragment offset (13 bits).
    pub flags_fragment_offset: U16,
    /// Hops left.
    pub time_to_live: u8,
    /// What follows: see [`protocol`](super::protocol).
    pub protocol: u8,
    /// Over the header only.
    pub header_checksum: U16,
    /// See [`Header::source`].
    pub source_address: [u8; 4],
    /// See [`Header::destination`].
    pub destination_address: [u8; 4],
}

impl Header {
    /// Who sent the packet.
    #[inline(always)]
    pub fn source(&self) -> Ipv4Addr {
        self.source_address.into()
    }

    /// Whom it is for.
    #[inline(always)]
    pub fn destination(&self) -> Ipv4Addr {
        self.destination_address.into()
    }

    /// Length of the header with its options, in bytes, from 20 to 60; `None` if this is not
    /// version 4 or the field claims less than the fixed part.
    #[inline(always)]
    pub fn length(&self) -> Option<usize> {
        let bytes = usize::from(self.version_ihl & 0x0f) * 4;
        (self.version_ihl >> 4 == 4 && bytes >= HEADER_LEN).then_some(bytes)
    }

    /// Whether the packet must not be fragmented.
    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_fragment_offset.get() & DONT_FRAGMENT != 0
    }

    /// Whether this is a piece of a larger packet: the first one, too.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.flags_fragment_offset.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Where this fragment's data belong, in bytes.
    #[inline(always)]
    pub const fn fragment_offset_bytes(&self) -> u16 {
        (self.flags_fragment_offset.get() & FRAGMENT_OFFSET) * 8
    }

    /// Sets the total length and refreshes the header checksum (RFC 1624), which stays as right
    /// or wrong as it was.
    #[inline]
    pub fn set_total_length(&mut self, bytes: u16) {
        let (old, new) = (Sum::word(self.total_length.get()), Sum::word(bytes));
        self.header_checksum = checksum::update(self.header_checksum, old, new);
        self.total_length = U16::new(bytes);
    }
}

/// Writes the header checksum of `header`: all of it, with options.
///
/// A header shorter than [`HEADER_LEN`] is left alone.
#[inline]
pub fn fill_checksum(header: &mut [u8]) {
    if let Ok((fixed, _)) = Header::mut_from_prefix(header) {
        fixed.header_checksum = U16::ZERO;
        let complete = Sum::of(header).checksum();
        if let Ok((fixed, _)) = Header::mut_from_prefix(header) {
            fixed.header_checksum = complete;
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "IPv4 {} > {}, protocol {}, length {}, ttl {}",
            self.source(),
            self.destination(),
            self.protocol,
            self.total_length,
            self.time_to_live
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        let mut other = etherparse::Ipv4Header::new(
            1480,
            64,
            etherparse::IpNumber::TCP,
            [10, 0, 9, 1],
            [10, 0, 9, 65],
        )
        .unwrap();
        other.dont_fragment = true;
        other.header_checksum = other.calc_header_checksum();
        other.to_bytes().to_vec()
    }

    #[test]
    fn the_figure_is_the_struct() {
        let bytes = bytes();
        let header = Header::ref_from_bytes(&bytes).unwrap();
        let text = "IPv4 10.0.9.1 > 10.0.9.65, protocol 6, length 1500, ttl 64";
        assert_eq!(header.to_string(), text);
        assert_eq!(header.length(), Some(20));
        assert!(header.dont_fragment() && !header.is_fragment());
    }

    #[test]
    fn a_new_length_keeps_the_checksum_right() {
        for length in [20, 21, 67, 257, 1499, 1500, 40_000, 65_535] {
            let mut bytes = bytes();
            let header = Header::mut_from_bytes(&mut bytes).unwrap();
            header.set_total_length(length);
            let updated = header.header_checksum;
            fill_checksum(&mut bytes);
            let header = Header::ref_from_bytes(&bytes).unwrap();
            assert_eq!((updated, header.total_length.get()), (header.header_checksum, length));
        }
    }

    #[test]
    fn fragments_are_told_apart() {
        let mut bytes = bytes();
        let header = Header::mut_from_bytes(&mut bytes).unwrap();
        header.flags_fragment_offset = U16::new(MORE_FRAGMENTS);
        assert!(header.is_fragment() && header.fragment_offset_bytes() == 0);
        header.flags_fragment_offset = U16::new(185);
        assert!(header.is_fragment() && header.fragment_offset_bytes() == 1480);
    }

    #[test]
    fn a_wrong_version_or_length_has_no_header() {
        let mut bytes = bytes();
        for (version_ihl, length) in [(0x44, None), (0x65, None), (0x4f, Some(60))] {
            bytes[0] = version_ihl;
            assert_eq!(Header::ref_from_bytes(&bytes).unwrap().length(), length);
        }
    }
}
