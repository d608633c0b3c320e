//! The user datagram protocol (RFC 768).

use std::fmt;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Where the checksum is, in bytes from the header's start.
pub const CHECKSUM_OFFSET: u16 = 6;

/// The header of a datagram.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// The sender's port, or zero.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// Bytes of header and data.
    pub length: U16,
    /// Over pseudo-header, header and data; zero means none, over IPv4 only (RFC 8200, 8.1).
    pub checksum: U16,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UDP {} > {}, length {}", self.source_port, self.destination_port, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_struct() {
        let bytes = etherparse::UdpHeader {
            source_port: 4097,
            destination_port: 53,
            length: 30,
            checksum: 0xbeef,
        }
        .to_bytes();
        let header = Header::ref_from_bytes(&bytes).unwrap();
        assert_eq!(header.to_string(), "UDP 4097 > 53, length 30");
        let field = usize::from(CHECKSUM_OFFSET);
        assert_eq!(bytes[field..field + 2], header.checksum.to_bytes());
        assert!(Header::ref_from_prefix(&bytes[..7]).is_err());
    }
}
