//! The four rings of an AF_XDP socket: a power of two of slots, one producer, one consumer, one of
//! them the kernel (`linux/if_xdp.h`, `net/xdp/xsk_queue.h`).
//!
//! Indices count without end and wrap at 32 bits; the slot is the index modulo the size. Each side
//! keeps its own index and looks at the other's only when what it knew is used up. The lines that
//! must not swap:
//!
//! - a producer writes slots *before* it stores its index (release), a consumer loads that index
//!   (acquire) *before* it reads them;
//! - a consumer reads slots *before* it stores its index (release), a producer loads that index
//!   (acquire) *before* it writes them again.
//!
//! Everything here is atomics behind shared references, over whatever memory a [`Backing`] has:
//! the kernel's pages, or the heap in tests. What the other side stores is not trusted: an index
//! that is too far ahead counts as a full ring.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Says that the kernel does not look by itself (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// A frame in the receive or transmit ring (`struct xdp_desc`), in host order.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Descriptor {
    address: AtomicU64,
    length: AtomicU32,
    options: AtomicU32,
}

/// The contents of a [`Descriptor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Bytes from the start of the packet memory; in the upper 16 bits, bytes to be added to it.
    pub(super) address: u64,
    /// Bytes.
    pub(super) length: u32,
    /// `XDP_PKT_CONTD`, `XDP_TX_METADATA`.
    pub(super) options: u32,
}

impl Descriptor {
    #[inline(always)]
    pub(super) fn load(&self) -> Piece {
        Piece {
            address: self.address.load(Ordering::Relaxed),
            length: self.length.load(Ordering::Relaxed),
            options: self.options.load(Ordering::Relaxed),
        }
    }

    #[inline(always)]
    pub(super) fn store(&self, piece: Piece) {
        self.address.store(piece.address, Ordering::Relaxed);
        self.length.store(piece.length, Ordering::Relaxed);
        self.options.store(piece.options, Ordering::Relaxed);
    }
}

/// What a ring consists of; the number of slots is a power of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring<'a, T> {
    pub(super) producer: &'a AtomicU32,
    pub(super) consumer: &'a AtomicU32,
    pub(super) flags: &'a AtomicU32,
    pub(super) slots: &'a [T],
}

impl<'a, T> Ring<'a, T> {
    #[inline(always)]
    fn slot(&self, index: u32) -> &'a T {
        // Widening; the mask of a power of two keeps it inside.
        &self.slots[index as usize & (self.slots.len() - 1)]
    }

    #[inline(always)]
    fn size(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "sizes are asked for as 32 bits")]
        let size = self.slots.len() as u32;
        size
    }
}

/// Memory with a ring in it, that of one side.
pub(super) trait Backing {
    /// What a slot is.
    type Slot;

    /// The ring.
    fn ring(&self) -> Ring<'_, Self::Slot>;
}

/// The side that fills a ring: ours of the fill and the transmit ring.
#[derive(Debug)]
pub(super) struct Producer<B> {
    backing: B,
    /// The next index to write, not yet published.
    next: u32,
    /// As far as may be written: the consumer's index, when we last looked, plus the size.
    limit: u32,
}

impl<B: Backing> Producer<B> {
    /// Over a ring that nobody has used.
    pub(super) fn new(backing: B) -> Self {
        let limit = backing.ring().size();
        Self { backing, next: 0, limit }
    }

    /// How many slots are free; looks at the consumer only if fewer than `wanted` are known of.
    #[inline(always)]
    pub(super) fn free(&mut self, wanted: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.next);
        if known >= wanted { known } else { self.look() }
    }

    #[inline(never)]
    fn look(&mut self) -> u32 {
        let ring = self.backing.ring();
        let used = self.next.wrapping_sub(ring.consumer.load(Ordering::Acquire));
        let free = ring.size().saturating_sub(used);
        self.limit = self.next.wrapping_add(free);
        free
    }

    /// Writes the next slot, of which [`Producer::free`] has said that it is free.
    #[inline(always)]
    pub(super) fn push(&mut self, write: impl FnOnce(&B::Slot)) {
        debug_assert!(self.limit != self.next, "no slot is free");
        write(self.backing.ring().slot(self.next));
        self.next = self.next.wrapping_add(1);
    }

    /// Hands the slots that were written to the consumer.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        self.backing.ring().producer.store(self.next, Ordering::Release);
    }

    /// How many published slots the consumer has not taken.
    #[inline(always)]
    pub(super) fn waiting(&self) -> u32 {
        let ring = self.backing.ring();
        let used = self.next.wrapping_sub(ring.consumer.load(Ordering::Acquire));
        used.min(ring.size())
    }

    /// What is in the published slots that the consumer has not taken: of use only while nothing
    /// makes it take them.
    pub(super) fn unconsumed<R>(&self, read: impl Fn(&B::Slot) -> R) -> Vec<R> {
        let ring = self.backing.ring();
        let waiting = self.waiting();
        (1..=waiting).rev().map(|back| read(ring.slot(self.next.wrapping_sub(back)))).collect()
    }

    /// Whether the kernel wants to be told of what was published.
    #[inline(always)]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.backing.ring().flags.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The side that empties a ring: ours of the receive and the completion ring.
#[derive(Debug)]
pub(super) struct Consumer<B> {
    backing: B,
    /// The next index to read, not yet released.
    next: u32,
    /// As far as may be read: the producer's index when we last looked.
    limit: u32,
}

impl<B: Backing> Consumer<B> {
    /// Over a ring that nobody has used.
    pub(super) fn new(backing: B) -> Self {
        Self { backing, next: 0, limit: 0 }
    }

    /// How many slots can be read; looks at the producer only if fewer than `wanted` are known of.
    #[inline(always)]
    pub(super) fn ready(&mut self, wanted: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.next);
        if known >= wanted { known } else { self.look() }
    }

    #[inline(always)]
    fn look(&mut self) -> u32 {
        let ring = self.backing.ring();
        let ready = ring.producer.load(Ordering::Acquire).wrapping_sub(self.next).min(ring.size());
        self.limit = self.next.wrapping_add(ready);
        ready
    }

    /// Reads the next slot, of which [`Consumer::ready`] has said that it can be read.
    #[inline(always)]
    pub(super) fn pop<R>(&mut self, read: impl FnOnce(&B::Slot) -> R) -> R {
        debug_assert!(self.limit != self.next, "no slot is ready");
        let value = read(self.backing.ring().slot(self.next));
        self.next = self.next.wrapping_add(1);
        value
    }

    /// Hands the slots that were read back to the producer.
    #[inline(always)]
    pub(super) fn release(&mut self) {
        self.backing.ring().consumer.store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod heap {
    use super::*;
    use crate::sync::Arc;

    /// A ring on the heap, seen from both sides.
    #[derive(Clone)]
    pub(super) struct Heap(Arc<(AtomicU32, AtomicU32, AtomicU32, Box<[AtomicU64]>)>);

    impl Heap {
        pub(super) fn new(size: usize) -> Self {
            let slots = (0..size).map(|_| AtomicU64::new(0)).collect();
            let zero = || AtomicU32::new(0);
            Self(Arc::new((zero(), zero(), zero(), slots)))
        }

        pub(super) fn starting_at(size: usize, index: u32) -> (Producer<Self>, Consumer<Self>) {
            let heap = Self::new(size);
            heap.0.0.store(index, Ordering::Relaxed);
            heap.0.1.store(index, Ordering::Relaxed);
            let mut producer = Producer::new(heap.clone());
            (producer.next, producer.limit) = (index, index);
            let mut consumer = Consumer::new(heap);
            (consumer.next, consumer.limit) = (index, index);
            (producer, consumer)
        }
    }

    impl Backing for Heap {
        type Slot = AtomicU64;

        fn ring(&self) -> Ring<'_, AtomicU64> {
            let (producer, consumer, flags, slots) = &*self.0;
            Ring { producer, consumer, flags, slots }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::heap::Heap;
    use super::*;

    proptest! {
        /// In bursts of any size, also across the wrap of the index: what goes in comes out, in
        /// order, once, and the ring never holds more than its size.
        #[test]
        fn what_is_produced_is_consumed_in_order(
            bursts in prop::collection::vec((0u32..67, 0u32..67), 1..257),
            start in prop_oneof![Just(0), Just(u32::MAX - 33), any::<u32>()],
        ) {
            let (mut producer, mut consumer) = Heap::starting_at(64, start);
            let (mut written, mut read) = (0u64, 0u64);
            for (give, take) in bursts {
                let give = give.min(producer.free(give));
                for _ in 0..give {
                    producer.push(|slot| slot.store(written, Ordering::Relaxed));
                    written += 1;
                }
                producer.publish();
                prop_assert_eq!(u64::from(producer.waiting()), written - read);
                let take = take.min(consumer.ready(take));
                for _ in 0..take {
                    prop_assert_eq!(consumer.pop(|slot| slot.load(Ordering::Relaxed)), read);
                    read += 1;
                }
                consumer.release();
                prop_assert!(written - read <= 64);
            }
        }

        /// Whatever the other side stores, no more than the ring is believed.
        #[test]
        fn indices_that_make_no_sense_are_bounded(theirs in any::<u32>()) {
            let heap = Heap::new(64);
            let mut producer = Producer::new(heap.clone());
            let mut consumer = Consumer::new(heap.clone());
            heap.ring().consumer.store(theirs, Ordering::Relaxed);
            prop_assert!(producer.free(65) <= 64 && producer.waiting() <= 64);
            heap.ring().producer.store(theirs, Ordering::Relaxed);
            prop_assert!(consumer.ready(65) <= 64);
        }
    }

    #[test]
    fn a_full_ring_has_no_room_and_an_empty_one_nothing() {
        let (mut producer, mut consumer) = Heap::starting_at(8, u32::MAX);
        assert_eq!((producer.free(1), consumer.ready(1)), (8, 0));
        (0..8).for_each(|n| producer.push(|slot| slot.store(n, Ordering::Relaxed)));
        assert_eq!((producer.free(1), consumer.ready(1)), (0, 0), "not published yet");
        producer.publish();
        assert_eq!((producer.free(1), consumer.ready(1)), (0, 8));
        consumer.pop(|_| ());
        assert_eq!(producer.free(1), 0, "not released yet");
        consumer.release();
        assert_eq!((producer.free(1), producer.waiting()), (1, 7));
    }

    #[test]
    fn the_flag_asks_for_a_wakeup() {
        let heap = Heap::new(2);
        let producer = Producer::new(heap.clone());
        assert!(!producer.needs_wakeup());
        heap.ring().flags.store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::heap::Heap;
    use super::*;

    /// Three values through a ring of two, across the wrap of the index: each is seen once, in
    /// order, as it was written.
    #[test]
    fn loom_slots_are_seen_in_order() {
        loom::model(|| {
            let (mut producer, mut consumer) = Heap::starting_at(2, u32::MAX);
            let other = loom::thread::spawn(move || {
                let mut value = 1;
                while value <= 3 {
                    if producer.free(1) == 0 {
                        loom::thread::yield_now();
                        continue;
                    }
                    producer.push(|slot| slot.store(value, Ordering::Relaxed));
                    producer.publish();
                    value += 1;
                }
            });
            let mut expected = 1;
            while expected <= 3 {
                if consumer.ready(1) == 0 {
                    loom::thread::yield_now();
                    continue;
                }
                assert_eq!(consumer.pop(|slot| slot.load(Ordering::Relaxed)), expected);
                consumer.release();
                expected += 1;
            }
            other.join().unwrap();
        });
    }
}
