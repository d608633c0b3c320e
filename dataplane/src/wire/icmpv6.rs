//! ICMP for IPv6 (RFC 4443) and the two messages of neighbour discovery that resolve addresses
//! (RFC 4861).

use std::fmt;
use std::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::MacAddr;

/// Type: a packet could not be delivered; the code says why.
pub const DESTINATION_UNREACHABLE: u8 = 1;
/// Type: a packet exceeds the next link's MTU, which the body carries.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: a packet's hop limit, or time to be reassembled, ran out.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: send it back.
pub const ECHO_REQUEST: u8 = 128;
/// Type: the answer to [`ECHO_REQUEST`].
pub const ECHO_REPLY: u8 = 129;
/// Type: is there a router? (RFC 4861, 4.1)
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type: I am a router (RFC 4861, 4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type: who has this address? (RFC 4861, 4.3)
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// Type: I have it (RFC 4861, 4.4).
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Type: there is a better first hop (RFC 4861, 4.5).
pub const REDIRECT: u8 = 137;

/// Code of [`DESTINATION_UNREACHABLE`]: no route.
pub const NO_ROUTE: u8 = 0;
/// Code of [`DESTINATION_UNREACHABLE`]: refused by policy.
pub const ADMINISTRATIVELY_PROHIBITED: u8 = 1;
/// Code of [`DESTINATION_UNREACHABLE`]: the host does not answer.
pub const ADDRESS_UNREACHABLE: u8 = 3;
/// Code of [`DESTINATION_UNREACHABLE`]: nobody listens on the port.
pub const PORT_UNREACHABLE: u8 = 4;

/// In [`Neighbor::flags`] of an advertisement: the sender is a router.
pub const ROUTER: u32 = 1 << 31;
/// In [`Neighbor::flags`] of an advertisement: it answers a solicitation.
pub const SOLICITED: u32 = 1 << 30;
/// In [`Neighbor::flags`] of an advertisement: it replaces what is cached.
pub const OVERRIDE: u32 = 1 << 29;

/// Option type: the link-layer address of who asks (RFC 4861, 4.6.1).
pub const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
/// Option type: the link-layer address of who is asked for (RFC 4861, 4.6.1).
pub const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Where the checksum is, in bytes from the header's start.
pub const CHECKSUM_OFFSET: u16 = 2;
/// The hop limit of every message of neighbour discovery: it has passed no router.
pub const NEIGHBOR_HOP_LIMIT: u8 = 255;

/// The first four bytes of every message.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// What kind of message it is. The RFC's name is *type*; those from 128 on are no errors.
    pub kind: u8,
    /// The kind's variant.
    pub code: u8,
    /// Over pseudo-header and message.
    pub checksum: U16,
}

/// What follows the header of an echo request and of its reply.
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

/// What follows the header of an error; the packet in error follows it, as far as it fits.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Error {
    /// The MTU in bytes with [`PACKET_TOO_BIG`], zero otherwise.
    pub mtu: U32,
}

/// What follows the header of a neighbour solicitation or advertisement; options follow it.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Neighbor {
    /// [`ROUTER`], [`SOLICITED`], [`OVERRIDE`] in an advertisement, zero in a solicitation.
    pub flags: U32,
    /// See [`Neighbor::target`].
    pub target_address: [u8; 16],
}

/// The option that carries an Ethernet address.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LinkLayerAddress {
    /// [`SOURCE_LINK_LAYER_ADDRESS`] or [`TARGET_LINK_LAYER_ADDRESS`]. The RFC's name is *type*.
    pub kind: u8,
    /// In units of 8 bytes: 1.
    pub length: u8,
    /// The address.
    pub address: MacAddr,
}

impl Neighbor {
    /// The address that is asked for or advertised.
    #[inline(always)]
    pub fn target(&self) -> Ipv6Addr {
        self.target_address.into()
    }
}

impl LinkLayerAddress {
    /// The option of this type (see [`LinkLayerAddress::kind`]) for a station at `address`.
    #[inline]
    pub const fn new(kind: u8, address: MacAddr) -> Self {
        Self { kind, length: 1, address }
    }
}

/// The first link-layer address of type `kind` among `options`, the bytes behind [`Neighbor`].
///
/// `None` if there is none, or if an option before it has no length or does not fit: such a
/// message is to be discarded (RFC 4861, 7.1).
#[inline]
pub fn link_layer_address(mut options: &[u8], kind: u8) -> Option<MacAddr> {
    // Each round consumes at least 8 bytes, so the walk is bounded by the packet.
    while let [option, length @ 1..=u8::MAX, ..] = *options {
        let bytes = 8 * usize::from(length);
        let (body, rest) = options.split_at_checked(bytes)?;
        if option == kind && length == 1 {
            return LinkLayerAddress::ref_from_bytes(body).ok().map(|found| found.address);
        }
        options = rest;
    }
    None
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            DESTINATION_UNREACHABLE => "destination unreachable",
            PACKET_TOO_BIG => "packet too big",
            ECHO_REQUEST => "echo request",
            ECHO_REPLY => "echo reply",
            NEIGHBOR_SOLICITATION => "neighbor solicitation",
            NEIGHBOR_ADVERTISEMENT => "neighbor advertisement",
            other => return write!(f, "ICMPv6 type {other}, code {}", self.code),
        };
        write!(f, "ICMPv6 {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn options_are_walked() {
        let source = LinkLayerAddress::new(SOURCE_LINK_LAYER_ADDRESS, MAC);
        let mut options = vec![14, 2];
        options.extend_from_slice(&[7; 14]);
        options.extend_from_slice(source.as_bytes());
        assert_eq!(link_layer_address(&options, SOURCE_LINK_LAYER_ADDRESS), Some(MAC));
        assert_eq!(link_layer_address(&options, TARGET_LINK_LAYER_ADDRESS), None);
    }

    #[test]
    fn bad_options_end_the_walk() {
        let good = LinkLayerAddress::new(TARGET_LINK_LAYER_ADDRESS, MAC);
        let behind = |bad: &[u8]| [bad, good.as_bytes()].concat();
        for options in [behind(&[14, 0]), behind(&[14, 9]), good.as_bytes()[..7].to_vec()] {
            assert_eq!(link_layer_address(&options, TARGET_LINK_LAYER_ADDRESS), None);
        }
    }

    #[test]
    fn the_figures_are_the_structs() {
        let mut bytes = vec![NEIGHBOR_ADVERTISEMENT, 0, 0xbe, 0xef, 0x60, 0, 0, 0];
        bytes.extend_from_slice(&[0xfd; 16]);
        let (header, rest) = Header::ref_from_prefix(&bytes).unwrap();
        let neighbor = Neighbor::ref_from_bytes(rest).unwrap();
        assert_eq!(header.to_string(), "ICMPv6 neighbor advertisement");
        assert_eq!(neighbor.flags.get(), SOLICITED | OVERRIDE);
        assert_eq!(neighbor.target(), Ipv6Addr::from_octets([0xfd; 16]));
    }
}
