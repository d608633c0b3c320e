//! The internet protocol, version 6 (RFC 8200), and the addresses that Ethernet makes of it.

use std::fmt;
use std::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::protocol;
use crate::ids::MacAddr;

/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();

/// Extension headers that are walked before a packet is given up: no honest one has more.
const MAX_EXTENSIONS: usize = 8;

/// The fixed header (RFC 8200, 3).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_flow: U32,
    /// Bytes after this header, extension headers included.
    pub payload_length: U16,
    /// What follows: see [`protocol`].
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// See [`Header::source`].
    pub source_address: [u8; 16],
    /// See [`Header::destination`].
    pub destination_address: [u8; 16],
}

/// The fragment header (RFC 8200, 4.5).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Fragment {
    /// What follows, in the first fragment.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of 8 bytes (13 bits), reserved (2 bits), more fragments (1 bit).
    pub offset_flags: U16,
    /// Tells the fragments of one packet from those of others.
    pub identification: U32,
}

/// Where the walk over a packet's extension headers ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpperLayer {
    /// What is at the offset: see [`protocol`].
    pub protocol: u8,
    /// In bytes from the start of the IPv6 header.
    pub offset: usize,
    /// Whether the packet is a piece of a larger one. Behind the fragment header of any but the
    /// first piece nothing more is walked, and the offset is that of raw data.
    pub fragment: bool,
}

impl Header {
    /// Who sent the packet.
    #[inline(always)]
    pub fn source(&self) -> Ipv6Addr {
        self.source_address.into()
    }

    /// Whom it is for.
    #[inline(always)]
    pub fn destination(&self) -> Ipv6Addr {
        self.destination_address.into()
    }

    /// Whether the version field says 6.
    #[inline(always)]
    pub const fn is_version_6(&self) -> bool {
        self.version_class_flow.get() >> 28 == 6
    }
}

impl Fragment {
    /// Where this fragment's data belong, in bytes.
    #[inline(always)]
    pub const fn offset_bytes(&self) -> u16 {
        self.offset_flags.get() & 0xfff8
    }

    /// Whether another fragment follows.
    #[inline(always)]
    pub const fn more_fragments(&self) -> bool {
        self.offset_flags.get() & 1 == 1
    }
}

/// Walks from the fixed header at the start of `packet` over its extension headers.
///
/// `None` if a header is cut short, or if there are more than eight: the walk is bounded. A
/// fragment header that neither has an offset nor is followed by more (RFC 6946) does not make
/// a fragment.
#[inline]
pub fn upper_layer(packet: &[u8]) -> Option<UpperLayer> {
    let (header, _) = Header::ref_from_prefix(packet).ok()?;
    let mut upper =
        UpperLayer { protocol: header.next_header, offset: HEADER_LEN, fragment: false };
    if !is_extension(upper.protocol) {
        return Some(upper);
    }
    for _ in 0..MAX_EXTENSIONS {
        let piece = step(&mut upper, packet)?;
        if piece || !is_extension(upper.protocol) {
            return Some(upper);
        }
    }
    None
}

/// Steps over the extension header at `upper`; whether what follows is a later fragment's data.
fn step(upper: &mut UpperLayer, packet: &[u8]) -> Option<bool> {
    let rest = packet.get(upper.offset..)?;
    if upper.protocol == protocol::FRAGMENT {
        let (fragment, _) = Fragment::ref_from_prefix(rest).ok()?;
        upper.protocol = fragment.next_header;
        upper.offset += size_of::<Fragment>();
        upper.fragment |= fragment.offset_bytes() != 0 || fragment.more_fragments();
        return Some(fragment.offset_bytes() != 0);
    }
    // Next header, and length in units of 8 bytes without the first 8 (RFC 8200, 4.3, 4.4, 4.6).
    let [next_header, length, ..] = *rest else { return None };
    let bytes = 8 * (usize::from(length) + 1);
    upper.protocol = next_header;
    upper.offset += bytes;
    (bytes <= rest.len()).then_some(false)
}

/// Whether a header of this type is one that the walk steps over.
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION_OPTIONS
    )
}

/// The multicast group that a station with this address listens to (RFC 4291, 2.7.1).
#[inline]
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The link-local address that a station makes of its MAC (RFC 4291, 2.5.6 and appendix A).
#[inline]
pub const fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The Ethernet group to which this multicast group is sent (RFC 2464, 7).
#[inline]
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "IPv6 {} > {}, next header {}, payload {}, hop limit {}",
            self.source(),
            self.destination(),
            self.next_header,
            self.payload_length,
            self.hop_limit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with `chain` between its fixed header and `protocol`.
    fn packet(chain: &[(u8, &[u8])], protocol: u8) -> Vec<u8> {
        let mut types: Vec<u8> = chain.iter().map(|(kind, _)| *kind).collect();
        types.push(protocol);
        let mut bytes = vec![0; HEADER_LEN];
        (bytes[0], bytes[6]) = (0x60, types[0]);
        for ((_, body), next) in chain.iter().zip(&types[1..]) {
            bytes.push(*next);
            bytes.extend_from_slice(body);
        }
        bytes
    }

    const OPTIONS: (u8, &[u8]) = (protocol::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0]);
    const LONG: (u8, &[u8]) = (protocol::DESTINATION_OPTIONS, &[1; 15]);
    const FIRST: (u8, &[u8]) = (protocol::FRAGMENT, &[0, 0, 1, 0, 0, 0, 9]);
    const LATER: (u8, &[u8]) = (protocol::FRAGMENT, &[0, 0, 8, 0, 0, 0, 9]);
    const ATOMIC: (u8, &[u8]) = (protocol::FRAGMENT, &[0, 0, 0, 0, 0, 0, 9]);

    #[test]
    fn the_walk_finds_the_upper_layer() {
        let found = |protocol, offset, fragment| Some(UpperLayer { protocol, offset, fragment });
        let tcp = |chain: &[(u8, &[u8])]| upper_layer(&packet(chain, protocol::TCP));
        assert_eq!(tcp(&[]), found(protocol::TCP, 40, false));
        assert_eq!(tcp(&[OPTIONS, LONG]), found(protocol::TCP, 64, false));
        assert_eq!(tcp(&[FIRST, OPTIONS]), found(protocol::TCP, 56, true));
        assert_eq!(tcp(&[ATOMIC]), found(protocol::TCP, 48, false));
        assert_eq!(tcp(&[LATER, OPTIONS]), found(protocol::HOP_BY_HOP, 48, true));
    }

    #[test]
    fn a_chain_that_is_too_long_or_cut_short_has_none() {
        assert!(upper_layer(&packet(&[OPTIONS; MAX_EXTENSIONS], protocol::UDP)).is_some());
        assert_eq!(upper_layer(&packet(&[OPTIONS; MAX_EXTENSIONS + 1], protocol::UDP)), None);
        let whole = packet(&[OPTIONS, LONG], protocol::UDP);
        for length in 0..whole.len() {
            assert_eq!(upper_layer(&whole[..length]), None, "of {length} bytes");
        }
    }

    #[test]
    fn addresses_follow_from_macs() {
        let mac = MacAddr([0x02, 0x42, 0x0a, 0x00, 0x09, 0x41]);
        let address = link_local(mac);
        assert_eq!(address, "fe80::42:aff:fe00:941".parse::<Ipv6Addr>().unwrap());
        let group = solicited_node(address);
        assert_eq!(group, "ff02::1:ff00:941".parse::<Ipv6Addr>().unwrap());
        assert_eq!(multicast_mac(group).to_string(), "33:33:ff:00:09:41");
    }

    #[test]
    fn the_figure_is_the_struct() {
        let other = etherparse::Ipv6Header {
            payload_length: 257,
            next_header: etherparse::IpNumber::UDP,
            hop_limit: 255,
            source: [1; 16],
            destination: [2; 16],
            ..Default::default()
        };
        let bytes = other.to_bytes();
        let header = Header::ref_from_bytes(&bytes).unwrap();
        assert!(header.is_version_6());
        let text = "IPv6 101:101:101:101:101:101:101:101 > 202:202:202:202:202:202:202:202, \
                    next header 17, payload 257, hop limit 255";
        assert_eq!(header.to_string(), text);
    }
}
