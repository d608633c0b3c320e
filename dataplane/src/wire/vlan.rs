//! The outermost VLAN tag of a frame (IEEE 802.1Q-2018, 9.5 and 9.6), put on and taken off in
//! place: the addresses move by the tag's length in the headroom, and nothing else does.
//!
//! Customer and service tags are both tags here. What is behind the outermost one is payload,
//! further tags too.

use std::fmt;
use std::num::NonZeroU16;

use zerocopy::FromBytes;

use super::ethernet::{self, TAG_LEN};
use crate::memory::{Layers, Packet};
use crate::offload::{Checksum, Offload};

/// A VLAN identifier that a VLAN can have, 1 to 4,094: 0 stands for no VLAN, and 4,095 is reserved
/// and never on a wire (IEEE 802.1Q-2018, table 9-2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Vid(NonZeroU16);

impl Vid {
    /// The identifier with this number, `None` outside of 1 to 4,094.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) if number.get() < RESERVED => Some(Self(number)),
            _ => None,
        }
    }

    /// The number, 1 to 4,094.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0.get()
    }
}

/// What a tag says beside the VLAN: its type, and how urgent the frame is. Without a tag: a customer
/// tag of the lowest priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Marking(u16);

impl Marking {
    /// That of frames without a tag.
    pub const NONE: Self = Self(0);

    /// Priority and drop eligible indicator, in the upper four bits as in [`Tag::control`].
    const PRIORITY: u16 = 0xf000;
    /// Set for a service tag.
    const SERVICE: u16 = 1;
}

/// An outermost tag: the two words behind the addresses, in the machine's byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// The tag's type: [`ethernet::VLAN`] or [`ethernet::SERVICE_VLAN`].
    pub protocol: u16,
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub control: u16,
}

impl Tag {
    /// The tag of a VLAN for a frame that is marked so.
    #[inline(always)]
    pub const fn new(vid: Vid, marking: Marking) -> Self {
        let service = marking.0 & Marking::SERVICE != 0;
        let protocol = if service { ethernet::SERVICE_VLAN } else { ethernet::VLAN };
        Self { protocol, control: marking.0 & Marking::PRIORITY | vid.number() }
    }

    /// The tag in front of everything else in `frame`; `None` if there is none, or not a whole one.
    #[inline(always)]
    pub fn outermost(frame: &[u8]) -> Option<Self> {
        let (header, rest) = ethernet::Header::ref_from_prefix(frame).ok()?;
        let protocol = header.ethertype.get();
        if !ethernet::is_tag(protocol) {
            return None;
        }
        let (tag, _) = ethernet::Tag::ref_from_prefix(rest).ok()?;
        Some(Self { protocol, control: tag.control.get() })
    }

    /// The VLAN identifier as it came, 0 to 4,095.
    #[inline(always)]
    pub const fn vid(self) -> u16 {
        self.control & RESERVED
    }

    /// All but the VLAN identifier.
    #[inline(always)]
    pub const fn marking(self) -> Marking {
        let service = self.protocol == ethernet::SERVICE_VLAN;
        Marking(self.control & Marking::PRIORITY | if service { Marking::SERVICE } else { 0 })
    }
}

/// Puts a tag in front of everything else in the frame. Offsets of layers and of a partial checksum
/// move with what they point to; a transport header that is then too far behind for its offset
/// counts as not found.
///
/// `None`, and nothing changed, if the packet has no Ethernet header, no headroom, or a checksum
/// that starts where no header can be.
#[inline]
pub fn push(packet: &mut Packet, tag: Tag) -> Option<()> {
    if packet.len() < ethernet::HEADER_LEN {
        return None;
    }
    let offload = moved(packet.offload, |start| start.checked_add(TAG))?;
    packet.push_front(TAG)?;
    packet.offload = offload;
    packet.layers = farther(packet.layers);
    let frame = packet.data_mut();
    frame.copy_within(TAG_LEN..TAG_LEN + ADDRESSES, 0);
    frame[ADDRESSES..][..2].copy_from_slice(&tag.protocol.to_be_bytes());
    frame[ADDRESSES + 2..][..2].copy_from_slice(&tag.control.to_be_bytes());
    Some(())
}

/// Takes the outermost tag off; offsets move as in [`push`].
///
/// `None`, and nothing changed, if there is no whole tag, or a partial checksum starts within it.
#[inline]
pub fn pull(packet: &mut Packet) -> Option<Tag> {
    let tag = Tag::outermost(packet.data())?;
    let behind = |start: u16| usize::from(start) >= ethernet::HEADER_LEN + TAG_LEN;
    let offload = moved(packet.offload, |start| behind(start).then(|| start - TAG))?;
    packet.data_mut().copy_within(..ADDRESSES, TAG_LEN);
    packet.pull_front(TAG)?;
    packet.offload = offload;
    packet.layers = nearer(packet.layers);
    Some(tag)
}

/// Moves the start of a partial checksum; `None` where it can't be there.
#[inline(always)]
fn moved(offload: Offload, to: impl FnOnce(u16) -> Option<u16>) -> Option<Offload> {
    match offload.checksum {
        Checksum::Partial => Some(Offload { csum_start: to(offload.csum_start)?, ..offload }),
        Checksum::Unverified | Checksum::Verified => Some(offload),
    }
}

/// Layers behind one more tag. Layer 3 is behind so few that its offset has room.
#[inline(always)]
fn farther(layers: Layers) -> Layers {
    let l3 = if layers.l3 == 0 { 0 } else { layers.l3.saturating_add(TAG_U8) };
    match layers.l4 {
        0 => Layers { l3, ..layers },
        l4 => match l4.checked_add(TAG_U8) {
            Some(l4) => Layers { l3, l4, ..layers },
            None => Layers { l3, l4: 0, protocol: 0, ..layers },
        },
    }
}

/// Layers behind one tag fewer; zero stays zero.
#[inline(always)]
fn nearer(layers: Layers) -> Layers {
    let (l3, l4) = (layers.l3.saturating_sub(TAG_U8), layers.l4.saturating_sub(TAG_U8));
    Layers { l3, l4, ..layers }
}

/// The reserved identifier, which is also the mask of all identifiers.
const RESERVED: u16 = 0x0fff;

/// Bytes in front of a tag: the addresses.
const ADDRESSES: usize = 12;

/// [`TAG_LEN`] as offsets want it.
const TAG: u16 = 4;
const TAG_U8: u8 = 4;
const _: () = assert!(TAG_LEN == TAG as usize && TAG_LEN == TAG_U8 as usize);

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vid({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{LinkExtSlice, PacketBuilder, SlicedPacket, VlanSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::ids::PortId;
    use crate::memory::{Arena, Geometry, Kind};
    use crate::offload::Gso;

    /// Lets `test` have a packet with these bytes.
    fn with<R>(frame: &[u8], test: impl FnOnce(&mut Packet) -> R) -> R {
        let geometry = Geometry { owners: 1, small: 1, runs: 1 };
        let mut pool = Arena::create(geometry).unwrap().remove(0);
        let mut packet = Packet::holding(&mut pool, PortId(3), frame).unwrap();
        let result = test(&mut packet);
        pool.give(packet.into_frame());
        result
    }

    fn udp() -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 9).udp(67, 257);
        builder.write(&mut frame, b"odd").unwrap();
        frame
    }

    fn partial(csum_start: u16) -> Offload {
        Offload { checksum: Checksum::Partial, csum_start, csum_offset: 6, ..Offload::PLAIN }
    }

    #[test]
    fn an_identifier_has_twelve_bits_of_which_two_values_are_none() {
        assert_eq!([0, 4095, 4096, u16::MAX].map(Vid::new), [None; 4]);
        assert_eq!(
            [1, 4094].map(|number| Vid::new(number).map(Vid::number)),
            [Some(1), Some(4094)]
        );
        assert_eq!(format!("{0} {0:?}", Vid::new(67).unwrap()), "67 Vid(67)");
    }

    #[test]
    fn others_read_the_tag_that_was_put_on() {
        for (protocol, control) in [(0x8100, 0xa02a), (0x88a8, 0x7fff), (0x8100, 0)] {
            with(&udp(), |packet| {
                push(packet, Tag { protocol, control }).unwrap();
                let sliced = SlicedPacket::from_ethernet(packet.data()).unwrap();
                assert_eq!(sliced.ether_payload().unwrap().payload, &udp()[14..]);
                let [LinkExtSlice::Vlan(tag)] = &sliced.link_exts[..] else { panic!("no tag") };
                let read = u16::from(tag.priority_code_point().value()) << 13
                    | u16::from(tag.drop_eligible_indicator()) << 12
                    | tag.vlan_identifier().value();
                assert_eq!((read, &packet.data()[..12]), (control, &udp()[..12]));
                assert_eq!(packet.data()[12..14], protocol.to_be_bytes());
                assert!(matches!(sliced.vlan(), Some(VlanSlice::SingleVlan(_))));
            });
        }
    }

    #[test]
    fn a_marking_is_all_of_a_tag_but_its_vlan() {
        let vid = Vid::new(257).unwrap();
        for (protocol, control) in [(0x8100, 0xe101), (0x88a8, 0x1101), (0x8100, 0x0101)] {
            let tag = Tag { protocol, control };
            assert_eq!((tag.vid(), Tag::new(vid, tag.marking())), (257, tag));
            let other = Tag { control: control & 0xf000 | 67, ..tag };
            assert_eq!(Tag::new(vid, other.marking()), tag);
        }
        assert_eq!(Tag::new(vid, Marking::NONE), Tag { protocol: 0x8100, control: 0x0101 });
    }

    #[test]
    fn what_cant_be_done_changes_nothing() {
        let tag = Tag { protocol: 0x8100, control: 67 };
        let mut tagged = udp();
        tagged.splice(12..12, [0x81, 0, 0, 67]);
        let cut = tagged[..17].to_vec();
        let fails = |frame: &[u8], offload, change: fn(&mut Packet, Tag) -> bool| {
            with(frame, |packet| {
                packet.offload = offload;
                assert!(!change(packet, tag), "{frame:02x?} with {offload:?}");
                assert_eq!((packet.data(), packet.offload), (frame, offload));
            });
        };
        fails(&udp()[..13], Offload::PLAIN, |packet, tag| push(packet, tag).is_some());
        fails(&udp(), partial(u16::MAX - 3), |packet, tag| push(packet, tag).is_some());
        for (frame, offload) in [
            (udp(), Offload::PLAIN),
            (cut, Offload::PLAIN),
            (tagged.clone(), partial(17)),
            (tagged[..13].to_vec(), Offload::PLAIN),
            (Vec::new(), Offload::PLAIN),
        ] {
            fails(&frame, offload, |packet, _| pull(packet).is_some());
        }
        with(&tagged, |packet| {
            packet.offload = partial(18);
            assert_eq!((pull(packet), packet.offload.csum_start), (Some(tag), 14));
        });
    }

    #[test]
    fn tags_go_on_while_there_is_headroom() {
        with(&udp(), |packet| {
            let mut count = 0;
            while push(packet, Tag { protocol: 0x88a8, control: count }).is_some() {
                count += 1;
            }
            assert!(count >= 64 && packet.headroom() < 4, "{count} tags");
            assert_eq!(packet.len(), udp().len() + 4 * usize::from(count));
            (0..count).rev().for_each(|control| assert_eq!(pull(packet).unwrap().control, control));
            assert_eq!(packet.data(), udp());
        });
    }

    fn layers() -> impl Strategy<Value = Layers> {
        (0u8..4, 0u8..=251, any::<u8>()).prop_map(|(tags, l4, protocol)| Layers {
            kind: Kind::Ipv6,
            l3: 14 + 4 * tags,
            l4,
            protocol: if l4 == 0 { 0 } else { protocol },
            ..Layers::default()
        })
    }

    fn offload() -> impl Strategy<Value = Offload> {
        let checksum =
            prop::sample::select(vec![Checksum::Unverified, Checksum::Verified, Checksum::Partial]);
        let gso = prop::sample::select(vec![Gso::None, Gso::Tcp4, Gso::Tcp6, Gso::Udp]);
        (checksum, gso, any::<u16>(), 14..u16::MAX - 4, any::<u16>()).prop_map(
            |(checksum, gso, gso_size, csum_start, csum_offset)| Offload {
                checksum,
                gso,
                gso_size,
                csum_start,
                csum_offset,
            },
        )
    }

    proptest! {
        /// What a tag moved, its removal moves back: bytes, layers, and what is owed.
        #[test]
        fn push_then_pull_gives_back_the_packet(
            frame in prop::collection::vec(any::<u8>(), 14..2_000),
            (offload, layers) in (offload(), layers()),
            service: bool,
            control: u16,
        ) {
            let tag = Tag { protocol: if service { 0x88a8 } else { 0x8100 }, control };
            with(&frame, |packet| {
                (packet.offload, packet.layers) = (offload, layers);
                push(packet, tag).unwrap();
                prop_assert_eq!(packet.len(), frame.len() + 4);
                prop_assert_eq!(packet.layers.l3, layers.l3 + 4);
                let moved = u16::from(offload.checksum == Checksum::Partial) * 4;
                prop_assert_eq!(packet.offload.csum_start, offload.csum_start + moved);
                prop_assert_eq!(Tag::outermost(packet.data()), Some(tag));
                prop_assert_eq!(pull(packet), Some(tag));
                prop_assert_eq!(packet.data(), &frame[..]);
                prop_assert_eq!((packet.offload, packet.layers), (offload, layers));
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_transport_header_beyond_its_offsets_range_counts_as_not_found() {
        for (l4, expected) in [(251, (255, 17)), (252, (0, 0)), (255, (0, 0)), (0, (0, 0))] {
            with(&udp(), |packet| {
                let protocol = if l4 == 0 { 0 } else { 17 };
                packet.layers = Layers { l3: 14, l4, protocol, ..Layers::default() };
                push(packet, Tag { protocol: 0x8100, control: 67 }).unwrap();
                assert_eq!((packet.layers.l4, packet.layers.protocol), expected);
            });
        }
    }
}
