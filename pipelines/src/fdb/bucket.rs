//! One line as four slots: the words, what they mean, and the locks beside them.

use dataplane::ids::PortId;
use dataplane::shared::Line;
use dataplane::sync::{AtomicU64, Ordering};
use dataplane::time::Tick;

use super::{Entry, Key, PortGeneration, Row};

/// Slots per line: the keys are its first words, the values follow. Fewer under loom, so that
/// buckets fill and slots are used again within few steps.
pub(super) const WAYS: usize = if cfg!(loom) { 2 } else { 4 };

/// The key word of a slot that was never used.
pub(super) const EMPTY: u64 = 0;
/// The key word of a slot that was used and is free again, in a bucket that has been full.
/// Like [`RETIRED`] no [`Key`], since those have a segment.
pub(super) const FREED: u64 = 1;
/// The key word of a slot that waits for its grace period.
pub(super) const RETIRED: u64 = 2;

/// A value word: port (16 bits), generation (16), tick (32); zero is dead. No other value is
/// zero, since generations are not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Value(u64);

impl Value {
    pub(super) const DEAD: Self = Self(0);

    #[inline(always)]
    pub(super) fn new(at: Entry, seen: Tick) -> Self {
        let generation = u64::from(at.generation.number());
        Self(u64::from(at.port.0) << 48 | generation << 32 | u64::from(seen.0))
    }

    #[inline(always)]
    pub(super) fn is_alive(self) -> bool {
        self != Self::DEAD
    }

    #[inline(always)]
    pub(super) fn port(self) -> PortId {
        PortId(self.field(48))
    }

    /// `None` if dead.
    #[inline(always)]
    pub(super) fn entry(self) -> Option<Entry> {
        let generation = PortGeneration::new(self.field(32))?;
        Some(Entry { port: self.port(), generation })
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the tick is the lower half")]
    pub(super) fn seen(self) -> Tick {
        Tick(self.0 as u32)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a field has 16 bits")]
    fn field(self, shift: u32) -> u16 {
        (self.0 >> shift) as u16
    }
}

/// The two words of one slot.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    key: &'a AtomicU64,
    value: &'a AtomicU64,
}

impl<'a> Slot<'a> {
    #[inline(always)]
    pub(super) fn at(line: &'a Line, way: usize) -> Self {
        Self { key: &line.0[way % WAYS], value: &line.0[WAYS + way % WAYS] }
    }

    /// Relaxed: the key was loaded before, and that load acquired.
    #[inline(always)]
    pub(super) fn value(self) -> Value {
        Value(self.value.load(Ordering::Relaxed))
    }

    /// Stores `next` if the value still is `known`.
    pub(super) fn replace(self, known: Value, next: Value) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        self.value.compare_exchange(known.0, next.0, success, failure).is_ok()
    }

    /// Fills a free slot, or one that has this key and is dead; under the bucket's lock.
    pub(super) fn fill(self, key: Key, value: Value) {
        // The value first: who finds the key shall find it learned.
        self.value.store(value.0, Ordering::Relaxed);
        self.key.store(key.0, Ordering::Release);
    }

    /// The key, if it is one.
    pub(super) fn key(self) -> Option<Key> {
        let word = self.key.load(Ordering::Acquire);
        (word > RETIRED).then_some(Key(word))
    }

    /// The entry, if it is alive.
    pub(super) fn row(self) -> Option<Row> {
        let (key, value) = (self.key()?, self.value());
        Some(Row { key, entry: value.entry()?, seen: value.seen() })
    }

    /// Takes the key away from a dead slot; under the bucket's lock, so that nobody revives it.
    pub(super) fn retire(self) {
        self.key.store(RETIRED, Ordering::Release);
    }

    /// Lets the slot be used again; `word` is [`EMPTY`] or [`FREED`].
    pub(super) fn free(self, word: u64) {
        self.key.store(word, Ordering::Release);
    }
}

/// The slots of a line.
pub(super) fn slots(line: &Line) -> impl Iterator<Item = Slot<'_>> {
    (0..WAYS).map(|way| Slot::at(line, way))
}

/// The slot that has `key`. In a table with as many lines as keys, four of five keys are in the
/// first slot, so that is asked first. The others are compared without branches: which of them
/// it is can't be predicted, that there is one can.
#[inline(always)]
pub(super) fn find(line: &Line, key: Key) -> Option<Slot<'_>> {
    if line.0[0].load(Ordering::Acquire) == key.0 {
        return Some(Slot::at(line, 0));
    }
    let mut matches = 0u32;
    for way in 1..WAYS {
        matches |= u32::from(line.0[way].load(Ordering::Acquire) == key.0) << way;
    }
    (matches != 0).then(|| Slot::at(line, matches.trailing_zeros() as usize))
}

/// Whether the line has ever been full, so that its keys may lie in their secondary buckets.
#[inline(always)]
pub(super) fn was_full(line: &Line) -> bool {
    line.0[..WAYS].iter().all(|key| key.load(Ordering::Relaxed) != EMPTY)
}

/// A free slot of the line; those that were used before come first, so that as many lines as
/// possible have never been full.
pub(super) fn free(line: &Line) -> Option<Slot<'_>> {
    let with = |word| slots(line).find(|slot| slot.key.load(Ordering::Acquire) == word);
    with(FREED).or_else(|| with(EMPTY))
}

/// A lock bit per bucket.
pub(super) struct Locks(Box<[AtomicU64]>);

impl Locks {
    pub(super) fn new(buckets: usize) -> Self {
        Self((0..buckets.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Locks a bucket, unless somebody else has it.
    pub(super) fn try_one(&self, bucket: usize) -> Option<Locked<'_>> {
        let word = &self.0[bucket / 64];
        let bit = 1 << (bucket % 64);
        (word.fetch_or(bit, Ordering::Acquire) & bit == 0).then(|| Locked { word, bit })
    }

    /// Locks two buckets, which may be the same.
    pub(super) fn try_both(&self, first: usize, second: usize) -> Option<[Option<Locked<'_>>; 2]> {
        let one = self.try_one(first)?;
        if first == second {
            return Some([Some(one), None]);
        }
        Some([Some(one), Some(self.try_one(second)?)])
    }
}

/// A bucket's lock, given back when dropped.
pub(super) struct Locked<'a> {
    word: &'a AtomicU64,
    bit: u64,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.word.fetch_and(!self.bit, Ordering::Release);
    }
}
