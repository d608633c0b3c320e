//! The internet checksum (RFC 1071): sums, sums while copying, updates, completion.
//!
//! A one's-complement sum does not care about byte order (RFC 1071, 2(B)): memory is summed in
//! the machine's own order, and the 16-bit result, stored in the same order, is right on the
//! wire. So a [`Sum`] is a sum of native words, and nothing is swapped.

use thiserror::Error;
use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use super::layers::{Layers, Version};
use super::{ipv4, ipv6, protocol, udp};
use crate::offload::{Checksum, Offload};

/// Bytes of one step of the summing loops: LLVM makes vector code of it.
const BLOCK: usize = 64;

/// A one's-complement sum of 16-bit words, not yet folded to 16 bits.
///
/// Kept modulo 2^64 - 1, of which 2^16 - 1 is a divisor: carries out of the top come in again at
/// the bottom.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// The sum of `bytes`, of which the first is the high byte of a word; an odd last one is the
    /// high byte of a word whose low byte is zero.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        let (blocks, tail) = bytes.as_chunks::<BLOCK>();
        let lanes = blocks.iter().fold(Lanes::default(), Lanes::with);
        lanes.sum().combine(Self::of_tail(tail))
    }

    /// The sum of one word in host order.
    #[inline(always)]
    pub const fn word(value: u16) -> Self {
        // A lossless widening; `From` is not const.
        Self(value.to_be() as u64)
    }

    /// The sum of two words, given as one number in host order.
    #[inline(always)]
    pub const fn long(value: u32) -> Self {
        // A lossless widening; `From` is not const.
        Self(value.to_be() as u64)
    }

    /// The sum of what both sums are of. Each must start at an even offset from the other.
    #[inline(always)]
    #[must_use]
    pub const fn combine(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        // No overflow: with a carry, `sum` is at most 2^64 - 2.
        Self(sum + carry as u64)
    }

    /// The sum without what `other` is of: adding the complement subtracts.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        self.combine(Self(!other.0))
    }

    /// The same bytes' part in a sum that starts `offset` bytes before them: at an odd offset,
    /// high and low bytes change places (RFC 1071, 2(B)).
    #[inline(always)]
    #[must_use]
    pub const fn at(self, offset: usize) -> Self {
        if offset % 2 == 1 { Self(self.0.rotate_left(8)) } else { self }
    }

    /// The sum in 16 bits: what a partial checksum's field holds.
    #[inline(always)]
    pub const fn fold(self) -> U16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        #[expect(clippy::cast_possible_truncation, reason = "three folds leave 16 bits")]
        let sum = sum as u16;
        U16::from_bytes(sum.to_ne_bytes())
    }

    /// The complement of the folded sum: what a complete checksum's field holds.
    #[inline(always)]
    pub const fn checksum(self) -> U16 {
        U16::new(!self.fold().get())
    }

    /// The same for UDP, where zero would mean that there is none and its other form, all ones,
    /// is sent (RFC 768).
    #[inline(always)]
    pub const fn udp_checksum(self) -> U16 {
        match self.checksum().get() {
            0 => U16::new(0xffff),
            sum => U16::new(sum),
        }
    }

    /// Whether these bytes, their checksum field among them, were left as their sender wrote them.
    #[inline(always)]
    pub const fn is_right(self) -> bool {
        self.fold().get() == 0xffff
    }

    /// The sum of less than a block.
    #[inline(always)]
    fn of_tail(tail: &[u8]) -> Self {
        let (words, rest) = tail.as_chunks::<8>();
        let (longs, rest) = rest.as_chunks::<4>();
        let (pairs, rest) = rest.as_chunks::<2>();
        let words = words.iter().map(|word| u64::from_ne_bytes(*word));
        let longs = longs.iter().map(|long| u64::from(u32::from_ne_bytes(*long)));
        let pairs = pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair)));
        let last = rest.iter().map(|byte| u64::from(u16::from_ne_bytes([*byte, 0])));
        let parts = words.chain(longs).chain(pairs).chain(last);
        parts.fold(Self::ZERO, |sum, part| sum.combine(Self(part)))
    }
}

/// The running sums of the 64-bit words of blocks, shaped for vector units, which have no carry:
/// `total` wraps around, but with `high`, the sum of the upper halves, what was lost is known.
#[derive(Clone, Copy, Default)]
struct Lanes {
    total: [u64; BLOCK / 8],
    high: [u64; BLOCK / 8],
}

impl Lanes {
    #[inline(always)]
    fn with(mut self, block: &[u8; BLOCK]) -> Self {
        let (words, _) = block.as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            let word = u64::from_ne_bytes(*word);
            self.total[index] = self.total[index].wrapping_add(word);
            self.high[index] += word >> 32;
        }
        self
    }

    /// The sums of lower and upper halves, neither of which overflows before 2^29 blocks.
    #[inline(always)]
    fn sum(self) -> Sum {
        let (mut low, mut high) = (0u64, 0u64);
        for (total, upper) in self.total.into_iter().zip(self.high) {
            low = low.wrapping_add(total.wrapping_sub(upper << 32));
            high = high.wrapping_add(upper);
        }
        // A sum of upper halves is as good as one of lower halves: 2^32 is 1 modulo 2^16 - 1.
        Sum(low).combine(Sum(high))
    }
}

/// Copies as many bytes as both slices have, and sums them on the way.
#[inline]
pub fn copy_and_sum(source: &[u8], target: &mut [u8]) -> Sum {
    let length = source.len().min(target.len());
    let (from, from_tail) = source[..length].as_chunks::<BLOCK>();
    let (to, to_tail) = target[..length].as_chunks_mut::<BLOCK>();
    let mut lanes = Lanes::default();
    for (to, from) in to.iter_mut().zip(from) {
        // By value, so that memory is read once: behind a store, it would be read again.
        let block = *from;
        lanes = lanes.with(&block);
        *to = block;
    }
    to_tail.copy_from_slice(from_tail);
    lanes.sum().combine(Sum::of_tail(from_tail))
}

/// The sum of the pseudo-header of IPv4 (RFC 9293, 3.1), `length` being that of layer 4 in bytes.
#[inline]
pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, length: u16) -> Sum {
    Sum::long(u32::from_be_bytes(source))
        .combine(Sum::long(u32::from_be_bytes(destination)))
        .combine(Sum::word(u16::from(protocol)))
        .combine(Sum::word(length))
}

/// The sum of the pseudo-header of IPv6 (RFC 8200, 8.1), `length` being that of layer 4 in bytes.
#[inline]
pub fn pseudo_v6(source: &[u8; 16], destination: &[u8; 16], protocol: u8, length: u32) -> Sum {
    Sum::of(source)
        .combine(Sum::of(destination))
        .combine(Sum::long(u32::from(protocol)))
        .combine(Sum::long(length))
}

/// The sum of the pseudo-header of the packet that `layers` found in `frame`, for `length` bytes
/// of layer 4.
#[inline]
pub(super) fn pseudo(frame: &[u8], layers: &Layers, length: u16) -> Sum {
    let packet = frame.get(layers.l3..).unwrap_or_default();
    let sum = match layers.version {
        Version::V4 => ipv4::Header::ref_from_prefix(packet).ok().map(|(ip, _)| {
            pseudo_v4(ip.source_address, ip.destination_address, layers.protocol, length)
        }),
        Version::V6 => ipv6::Header::ref_from_prefix(packet).ok().map(|(ip, _)| {
            let length = u32::from(length);
            pseudo_v6(&ip.source_address, &ip.destination_address, layers.protocol, length)
        }),
    };
    // Layers lie within their frame.
    sum.unwrap_or_default()
}

/// A complete checksum after summed bytes changed from `old` to `new` (RFC 1624, 3):
///
/// ```text
///   HC  = ~C                  the field is the complement of the sum
///   C'  = C + (-m) + m'       old word out, new word in
///       = C + ~m + m'         one's complement: -m is ~m
///   HC' = ~C'
///       = ~(C + ~m + m')
///       = ~(~HC + ~m + m')    equation 3, right also when the result is zero
/// ```
#[inline(always)]
pub fn update(checksum: U16, old: Sum, new: Sum) -> U16 {
    Sum::word(!checksum.get()).without(old).combine(new).checksum()
}

/// A partial checksum, a sum that is not complemented, after the pseudo-header changed from `old`
/// to `new`.
#[inline(always)]
pub fn update_partial(sum: U16, old: Sum, new: Sum) -> U16 {
    Sum::word(sum.get()).without(old).combine(new).fold()
}

/// A partial checksum whose offsets point out of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("checksum at {start} + {offset} does not fit in a frame of {length} bytes")]
pub struct OutOfFrame {
    /// Where the sum was to start, in bytes from the frame's first.
    pub start: u16,
    /// Where the field was to be, in bytes from `start`.
    pub offset: u16,
    /// The frame, in bytes.
    pub length: usize,
}

/// Folds what is to be summed into a partial checksum, which is [`Checksum::Verified`] then; does
/// nothing to another.
///
/// # Errors
/// If the offsets point out of the frame, which is left as it was.
#[inline]
pub fn complete(frame: &mut [u8], offload: &mut Offload) -> Result<(), OutOfFrame> {
    if offload.checksum != Checksum::Partial {
        return Ok(());
    }
    let Offload { csum_start: start, csum_offset: offset, .. } = *offload;
    let length = frame.len();
    let summed = frame.get_mut(usize::from(start)..).unwrap_or_default();
    let sum = Sum::of(summed);
    let field = summed
        .get_mut(usize::from(offset)..)
        .and_then(|rest| rest.first_chunk_mut())
        .ok_or(OutOfFrame { start, offset, length })?;
    let checksum = if offset == udp::CHECKSUM_OFFSET { sum.udp_checksum() } else { sum.checksum() };
    *field = checksum.to_bytes();
    (offload.csum_start, offload.csum_offset) = (0, 0);
    offload.checksum = Checksum::Verified;
    Ok(())
}

/// Whether the layer 4 checksum of an unfragmented packet is right: of TCP, UDP, ICMP or ICMPv6.
///
/// A UDP datagram over IPv4 without a checksum is right. What has no checksum that we know is not.
#[inline]
pub fn verify(frame: &[u8], layers: &Layers) -> bool {
    let Some(layer4) = frame.get(layers.l4..layers.end) else { return false };
    let Ok(length) = u16::try_from(layer4.len()) else { return false };
    match (layers.protocol, layers.version) {
        _ if layers.fragment => false,
        (protocol::UDP, version) => verify_udp(frame, layers, layer4, version),
        (protocol::ICMP, Version::V4) => Sum::of(layer4).is_right(),
        (protocol::TCP, _) | (protocol::ICMPV6, Version::V6) => {
            pseudo(frame, layers, length).combine(Sum::of(layer4)).is_right()
        }
        _ => false,
    }
}

/// UDP has a length of its own, which may be less than IP's.
#[inline]
fn verify_udp(frame: &[u8], layers: &Layers, layer4: &[u8], version: Version) -> bool {
    let Ok((header, _)) = udp::Header::ref_from_prefix(layer4) else { return false };
    if header.checksum.get() == 0 {
        return version == Version::V4;
    }
    let length = header.length.get();
    match layer4.get(..usize::from(length)) {
        Some(datagram) if datagram.len() >= udp::HEADER_LEN => {
            pseudo(frame, layers, length).combine(Sum::of(datagram)).is_right()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, 1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.fold().get(), sum.checksum().get()), (0xddf2, !0xddf2));
    }

    #[test]
    fn carries_are_never_lost() {
        for length in [63, 64, 65, 67, 257, 65_535, 1 << 20] {
            let ones = vec![0xff; length];
            assert_eq!(Sum::of(&ones).fold().get(), naive(&ones), "{length} bytes");
        }
        assert_eq!(Sum::ZERO.fold().get(), 0);
        assert_eq!(Sum(u64::MAX).combine(Sum(u64::MAX)).fold().get(), 0xffff);
    }

    #[test]
    fn udp_never_sends_zero() {
        let sum = Sum::word(0xffff);
        assert_eq!((sum.checksum().get(), sum.udp_checksum().get()), (0, 0xffff));
        assert_eq!(Sum::word(1).udp_checksum().get(), 0xfffe);
    }

    #[test]
    fn a_checksum_outside_the_frame_is_refused() {
        let mut frame = [7; 60];
        for (start, offset) in [(0, 59), (59, 0), (60, 0), (61, 0), (34, 25), (u16::MAX, u16::MAX)]
        {
            let before = Offload {
                checksum: Checksum::Partial,
                csum_start: start,
                csum_offset: offset,
                ..Offload::PLAIN
            };
            let mut offload = before;
            let refused = OutOfFrame { start, offset, length: 60 };
            assert_eq!(complete(&mut frame, &mut offload), Err(refused));
            assert_eq!((frame, offload), ([7; 60], before));
        }
    }

    /// A frame of another stack, with a right checksum of layer 4.
    fn frame(v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip =
            if v6 { ethernet.ipv6([1; 16], [2; 16], 9) } else { ethernet.ipv4([1; 4], [2; 4], 9) };
        let mut bytes = Vec::new();
        match protocol {
            protocol::TCP => ip.tcp(1, 2, 3, 4).write(&mut bytes, payload),
            protocol::UDP => ip.udp(1, 2).write(&mut bytes, payload),
            protocol::ICMP => ip.icmpv4_echo_request(1, 2).write(&mut bytes, payload),
            _ => ip.icmpv6_echo_request(1, 2).write(&mut bytes, payload),
        }
        .unwrap();
        bytes
    }

    #[test]
    fn a_udp_checksum_completes_to_all_ones_instead_of_zero() {
        // A header whose sum is 0xffff with this seed in its checksum field.
        let mut datagram = [0, 1, 0, 2, 0, 8, 0xff, 0xf4];
        let partial =
            |csum_offset| Offload { checksum: Checksum::Partial, csum_offset, ..Offload::PLAIN };
        complete(&mut datagram, &mut partial(6)).unwrap();
        assert_eq!(datagram[6..], [0xff, 0xff]);
        let mut message = [0xff, 0xf4, 0, 1, 0, 2, 0, 8];
        complete(&mut message, &mut partial(0)).unwrap();
        assert_eq!(message[..2], [0, 0], "another protocol keeps its zero");
    }

    #[test]
    fn only_ipv4_may_lack_a_udp_checksum() {
        for v6 in [false, true] {
            let mut frame = frame(v6, protocol::UDP, b"odd");
            let layers = Layers::of(&frame).unwrap();
            frame[layers.l4 + 6..layers.l4 + 8].fill(0);
            assert_eq!(verify(&frame, &layers), !v6);
        }
    }

    #[test]
    fn a_fragment_is_not_verified() {
        let frame = frame(false, protocol::TCP, b"odd");
        let layers = Layers::of(&frame).unwrap();
        assert!(verify(&frame, &layers) && !verify(&frame, &Layers { fragment: true, ..layers }));
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let kinds = prop_oneof![
            Just((false, protocol::TCP)),
            Just((true, protocol::TCP)),
            Just((false, protocol::UDP)),
            Just((true, protocol::UDP)),
            Just((false, protocol::ICMP)),
            Just((true, protocol::ICMPV6)),
        ];
        let payload = prop::collection::vec(any::<u8>(), 0..1500);
        (kinds, payload).prop_map(|((v6, protocol), payload)| frame(v6, protocol, &payload))
    }

    proptest! {
        #[test]
        fn sums_equal_the_naive_one(bytes in prop::collection::vec(any::<u8>(), 0..600), start in 0usize..9) {
            let bytes = &bytes[start.min(bytes.len())..];
            prop_assert_eq!(Sum::of(bytes).fold().get(), naive(bytes));
            let mut copy = vec![0; bytes.len()];
            prop_assert_eq!(copy_and_sum(bytes, &mut copy).fold().get(), naive(bytes));
            prop_assert_eq!(copy, bytes);
        }

        #[test]
        fn parts_combine_at_any_offset(
            bytes in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(),
        ) {
            let (left, right) = bytes.split_at(at.index(bytes.len()));
            let whole = Sum::of(left).combine(Sum::of(right).at(left.len()));
            prop_assert_eq!(whole.fold().get(), naive(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(
            mut bytes in prop::collection::vec(any::<u8>(), 2..100), word in any::<u16>(),
        ) {
            let (old, before) = (u16::from_be_bytes([bytes[0], bytes[1]]), Sum::of(&bytes));
            bytes[..2].copy_from_slice(&word.to_be_bytes());
            // All zeroes have two representations, which a real header never is.
            prop_assume!(bytes.iter().any(|byte| *byte != 0) && before.fold().get() != 0);
            let (old, new) = (Sum::word(old), Sum::word(word));
            prop_assert_eq!(update(before.checksum(), old, new), Sum::of(&bytes).checksum());
            prop_assert_eq!(update_partial(before.fold(), old, new), Sum::of(&bytes).fold());
        }

        #[test]
        fn other_stacks_frames_verify_until_a_bit_flips(
            mut frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0u32..8,
        ) {
            let layers = Layers::of(&frame).unwrap();
            prop_assert!(verify(&frame, &layers));
            let at = layers.l4 + at.index(layers.end - layers.l4);
            frame[at] ^= 1 << bit;
            let none = layers.protocol == protocol::UDP && frame[layers.l4 + 6..][..2] == [0, 0];
            let cut = layers.protocol == protocol::UDP && (layers.l4 + 4..layers.l4 + 6).contains(&at);
            prop_assert!(none || cut || !verify(&frame, &layers));
        }

        #[test]
        fn completion_equals_other_stacks(frame in any_frame()) {
            let layers = Layers::of(&frame).unwrap();
            let (csum_offset, seed) = match layers.protocol {
                protocol::TCP => (16, true),
                protocol::UDP => (6, true),
                protocol::ICMP => (2, false),
                _ => (2, true),
            };
            let length = u16::try_from(layers.end - layers.l4).unwrap();
            let seed = if seed { pseudo(&frame, &layers, length) } else { Sum::ZERO };
            let field = layers.l4 + csum_offset;
            let mut partial = frame.clone();
            partial[field..field + 2].copy_from_slice(&seed.fold().to_bytes());
            let mut offload = Offload {
                checksum: Checksum::Partial,
                csum_start: u16::try_from(layers.l4).unwrap(),
                csum_offset: u16::try_from(csum_offset).unwrap(),
                ..Offload::PLAIN
            };
            complete(&mut partial, &mut offload).unwrap();
            prop_assert_eq!(&partial, &frame);
            prop_assert_eq!(offload, Offload { checksum: Checksum::Verified, ..Offload::PLAIN });
        }
    }
}
