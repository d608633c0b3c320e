//! Where the layers of a frame lie.

use zerocopy::FromBytes;

use super::{ethernet, ipv4, ipv6};

/// VLAN tags that are stepped over: a service and a customer tag.
const MAX_TAGS: usize = 2;

/// The version of the internet protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// The layers of an Ethernet frame with an IP packet in it. Offsets count from the frame's first
/// byte, and all lie within the frame: `l3 < l4 <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layers {
    /// Which IP it is.
    pub version: Version,
    /// Where the IP header starts, behind up to two VLAN tags.
    pub l3: usize,
    /// Where the IP header, with its options or extension headers, ends.
    pub l4: usize,
    /// Where the IP packet ends, by its own length: what follows is Ethernet's padding.
    pub end: usize,
    /// What is at `l4`: see [`protocol`](super::protocol).
    pub protocol: u8,
    /// Whether the packet is a piece of a larger one.
    pub fragment: bool,
}

impl Layers {
    /// The layers of `frame`; `None` if it is not IP, or not whole, or its headers don't fit in
    /// each other.
    #[inline]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (ethertype, l3) = behind_tags(frame)?;
        match ethertype {
            ethernet::IPV4 => Self::of_ipv4(frame, l3),
            ethernet::IPV6 => Self::of_ipv6(frame, l3),
            _ => None,
        }
    }

    #[inline]
    fn of_ipv4(frame: &[u8], l3: usize) -> Option<Self> {
        let (header, _) = ipv4::Header::ref_from_prefix(frame.get(l3..)?).ok()?;
        let l4 = l3 + header.length()?;
        let end = l3 + usize::from(header.total_length.get());
        (l4 <= end && end <= frame.len()).then_some(Self {
            version: Version::V4,
            l3,
            l4,
            end,
            protocol: header.protocol,
            fragment: header.is_fragment(),
        })
    }

    #[inline]
    fn of_ipv6(frame: &[u8], l3: usize) -> Option<Self> {
        let packet = frame.get(l3..)?;
        let (header, _) = ipv6::Header::ref_from_prefix(packet).ok()?;
        let length = ipv6::HEADER_LEN + usize::from(header.payload_length.get());
        let upper = ipv6::upper_layer(packet.get(..length)?)?;
        header.is_version_6().then_some(Self {
            version: Version::V6,
            l3,
            l4: l3 + upper.offset,
            end: l3 + length,
            protocol: upper.protocol,
            fragment: upper.fragment,
        })
    }
}

/// The ethertype behind up to two VLAN tags, and where its payload starts.
#[inline]
fn behind_tags(frame: &[u8]) -> Option<(u16, usize)> {
    let (header, _) = ethernet::Header::ref_from_prefix(frame).ok()?;
    let (mut ethertype, mut offset) = (header.ethertype.get(), ethernet::HEADER_LEN);
    for _ in 0..MAX_TAGS {
        if !ethernet::is_tag(ethertype) {
            break;
        }
        let (tag, _) = ethernet::Tag::ref_from_prefix(frame.get(offset..)?).ok()?;
        ethertype = tag.ethertype.get();
        offset += ethernet::TAG_LEN;
    }
    Some((ethertype, offset))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::wire::protocol;

    #[test]
    fn tags_are_stepped_over() {
        let mut plain = Vec::new();
        let udp = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 9).udp(1, 2);
        udp.write(&mut plain, b"odd").unwrap();
        let tag = |ethertype: u16| [&ethertype.to_be_bytes()[..], &[0, 7]].concat();
        let tags = [tag(ethernet::SERVICE_VLAN), tag(ethernet::VLAN), tag(ethernet::VLAN)];
        for count in 0..=3 {
            let frame = [&plain[..12], &tags[..count].concat(), &plain[12..]].concat();
            let l3 = 14 + 4 * count;
            let expected = Layers {
                version: Version::V6,
                l3,
                l4: l3 + 40,
                end: l3 + 51,
                protocol: protocol::UDP,
                fragment: false,
            };
            assert_eq!(Layers::of(&frame), (count <= MAX_TAGS).then_some(expected));
        }
    }

    #[test]
    fn the_end_is_that_of_the_packet_and_not_of_the_padding() {
        let mut frame = Vec::new();
        let tcp = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 9).tcp(1, 2, 3, 4);
        tcp.write(&mut frame, &[]).unwrap();
        frame.resize(60, 0);
        let layers = Layers::of(&frame).unwrap();
        assert_eq!((layers.l3, layers.l4, layers.end), (14, 34, 54));
    }

    #[test]
    fn a_frame_that_is_cut_short_has_no_layers() {
        for v6 in [false, true] {
            let mut frame = Vec::new();
            let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6])
                .vlan(etherparse::VlanHeader::Single(etherparse::SingleVlanHeader::default()));
            let ip = if v6 {
                ethernet.ipv6([1; 16], [2; 16], 9)
            } else {
                ethernet.ipv4([1; 4], [2; 4], 9)
            };
            ip.udp(1, 2).write(&mut frame, &[7; 67]).unwrap();
            assert!(Layers::of(&frame).is_some());
            for length in 0..frame.len() {
                assert_eq!(Layers::of(&frame[..length]), None, "of {length} bytes");
            }
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        let mut frame = Vec::new();
        let udp = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 9).udp(1, 2);
        udp.write(&mut frame, &[7; 67]).unwrap();
        for (at, value) in [(14, 0x55), (14, 0x44), (17, 19), (16, 1)] {
            let mut frame = frame.clone();
            frame[at] = value;
            assert_eq!(Layers::of(&frame), None, "byte {at} is {value}");
        }
        let mut arp = frame;
        arp[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
        assert_eq!(Layers::of(&arp), None);
    }
}
