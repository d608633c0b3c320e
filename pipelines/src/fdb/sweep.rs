//! Control's side: removing what is old or outdated, and giving slots back.

use dataplane::sync::Arc;

use super::bucket::{self, EMPTY, FREED, Slot, Value, WAYS};
use super::{Row, Table};

/// Slots that nobody finds any more and that wait for their grace period: begin one
/// (`Publication::advance`) after the sweep that returned them, and recycle them when it is over.
/// Dropped, they are lost to the table.
#[must_use = "slots that are not recycled are lost to the table"]
#[derive(Debug, Default)]
pub struct Retired(Vec<u32>);

impl Retired {
    /// The number of slots.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, and no grace period is needed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Walks the table, a part at a time. One per table.
pub struct Sweeper {
    table: Arc<Table>,
    cursor: usize,
}

impl Sweeper {
    /// A sweeper that begins at the table's first bucket.
    pub fn new(table: Arc<Table>) -> Self {
        Self { table, cursor: 0 }
    }

    /// Looks at the next `buckets` buckets ([`Sweeper::buckets`] for all), removes the entries
    /// that `keep` refuses, and retires the slots of these and of evicted ones. An entry
    /// that is heard again at the same moment stays.
    pub fn sweep(&mut self, buckets: usize, mut keep: impl FnMut(&Row) -> bool) -> Retired {
        let mut retired = Retired::default();
        for _ in 0..buckets.min(self.buckets()) {
            for slot in bucket::slots(&self.table.lines[self.cursor]) {
                if let Some(row) = slot.row().filter(|row| !keep(row)) {
                    self.remove(slot, &row);
                }
            }
            self.retire(&mut retired);
            self.cursor = (self.cursor + 1) % self.buckets();
        }
        retired
    }

    /// Frees the slots of an earlier sweep, whose grace period is over.
    pub fn recycle(&self, retired: Retired) {
        for slot in retired.0 {
            let (bucket, way) = (slot as usize / WAYS, slot as usize % WAYS);
            self.free(bucket, way);
        }
    }

    /// The number of buckets in the table.
    pub fn buckets(&self) -> usize {
        self.table.lines.len()
    }

    /// Marks the slot of `row` dead, unless it was heard again since.
    fn remove(&self, slot: Slot<'_>, row: &Row) {
        self.table.kill(slot, Value::new(row.entry, row.seen));
    }

    /// Retires the dead slots of the bucket at the cursor. If a worker is inserting there, the
    /// next sweep does it.
    fn retire(&self, retired: &mut Retired) {
        let line = &self.table.lines[self.cursor];
        let dead = |slot: &Slot<'_>| slot.key().is_some() && !slot.value().is_alive();
        if !bucket::slots(line).any(|slot| dead(&slot)) {
            return;
        }
        let Some(_locked) = self.table.locks.try_one(self.cursor) else { return };
        for (way, slot) in bucket::slots(line).enumerate().filter(|(_, slot)| dead(slot)) {
            slot.retire();
            // The table's size is limited so that slots have numbers in 32 bits.
            retired.0.extend(u32::try_from(self.cursor * WAYS + way));
        }
    }

    /// Makes a slot free. Where another slot was never used, no key of this bucket can be in its
    /// secondary one, and this slot becomes as if never used, too; the lock keeps that other slot
    /// from being filled meanwhile.
    fn free(&self, bucket: usize, way: usize) {
        let line = &self.table.lines[bucket];
        let locked = self.table.locks.try_one(bucket);
        let never_full = locked.is_some() && !bucket::was_full(line);
        Slot::at(line, way).free(if never_full { EMPTY } else { FREED });
    }
}
