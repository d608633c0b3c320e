//! Frames of all kinds that the rules speak of, whole and damaged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::ids::MacAddr;
use crate::wire::{ethernet, protocol};

/// A station of heddle's in some rules.
pub(super) const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The device's own address.
pub(super) const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// Addresses in some rules.
pub(super) const HERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Who sends.
const PEERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)),
];

/// A frame whose bytes can be damaged.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) destination: MacAddr,
    /// Ethertype and control of each tag.
    pub(super) tags: Vec<(u16, u16)>,
    pub(super) network: Network,
    pub(super) padding: usize,
    pub(super) cut: Option<Index>,
    pub(super) flips: Vec<(Index, u8)>,
}

#[derive(Clone, Debug)]
pub(super) enum Network {
    Ipv4 { destination: u8, option_words: u8, fragment: u16, id: u16, transport: Transport },
    Ipv6 { destination: u8, extensions: Vec<Extension>, transport: Transport },
    Other(u16),
}

#[derive(Clone, Debug)]
pub(super) enum Extension {
    Options { kind: u8, length: u8 },
    Routing { segments_left: u8 },
    Fragment { offset_more: u16, id: u8 },
}

#[derive(Clone, Debug)]
pub(super) enum Transport {
    Udp { port: u16, wrong_length: Option<u16>, payload: Payload },
    Tcp { port: u16 },
    Esp { spi: u32 },
    Other(u8),
}

#[derive(Clone, Debug)]
pub(super) enum Payload {
    Vxlan { flags: u8, vni: u32 },
    Spi(u32),
    Bytes(Vec<u8>),
}

impl Shape {
    /// A datagram as it should be.
    pub(super) fn udp(family: usize, port: u16, payload: Payload) -> Self {
        Self::of(family, Transport::Udp { port, wrong_length: None, payload })
    }

    /// A packet as it should be, of IPv4 (0) or IPv6 (1).
    pub(super) fn of(family: usize, transport: Transport) -> Self {
        let network = match family {
            0 => Network::Ipv4 { destination: 1, option_words: 0, fragment: 0, id: 0, transport },
            _ => Network::Ipv6 { destination: 1, extensions: vec![], transport },
        };
        Self { destination: HOST, tags: vec![], network, padding: 0, cut: None, flips: vec![] }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.destination.0, [2, 0, 0, 0, 0, 9]].concat();
        for (ethertype, control) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        self.network.write(&mut frame);
        frame.extend(std::iter::repeat_n(0, self.padding));
        for (at, bits) in &self.flips {
            let at = at.index(frame.len());
            frame[at] ^= bits;
        }
        let length = self.cut.map_or(frame.len(), |cut| cut.index(frame.len()));
        // The kernel runs programs on no less.
        frame.truncate(length.max(ethernet::HEADER_LEN));
        frame
    }
}

impl Network {
    fn write(&self, frame: &mut Vec<u8>) {
        match self {
            Self::Other(ethertype) => frame.extend(ethertype.to_be_bytes()),
            Self::Ipv4 { destination, option_words, fragment, id, transport } => {
                let (body, next) = transport.bytes();
                let header = 20 + 4 * usize::from(*option_words);
                frame.extend(ethernet::IPV4.to_be_bytes());
                frame.extend([0x45 + option_words, 0]);
                frame.extend(u16::try_from(header + body.len()).unwrap().to_be_bytes());
                frame.extend([id.to_be_bytes(), fragment.to_be_bytes()].concat());
                frame.extend([64, next, 0, 0]);
                frame.extend(address(PEERS[0], 9));
                frame.extend(address(HERE[0], *destination));
                frame.extend(std::iter::repeat_n(1, header - 20));
                frame.extend(body);
            }
            Self::Ipv6 { destination, extensions, transport } => {
                let (mut body, mut next) = transport.bytes();
                for extension in extensions.iter().rev() {
                    let (mut header, kind) = extension.bytes(next);
                    header.extend(body);
                    (body, next) = (header, kind);
                }
                frame.extend(ethernet::IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
                frame.extend([next, 64]);
                frame.extend(address(PEERS[1], 9));
                frame.extend(address(HERE[1], *destination));
                frame.extend(body);
            }
        }
    }
}

impl Extension {
    fn bytes(&self, next: u8) -> (Vec<u8>, u8) {
        match *self {
            Self::Options { kind, length } => {
                let mut header = vec![next, length];
                header.resize(8 + 8 * usize::from(length), 0);
                (header, kind)
            }
            Self::Routing { segments_left } => {
                (vec![next, 0, 4, segments_left, 0, 0, 0, 0], protocol::ROUTING)
            }
            Self::Fragment { offset_more, id } => {
                let [high, low] = offset_more.to_be_bytes();
                (vec![next, 0, high, low, 0, 0, 0, id], protocol::FRAGMENT)
            }
        }
    }
}

impl Transport {
    fn bytes(&self) -> (Vec<u8>, u8) {
        match self {
            Self::Udp { port, wrong_length, payload } => {
                let payload = payload.bytes();
                let length = u16::try_from(8 + payload.len()).unwrap();
                let mut header = 40_000_u16.to_be_bytes().to_vec();
                header.extend(port.to_be_bytes());
                header.extend(wrong_length.unwrap_or(length).to_be_bytes());
                header.extend([0, 0]);
                header.extend(payload);
                (header, protocol::UDP)
            }
            Self::Tcp { port } => {
                let mut header = 40_000_u16.to_be_bytes().to_vec();
                header.extend(port.to_be_bytes());
                header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
                (header, protocol::TCP)
            }
            Self::Esp { spi } => (Payload::Spi(*spi).bytes(), protocol::ESP),
            Self::Other(next) => (vec![0; 8], *next),
        }
    }
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Vxlan { flags, vni } => {
                [[*flags, 0, 0, 0], (vni << 8 | 0x5a).to_be_bytes()].concat()
            }
            Self::Spi(spi) => [spi.to_be_bytes(), [0, 0, 0, 1]].concat(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

fn address(of: IpAddr, last: u8) -> Vec<u8> {
    let mut octets = match of {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    *octets.last_mut().unwrap() = last;
    octets
}

/// Any frame: mostly what a rule may be about, some of it damaged, and some noise.
pub(super) fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        15 => any_shape().prop_map(|shape| shape.bytes()),
        1 => vec(any::<u8>(), 14..150),
    ]
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let destination = select(vec![HOST, HOST, HOST, STATION, MacAddr::BROADCAST]);
    let tag = (select(vec![ethernet::VLAN, ethernet::SERVICE_VLAN]), select(vec![0, 0xa000, 0x2a]));
    let tags = prop_oneof![3 => Just(vec![]), 1 => vec(tag, 0..4)];
    let cut = prop_oneof![6 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let flips = prop_oneof![6 => Just(vec![]), 1 => vec((any::<Index>(), any::<u8>()), 1..4)];
    (destination, tags, any_network(), 0..20_usize, cut, flips).prop_map(
        |(destination, tags, network, padding, cut, flips)| Shape {
            destination,
            tags,
            network,
            padding,
            cut,
            flips,
        },
    )
}

fn any_network() -> impl Strategy<Value = Network> {
    // Whole, first, middle, last.
    let fragment = select(vec![0, 0, 0, 0x4000, 0x2000, 0x2000, 0x2001, 0x0001, 0x00ff]);
    let ipv4 = (1..3_u8, 0..11_u8, fragment, 0..3_u16, any_transport()).prop_map(
        |(destination, option_words, fragment, id, transport)| Network::Ipv4 {
            destination,
            option_words,
            fragment,
            id,
            transport,
        },
    );
    let extensions = prop_oneof![1 => Just(vec![]), 1 => vec(any_extension(), 0..9)];
    let ipv6 =
        (1..3_u8, extensions, any_transport()).prop_map(|(destination, extensions, transport)| {
            Network::Ipv6 { destination, extensions, transport }
        });
    let other = select(vec![ethernet::ARP, 0x05dc, 0x86dc]).prop_map(Network::Other);
    prop_oneof![8 => ipv4, 8 => ipv6, 1 => other]
}

fn any_extension() -> impl Strategy<Value = Extension> {
    let kind = select(vec![protocol::HOP_BY_HOP, protocol::DESTINATION_OPTIONS]);
    let options = (kind, prop_oneof![7 => 0..3_u8, 1 => 40..48_u8])
        .prop_map(|(kind, length)| Extension::Options { kind, length });
    let routing = (0..2_u8).prop_map(|segments_left| Extension::Routing { segments_left });
    let fragment = (select(vec![0, 1, 1, 8, 9, 0xfff8]), 0..3_u8)
        .prop_map(|(offset_more, id)| Extension::Fragment { offset_more, id });
    prop_oneof![2 => options, 1 => routing, 2 => fragment]
}

fn any_transport() -> impl Strategy<Value = Transport> {
    let port = || select(vec![53, 443, 2039, 2040, 2047, 2048, 2060, 2061, 4500, 4789, 65535, 0]);
    let wrong = prop_oneof![6 => Just(None), 1 => any::<u16>().prop_map(Some), 1 => (0..20_u16).prop_map(Some)];
    let udp = (port(), wrong, any_payload())
        .prop_map(|(port, wrong_length, payload)| Transport::Udp { port, wrong_length, payload });
    let tcp = port().prop_map(|port| Transport::Tcp { port });
    let esp = any_spi().prop_map(|spi| Transport::Esp { spi });
    let other = select(vec![1, 51, 58, 59]).prop_map(Transport::Other);
    prop_oneof![6 => udp, 2 => tcp, 2 => esp, 1 => other]
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let flags = prop_oneof![3 => Just(8), 1 => any::<u8>()];
    prop_oneof![
        2 => (flags, 6..9_u32).prop_map(|(flags, vni)| Payload::Vxlan { flags, vni }),
        2 => any_spi().prop_map(Payload::Spi),
        1 => vec(any::<u8>(), 0..12).prop_map(Payload::Bytes),
    ]
}

fn any_spi() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(0xd000_0001), Just(0xdfff_ffff), Just(0xe000_0000), any::<u32>()]
}
