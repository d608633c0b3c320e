//! The transmission control protocol's header (RFC 9293, 3.1).

use std::fmt;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronises sequence numbers.
pub const SYN: u8 = 0x02;
/// Resets the connection.
pub const RST: u8 = 0x04;
/// Hand to the application at once.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;
/// Congestion was experienced (RFC 3168).
pub const ECE: u8 = 0x40;
/// The congestion window was reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// Length of the header without options, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Where the checksum is, in bytes from the header's start.
pub const CHECKSUM_OFFSET: u16 = 16;

/// The fixed part of a segment's header.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// Of the first data byte, or of the SYN.
    pub sequence_number: U32,
    /// The next byte that the sender expects, if [`ACK`] is set.
    pub acknowledgment_number: U32,
    /// Header length in words of 32 bits (4 bits) and reserved bits; see [`Header::length`].
    pub data_offset: u8,
    /// The control bits from [`CWR`] to [`FIN`].
    pub flags: u8,
    /// Bytes that the sender accepts, unscaled.
    pub window: U16,
    /// Over pseudo-header, header and data.
    pub checksum: U16,
    /// Counts if [`URG`] is set.
    pub urgent_pointer: U16,
}

impl Header {
    /// Length of the header with its options, in bytes, from 20 to 60; `None` if the field claims
    /// less than the fixed part.
    #[inline(always)]
    pub fn length(&self) -> Option<usize> {
        let bytes = usize::from(self.data_offset >> 4) * 4;
        (bytes >= HEADER_LEN).then_some(bytes)
    }

    /// Whether any of these control bits is set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TCP {} > {} [", self.source_port, self.destination_port)?;
        let letters = [SYN, FIN, RST, PSH, ACK, URG, ECE, CWR].into_iter().zip("SFRPAUEC".chars());
        for (_, letter) in letters.filter(|(flag, _)| self.has(*flag)) {
            write!(f, "{letter}")?;
        }
        write!(f, "], seq {}, ack {}", self.sequence_number, self.acknowledgment_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_struct() {
        let mut other = etherparse::TcpHeader::new(49_152, 80, 0x0102_0304, 512);
        (other.syn, other.ack, other.cwr, other.acknowledgment_number) = (true, true, true, 99);
        other.checksum = 0xbeef;
        other.set_options_raw(&[1; 12]).unwrap();
        let bytes = other.to_bytes();
        let (header, options) = Header::ref_from_prefix(&bytes).unwrap();
        assert_eq!(header.to_string(), "TCP 49152 > 80 [SAC], seq 16909060, ack 99");
        assert_eq!((header.length(), header.window.get()), (Some(32), 512));
        assert_eq!(options, [1; 12]);
        let field = usize::from(CHECKSUM_OFFSET);
        assert_eq!(bytes[field..field + 2], header.checksum.to_bytes());
    }

    #[test]
    fn a_header_shorter_than_its_fixed_part_has_no_length() {
        let bytes = [0x40; HEADER_LEN];
        assert_eq!(Header::ref_from_bytes(&bytes).unwrap().length(), None);
    }
}
