//! Which frames come, and whether they are what they were on the wire.

use etherparse::{PacketBuilder, TcpHeader};

use super::socket::{Frames, Membership};
use super::*;
use crate::ids::MacAddr;
use crate::offload::{Checksum, Gso};
use crate::wire::layers::Layers;
use crate::wire::tcp;
use crate::wire::vlan::{self, Tag};

const UNICAST: MacAddr = MacAddr([0x02, 0x42, 0x0a, 0, 9, 0x41]);
const SOURCE: [u8; 6] = [0x02, 0x42, 0x0a, 0, 9, 0x42];

/// Segments and their payload bytes in a super-packet of these tests, the last one odd.
const SEGMENTS: usize = 30;
const SEGMENT: u16 = 1448;

/// A frame of 60 bytes that carries `mark`, behind these tags (ethertype, control).
fn frame(destination: MacAddr, tags: &[(u16, u16)], mark: u8) -> Vec<u8> {
    let mut frame = [&destination.0[..], &SOURCE].concat();
    for (ethertype, control) in tags {
        frame.extend(ethertype.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    // The ethertype for local experiments (IEEE 802, 9.2.4).
    frame.extend([0x88, 0xb5]);
    frame.resize(60, mark);
    frame
}

/// A TCP super-packet with a partial checksum, behind these tags.
fn super_packet(tags: &[(u16, u16)]) -> (Vec<u8>, Offload) {
    let mut header = TcpHeader::new(4711, 80, 1, 1024);
    (header.ack, header.acknowledgment_number) = (true, 7);
    let ip = PacketBuilder::ethernet2(SOURCE, UNICAST.0).ipv4([10, 0, 9, 1], [10, 0, 9, 2], 64);
    let mut frame = Vec::new();
    let payload: Vec<u8> =
        (0..SEGMENTS * usize::from(SEGMENT) - 67).map(|n| u8::try_from(n % 251).unwrap()).collect();
    ip.tcp_header(header).write(&mut frame, &payload).unwrap();
    let tags: Vec<u8> = tags
        .iter()
        .flat_map(|(ethertype, control)| [ethertype.to_be_bytes(), control.to_be_bytes()])
        .flatten()
        .collect();
    frame.splice(12..12, tags.iter().copied());
    let layers = Layers::of(&frame).unwrap();
    let offload = Offload {
        checksum: Checksum::Partial,
        gso: Gso::Tcp4,
        gso_size: SEGMENT,
        csum_start: u16::try_from(layers.l4).unwrap(),
        csum_offset: tcp::CHECKSUM_OFFSET,
    };
    (frame, offload)
}

/// The tags of a frame: none, each kind, priority only, and a customer's in a service's.
const TAGS: [&[(u16, u16)]; 5] = [
    &[],
    &[(0x8100, 0xa02a)],
    &[(0x88a8, 0x0fff)],
    &[(0x8100, 0x6000)],
    &[(0x88a8, 0x1064), (0x8100, 0xb00a)],
];

#[test]
fn a_stripped_tag_is_put_back_byte_by_byte() {
    let stripped = Tag { protocol: 0x8100, control: 0xa02a };
    let mut receiver = Receiver::new();
    let (untagged, offload) = super_packet(&[]);
    let mut packet = Packet::holding(&mut receiver.pool, PortId(3), &untagged).unwrap();
    packet.offload = offload;
    vlan::push(&mut packet, stripped).unwrap();
    assert_eq!(
        packet.data()[..18],
        [
            0x02, 0x42, 0x0a, 0, 9, 0x41, 0x02, 0x42, 0x0a, 0, 9, 0x42, 0x81, 0x00, 0xa0, 0x2a,
            0x08, 0x00
        ]
    );
    assert_eq!(packet.data()[18..], untagged[14..]);
    assert_eq!((packet.offload.csum_start, packet.offload.csum_offset), (38, 16));
    receiver.pool.give(packet.into_frame());
}

#[test]
fn what_is_no_frame_gets_no_tag() {
    let stripped = Tag { protocol: 0x8100, control: 0xa02a };
    let mut receiver = Receiver::new();
    for (length, start) in [(11, 0), (60, u16::MAX - 3)] {
        let mut packet = Packet::holding(&mut receiver.pool, PortId(3), &vec![0; length]).unwrap();
        packet.offload =
            Offload { checksum: Checksum::Partial, csum_start: start, ..Offload::PLAIN };
        assert_eq!(vlan::push(&mut packet, stripped), None);
        receiver.pool.give(packet.into_frame());
    }
}

#[test]
fn tagged_frames_arrive_as_they_were_sent() {
    let veth = Veth::silent();
    let (mut near, far) = (veth.near(Options::default()).remove(0), veth.sender());
    let mut receiver = Receiver::new();
    for (mark, tags) in (1..).zip(TAGS) {
        let sent = frame(UNICAST, tags, mark);
        send(&far, &sent, Offload::PLAIN);
        assert_eq!(receiver.drain(&mut near), [(sent, Offload::PLAIN)], "{tags:x?}");
    }
}

#[test]
fn tagged_super_packets_arrive_whole_with_their_offsets_moved() {
    let veth = Veth::silent();
    let (mut near, far) = (veth.near(Options::default()).remove(0), veth.sender());
    let mut receiver = Receiver::new();
    for tags in TAGS {
        let sent = super_packet(tags);
        send(&far, &sent.0, sent.1);
        let received = receiver.drain(&mut near);
        assert!(received == [sent], "{tags:x?}: {} frames", received.len());
    }
}

#[test]
fn tags_leave_in_the_frame() {
    let veth = Veth::silent();
    let (mut near, mut far) = (veth.near(Options::default()).remove(0), veth.far());
    let mut receiver = Receiver::new();
    for tags in TAGS {
        for sent in [(frame(UNICAST, tags, 7), Offload::PLAIN), super_packet(tags)] {
            let mut packet = Packet::holding(&mut receiver.pool, PortId(3), &sent.0).unwrap();
            packet.offload = sent.1;
            let refused = near.transmit(&mut receiver.pool, &mut vec![packet]);
            assert_eq!((refused.full, refused.failed), (0, 0));
            let received = receiver.drain(&mut far);
            assert!(received == [sent], "{tags:x?}: {} frames", received.len());
        }
    }
}

#[test]
fn what_we_and_the_host_send_does_not_come_back() {
    let veth = Veth::silent();
    for sockets in [1, 2] {
        let mut queues = veth.near(Options { sockets, ..Options::default() });
        let host = veth.near(Options::default()).remove(0);
        let mut receiver = Receiver::new();
        send(&queues[0].socket, &frame(UNICAST, &[], 1), Offload::PLAIN);
        send(&host.socket, &frame(MacAddr::BROADCAST, &[], 2), Offload::PLAIN);
        let arriving = frame(UNICAST, &[], 3);
        send(&veth.sender(), &arriving, Offload::PLAIN);
        let heard: Vec<_> = queues.iter_mut().flat_map(|queue| receiver.drain(queue)).collect();
        assert_eq!(heard, [(arriving, Offload::PLAIN)], "{sockets} sockets");
    }
}

#[test]
fn a_group_tap_takes_group_frames_and_sends_none() {
    let veth = Veth::silent();
    let membership = Membership::AllMulticast;
    for sockets in [1, 2] {
        let options = Options { sockets, frames: Frames::Groups, membership, ..Options::default() };
        let (mut taps, far) = (veth.near(options), veth.sender());
        let mut receiver = Receiver::new();
        let multicast = MacAddr([0x01, 0x00, 0x5e, 0, 0, 0xfb]);
        let sent = [(UNICAST, 1), (multicast, 2), (UNICAST, 3), (MacAddr::BROADCAST, 4)];
        sent.iter().for_each(|(to, mark)| send(&far, &frame(*to, &[], *mark), Offload::PLAIN));
        let heard: Vec<_> = taps.iter_mut().flat_map(|tap| receiver.drain(tap)).collect();
        let expected = [(multicast, 2), (MacAddr::BROADCAST, 4)];
        assert_eq!(heard, expected.map(|(to, mark)| (frame(to, &[], mark), Offload::PLAIN)));

        let bytes = frame(MacAddr::BROADCAST, &[], 5);
        let packet = Packet::holding(&mut receiver.pool, PortId(3), &bytes).unwrap();
        let refused = taps[0].transmit(&mut receiver.pool, &mut vec![packet]);
        assert_eq!((refused.failed, refused.bytes), (1, 60));
    }
}
