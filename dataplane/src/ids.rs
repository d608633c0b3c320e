//! The small numbers that cross modules, each with its legal range in the type.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A 48-bit IEEE 802 address, in wire order.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All ones: every station of the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address in the low 48 bits of a word, first octet highest.
    #[inline(always)]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        // Two loads; of eight octets a compiler makes six.
        (u32::from_be_bytes([a, b, c, d]) as u64) << 16 | u16::from_be_bytes([e, f]) as u64
    }

    /// The inverse of [`MacAddr::to_u64`]; the upper 16 bits are ignored.
    #[inline(always)]
    pub const fn from_u64(word: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Whether the I/G bit is set: multicast and broadcast (IEEE 802-2014, 8.2.2).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.to_u64() & GROUP_BIT != 0
    }

    /// Whether no bit is set; no station has this address.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }
}

/// The I/G bit in the word of an address.
pub const GROUP_BIT: u64 = 1 << 40;

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not six octets in hex, separated by colons.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a MAC address like 02:42:0a:00:09:41")]
pub struct BadMac(pub String);

impl FromStr for MacAddr {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        parts.next().is_none().then_some(Self(octets)).ok_or_else(bad)
    }
}

/// A port of the switch: its row in the port table. Reused after a grace period.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PortId(pub u16);

/// A layer 2 segment, one per network (and VLAN). Zero is no segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct SegmentId(pub u16);

impl SegmentId {
    /// The segment of rows that have none: nothing is ever forwarded in it.
    pub const NONE: Self = Self(0);
}

/// A worker thread, counted from zero; also the home of the frames that it owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct WorkerId(pub u8);

macro_rules! plain_number {
    ($($name:ident),*) => {$(
        impl $name {
            /// The number as an index into rows.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}

plain_number!(PortId, SegmentId, WorkerId);

/// A VXLAN network identifier of 24 bits (RFC 7348, 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Vni(u32);

impl Vni {
    /// The identifier `number`, or `None` from 2^24 on.
    pub const fn new(number: u32) -> Option<Self> {
        if number >> 24 == 0 { Some(Self(number)) } else { None }
    }

    /// The number, below 2^24.
    #[inline(always)]
    pub const fn to_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vni({})", self.0)
    }
}

/// The largest layer 3 packet that a link carries, in bytes, from 68 (RFC 791, 3.2) to 65,535.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Mtu(u16);

impl Mtu {
    /// Ethernet's usual payload.
    pub const ETHERNET: Self = Self(1500);

    /// An MTU of `bytes`, or `None` below 68.
    pub const fn new(bytes: u16) -> Option<Self> {
        if bytes < 68 { None } else { Some(Self(bytes)) }
    }

    /// In bytes, without the Ethernet header.
    #[inline(always)]
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mtu({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_and_word_round_trip() {
        let mac: MacAddr = "02:42:0a:00:09:41".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:00:09:41");
        assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
        assert_eq!(mac.to_u64(), 0x0242_0a00_0941);
        assert!(!mac.is_group() && MacAddr::BROADCAST.is_group());
    }

    #[test]
    fn bad_macs_are_refused() {
        for text in ["", "02:42", "02:42:0a:00:09:4", "02:42:0a:00:09:41:00", "0g:42:0a:00:09:41"] {
            assert_eq!(text.parse::<MacAddr>(), Err(BadMac(text.to_owned())));
        }
    }

    #[test]
    fn a_vni_has_24_bits() {
        assert_eq!(Vni::new(0x00ff_ffff).map(Vni::to_u32), Some(0x00ff_ffff));
        assert_eq!(Vni::new(0x0100_0000), None);
    }

    #[test]
    fn an_mtu_has_a_floor() {
        assert_eq!(Mtu::new(67), None);
        assert_eq!(Mtu::new(68).map(Mtu::bytes), Some(68));
    }
}
