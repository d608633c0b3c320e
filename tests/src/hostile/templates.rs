//! Frames as honest senders would make them, to be spoilt afterwards.

use dataplane::offload::{Checksum, Gso, Offload};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpNumber, PacketBuilder, PacketBuilderStep,
};
use etherparse::{Ethernet2Header, Icmpv6Type, Ipv6RawExtHeader};

use super::stage::{GATEWAY, mac};

/// A frame and what its device says about it.
pub(super) type Template = (Vec<u8>, Offload);

const V4: [u8; 4] = [10, 0, 9, 10];
const V4_PEER: [u8; 4] = [10, 0, 9, 11];
const V4_GATEWAY: [u8; 4] = [10, 0, 9, 1];

const fn v6(host: u8) -> [u8; 16] {
    [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

/// The endpoint of port 0 speaks: to its peer, to the gateway, to all.
pub(super) fn all() -> Vec<Template> {
    let mut all = Vec::new();
    for destination in [mac(1).0, GATEWAY.0, [0xff; 6], mac(77).0] {
        all.extend(datagrams(destination));
        all.extend(echoes(destination));
    }
    all.extend(arp());
    all.extend(neighbours());
    all.extend(extended());
    for destination in [mac(1).0, mac(2).0, [0xff; 6]] {
        all.extend(supers(destination));
    }
    all.extend(others());
    all
}

fn ethernet(destination: [u8; 6]) -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(mac(0).0, destination)
}

fn datagrams(destination: [u8; 6]) -> Vec<Template> {
    let mut frames = Vec::new();
    for len in [0, 1, 67, 1_472] {
        let payload = vec![7; len];
        let mut frame = Vec::new();
        let udp = ethernet(destination).ipv4(V4, V4_PEER, 64).udp(67, 257);
        udp.write(&mut frame, &payload).expect("a template");
        frames.push((std::mem::take(&mut frame), Offload::PLAIN));
        let tcp = ethernet(destination).ipv6(v6(10), v6(11), 64).tcp(67, 257, 1, 2);
        tcp.write(&mut frame, &payload).expect("a template");
        frames.push((frame, Offload::PLAIN));
    }
    frames
}

fn echoes(destination: [u8; 6]) -> Vec<Template> {
    let mut frames = Vec::new();
    for len in [0, 1, 56, 1_471] {
        let payload = vec![7; len];
        let mut frame = Vec::new();
        let v4 = ethernet(destination).ipv4(V4, V4_GATEWAY, 64).icmpv4_echo_request(1, 2);
        v4.write(&mut frame, &payload).expect("a template");
        frames.push((std::mem::take(&mut frame), Offload::PLAIN));
        let v6 = ethernet(destination).ipv6(v6(10), v6(1), 64).icmpv6_echo_request(1, 2);
        v6.write(&mut frame, &payload).expect("a template");
        frames.push((frame, Offload::PLAIN));
    }
    frames
}

fn arp() -> Vec<Template> {
    let mut frames = Vec::new();
    for (operation, target) in [
        (ArpOperation::REQUEST, V4_GATEWAY),
        (ArpOperation::REQUEST, V4_PEER),
        (ArpOperation::REPLY, V4_GATEWAY),
        (ArpOperation(7), V4_GATEWAY),
    ] {
        let (hardware, protocol) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
        let arp = ArpPacket::new(hardware, protocol, operation, &mac(0).0, &V4, &[0; 6], &target);
        let mut frame = Vec::new();
        let arp = ethernet([0xff; 6]).arp(arp.expect("lengths of ARP for IPv4"));
        arp.write(&mut frame).expect("a template");
        frames.push((frame, Offload::PLAIN));
    }
    frames
}

/// Solicitations, advertisements, and what only routers send.
fn neighbours() -> Vec<Template> {
    let mut frames = Vec::new();
    for (kind, source, option) in
        [(135, v6(10), 1), (135, [0; 16], 14), (136, v6(10), 2), (134, v6(10), 1), (137, v6(10), 2)]
    {
        let body = [&v6(1)[..], &[option, 1], &mac(0).0].concat();
        let unknown = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [0; 4] };
        let mut frame = Vec::new();
        let builder = ethernet([0x33, 0x33, 0xff, 0, 0, 1]).ipv6(source, v6(1), 255);
        builder.icmpv6(unknown).write(&mut frame, &body).expect("a template");
        frames.push((frame, Offload::PLAIN));
    }
    frames
}

/// IPv6 with extension headers: hop by hop, destination options, routing, fragment.
fn extended() -> Vec<Template> {
    let mut frames = Vec::new();
    for kind in [0, 60, 43, 44] {
        let mut frame = Vec::new();
        let builder = ethernet(mac(1).0).ipv6(v6(10), v6(11), 64);
        builder.udp(67, 257).write(&mut frame, &[7; 67]).expect("a template");
        let header = Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[1, 4, 0, 0, 0, 0]);
        let mut bytes = Vec::new();
        header.expect("eight bytes").write(&mut bytes).expect("a template");
        let payload_length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
        frame[18..20].copy_from_slice(&payload_length.to_be_bytes());
        frame[20] = kind;
        frame.splice(54..54, bytes);
        frames.push((frame, Offload::PLAIN));
    }
    frames
}

/// Super-packets as kernels hand them over.
fn supers(destination: [u8; 6]) -> Vec<Template> {
    let mut frames = Vec::new();
    for (gso, len, size) in [
        (Gso::Tcp4, 3_000, 1_448),
        (Gso::Tcp4, 60_000, 1_448),
        (Gso::Tcp6, 8_000, 1_428),
        (Gso::Udp, 5_000, 1_400),
    ] {
        let payload = vec![7; len];
        let mut frame = Vec::new();
        let ethernet = ethernet(destination);
        let (start, offset) = match gso {
            Gso::Tcp6 => {
                let ip = ethernet.ipv6(v6(10), v6(11), 64);
                ip.tcp(67, 257, 1, 2).write(&mut frame, &payload).expect("a template");
                (54, 16)
            }
            Gso::Udp => {
                let ip = ethernet.ipv4(V4, V4_PEER, 64);
                ip.udp(67, 257).write(&mut frame, &payload).expect("a template");
                (34, 6)
            }
            _ => {
                let ip = ethernet.ipv4(V4, V4_PEER, 64);
                ip.tcp(67, 257, 1, 2).write(&mut frame, &payload).expect("a template");
                (34, 16)
            }
        };
        let offload = Offload {
            checksum: Checksum::Partial,
            gso,
            gso_size: size,
            csum_start: start,
            csum_offset: offset,
        };
        frames.push((frame, offload));
    }
    frames
}

/// Neither IP nor ARP: control frames of bridges, and ethertypes that nobody knows.
fn others() -> Vec<Template> {
    let frame = |destination: [u8; 6], ethertype: u16| {
        let mut frame = [&destination[..], &mac(0).0, &ethertype.to_be_bytes()].concat();
        frame.resize(60, 7);
        (frame, Offload::PLAIN)
    };
    vec![
        frame([1, 0x80, 0xc2, 0, 0, 0], 38),
        frame([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc),
        frame(mac(1).0, 0x88b5),
        frame(mac(0).0, 0x88b5),
        frame([0xff; 6], 0),
    ]
}
