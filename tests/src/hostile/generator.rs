//! A generator of hostile frames: honest ones, spoilt in one or several ways.
#![expect(clippy::ptr_arg, reason = "spoilers share a signature, and some change the length")]

use dataplane::ids::PortId;
use dataplane::offload::Offload;
use dataplane::wire::vnet;
use zerocopy::FromBytes;

use super::stage::{PORTS, VIDS, mac};
use super::templates::{self, Template};
use super::{Random, Shot};

/// Makes shots, the same ones for the same seed.
#[derive(Debug, Clone)]
pub struct Generator {
    random: Random,
    templates: Vec<Template>,
}

/// One way of spoiling a frame.
type Spoiler = fn(&mut Random, &mut Vec<u8>);

/// What frames meet, the common ones several times.
const SPOILERS: &[Spoiler] = &[
    untouched,
    untouched,
    other_sender,
    other_sender,
    cut_short,
    cut_short,
    flip,
    flip,
    flip,
    bad_length,
    bad_length,
    bad_length,
    tag,
    fragment,
    fragment,
    padded,
    random_bytes,
];

impl Generator {
    /// A generator whose shots follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), templates: templates::all() }
    }

    /// The next shot.
    pub fn shot(&mut self) -> Shot {
        let random = &mut self.random;
        let (template, offload) = &self.templates[random.below(self.templates.len())];
        let (mut frame, offload) = (template.clone(), *offload);
        for _ in 0..1 + random.below(3) {
            random.choose(SPOILERS)(random, &mut frame);
        }
        if random.below(2_000) == 0 {
            oversize(random, &mut frame);
        }
        let header = match random.below(8) {
            0 => random_header(random),
            1 => random_request(random),
            _ => vnet::Header::from_offload(offload, &frame),
        };
        // Most come from the one whose addresses they carry.
        let port = if random.below(3) == 0 { random.below(usize::from(PORTS)) } else { 0 };
        let seconds = if random.below(1_000) == 0 { random.byte() } else { 0 };
        Shot { port: PortId(u16::try_from(port).unwrap_or(0)), seconds, header, frame }
    }
}

fn untouched(_: &mut Random, _: &mut Vec<u8>) {}

/// Another source, so that ports that learn have something to learn.
fn other_sender(random: &mut Random, frame: &mut Vec<u8>) {
    if let Some(source) = frame.get_mut(6..12) {
        source.copy_from_slice(&mac(random.byte()).0);
    }
}

fn cut_short(random: &mut Random, frame: &mut Vec<u8>) {
    let len = random.below(frame.len() + 1);
    frame.truncate(len);
}

/// Changes some bytes of the headers.
fn flip(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let reach = frame.len().min(80);
        if reach > 0 {
            frame[random.below(reach)] ^= 1 << random.below(8);
        }
    }
}

/// Writes an extreme value where lengths, offsets and types are: anywhere in the headers.
fn bad_length(random: &mut Random, frame: &mut Vec<u8>) {
    let value = random.choose(&[0, 1, 7, 8, 19, 20, 0xff, 0x100, 0x4500, 0x7fff, 0x8000, 0xffff]);
    let at = 12 + 2 * random.below(25);
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&u16::to_be_bytes(value));
    }
}

/// Nests VLAN tags, of services and of customers.
fn tag(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        if frame.len() >= 12 {
            let protocol = random.choose(&[0x8100_u16, 0x88a8]);
            let control = random.word() & 0xf000 | vid(random);
            frame.splice(12..12, [protocol, control].into_iter().flat_map(u16::to_be_bytes));
        }
    }
}

/// Any VLAN, none, or one that there is.
fn vid(random: &mut Random) -> u16 {
    match random.below(8) {
        0 => random.word() & 0xfff,
        1 | 2 => 0,
        _ => random.choose(&VIDS),
    }
}

/// Fragments of IPv4: first, later, last, and with an offset that goes beyond the largest packet.
fn fragment(random: &mut Random, frame: &mut Vec<u8>) {
    if frame.get(12..14) == Some(&[8, 0]) && frame.len() >= 34 {
        let field = random.choose(&[0x2000_u16, 0x2001, 0x0001, 0x1fff, 0x3fff, 0x8000]);
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        dataplane::wire::ipv4::fill_checksum(&mut frame[14..34]);
    }
}

fn padded(random: &mut Random, frame: &mut Vec<u8>) {
    frame.resize(frame.len() + random.below(67), 0);
}

fn random_bytes(random: &mut Random, frame: &mut Vec<u8>) {
    let len = random.below(257);
    frame.clear();
    frame.extend((0..len).map(|_| random.byte()));
}

/// Longer than anything that a slot holds.
fn oversize(random: &mut Random, frame: &mut Vec<u8>) {
    frame.resize(frame.len().max(60_000) + random.below(12_000), 7);
}

fn random_header(random: &mut Random) -> vnet::Header {
    let bytes: [u8; vnet::HEADER_LEN] = std::array::from_fn(|_| random.byte());
    vnet::Header::read_from_bytes(&bytes).unwrap_or_default()
}

/// A request of a kind that there is, with places and sizes that may not fit the frame.
fn random_request(random: &mut Random) -> vnet::Header {
    let size = random.choose(&[0, 1, 2, 7, 8, 67, 536, 1_448, 9_000, 0x7fff, 0xffff]);
    let start = random.choose(&[0, 14, 34, 38, 54, 58, 66, 0xfff0, 0xffff]);
    let offset = random.choose(&[0, 2, 6, 16, 17, 0xffff]);
    let plain = vnet::Header::from_offload(Offload::PLAIN, &[]);
    vnet::Header {
        flags: random.choose(&[0, 1, 1, 1, 2, 3]),
        gso_type: random.choose(&[0, 1, 1, 3, 4, 4, 5, 5, 0x81, 0x84]),
        gso_size: size.into(),
        csum_start: start.into(),
        csum_offset: offset.into(),
        ..plain
    }
}
