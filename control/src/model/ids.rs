//! Numbers for networks and endpoints: rows in the tables that workers read.
//!
//! A number that is given up may still be in a worker's hands, as the port of a frame or the
//! segment of a learned address. It is `retire`d when its object goes, and `release`d once every
//! worker has reported a generation of tables in which it does not occur; only then can it be
//! allocated again. What is between the two is in nobody's hands.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use dataplane::ids::{PortId, SegmentId};
use pipelines::fdb::PortGeneration;
use thiserror::Error;

/// Why a number can't be given or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// Every number is in use or waits for its grace period.
    #[error("all {total} {what} are taken, {retired} of them waiting for workers to let go")]
    Exhausted {
        /// What the numbers are of.
        what: &'static str,
        /// How many there are.
        total: usize,
        /// How many of them are retired.
        retired: usize,
    },
    /// A number that is not in use was retired.
    #[error("{what} number {id} is not in use")]
    NotInUse {
        /// What the numbers are of.
        what: &'static str,
        /// The number.
        id: u16,
    },
    /// A number that is not retired was released.
    #[error("{what} number {id} is not retired")]
    NotRetired {
        /// What the numbers are of.
        what: &'static str,
        /// The number.
        id: u16,
    },
}

/// Numbers of one kind. The lowest free one is given first, so that tables stay short.
#[derive(Debug, Clone)]
struct Numbers {
    what: &'static str,
    range: RangeInclusive<u16>,
    /// The lowest number that was never given; `None` when all were.
    fresh: Option<u16>,
    free: BTreeSet<u16>,
    retired: BTreeSet<u16>,
}

impl Numbers {
    fn new(what: &'static str, range: RangeInclusive<u16>) -> Self {
        let fresh = Some(*range.start());
        Self { what, range, fresh, free: BTreeSet::new(), retired: BTreeSet::new() }
    }

    fn allocate(&mut self) -> Result<u16, Error> {
        if let Some(id) = self.free.pop_first() {
            return Ok(id);
        }
        let id = self.fresh.ok_or_else(|| Error::Exhausted {
            what: self.what,
            total: self.range.len(),
            retired: self.retired.len(),
        })?;
        self.fresh = id.checked_add(1).filter(|next| self.range.contains(next));
        Ok(id)
    }

    fn retire(&mut self, id: u16) -> Result<(), Error> {
        let given = self.range.contains(&id) && self.fresh.is_none_or(|fresh| id < fresh);
        let in_use = given && !self.free.contains(&id) && self.retired.insert(id);
        in_use.then_some(()).ok_or(Error::NotInUse { what: self.what, id })
    }

    fn release(&mut self, id: u16) -> Result<(), Error> {
        if !self.retired.remove(&id) {
            return Err(Error::NotRetired { what: self.what, id });
        }
        self.free.insert(id);
        Ok(())
    }
}

/// The numbers of all networks and endpoints.
#[derive(Debug, Clone)]
pub struct Ids {
    segments: Numbers,
    ports: Numbers,
    /// How often each port number has been given.
    generations: HashMap<PortId, PortGeneration>,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            // Zero is `SegmentId::NONE`.
            segments: Numbers::new("segment", 1..=u16::MAX),
            // The last one is left out, so that 16 bits can also say "no port".
            ports: Numbers::new("port", 0..=u16::MAX - 1),
            generations: HashMap::new(),
        }
    }
}

impl Ids {
    /// A number for a network.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if none is free.
    pub fn allocate_segment(&mut self) -> Result<SegmentId, Error> {
        self.segments.allocate().map(SegmentId)
    }

    /// A number for an endpoint, or for the host stack in a network.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if none is free.
    pub fn allocate_port(&mut self) -> Result<PortId, Error> {
        let port = self.ports.allocate().map(PortId)?;
        let next = self.generations.get(&port).map_or(PortGeneration::FIRST, |used| used.next());
        self.generations.insert(port, next);
        Ok(port)
    }

    /// How often a port number has been given, so that what was learned for an earlier owner is
    /// recognised.
    pub fn generation(&self, port: PortId) -> PortGeneration {
        self.generations.get(&port).copied().unwrap_or(PortGeneration::FIRST)
    }

    /// Gives up a network's number, which starts its grace period.
    ///
    /// # Errors
    ///
    /// [`Error::NotInUse`] if it has no owner.
    pub fn retire_segment(&mut self, id: SegmentId) -> Result<(), Error> {
        self.segments.retire(id.0)
    }

    /// Gives up an endpoint's number, which starts its grace period.
    ///
    /// # Errors
    ///
    /// [`Error::NotInUse`] if it has no owner.
    pub fn retire_port(&mut self, id: PortId) -> Result<(), Error> {
        self.ports.retire(id.0)
    }

    /// Ends the grace period of a network's number.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetired`] if it has none.
    pub fn release_segment(&mut self, id: SegmentId) -> Result<(), Error> {
        self.segments.release(id.0)
    }

    /// Ends the grace period of an endpoint's number.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetired`] if it has none.
    pub fn release_port(&mut self, id: PortId) -> Result<(), Error> {
        self.ports.release(id.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_rests_until_it_is_released() {
        let mut ids = Ids::default();
        let (first, second) = (ids.allocate_port().unwrap(), ids.allocate_port().unwrap());
        assert_eq!((first, second), (PortId(0), PortId(1)));
        ids.retire_port(first).unwrap();
        assert_eq!(ids.allocate_port(), Ok(PortId(2)));
        ids.release_port(first).unwrap();
        assert_eq!(ids.generation(first), PortGeneration::FIRST);
        assert_eq!(ids.allocate_port(), Ok(first));
        assert_eq!(ids.generation(first), PortGeneration::FIRST.next());
    }

    #[test]
    fn mistakes_are_refused() {
        let mut ids = Ids::default();
        let id = ids.allocate_segment().unwrap();
        assert_eq!(id, SegmentId(1));
        assert!(ids.release_segment(id).is_err());
        ids.retire_segment(id).unwrap();
        assert!(ids.retire_segment(id).is_err());
        ids.release_segment(id).unwrap();
        assert!(ids.retire_segment(id).is_err() && ids.release_segment(id).is_err());
        assert!(ids.retire_segment(SegmentId::NONE).is_err());
        assert!(ids.retire_segment(SegmentId(2)).is_err());
    }

    #[test]
    fn all_numbers_can_be_given() {
        let mut ids = Ids::default();
        let given: HashSet<_> = std::iter::from_fn(|| ids.allocate_segment().ok()).collect();
        assert_eq!(given.len(), 65_535);
        ids.retire_segment(SegmentId(7)).unwrap();
        let error = ids.allocate_segment().unwrap_err();
        assert_eq!(error, Error::Exhausted { what: "segment", total: 65_535, retired: 1 });
    }

    proptest! {
        /// Against a set of owners: no number has two, and none is given while it is retired.
        #[test]
        fn no_number_has_two_owners(steps in prop::collection::vec((0_u8..3, 0_usize..8), 1..257)) {
            let mut numbers = Numbers::new("test", 3..=8);
            let (mut owned, mut retired) = (Vec::new(), Vec::new());
            for (step, which) in steps {
                match step {
                    0 => match numbers.allocate() {
                        Ok(id) => {
                            prop_assert!(!owned.contains(&id) && !retired.contains(&id));
                            prop_assert!((3..=8).contains(&id));
                            owned.push(id);
                        }
                        Err(_) => prop_assert_eq!(owned.len() + retired.len(), 6),
                    },
                    1 if which < owned.len() => {
                        let id = owned.remove(which);
                        prop_assert!(numbers.retire(id).is_ok());
                        retired.push(id);
                    }
                    2 if which < retired.len() => {
                        prop_assert!(numbers.release(retired.remove(which)).is_ok());
                    }
                    _ => {}
                }
            }
        }
    }
}
