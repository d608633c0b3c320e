//! The learned forwarding database: behind which local port a MAC address was last heard,
//! shared by all workers (IEEE 802.1Q-2018, 8.8). Addresses of configured endpoints and of
//! other hosts are not in here; they come from control.
//!
//! A bucket is one cache line of four slots, a slot a key word (segment and MAC) and a value word
//! (port, its generation, tick). A key lies in its primary bucket, or, inserted while that was
//! full, in its secondary one. Both follow from a hash with a random seed, since strangers choose
//! the keys. The common case of a lookup and of hearing a known address again is a key and a value
//! loaded from one line, and no store.
//!
//! # Who writes, who reads, when a slot is free again
//!
//! | word | writer | readers |
//! |---|---|---|
//! | value, alive to alive or dead | any worker and control, by compare-and-swap on the value seen | all workers |
//! | value, dead or free to alive | a worker that holds both locks | all workers |
//! | key, free to a key | a worker that holds both locks | all workers |
//! | key, to *retired* | control, under the slot's lock, if dead | all workers |
//! | key, *retired* to *free* | control, after a grace period | workers that insert |
//! | counts per port | whoever changed the value word, by an atomic add | workers that insert |
//!
//! There is a lock per bucket; inserting takes those of both of the key's buckets. They are
//! only tried: who fails learns next time. They and the counts lie outside the shared lines,
//! so that no lock outlives its process.
//!
//! A removed entry passes through three states. *Dead*: the value is zero, lookups miss, and
//! hearing the address again revives it in place. *Retired*: the key is gone too, but the
//! value stays zero, because a worker that matched the key may be about to load it.
//! *Free*: every worker has been between two batches since, so none remembers the key.
//!
//! Lines that must not swap:
//!
//! - Retirement stores the key before the grace period begins, and the slot is freed only after
//!   it ([`Sweeper`]). Otherwise a worker that matched the old key loads the value of the next
//!   one: a frame to the wrong port, perhaps of another network.
//! - A bucket without a slot that was never used doesn't get one again. Otherwise lookups stop
//!   at a primary bucket while the key lies in the secondary one, and the same key is inserted
//!   twice.
//!
//! Insertion stores the value before the key, but there nothing worse than a miss depends on
//! it: until then the value is zero, and every worker has seen that since the grace period.
//!
//! # What strangers can do
//!
//! The table never grows. A port has at most the limit that its network gives. When both
//! buckets of a new key are full, the entry of the port with most entries gives way, and only
//! to a port with fewer: a port that floods evicts nobody but itself.

use std::num::NonZeroU16;

use dataplane::cpu::prefetch_read;
use dataplane::ids::{GROUP_BIT, MacAddr, PortId, SegmentId};
use dataplane::shared::{Layout, Line, SharedLines};
use dataplane::sync::{AtomicU32, Ordering};
use dataplane::time::Tick;
use thiserror::Error;

mod bucket;
mod sweep;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use bucket::{Locks, Slot, Value};
pub use sweep::{Retired, Sweeper};

/// What [`SharedLines`] under a table are created with.
pub const LAYOUT: Layout = Layout { name: *b"heddlFDB", version: 1 };

/// The number of lines for `capacity` entries, 40 bytes each: two and a half slots per entry, so
/// that a full complement finds 0.1 % of its addresses with both buckets full and 2 % in their
/// secondary bucket.
pub const fn lines_for(capacity: u32) -> usize {
    (capacity as usize * 5).div_ceil(2 * bucket::WAYS) + 1
}

/// A MAC address within a segment, as looked up and learned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Key(u64);

impl Key {
    /// The key of a station's address; `None` for group addresses and outside any segment,
    /// which are never learned.
    #[inline(always)]
    pub const fn new(segment: SegmentId, mac: MacAddr) -> Option<Self> {
        Self::of_word(segment, mac.to_u64())
    }

    /// The key of the address in the low 48 bits of `mac` (see [`MacAddr::to_u64`]), whose other
    /// bits are zero; `None` as with [`Key::new`].
    #[inline(always)]
    pub const fn of_word(segment: SegmentId, mac: u64) -> Option<Self> {
        if mac & GROUP_BIT != 0 || segment.0 == SegmentId::NONE.0 {
            return None;
        }
        Some(Self((segment.0 as u64) << 48 | mac))
    }

    /// The key as one word, never zero: the segment above the 48 bits of the address.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The inverse of [`Key::word`], `None` for a word that is no key.
    pub const fn from_word(word: u64) -> Option<Self> {
        let segment = SegmentId((word >> 48) as u16);
        Self::new(segment, MacAddr::from_u64(word))
    }

    /// The segment in which the address was heard.
    pub const fn segment(self) -> SegmentId {
        SegmentId((self.0 >> 48) as u16)
    }

    /// The address.
    pub const fn mac(self) -> MacAddr {
        MacAddr::from_u64(self.0)
    }
}

/// How often a port number has been used, so that what was learned for its earlier owner is
/// recognised as outdated. Counts from one; zero is skipped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct PortGeneration(NonZeroU16);

impl PortGeneration {
    /// The first use of a port number.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// A generation from its number, `None` for zero.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, never zero.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0.get()
    }

    /// The next use of the port number. Generations wrap after 65,535 uses, of which each waits
    /// for a sweep of the table.
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(number) => Self(number),
            None => Self::FIRST,
        }
    }
}

/// Behind which port an address was heard. If that port has another generation by now, the
/// entry is outdated: treat it as absent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// The port.
    pub port: PortId,
    /// The port's generation at that time.
    pub generation: PortGeneration,
}

/// One learned address, for people and for [`Sweeper::sweep`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Segment and address.
    pub key: Key,
    /// Where it was heard.
    pub entry: Entry,
    /// When it was last heard, to the second.
    pub seen: Tick,
}

/// What became of an address that was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "every outcome but `Known` is to be counted"]
pub enum Learned {
    /// It was known here, in this tick: nothing was stored.
    Known,
    /// It was known here, earlier.
    Refreshed,
    /// It was inserted.
    New,
    /// It was known behind the port `from`.
    Moved {
        /// The port where it was.
        from: PortId,
    },
    /// There was no room; an entry of the port `from` gives way, and a later frame finds room.
    Evicted {
        /// The port that lost an entry.
        from: PortId,
    },
    /// Another worker is changing the same entry or bucket: learn from the next frame.
    Busy,
    /// The port has as many entries as it may have.
    Refused,
    /// There is no room, and no port with clearly more entries than this one to take it from.
    Full,
}

/// Lines that can't hold a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a learned FDB of {lines} lines: from 1 to {MAX_LINES} are possible")]
pub struct BadSize {
    /// How many lines there were.
    pub lines: usize,
}

/// So that slots can be numbered in 32 bits.
const MAX_LINES: usize = 1 << 28;

/// The table. One per process; all workers and control share it.
pub struct Table {
    lines: SharedLines,
    seed: [u64; 2],
    locks: Locks,
    counts: Box<[AtomicU32]>,
}

impl Table {
    /// An empty table over zeroed `lines` ([`lines_for`]), for port numbers below `ports`. The
    /// seed must be random, or strangers can choose addresses that share a bucket; it is kept
    /// in the lines' notes.
    ///
    /// # Errors
    ///
    /// [`BadSize`] for no lines at all or more than 2^28.
    pub fn new(lines: SharedLines, ports: usize, seed: [u64; 2]) -> Result<Self, BadSize> {
        if lines.is_empty() || lines.len() > MAX_LINES {
            return Err(BadSize { lines: lines.len() });
        }
        let seed = [seed[0], seed[1] | 1];
        for (note, word) in lines.notes().0.iter().zip(seed) {
            note.store(word, Ordering::Relaxed);
        }
        let locks = Locks::new(lines.len());
        let counts = (0..ports).map(|_| AtomicU32::new(0)).collect();
        Ok(Self { lines, seed, locks, counts })
    }

    /// Brings the line on its way that a lookup of `key` will read first.
    #[inline(always)]
    pub fn prefetch(&self, key: Key) {
        prefetch_read(self.primary(key));
    }

    /// Where `key` was heard in the last `ageing` seconds. The caller compares the entry's
    /// generation with the port's.
    #[inline(always)]
    pub fn lookup(&self, key: Key, now: Tick, ageing: u32) -> Option<Entry> {
        let value = self.find(key)?.value();
        if value.seen().age(now) > ageing { None } else { value.entry() }
    }

    /// Hears `key` at `at`, whose port may have `limit` entries.
    #[inline(always)]
    pub fn learn(&self, key: Key, at: Entry, now: Tick, limit: u32) -> Learned {
        let heard = Value::new(at, now);
        match self.find(key) {
            Some(slot) if slot.value() == heard => Learned::Known,
            found => self.change(found, key, heard, limit),
        }
    }

    /// Every entry, in no order, including those that are outdated but not yet removed.
    pub fn iter(&self) -> impl Iterator<Item = Row> {
        self.lines.iter().flat_map(bucket::slots).filter_map(Slot::row)
    }

    /// The number of entries of one port, including outdated ones.
    pub fn port_len(&self, port: PortId) -> u32 {
        self.counts.get(port.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The number of entries, including outdated ones.
    pub fn len(&self) -> usize {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed) as usize).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of slots, which bounds the number of entries.
    pub fn slots(&self) -> usize {
        self.lines.len() * bucket::WAYS
    }
}

/// Where keys lie.
impl Table {
    #[inline(always)]
    fn find(&self, key: Key) -> Option<Slot<'_>> {
        let hash = self.hash(key);
        let primary = &self.lines[self.primary_index(hash)];
        match bucket::find(primary, key) {
            None if bucket::was_full(primary) => {
                bucket::find(&self.lines[self.secondary_index(hash)], key)
            }
            found => found,
        }
    }

    #[inline(always)]
    fn primary(&self, key: Key) -> &Line {
        &self.lines[self.primary_index(self.hash(key))]
    }

    /// A folded multiplication by a secret odd number: upper and lower half both depend on all
    /// bits of the key.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the product are folded")]
    fn hash(&self, key: Key) -> u64 {
        let product = u128::from(key.0 ^ self.seed[0]) * u128::from(self.seed[1]);
        product as u64 ^ (product >> 64) as u64
    }

    #[inline(always)]
    fn primary_index(&self, hash: u64) -> usize {
        self.scale(hash >> 32)
    }

    #[inline(always)]
    fn secondary_index(&self, hash: u64) -> usize {
        self.scale(hash & 0xffff_ffff)
    }

    /// Maps 32 bits evenly onto the lines, of which there are at most 2^28: the result is below
    /// their number.
    #[inline(always)]
    fn scale(&self, bits: u64) -> usize {
        ((bits * self.lines.len() as u64) >> 32) as usize
    }
}

/// The rare cases of [`Table::learn`].
impl Table {
    #[cold]
    fn change(&self, found: Option<Slot<'_>>, key: Key, heard: Value, limit: u32) -> Learned {
        // One load: between two, the value may die.
        let known = found.map(|slot| (slot, slot.value()));
        match known {
            Some((slot, value)) if value.is_alive() => self.renew(slot, value, heard, limit),
            _ if self.port_len(heard.port()) >= limit => Learned::Refused,
            _ => self.insert(key, heard, limit),
        }
    }

    /// Replaces a value that is alive, unless somebody else replaces it first.
    fn renew(&self, slot: Slot<'_>, known: Value, heard: Value, limit: u32) -> Learned {
        let (from, to) = (known.port(), heard.port());
        if known.entry() == heard.entry() && known.seen().age(heard.seen()) == 0 {
            return Learned::Known;
        }
        if from == to {
            return if slot.replace(known, heard) { Learned::Refreshed } else { Learned::Busy };
        }
        if !self.count_in(to, limit) {
            return Learned::Refused;
        }
        if !slot.replace(known, heard) {
            self.count_out(to);
            return Learned::Busy;
        }
        self.count_out(from);
        Learned::Moved { from }
    }

    /// Makes an entry, or revives a dead one, under the locks of both buckets: whoever inserts
    /// the same key needs the same locks, and so does who retires it.
    fn insert(&self, key: Key, heard: Value, limit: u32) -> Learned {
        let hash = self.hash(key);
        let (first, second) = (self.primary_index(hash), self.secondary_index(hash));
        let Some(_locked) = self.locks.try_both(first, second) else { return Learned::Busy };
        let (primary, secondary) = (&self.lines[first], &self.lines[second]);

        let known = bucket::find(primary, key).or_else(|| bucket::find(secondary, key));
        if let Some(slot) = known {
            let value = slot.value();
            return if value.is_alive() {
                self.renew(slot, value, heard, limit)
            } else {
                self.fill(slot, key, heard, limit)
            };
        }
        match bucket::free(primary).or_else(|| bucket::free(secondary)) {
            Some(slot) => self.fill(slot, key, heard, limit),
            None => self.evict(primary, secondary, heard.port()),
        }
    }

    fn fill(&self, slot: Slot<'_>, key: Key, heard: Value, limit: u32) -> Learned {
        if !self.count_in(heard.port(), limit) {
            return Learned::Refused;
        }
        slot.fill(key, heard);
        Learned::New
    }

    /// Marks an entry of the port with most entries dead, if that has at least two more than
    /// `port`: with only one more, two ports would take turns. One dead slot at a time is enough.
    fn evict(&self, primary: &Line, secondary: &Line, port: PortId) -> Learned {
        let slots = || bucket::slots(primary).chain(bucket::slots(secondary));
        let candidates = slots().map(|slot| (slot, slot.value()));
        let fullest = candidates.max_by_key(|(_, value)| match value.is_alive() {
            true => self.port_len(value.port()),
            false => u32::MAX,
        });
        match fullest {
            Some((slot, value))
                if value.is_alive() && self.port_len(value.port()) > self.port_len(port) + 1 =>
            {
                if self.kill(slot, value) {
                    Learned::Evicted { from: value.port() }
                } else {
                    Learned::Busy
                }
            }
            _ => Learned::Full,
        }
    }

    /// Marks `slot` dead, unless its value is no longer `value`.
    fn kill(&self, slot: Slot<'_>, value: Value) -> bool {
        let killed = slot.replace(value, Value::DEAD);
        if killed {
            self.count_out(value.port());
        }
        killed
    }

    /// Counts one more entry of `port`, if it may have one.
    fn count_in(&self, port: PortId, limit: u32) -> bool {
        let Some(count) = self.counts.get(port.index()) else { return false };
        let allowed = count.fetch_add(1, Ordering::Relaxed) < limit;
        if !allowed {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        allowed
    }

    fn count_out(&self, port: PortId) {
        if let Some(count) = self.counts.get(port.index()) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
