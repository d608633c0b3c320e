//! Address resolution for IPv4 on Ethernet (RFC 826).

use std::fmt;
use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ethernet;
use crate::ids::MacAddr;

/// `ar$op`: who has this address?
pub const REQUEST: u16 = 1;
/// `ar$op`: I have it.
pub const REPLY: u16 = 2;

/// `ar$hrd` of Ethernet.
const ETHERNET: u16 = 1;

/// An ARP packet of RFC 826 with the address lengths of Ethernet and IPv4, 28 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Packet {
    /// `ar$hrd`, the hardware address space.
    pub hardware_type: U16,
    /// `ar$pro`, the protocol address space: an ethertype.
    pub protocol_type: U16,
    /// `ar$hln`, bytes of a hardware address.
    pub hardware_length: u8,
    /// `ar$pln`, bytes of a protocol address.
    pub protocol_length: u8,
    /// `ar$op`: [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// `ar$sha`.
    pub sender_hardware_address: MacAddr,
    /// `ar$spa`; see [`Packet::sender`].
    pub sender_protocol_address: [u8; 4],
    /// `ar$tha`; meaningless in a request.
    pub target_hardware_address: MacAddr,
    /// `ar$tpa`; see [`Packet::target`].
    pub target_protocol_address: [u8; 4],
}

impl Packet {
    /// Whether the address spaces are Ethernet and IPv4, so that the other fields mean something.
    #[inline]
    pub fn is_ethernet_ipv4(&self) -> bool {
        self.hardware_type.get() == ETHERNET
            && self.protocol_type.get() == ethernet::IPV4
            && (self.hardware_length, self.protocol_length) == (6, 4)
    }

    /// The sender's IPv4 address; zero in a probe (RFC 5227, 2.1).
    #[inline(always)]
    pub fn sender(&self) -> Ipv4Addr {
        self.sender_protocol_address.into()
    }

    /// The IPv4 address that is asked for, or the receiver's in a reply.
    #[inline(always)]
    pub fn target(&self) -> Ipv4Addr {
        self.target_protocol_address.into()
    }

    /// The answer of the station at `mac`, which has the address that this request asks for.
    #[inline]
    pub fn reply(&self, mac: MacAddr) -> Self {
        Self {
            operation: U16::new(REPLY),
            sender_hardware_address: mac,
            sender_protocol_address: self.target_protocol_address,
            target_hardware_address: self.sender_hardware_address,
            target_protocol_address: self.sender_protocol_address,
            ..*self
        }
    }

    /// The question of `sender` at `mac`: who has `target`?
    #[inline]
    pub fn request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            hardware_type: U16::new(ETHERNET),
            protocol_type: U16::new(ethernet::IPV4),
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(REQUEST),
            sender_hardware_address: mac,
            sender_protocol_address: sender.octets(),
            target_hardware_address: MacAddr::default(),
            target_protocol_address: target.octets(),
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation.get() {
            REQUEST => write!(f, "who has {}? tell {}", self.target(), self.sender()),
            REPLY => write!(f, "{} is at {}", self.sender(), self.sender_hardware_address),
            other => write!(f, "ARP operation {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_request_is_what_another_stack_reads() {
        let packet = Packet::request(ASKER, [10, 0, 9, 65].into(), [10, 0, 9, 1].into());
        let slice = etherparse::ArpPacketSlice::from_slice(packet.as_bytes()).unwrap();
        assert_eq!(slice.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!(slice.sender_hw_addr(), ASKER.0);
        assert_eq!(slice.sender_protocol_addr(), [10, 0, 9, 65]);
        assert_eq!(slice.target_protocol_addr(), [10, 0, 9, 1]);
        assert!(packet.is_ethernet_ipv4());
        assert_eq!(packet.to_string(), "who has 10.0.9.1? tell 10.0.9.65");
    }

    #[test]
    fn a_reply_turns_the_question_around() {
        let request = Packet::request(ASKER, [10, 0, 9, 65].into(), [10, 0, 9, 1].into());
        let reply = request.reply(OWNER);
        assert_eq!(reply.to_string(), "10.0.9.1 is at 02:00:00:00:00:02");
        assert_eq!((reply.target(), reply.target_hardware_address), (request.sender(), ASKER));
    }

    #[test]
    fn other_address_spaces_are_told_apart() {
        let mut packet = Packet::request(ASKER, [10, 0, 9, 65].into(), [10, 0, 9, 1].into());
        packet.protocol_length = 16;
        assert!(!packet.is_ethernet_ipv4());
    }
}
