//! Frames that are in the kernel's hands: which socket borrowed each slot, so that an address
//! which the kernel returns becomes the one token of its slot again, or nothing.
//!
//! Rings to the kernel carry addresses, which anybody can make up; a [`Frame`] is proof that
//! nobody else has the slot. So a frame that is lent is entered here and its token goes; an
//! address that comes back is worth a token only if this borrower has the slot on its account,
//! for this purpose, and only once.
//!
//! | entry | writer | reader |
//! |---|---|---|
//! | of a slot that is at home | whoever has its token, in [`Ledger::lend`] | nobody is misled: it is zero |
//! | of a slot that is lent | its borrower, in [`Ledger::reclaim`] | any borrower that is given its address |
//!
//! Relaxed is enough: between the last write of one borrower and the first of the next lies the
//! token's way over rings that order them.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arena::Arena;
use super::frame::Frame;

/// Why a socket has a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To be filled with what arrives.
    Fill,
    /// To be sent.
    Transmit,
}

/// What a returned address is worth.
#[derive(Debug)]
pub enum Return {
    /// The slot's frame: all of it is back.
    Frame(Frame),
    /// Nothing yet: other parts of the slot are still out.
    Part,
    /// Nothing: this borrower has no such slot for this purpose.
    Foreign,
}

/// One socket's account. There is one for each number, so whoever has it exclusively is the only
/// one to change its entries.
#[derive(Debug)]
pub struct Borrower(u64);

/// One entry per slot of an arena, for all sockets that share it.
#[derive(Debug)]
pub struct Ledger {
    arena: Arc<Arena>,
    entries: Box<[AtomicU64]>,
    borrowers: AtomicU64,
}

impl Ledger {
    /// A ledger in which nothing is lent.
    pub fn new(arena: Arc<Arena>) -> Self {
        let entries = (0..arena.slots()).map(|_| AtomicU64::new(HOME)).collect();
        Self { arena, entries, borrowers: AtomicU64::new(1) }
    }

    /// The arena whose slots are lent.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// A new account. Its number is never given again: 40 bits outlast the process.
    pub fn borrower(&self) -> Borrower {
        Borrower(self.borrowers.fetch_add(1, Ordering::Relaxed))
    }

    /// Lends a frame, in `parts` (at least one) that come back one by one. Answers where its slot
    /// begins, in bytes from the start of the arena.
    ///
    /// # Errors
    ///
    /// Gives the frame back when it is of another arena.
    #[inline]
    pub fn lend(
        &self,
        frame: Frame,
        to: &mut Borrower,
        purpose: Purpose,
        parts: u8,
    ) -> Result<usize, Frame> {
        let Some(start) = self.arena.offset_of(&frame) else { return Err(frame) };
        let Some(entry) = self.entry(start) else { return Err(frame) };
        let parts = u64::from(parts.max(1)) << PARTS_SHIFT;
        let value = to.owns(purpose) | parts | u64::from(frame.tag());
        entry.store(value, Ordering::Relaxed);
        Ok(start)
    }

    /// Takes one part back: any address inside the slot names it.
    #[inline]
    pub fn reclaim(&self, from: &mut Borrower, purpose: Purpose, address: usize) -> Return {
        let Some(entry) = self.entry(address) else { return Return::Foreign };
        let value = entry.load(Ordering::Relaxed);
        if value & OWNER_MASK != from.owns(purpose) {
            return Return::Foreign;
        }
        if value & PARTS_MASK > 1 << PARTS_SHIFT {
            entry.store(value - (1 << PARTS_SHIFT), Ordering::Relaxed);
            return Return::Part;
        }
        entry.store(HOME, Ordering::Relaxed);
        Return::Frame(self.token(address, value))
    }

    /// Takes back all that `from` has for this purpose, whatever parts are out: for a socket that
    /// is closed, so that the kernel touches none of it any more.
    pub fn reclaim_all(&self, from: &mut Borrower, purpose: Purpose, mut give: impl FnMut(Frame)) {
        for (slot, entry) in self.entries.iter().enumerate() {
            let value = entry.load(Ordering::Relaxed);
            if value & OWNER_MASK == from.owns(purpose) {
                entry.store(HOME, Ordering::Relaxed);
                give(self.token(self.arena.start_of(slot), value));
            }
        }
    }

    /// How many frames `from` has for this purpose.
    pub fn lent(&self, from: &Borrower, purpose: Purpose) -> usize {
        let theirs =
            |entry: &&AtomicU64| entry.load(Ordering::Relaxed) & OWNER_MASK == from.owns(purpose);
        self.entries.iter().filter(theirs).count()
    }

    #[inline(always)]
    fn entry(&self, address: usize) -> Option<&AtomicU64> {
        self.entries.get(self.arena.slot_at(address)?)
    }

    /// The token of the slot that an entry, cleared just now, was about.
    #[inline(always)]
    fn token(&self, address: usize, entry: u64) -> Frame {
        #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are wanted")]
        let tag = entry as u16;
        // SAFETY: the entry was made from the slot's only token, which `lend` consumed; it was
        // this borrower's, so nobody else can have cleared it, and it is cleared now.
        unsafe { self.arena.frame_at(address, tag & TAG_MASK) }
    }
}

impl Borrower {
    /// What the owner's bits of an entry are.
    #[inline(always)]
    const fn owns(&self, purpose: Purpose) -> u64 {
        let purpose = match purpose {
            Purpose::Fill => 0,
            Purpose::Transmit => TRANSMIT,
        };
        self.0 << NUMBER_SHIFT | purpose
    }
}

/// The entry of a slot that is not lent; no borrower has number zero.
const HOME: u64 = 0;

// An entry, from the low end: the frame's tag, the purpose, the parts that are out, the
// borrower's number.
const TAG_MASK: u16 = 0x1ff;
const TRANSMIT: u64 = 1 << 9;
const PARTS_SHIFT: u32 = 16;
const PARTS_MASK: u64 = 0xff << PARTS_SHIFT;
const NUMBER_SHIFT: u32 = 24;
const OWNER_MASK: u64 = u64::MAX << NUMBER_SHIFT | TRANSMIT;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Geometry, Pool, RUN_BYTES, SMALL_BYTES, Size};
    use super::*;

    const GEOMETRY: Geometry = Geometry { owners: 3, small: 67, runs: 5 };
    const SLOTS: usize = 3 * (67 + 5);

    fn ledger() -> (Vec<Pool>, Ledger) {
        let pools = Arena::create(GEOMETRY).unwrap();
        let ledger = Ledger::new(Arc::clone(pools[0].arena()));
        (pools, ledger)
    }

    fn home(pools: &mut [Pool]) -> usize {
        pools.iter_mut().for_each(Pool::collect);
        pools.iter().map(|pool| pool.free().0 + pool.free().1).sum()
    }

    #[test]
    fn a_lent_frame_comes_back_as_it_was_and_only_once() {
        let (mut pools, ledger) = ledger();
        let mut socket = ledger.borrower();
        for size in [Size::Small, Size::Run] {
            let mut frame = pools[2].take(size).unwrap();
            frame.bytes_mut().fill(67);
            let (start, tag) = (frame.bytes().as_ptr(), frame.tag());
            let at = ledger.lend(frame, &mut socket, Purpose::Fill, 1).unwrap();
            let address = at + size.bytes() - 1;
            let Return::Frame(frame) = ledger.reclaim(&mut socket, Purpose::Fill, address) else {
                panic!("{size:?} did not come back");
            };
            assert_eq!((frame.bytes().as_ptr(), frame.tag(), frame.bytes()[256]), (start, tag, 67));
            let again = ledger.reclaim(&mut socket, Purpose::Fill, address);
            assert!(matches!(again, Return::Foreign));
            pools[0].give(frame);
        }
        assert_eq!(home(&mut pools), SLOTS);
    }

    #[test]
    fn an_address_of_another_borrower_or_purpose_is_worth_nothing() {
        let (mut pools, ledger) = ledger();
        let (mut one, mut other) = (ledger.borrower(), ledger.borrower());
        let frame = pools[1].take(Size::Small).unwrap();
        let at = ledger.lend(frame, &mut one, Purpose::Fill, 1).unwrap();
        let bytes = GEOMETRY.bytes();
        for address in [at + SMALL_BYTES, at.wrapping_sub(1), bytes, bytes + 67, usize::MAX] {
            assert!(matches!(ledger.reclaim(&mut one, Purpose::Fill, address), Return::Foreign));
        }
        assert!(matches!(ledger.reclaim(&mut other, Purpose::Fill, at), Return::Foreign));
        assert!(matches!(ledger.reclaim(&mut one, Purpose::Transmit, at), Return::Foreign));
        ledger.reclaim_all(&mut other, Purpose::Fill, |frame| panic!("{frame:?}"));
        assert_eq!(ledger.lent(&one, Purpose::Fill), 1);
        ledger.reclaim_all(&mut one, Purpose::Fill, |frame| pools[1].give(frame));
        assert_eq!(home(&mut pools), SLOTS);
    }

    #[test]
    fn a_run_is_back_when_all_its_parts_are() {
        let (mut pools, ledger) = ledger();
        let mut socket = ledger.borrower();
        let frame = pools[0].take(Size::Run).unwrap();
        let at = ledger.lend(frame, &mut socket, Purpose::Transmit, 3).unwrap();
        for address in [at + 300, at + RUN_BYTES - 1] {
            let part = ledger.reclaim(&mut socket, Purpose::Transmit, address);
            assert!(matches!(part, Return::Part));
        }
        let last = ledger.reclaim(&mut socket, Purpose::Transmit, at + 4396);
        let Return::Frame(frame) = last else { panic!("{last:?}") };
        pools[0].give(frame);
        assert_eq!(home(&mut pools), SLOTS);
    }

    #[test]
    fn a_frame_of_another_arena_is_not_lent() {
        let (_pools, ledger) = ledger();
        let mut others = Arena::create(GEOMETRY).unwrap();
        let mut socket = ledger.borrower();
        let frame = others[0].take(Size::Small).unwrap();
        let refused = ledger.lend(frame, &mut socket, Purpose::Fill, 1).unwrap_err();
        others[0].give(refused);
    }

    proptest! {
        /// Whatever sockets borrow, return and invent, no slot is lost and none appears twice.
        #[test]
        fn the_sum_of_slots_is_constant(
            steps in prop::collection::vec(
                (0usize..3, 0usize..2, any::<bool>(), any::<bool>(), 0..GEOMETRY.bytes()), 1..257)
        ) {
            let (mut pools, ledger) = ledger();
            let mut sockets = [ledger.borrower(), ledger.borrower()];
            let mut lent = 0;
            for (owner, socket, run, back, address) in steps {
                let purpose = if run { Purpose::Transmit } else { Purpose::Fill };
                let socket = &mut sockets[socket];
                if back {
                    if let Return::Frame(frame) = ledger.reclaim(socket, purpose, address) {
                        lent -= 1;
                        pools[owner].give(frame);
                    }
                } else if let Some(frame) =
                    pools[owner].take(if run { Size::Run } else { Size::Small })
                {
                    lent += 1;
                    ledger.lend(frame, socket, purpose, 1).unwrap();
                }
            }
            prop_assert_eq!(home(&mut pools) + lent, SLOTS);
            for socket in &mut sockets {
                for purpose in [Purpose::Fill, Purpose::Transmit] {
                    ledger.reclaim_all(socket, purpose, |frame| pools[0].give(frame));
                }
            }
            prop_assert_eq!(home(&mut pools), SLOTS);
        }
    }
}
