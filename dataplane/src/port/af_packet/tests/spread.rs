//! Flows over several sockets: which worker gets what.

use std::collections::HashSet;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, PacketBuilder};

use super::*;

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// One end of a flow.
#[derive(Clone, Copy, Debug)]
struct End {
    mac: [u8; 6],
    host: u8,
    port: u16,
}

fn ends(flow: u8) -> [End; 2] {
    let port = 40_000 + 257 * u16::from(flow);
    [End { mac: MACS[0], host: 1, port }, End { mac: MACS[1], host: 2 + flow % 3, port: 443 }]
}

fn v4(host: u8) -> [u8; 4] {
    [10, 0, 9, host]
}

fn v6(host: u8) -> [u8; 16] {
    [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

/// Frames of one flow in one direction: TCP and UDP, over IPv4 (once with options) and IPv6.
fn frames(from: End, to: End) -> [Vec<u8>; 5] {
    let ethernet = || PacketBuilder::ethernet2(from.mac, to.mac);
    let ipv4 = || ethernet().ipv4(v4(from.host), v4(to.host), 64);
    let ipv6 = || ethernet().ipv6(v6(from.host), v6(to.host), 64);
    let mut options = Ipv4Header::new(0, 64, IpNumber::UDP, v4(from.host), v4(to.host)).unwrap();
    options.options = [7, 7, 4, 0, 0, 0, 0, 0].into();
    let with_options = ethernet().ip(etherparse::IpHeaders::Ipv4(options, Default::default()));
    let payload = [9; 67];
    let mut frames: [Vec<u8>; 5] = Default::default();
    ipv4().tcp(from.port, to.port, 1, 1).write(&mut frames[0], &payload).unwrap();
    ipv4().udp(from.port, to.port).write(&mut frames[1], &payload).unwrap();
    ipv6().tcp(from.port, to.port, 1, 1).write(&mut frames[2], &payload).unwrap();
    ipv6().udp(from.port, to.port).write(&mut frames[3], &payload).unwrap();
    with_options.udp(from.port, to.port).write(&mut frames[4], &payload).unwrap();
    frames
}

/// Two workers' sockets on one device.
struct Group {
    queues: Vec<Queue>,
    sender: Socket,
    receiver: Receiver,
    _veth: Veth,
}

impl Group {
    fn new() -> Self {
        let veth = Veth::silent();
        let queues = veth.near(Options { sockets: 2, ..Options::default() });
        let sender = veth.sender();
        Self { queues, sender, receiver: Receiver::new(), _veth: veth }
    }

    /// The socket that alone gets a frame.
    fn place_of(&mut self, frame: &[u8]) -> usize {
        send(&self.sender, frame, Offload::PLAIN);
        let heard: Vec<usize> =
            self.queues.iter_mut().map(|queue| self.receiver.drain(queue).len()).collect();
        assert_eq!(heard.iter().sum::<usize>(), 1, "{heard:?} of one frame");
        heard.iter().position(|&count| count == 1).unwrap()
    }
}

#[test]
fn both_directions_of_a_flow_meet_and_flows_spread() {
    let mut group = Group::new();
    let mut used = [HashSet::new(), HashSet::new(), HashSet::new(), HashSet::new(), HashSet::new()];
    for flow in 0..67 {
        let [client, server] = ends(flow);
        let pairs = frames(client, server).into_iter().zip(frames(server, client));
        for ((there, back), used) in pairs.zip(&mut used) {
            let place = group.place_of(&there);
            assert_eq!(group.place_of(&back), place, "{client:?} {server:?}");
            used.insert(place);
        }
    }
    assert!(used.iter().all(|used| used.len() == 2), "{used:?}");
}

#[test]
fn a_tag_does_not_change_the_place() {
    let mut group = Group::new();
    for flow in 0..67 {
        let [client, server] = ends(flow);
        for frame in frames(client, server) {
            let place = group.place_of(&frame);
            let tagged = [&frame[..12], &[0x81, 0, 0x20, 0x0a], &frame[12..]].concat();
            assert_eq!(group.place_of(&tagged), place);
        }
    }
}

#[test]
fn all_fragments_of_a_packet_meet() {
    let mut group = Group::new();
    let mut used = HashSet::new();
    for host in 0..67 {
        let [client, mut server] = ends(host);
        server.host = 2 + host;
        let places = fragments(client, server).map(|fragment| group.place_of(&fragment));
        assert_eq!((places[0], places[2]), (places[1], places[3]), "{places:?}");
        used.extend(places);
    }
    assert_eq!(used.len(), 2);
}

/// The first and a later fragment of a UDP datagram, over IPv4 and IPv6; the first has ports.
fn fragments(from: End, to: End) -> [Vec<u8>; 4] {
    let udp = [&from.port.to_be_bytes()[..], &to.port.to_be_bytes(), &[5, 0, 0, 0], &[9; 64]];
    let payload = udp.concat();
    [0, 1]
        .map(|later| v4_fragment(from, to, later, &payload))
        .into_iter()
        .chain([0, 1].map(|later| v6_fragment(from, to, later, &payload)))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

fn v4_fragment(from: End, to: End, later: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut header =
        Ipv4Header::new(length, 64, IpNumber::UDP, v4(from.host), v4(to.host)).unwrap();
    (header.dont_fragment, header.more_fragments) = (false, later == 0);
    header.fragment_offset = IpFragOffset::try_new(later * 9).unwrap();
    header.header_checksum = header.calc_header_checksum();
    [&to.mac[..], &from.mac, &[0x08, 0x00], &header.to_bytes(), payload].concat()
}

fn v6_fragment(from: End, to: End, later: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap();
    let mut header = [0; 40];
    (header[0], header[6], header[7]) = (0x60, 44, 64);
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[8..24].copy_from_slice(&v6(from.host));
    header[24..].copy_from_slice(&v6(to.host));
    let offset = IpFragOffset::try_new(later * 9).unwrap();
    let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, later == 0, 4711);
    [&to.mac[..], &from.mac, &[0x86, 0xdd], &header, &fragment.to_bytes(), payload].concat()
}
