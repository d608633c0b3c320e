//! The frames of a workload, without end and always the same.

use std::net::Ipv4Addr;

use dataplane::ids::{MacAddr, PortId};
use dataplane::offload::{Checksum, Gso, Offload};
use dataplane::wire::checksum;
use dataplane::wire::{arp, ethernet, icmp, ipv4, ipv6, protocol, tcp, udp};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::workload::{self, Frames, GATEWAY, GATEWAY_MAC, Network, Workload};

/// Bytes of a frame, FCS not included.
pub const FRAME_LEN: usize = 64;

/// Segments of a super-packet, and the bytes that each carries.
pub const SEGMENTS: usize = 45;
const SEGMENT_BYTES: u16 = 1448;

const L3: usize = ethernet::HEADER_LEN;
const L4: usize = L3 + ipv4::HEADER_LEN;
/// [`L4`] as an offload wants it.
const CSUM_START: u16 = 34;
const _: () = assert!(CSUM_START as usize == L4);

/// Makes one frame after the other.
#[derive(Debug)]
pub struct Traffic {
    network: Network,
    frames: Frames,
    /// A frame that is right but for its addresses.
    template: Vec<u8>,
    random: Random,
}

impl Traffic {
    /// The workload's frames, from the first one on. Another `seed` gives other choices of who sends.
    pub fn new(workload: &Workload, seed: u64) -> Self {
        let template = template(workload.frames);
        Self {
            network: workload.network,
            frames: workload.frames,
            template,
            random: Random(0x8000_0000_0000_0001 ^ seed << 1),
        }
    }

    /// Bytes of each frame.
    pub fn frame_len(&self) -> usize {
        self.template.len()
    }

    /// What each frame still owes.
    pub fn offload(&self) -> Offload {
        match self.frames {
            Frames::Super => Offload {
                checksum: Checksum::Partial,
                gso: Gso::Tcp4,
                gso_size: SEGMENT_BYTES,
                csum_start: CSUM_START,
                csum_offset: tcp::CHECKSUM_OFFSET,
            },
            _ => Offload::PLAIN,
        }
    }

    /// The port by which the next batch comes in.
    pub fn next_port(&mut self) -> PortId {
        let port = self.random.below(self.network.ports().into());
        PortId(u16::try_from(port).unwrap_or_default())
    }

    /// Writes the next frame of a batch that comes in by `port` to the front of `room`.
    pub fn write(&mut self, port: PortId, room: &mut [u8]) {
        let source = self.station_behind(port);
        let destination = self.station_beyond(port);
        let frame = &mut room[..self.template.len()];
        frame.copy_from_slice(&self.template);
        let l2: &mut ethernet::Header = at(frame, 0);
        l2.source = workload::mac(source);
        l2.destination = match self.frames {
            Frames::Udp4 | Frames::Udp6 | Frames::Super => workload::mac(destination),
            Frames::Echo => GATEWAY_MAC,
            Frames::Arp | Frames::Broadcast => MacAddr::BROADCAST,
        };
        match self.frames {
            Frames::Udp6 => {
                let l3: &mut ipv6::Header = at(frame, L3);
                l3.source_address = workload::ipv6(source).octets();
                l3.destination_address = workload::ipv6(destination).octets();
            }
            Frames::Arp => {
                let question =
                    arp::Packet::request(workload::mac(source), workload::ipv4(source), GATEWAY);
                *at(frame, L3) = question;
            }
            Frames::Udp4 | Frames::Super => {
                address(frame, workload::ipv4(source), workload::ipv4(destination));
            }
            Frames::Echo => address(frame, workload::ipv4(source), GATEWAY),
            Frames::Broadcast => address(frame, workload::ipv4(source), Ipv4Addr::BROADCAST),
        }
    }

    fn station_behind(&mut self, port: PortId) -> u32 {
        match self.network {
            Network::Endpoints(_) => u32::from(port.0),
            Network::Learned(count) | Network::Trunks(count) => {
                2 * self.random.below(count / 2) + u32::from(port.0)
            }
        }
    }

    fn station_beyond(&mut self, port: PortId) -> u32 {
        match self.network {
            Network::Endpoints(count) => {
                let other = self.random.below(u32::from(count) - 1);
                other + u32::from(other >= u32::from(port.0))
            }
            Network::Learned(count) | Network::Trunks(count) => {
                2 * self.random.below(count / 2) + 1 - u32::from(port.0)
            }
        }
    }
}

/// Whom a frame is from, or for.
pub type Station = (MacAddr, Ipv4Addr);

/// A super-packet of so many UDP datagrams, each a frame of [`FRAME_LEN`] bytes once it is cut,
/// and what says so.
pub fn datagrams(
    (source, from): Station,
    (destination, to): Station,
    count: usize,
) -> (Vec<u8>, Offload) {
    const PAYLOAD: usize = FRAME_LEN - L4 - udp::HEADER_LEN;
    let mut datagram = udp(udp::HEADER_LEN + count * PAYLOAD);
    let header: &mut udp::Header = at(&mut datagram, 0);
    let length = header.length.get();
    header.checksum = checksum::pseudo_v4(from.octets(), to.octets(), protocol::UDP, length).fold();
    let l2 = ethernet::Header { destination, source, ethertype: ethernet::IPV4.into() };
    let mut frame = [l2.as_bytes(), &over_ipv4(protocol::UDP, &datagram)].concat();
    address(&mut frame, from, to);
    let gso_size = u16::try_from(PAYLOAD).unwrap_or(u16::MAX);
    let (checksum, csum_offset) = (Checksum::Partial, udp::CHECKSUM_OFFSET);
    (frame, Offload { checksum, gso: Gso::Udp, gso_size, csum_start: CSUM_START, csum_offset })
}

/// Sets the addresses of an IPv4 packet, and its header's checksum.
fn address(frame: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    let l3: &mut ipv4::Header = at(frame, L3);
    l3.source_address = source.octets();
    l3.destination_address = destination.octets();
    ipv4::fill_checksum(&mut frame[L3..L4]);
}

fn template(frames: Frames) -> Vec<u8> {
    let (ethertype, body) = match frames {
        Frames::Udp4 | Frames::Broadcast => (ethernet::IPV4, over_ipv4(protocol::UDP, &udp(30))),
        Frames::Udp6 => (ethernet::IPV6, over_ipv6(&udp(10))),
        Frames::Arp => (ethernet::ARP, vec![0; size_of::<arp::Packet>()]),
        Frames::Echo => (ethernet::IPV4, over_ipv4(protocol::ICMP, &echo())),
        Frames::Super => (ethernet::IPV4, over_ipv4(protocol::TCP, &super_segment())),
    };
    let (source, destination) = (MacAddr::default(), MacAddr::default());
    let l2 = ethernet::Header { destination, source, ethertype: U16::new(ethertype) };
    let mut frame = [l2.as_bytes(), &body].concat();
    frame.resize(frame.len().max(FRAME_LEN), 0);
    frame
}

fn over_ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header {
        version_ihl: 0x45,
        type_of_service: 0,
        total_length: length(ipv4::HEADER_LEN + payload.len()),
        identification: 0.into(),
        flags_fragment_offset: ipv4::DONT_FRAGMENT.into(),
        time_to_live: 64,
        protocol,
        header_checksum: 0.into(),
        source_address: [0; 4],
        destination_address: [0; 4],
    };
    [header.as_bytes(), payload].concat()
}

fn over_ipv6(payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Header {
        version_class_flow: (6 << 28).into(),
        payload_length: length(payload.len()),
        next_header: protocol::UDP,
        hop_limit: 64,
        source_address: [0; 16],
        destination_address: [0; 16],
    };
    [header.as_bytes(), payload].concat()
}

/// A datagram of `bytes` without a checksum: the walk of a bridge does not look at it.
fn udp(bytes: usize) -> Vec<u8> {
    let header = udp::Header {
        source_port: 4097.into(),
        destination_port: 53.into(),
        length: length(bytes),
        checksum: 0.into(),
    };
    let mut datagram = header.as_bytes().to_vec();
    datagram.resize(bytes, 0);
    datagram
}

fn echo() -> Vec<u8> {
    let header = icmp::Header { kind: icmp::ECHO, code: 0, checksum: 0.into() };
    let mut message = header.as_bytes().to_vec();
    message.resize(FRAME_LEN - L4, 0);
    let sum = checksum::Sum::of(&message).checksum();
    at::<icmp::Header>(&mut message, 0).checksum = sum;
    message
}

/// A TCP header with a partial checksum for the first two stations, and what it carries.
fn super_segment() -> Vec<u8> {
    let payload = SEGMENTS * usize::from(SEGMENT_BYTES);
    let total = u16::try_from(tcp::HEADER_LEN + payload).unwrap_or(u16::MAX);
    let (source, destination) = (workload::ipv4(0).octets(), workload::ipv4(1).octets());
    let header = tcp::Header {
        source_port: 40_000.into(),
        destination_port: 5201.into(),
        sequence_number: 1.into(),
        acknowledgment_number: 1.into(),
        data_offset: 5 << 4,
        flags: tcp::ACK,
        window: 512.into(),
        checksum: checksum::pseudo_v4(source, destination, protocol::TCP, total).fold(),
        urgent_pointer: 0.into(),
    };
    let mut segment = header.as_bytes().to_vec();
    let mut random = Random(1);
    segment.resize_with(tcp::HEADER_LEN + payload, || random.below(256).to_le_bytes()[0]);
    segment
}

fn length(bytes: usize) -> U16 {
    U16::new(u16::try_from(bytes).unwrap_or(u16::MAX))
}

/// The header at `offset` of a frame that we made and that has it.
fn at<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned>(
    frame: &mut [u8],
    offset: usize,
) -> &mut T {
    match T::mut_from_prefix(&mut frame[offset..]) {
        Ok((header, _)) => header,
        Err(_) => unreachable!("templates are longer than their headers"),
    }
}

/// Marsaglia's xorshift with 64 bits ("Xorshift RNGs", 2003): the state is never zero.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`, which is not zero.
    #[inline]
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let scaled = (self.0 >> 32) * u64::from(limit);
        u32::try_from(scaled >> 32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::wire::layers::Layers;

    #[test]
    fn frames_have_their_length_and_come_from_behind_their_port() {
        for workload in &workload::ALL {
            let mut traffic = Traffic::new(workload, 0);
            let mut room = vec![0; traffic.frame_len()];
            let expected = if workload.frames == Frames::Super { 65_214 } else { FRAME_LEN };
            assert_eq!(traffic.frame_len(), expected, "{}", workload.name);
            for _ in 0..67 {
                let port = traffic.next_port();
                traffic.write(port, &mut room);
                let l2: &ethernet::Header = at(&mut room, 0);
                let sender =
                    (0..workload.network.stations()).find(|&s| workload::mac(s) == l2.source);
                let behind = |station: u32| match workload.network {
                    Network::Endpoints(_) => station == u32::from(port.0),
                    Network::Learned(_) | Network::Trunks(_) => station % 2 == u32::from(port.0),
                };
                assert!(behind(sender.unwrap()), "{}", workload.name);
            }
        }
    }

    #[test]
    fn datagrams_are_cut_into_frames_of_the_usual_length() {
        let station = |number| (workload::mac(number), workload::ipv4(number));
        let (mut frame, offload) = datagrams(station(1), station(2), 67);
        let headers = L4 + udp::HEADER_LEN;
        assert_eq!(headers + usize::from(offload.gso_size), FRAME_LEN);
        assert_eq!(frame.len(), headers + 67 * usize::from(offload.gso_size));
        let l3: &ipv4::Header = at(&mut frame, L3);
        assert_eq!(l3.source(), workload::ipv4(1));
        checksum::complete(&mut frame, &mut { offload }).unwrap();
        let layers = Layers::of(&frame).unwrap();
        assert!(layers.end == frame.len() && checksum::verify(&frame, &layers), "{layers:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_frames() {
        let make = |seed| {
            let mut traffic = Traffic::new(&workload::ALL[5], seed);
            let mut room = [0; FRAME_LEN];
            let frames: Vec<_> = (0..257)
                .map(|_| {
                    traffic.write(PortId(0), &mut room);
                    room
                })
                .collect();
            frames
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
