//! ICMP for IPv4 (RFC 792).

use std::fmt;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Type: the answer to [`ECHO`].
pub const ECHO_REPLY: u8 = 0;
/// Type: a packet could not be delivered; the code says why.
pub const DESTINATION_UNREACHABLE: u8 = 3;
/// Type: send it back.
pub const ECHO: u8 = 8;
/// Type: a packet's time to live, or time to be reassembled, ran out.
pub const TIME_EXCEEDED: u8 = 11;

/// Code of [`DESTINATION_UNREACHABLE`]: no way to the network.
pub const NET_UNREACHABLE: u8 = 0;
/// Code of [`DESTINATION_UNREACHABLE`]: the host does not answer.
pub const HOST_UNREACHABLE: u8 = 1;
/// Code of [`DESTINATION_UNREACHABLE`]: nobody listens on the port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`DESTINATION_UNREACHABLE`]: too big, and DF is set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Code of [`DESTINATION_UNREACHABLE`]: refused by policy (RFC 1812, 5.2.7.1).
pub const ADMINISTRATIVELY_PROHIBITED: u8 = 13;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();

/// The first four bytes of every message.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// What kind of message it is. The RFC's name is *type*.
    pub kind: u8,
    /// The kind's variant.
    pub code: u8,
    /// Over the whole message, without a pseudo-header.
    pub checksum: U16,
}

/// What follows the header of an echo and of its reply.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Echo {
    /// Which pinger.
    pub identifier: U16,
    /// Which ping.
    pub sequence_number: U16,
}

/// What follows the header of destination unreachable; the packet in error follows it: its IP
/// header and at least 8 bytes more.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Unreachable {
    /// Zero.
    pub unused: U16,
    /// With [`FRAGMENTATION_NEEDED`], bytes that the next hop carries (RFC 1191, 4).
    pub next_hop_mtu: U16,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ECHO_REPLY => write!(f, "ICMP echo reply"),
            ECHO => write!(f, "ICMP echo"),
            DESTINATION_UNREACHABLE => {
                write!(f, "ICMP destination unreachable, code {}", self.code)
            }
            other => write!(f, "ICMP type {other}, code {}", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, icmpv4};

    use super::*;

    #[test]
    fn an_echo_is_what_another_stack_writes() {
        let kind = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 7, seq: 257 });
        let bytes = Icmpv4Header::with_checksum(kind, b"odd").to_bytes();
        let (header, rest) = Header::ref_from_prefix(&bytes).unwrap();
        let echo = Echo::ref_from_bytes(rest).unwrap();
        assert_eq!(header.to_string(), "ICMP echo");
        assert_eq!((echo.identifier.get(), echo.sequence_number.get()), (7, 257));
    }

    #[test]
    fn an_unreachable_carries_the_mtu() {
        let why = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        let bytes = Icmpv4Header::new(Icmpv4Type::DestinationUnreachable(why)).to_bytes();
        let (header, rest) = Header::ref_from_prefix(&bytes).unwrap();
        assert_eq!((header.kind, header.code), (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED));
        assert_eq!(Unreachable::ref_from_bytes(rest).unwrap().next_hop_mtu.get(), 1400);
    }
}
