//! The contents of verified traffic: bytes that follow from a seed and their position alone, so
//! that a receiver can check every one without having seen the sender.

/// A stream of bytes, each a function of the seed and its offset.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Writes the bytes from `offset` on.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut index = offset / 8;
        let into_word = usize::try_from(offset % 8).unwrap_or(0);
        let (head, rest) = out.split_at_mut(out.len().min((8 - into_word) % 8));
        if into_word > 0 {
            let word = self.word(index).to_le_bytes();
            head.copy_from_slice(&word[into_word..into_word + head.len()]);
            index += 1;
        }
        for chunk in rest.chunks_mut(8) {
            chunk.copy_from_slice(&self.word(index).to_le_bytes()[..chunk.len()]);
            index += 1;
        }
    }

    /// Where in `found`, which claims to be the bytes from `offset` on, the first wrong byte is.
    /// `scratch` is room for the right ones.
    pub fn mismatch(&self, offset: u64, found: &[u8], scratch: &mut Vec<u8>) -> Option<usize> {
        scratch.resize(found.len(), 0);
        self.fill(offset, scratch);
        if scratch == found {
            return None;
        }
        scratch.iter().zip(found).position(|(right, found)| right != found)
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter through a strong mix, so that
    /// any word can be had without the ones before it.
    fn word(&self, index: u64) -> u64 {
        let mut z =
            self.seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_equals_the_whole() {
        let pattern = Pattern::new(7);
        let mut whole = [0; 257];
        pattern.fill(0, &mut whole);
        for offset in 0..67 {
            for length in [0, 1, 7, 8, 9, 67] {
                let mut piece = vec![0; length];
                pattern.fill(offset as u64, &mut piece);
                assert_eq!(piece, whole[offset..offset + length], "{offset} {length}");
            }
        }
    }

    #[test]
    fn one_wrong_byte_is_found() {
        let pattern = Pattern::new(1);
        let mut bytes = [0; 67];
        pattern.fill(13, &mut bytes);
        let mut scratch = Vec::new();
        assert_eq!(pattern.mismatch(13, &bytes, &mut scratch), None);
        assert_eq!(Pattern::new(2).mismatch(13, &bytes, &mut scratch), Some(0));
        bytes[66] ^= 1;
        assert_eq!(pattern.mismatch(13, &bytes, &mut scratch), Some(66));
    }
}
