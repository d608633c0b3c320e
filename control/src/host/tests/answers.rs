//! What is answered, and how.

use dataplane::offload::{Checksum, Gso, Offload};
use dataplane::wire::checksum;
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4, icmpv6};
use pipelines::drops;

use super::frames::{self, L3};
use super::{GATEWAY, Rig};

const IPV4: usize = 20;
const IPV6: usize = 40;

#[test]
fn a_fragmented_echo_comes_back_in_fragments() {
    let mut rig = Rig::new();
    let payload: Vec<u8> = (0..8000_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
    let fragments = frames::echo(&payload, 1480);
    assert_eq!(fragments.len(), 6);
    // The last first: the order is the network's.
    let mut answers = Vec::new();
    for fragment in fragments.iter().rev() {
        assert_eq!(answers.len(), 0, "answered before all was there");
        answers = rig.ask(fragment);
    }
    let mut message = vec![0; 8008];
    for answer in &answers {
        let packet = SlicedPacket::from_ethernet(answer).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("not IPv4") };
        let (header, piece) = (ip.header(), ip.payload().payload);
        assert!(answer.len() <= 1514 && header.destination() == frames::CLIENT);
        let offset = usize::from(header.fragments_offset().value()) * 8;
        message[offset..offset + piece.len()].copy_from_slice(piece);
        assert_eq!(header.more_fragments(), offset + piece.len() < 8008);
        assert!(checksum::Sum::of(&answer[L3..L3 + IPV4]).is_right());
    }
    assert_eq!((message[0], &message[8..]), (0, &payload[..]));
    assert!(checksum::Sum::of(&message).is_right());
    rig.all_home();
}

#[test]
fn a_fragment_without_the_others_is_forgotten() {
    let mut rig = Rig::new();
    let fragments = frames::echo(&[7; 2000], 1480);
    assert_eq!(rig.ask(&fragments[0]).len(), 0);
    rig.now.0 += 3_000_000_000;
    assert_eq!(rig.ask(&fragments[1]).len(), 0);
    rig.all_home();
}

#[test]
fn a_connection_is_refused_at_once() {
    for version in [4, 6] {
        let mut rig = Rig::new();
        let answers = rig.ask(&frames::syn(version));
        let [answer] = &answers[..] else { panic!("IPv{version}: {} answers", answers.len()) };
        let packet = SlicedPacket::from_ethernet(answer).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("not TCP") };
        assert!(tcp.rst() && tcp.ack());
        assert_eq!((tcp.source_port(), tcp.acknowledgment_number()), (80, 101));
        assert_eq!(&answer[..12], &[frames::CLIENT_MAC, frames::GATEWAY_MAC].concat()[..]);
        let right = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let (source, destination) = (ip.header().source(), ip.header().destination());
                tcp.calc_checksum_ipv4(source, destination).unwrap()
            }
            NetSlice::Ipv6(ip) => {
                let (source, destination) = (ip.header().source(), ip.header().destination());
                tcp.calc_checksum_ipv6(source, destination).unwrap()
            }
            NetSlice::Arp(_) => panic!("ARP"),
        };
        assert_eq!(tcp.checksum(), right);
        rig.all_home();
    }
}

#[test]
fn a_closed_udp_port_is_unreachable() {
    let mut rig = Rig::new();
    let question = frames::datagram(4, b"question");
    let answers = rig.ask(&question);
    let packet = SlicedPacket::from_ethernet(&answers[0]).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { panic!("not ICMP") };
    let port = icmpv4::DestUnreachableHeader::Port;
    assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(port));
    assert!(checksum::Sum::of(&answers[0][L3 + IPV4..]).is_right());
    // It quotes the datagram; of the IP header, what the stack keeps of it.
    assert_eq!(&icmp.payload()[IPV4..], &question[L3 + IPV4..]);

    let question = frames::datagram(6, b"question");
    let answers = rig.ask(&question);
    let packet = SlicedPacket::from_ethernet(&answers[0]).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
    let port = icmpv6::DestUnreachableCode::Port;
    assert_eq!(icmp.icmp_type(), Icmpv6Type::DestinationUnreachable(port));
    assert!(icmp.is_checksum_valid(frames::v6(1), frames::v6(2)));
    assert_eq!(&icmp.payload()[IPV6..], &question[L3 + IPV6..]);
    rig.all_home();
}

#[test]
fn a_fragment_of_ipv6_is_answered_with_a_parameter_problem() {
    let mut rig = Rig::new();
    let answers = rig.ask(&frames::fragment_v6(&[128, 0, 0, 0, 0, 7, 0, 1]));
    let packet = SlicedPacket::from_ethernet(&answers[0]).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
    assert!(matches!(icmp.icmp_type(), Icmpv6Type::ParameterProblem(_)));
    rig.all_home();
}

#[test]
fn a_partial_checksum_is_completed_first() {
    let mut rig = Rig::new();
    let mut question = frames::datagram(4, b"question");
    let pseudo = checksum::pseudo_v4(frames::CLIENT, frames::GATEWAY, 17, 16);
    question[L3 + IPV4 + 6..][..2].copy_from_slice(&pseudo.fold().to_bytes());
    assert_eq!(rig.ask(&question).len(), 0, "a wrong checksum, as it stands");
    let csum_start = u16::try_from(L3 + IPV4).unwrap();
    let partial =
        Offload { checksum: Checksum::Partial, csum_start, csum_offset: 6, ..Offload::PLAIN };
    rig.punt(GATEWAY, &question, partial);
    assert_eq!(rig.sent().len(), 1);
    rig.punt(GATEWAY, &question, Offload { csum_start: 60_000, ..partial });
    assert_eq!(rig.sent().len(), 0);
    assert_eq!(rig.dropped(dataplane::drops::BAD_OFFLOAD), 1);
    rig.all_home();
}

#[test]
fn a_super_packet_is_cut_and_each_segment_refused() {
    let mut rig = Rig::new();
    let frame = frames::data_segment(&[9; 3001]);
    let csum_start = u16::try_from(L3 + IPV4).unwrap();
    let (gso, gso_size, csum_offset) = (Gso::Tcp4, 1000, 16);
    let offload = Offload { checksum: Checksum::Partial, gso, gso_size, csum_start, csum_offset };
    rig.punt(GATEWAY, &frame, offload);
    assert_eq!(rig.sent().len(), 4);
    rig.punt(GATEWAY, &frame, Offload { gso: Gso::Udp, ..offload });
    assert_eq!(rig.sent().len(), 0);
    assert_eq!(rig.dropped(dataplane::drops::BAD_OFFLOAD), 1);
    rig.all_home();
}

#[test]
fn only_the_networks_own_hosts_are_answered() {
    let mut rig = Rig::new();
    let strangers = [[192, 0, 2, 1], [10, 0, 9, 255], [10, 0, 9, 1], [0; 4], [224, 0, 0, 1]];
    for source in strangers {
        assert_eq!(rig.ask(&frames::datagram_from(source)).len(), 0, "{source:?}");
    }
    assert_eq!(rig.dropped(drops::UNANSWERABLE), 5);
    assert_eq!(rig.ask(&frames::datagram_from([10, 0, 9, 254])).len(), 1);
    rig.all_home();
}
