//! Ethernet II frames and VLAN tags (IEEE 802.3, 3.2; IEEE 802.1Q, 9.6).

use std::fmt;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::MacAddr;

/// The ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// The ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// The ethertype of a customer VLAN tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// The ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;
/// The ethertype of a service VLAN tag (802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Length of the header without tags, in bytes.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Length of one VLAN tag, in bytes.
pub const TAG_LEN: usize = size_of::<Tag>();

/// The first 14 bytes of a frame.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Whom the frame is for.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// What follows; a value up to 1,500 is the length of an 802.3 frame instead.
    pub ethertype: U16,
}

/// A VLAN tag as it follows an ethertype of [`VLAN`] or [`SERVICE_VLAN`].
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Tag {
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub control: U16,
    /// What follows the tag.
    pub ethertype: U16,
}

impl Tag {
    /// The tag of VLAN `vid`, of which the low 12 bits count, with priority zero.
    #[inline]
    pub const fn new(vid: u16, ethertype: u16) -> Self {
        Self { control: U16::new(vid & 0x0fff), ethertype: U16::new(ethertype) }
    }

    /// The VLAN identifier, 0 to 4,095; 0 tags a priority only.
    #[inline(always)]
    pub const fn vid(&self) -> u16 {
        self.control.get() & 0x0fff
    }

    /// The priority, 0 to 7.
    #[inline(always)]
    pub const fn priority(&self) -> u16 {
        self.control.get() >> 13
    }
}

/// Whether what follows this ethertype is a VLAN tag.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, VLAN | SERVICE_VLAN)
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}, ethertype {:#06x}", self.source, self.destination, self.ethertype)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vlan {}, priority {}", self.vid(), self.priority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED: [u8; 18] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x42, 0x0a, 0, 9, 0x41, 0x81, 0x00, 0xa0, 0x2a,
        0x08, 0x06,
    ];

    #[test]
    fn the_figure_is_the_struct() {
        let (header, rest) = Header::ref_from_prefix(&TAGGED).unwrap();
        assert_eq!(header.to_string(), "02:42:0a:00:09:41 > ff:ff:ff:ff:ff:ff, ethertype 0x8100");
        assert!(header.destination.is_group() && is_tag(header.ethertype.get()));
        let (tag, rest) = Tag::ref_from_prefix(rest).unwrap();
        assert_eq!(tag.to_string(), "vlan 42, priority 5");
        assert_eq!((tag.ethertype.get(), rest.len()), (ARP, 0));
        assert!(Header::ref_from_prefix(&TAGGED[..13]).is_err());
    }

    #[test]
    fn a_new_tag_keeps_twelve_bits() {
        let tag = Tag::new(0xf02a, IPV4);
        assert_eq!((tag.vid(), tag.priority(), tag.ethertype.get()), (42, 0, IPV4));
    }
}
