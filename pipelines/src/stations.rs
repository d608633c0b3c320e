//! The configured stations: MAC address of an endpoint to its port, part of the tables' snapshot.

use dataplane::cpu::prefetch_read;
use dataplane::ids::PortId;

use crate::fdb::Key;
use crate::pages::Pages;

/// A hash table over shared pages: small changes copy small parts. A bucket is a row, one cache
/// line, filled from the front; when one overflows, the table doubles.
#[derive(Debug, Clone)]
pub struct Stations {
    buckets: Pages<Bucket>,
    /// There are two to this power of them, at least two.
    bits: u32,
    seed: u64,
    len: usize,
}

/// Stations whose hashes agree in their upper bits. A key of zero, which no station has, is a
/// free place; no free place is followed by a taken one.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket {
    keys: [u64; WAYS],
    ports: [PortId; WAYS],
}

/// As many as a cache line holds.
const WAYS: usize = 6;
const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// The place of `word`, be it zero for the first free one.
    #[inline(always)]
    fn place(&self, word: u64) -> Option<usize> {
        self.keys.iter().position(|&key| key == word)
    }

    fn stations(&self) -> impl Iterator<Item = (u64, PortId)> {
        self.keys.into_iter().zip(self.ports).take_while(|&(key, _)| key != 0)
    }
}

impl Stations {
    /// An empty table. The seed is to be random: whoever may name MAC addresses must not be able
    /// to choose ones that share a bucket.
    pub fn new(seed: u64) -> Self {
        Self { buckets: Pages::default(), bits: 1, seed: seed | 1, len: 0 }
    }

    /// How many stations there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Brings the bucket of `key` into the cache.
    #[inline(always)]
    pub fn prefetch(&self, key: Key) {
        if !self.is_empty()
            && let Some(bucket) = self.buckets.row(self.bucket(key))
        {
            prefetch_read(bucket);
        }
    }

    /// The port of a station.
    #[inline(always)]
    pub fn find(&self, key: Key) -> Option<PortId> {
        if self.is_empty() {
            return None;
        }
        let bucket = self.buckets.row(self.bucket(key))?;
        bucket.place(key.word()).map(|place| bucket.ports[place])
    }

    /// Adds a station, or changes its port.
    pub fn insert(&mut self, key: Key, port: PortId) {
        while !self.put(key, port) {
            self.grow();
        }
    }

    /// Removes a station; answers its port.
    pub fn remove(&mut self, key: Key) -> Option<PortId> {
        let port = self.find(key)?;
        let index = self.bucket(key);
        let bucket = self.buckets.row_mut(index);
        let mut kept = Bucket::default();
        let others = bucket.stations().filter(|&(word, _)| word != key.word());
        for (place, (word, port)) in others.enumerate() {
            (kept.keys[place], kept.ports[place]) = (word, port);
        }
        *bucket = kept;
        self.len -= 1;
        Some(port)
    }

    /// All stations, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, PortId)> {
        let stations = self.buckets.iter().flat_map(Bucket::stations);
        stations.filter_map(|(word, port)| Some((Key::from_word(word)?, port)))
    }

    /// Puts a station into its bucket; false when that is full.
    fn put(&mut self, key: Key, port: PortId) -> bool {
        let index = self.bucket(key);
        let bucket = self.buckets.row_mut(index);
        let known = bucket.place(key.word());
        let Some(place) = known.or_else(|| bucket.place(0)) else { return false };
        (bucket.keys[place], bucket.ports[place]) = (key.word(), port);
        self.len += usize::from(known.is_none());
        true
    }

    fn grow(&mut self) {
        let old: Vec<_> = self.iter().collect();
        let mut bits = self.bits + 1;
        'larger: loop {
            let mut larger = Self { bits, ..Self::new(self.seed) };
            for &(key, port) in &old {
                if !larger.put(key, port) {
                    bits += 1;
                    continue 'larger;
                }
            }
            *self = larger;
            return;
        }
    }

    /// Multiplication by an odd constant mixes upwards, so the bucket is in the upper bits.
    #[inline(always)]
    fn bucket(&self, key: Key) -> usize {
        let mixed = (key.word() ^ key.word() >> 32).wrapping_mul(self.seed);
        #[expect(clippy::cast_possible_truncation, reason = "at most `bits` bits are left")]
        let bucket = (mixed >> (64 - self.bits)) as usize;
        bucket
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use dataplane::ids::{MacAddr, SegmentId};
    use proptest::prelude::*;

    use super::*;

    fn key(segment: u16, station: u64) -> Key {
        Key::new(SegmentId(segment), MacAddr::from_u64(0x0242_0a00_0000 + station)).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec((1u16..4, 0u64..257, any::<bool>(), 0u16..9), 0..1000)
        ) {
            let mut stations = Stations::new(0x1234_5678_9abc_def1);
            let mut model = HashMap::new();
            for (segment, station, insert, port) in steps {
                let key = key(segment, station);
                if insert {
                    stations.insert(key, PortId(port));
                    model.insert(key, PortId(port));
                } else {
                    prop_assert_eq!(stations.remove(key), model.remove(&key));
                }
            }
            prop_assert_eq!(stations.len(), model.len());
            prop_assert_eq!(stations.iter().count(), model.len());
            for segment in 1..4 {
                for station in 0..257 {
                    let key = key(segment, station);
                    prop_assert_eq!(stations.find(key), model.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn a_hundred_thousand_stations_stay_compact() {
        let mut stations = Stations::new(0x9e37_79b9_7f4a_7c15);
        (0..100_000).for_each(|station| stations.insert(key(7, station), PortId(3)));
        assert_eq!(stations.len(), 100_000);
        assert!(stations.bits <= 17, "{} bits", stations.bits);
        let mut changed = stations.clone();
        changed.insert(key(7, 100_001), PortId(4));
        assert_eq!(stations.find(key(7, 100_001)), None);
        assert_eq!(changed.find(key(7, 100_001)), Some(PortId(4)));
    }
}
