//! Super-packets for tests, written by another stack (etherparse) and summed word by word.

use dataplane::offload::{Checksum, Gso, Offload};
use dataplane::wire::{ethernet, tcp};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use proptest::prelude::*;

/// The source address of every frame.
pub(crate) const SOURCE: [u8; 6] = [0x02, 0x68, 0x65, 0x64, 0x64, 0x01];

/// What a super-packet is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) vlan: Option<u16>,
    /// Words of TCP options.
    pub(crate) options: usize,
    pub(crate) flags: u8,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) sequence_number: u32,
    /// The payload: its length and what it is made of.
    pub(crate) payload: usize,
    pub(crate) seed: u64,
    pub(crate) gso_size: u16,
}

/// Any shape that has at most 300 segments, or 128 of UDP: the kernel takes no more.
pub(crate) fn any_shape() -> impl Strategy<Value = Shape> {
    let layers = (any::<bool>(), any::<bool>(), prop::option::of(1u16..4095));
    let flags = prop::sample::subsequence(vec![tcp::PSH, tcp::FIN, tcp::CWR, tcp::ECE], 0..4);
    let tcp = (0usize..=10, flags, any::<u32>());
    let ip = (any::<u16>(), any::<bool>());
    let lengths = prop_oneof![1usize..64, 1usize..3000, 1usize..65_000];
    let sizes = prop_oneof![1u16..64, Just(1448), 500u16..9000];
    (layers, tcp, ip, lengths, any::<u64>(), sizes).prop_map(
        |((v6, udp, vlan), (options, flags, sequence_number), ip, payload, seed, gso_size)| Shape {
            v6,
            udp,
            vlan,
            options,
            flags: tcp::ACK | flags.iter().sum::<u8>(),
            identification: ip.0,
            dont_fragment: ip.1,
            sequence_number,
            payload,
            seed,
            gso_size: gso_size.max(at_least(payload, if udp { 128 } else { 300 })),
        },
    )
}

/// The size that makes at most `segments` of `payload` bytes.
fn at_least(payload: usize, segments: usize) -> u16 {
    payload.div_ceil(segments).try_into().unwrap()
}

impl Shape {
    /// The frame, its checksum partial, and its state.
    pub(crate) fn build(&self) -> (Vec<u8>, Offload) {
        let mut frame = self.link();
        let (mut layer4, csum_offset) = self.transport();
        let length = layer4.len() + self.payload;
        let (addresses, ip) = self.network(length);
        let (l3, l4) = (frame.len(), frame.len() + ip.len());
        let protocol = if self.udp { IpNumber::UDP.0 } else { IpNumber::TCP.0 };
        let length = u16::try_from(length).unwrap().to_be_bytes();
        let seed = naive_sum(&[&addresses[..], &[0, protocol], &length].concat());
        layer4[csum_offset..csum_offset + 2].copy_from_slice(&seed.to_be_bytes());
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&layer4);
        frame.extend(bytes(self.seed).take(self.payload));
        assert!(l3 < l4 && l4 < frame.len());
        let offload = Offload {
            checksum: Checksum::Partial,
            gso: self.gso(),
            gso_size: self.gso_size,
            csum_start: u16::try_from(l4).unwrap(),
            csum_offset: u16::try_from(csum_offset).unwrap(),
        };
        (frame, offload)
    }

    fn gso(&self) -> Gso {
        match (self.udp, self.v6) {
            (true, _) => Gso::Udp,
            (false, false) => Gso::Tcp4,
            (false, true) => Gso::Tcp6,
        }
    }

    fn link(&self) -> Vec<u8> {
        let mut frame = [[0x02, 0x68, 0x65, 0x64, 0x64, 0x02], SOURCE].concat();
        let ethertype = if self.v6 { ethernet::IPV6 } else { ethernet::IPV4 };
        if let Some(vid) = self.vlan {
            frame.extend_from_slice(&ethernet::VLAN.to_be_bytes());
            frame.extend_from_slice(&vid.to_be_bytes());
        }
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame
    }

    /// The addresses, and the header for `length` bytes behind it.
    fn network(&self, length: usize) -> (Vec<u8>, Vec<u8>) {
        let next = if self.udp { IpNumber::UDP } else { IpNumber::TCP };
        let length = u16::try_from(length).unwrap();
        if self.v6 {
            let (source, destination) = ([0xfd; 16], [0xfc; 16]);
            let header = Ipv6Header {
                payload_length: length,
                next_header: next,
                hop_limit: 64,
                source,
                destination,
                ..Default::default()
            };
            return ([source, destination].concat(), header.to_bytes().to_vec());
        }
        let (source, destination) = ([10, 0, 9, 65], [10, 0, 9, 66]);
        let mut header = Ipv4Header::new(length, 64, next, source, destination).unwrap();
        header.identification = self.identification;
        header.dont_fragment = self.dont_fragment;
        header.header_checksum = header.calc_header_checksum();
        ([source, destination].concat(), header.to_bytes().to_vec())
    }

    /// The header, and where its checksum is.
    fn transport(&self) -> (Vec<u8>, usize) {
        if self.udp {
            let length = u16::try_from(8 + self.payload).unwrap();
            let header = UdpHeader { source_port: 4097, destination_port: 53, length, checksum: 0 };
            return (header.to_bytes().to_vec(), 6);
        }
        let mut header = TcpHeader::new(40_000, 5201, self.sequence_number, 512);
        header.acknowledgment_number = 0x0a0b_0c0d;
        header.set_options_raw(&[1; 40][..4 * self.options]).unwrap();
        let mut bytes = header.to_bytes().to_vec();
        bytes[13] = self.flags;
        (bytes, 16)
    }
}

/// The one's-complement sum of RFC 1071, 1, word by word.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap()
}

/// Bytes without a pattern (Knuth's MMIX generator), the same for the same seed.
fn bytes(seed: u64) -> impl Iterator<Item = u8> {
    let step = |state: &u64| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(Some(seed), step).map(|state| state.to_be_bytes()[0])
}
