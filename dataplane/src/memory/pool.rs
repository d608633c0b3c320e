//! A worker's free slots, and the rings on which frames come home.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use super::arena::Arena;
use super::frame::{Frame, Size};
use super::packet::Packet;
use crate::drops::Reason;
use crate::ids::WorkerId;

/// The free list of one owner of frames, with a return ring from and to every other owner.
///
/// The last frame given is the first taken, since its lines are still in the cache. A return
/// ring can hold every frame of its home, so giving a frame back never fails and never waits.
#[derive(Debug)]
pub struct Pool {
    owner: WorkerId,
    small: Vec<Frame>,
    runs: Vec<Frame>,
    /// By owner number; our own place is empty.
    abroad: Vec<Option<Producer<Frame>>>,
    homecoming: Vec<Consumer<Frame>>,
    arena: Arc<Arena>,
}

impl Pool {
    /// One pool per owner over their frames (small ones, runs), connected by return rings.
    pub(super) fn family(arena: &Arc<Arena>, frames: Vec<(Vec<Frame>, Vec<Frame>)>) -> Vec<Self> {
        let owners = frames.len();
        let mut pools: Vec<Self> = (0u8..)
            .zip(frames)
            .map(|(owner, (small, runs))| Self {
                owner: WorkerId(owner),
                small,
                runs,
                abroad: (0..owners).map(|_| None).collect(),
                homecoming: Vec::new(),
                arena: Arc::clone(arena),
            })
            .collect();
        let slots = arena.geometry().small + arena.geometry().runs;
        for home in 0..owners {
            for other in (0..owners).filter(|&other| other != home) {
                let (producer, consumer) = RingBuffer::new(slots);
                pools[other].abroad[home] = Some(producer);
                pools[home].homecoming.push(consumer);
            }
        }
        pools
    }

    /// Whose pool this is.
    pub fn owner(&self) -> WorkerId {
        self.owner
    }

    /// The arena that the frames are cut from.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// A free frame of exactly this class, or `None` when all are in use.
    #[inline(always)]
    pub fn take(&mut self, size: Size) -> Option<Frame> {
        match size {
            Size::Small => self.small.pop(),
            Size::Run => self.runs.pop(),
        }
    }

    /// Sends a frame home, be it ours or another owner's.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) {
        let home = frame.home();
        if home == self.owner {
            self.keep(frame);
        } else if let Some(Some(ring)) = self.abroad.get_mut(home.index()) {
            // A full ring can't be: it has a place for each frame of its home. Were it so, the
            // slot would be lost, and the accounting of the tests would show it.
            let _ = ring.push(frame);
        }
    }

    /// Takes in what other owners have returned. Called once per turn of the worker.
    #[inline]
    pub fn collect(&mut self) {
        for index in 0..self.homecoming.len() {
            let ready = self.homecoming[index].slots();
            if ready == 0 {
                continue;
            }
            if let Ok(chunk) = self.homecoming[index].read_chunk(ready) {
                let (small, runs) = (&mut self.small, &mut self.runs);
                chunk.into_iter().for_each(|frame| keep(small, runs, frame));
            }
        }
    }

    /// A copy of `packet` in a frame of the smallest class that holds it, or the reason why there
    /// is none.
    ///
    /// # Errors
    ///
    /// As [`Packet::holding`].
    pub fn duplicate(&mut self, packet: &Packet) -> Result<Packet, Reason> {
        let mut copy = Packet::holding(self, packet.in_port, packet.data())?;
        (copy.offload, copy.layers) = (packet.offload, packet.layers);
        Ok(copy)
    }

    /// Free frames: small ones and runs.
    pub fn free(&self) -> (usize, usize) {
        (self.small.len(), self.runs.len())
    }

    #[inline(always)]
    fn keep(&mut self, frame: Frame) {
        keep(&mut self.small, &mut self.runs, frame);
    }
}

#[inline(always)]
fn keep(small: &mut Vec<Frame>, runs: &mut Vec<Frame>, frame: Frame) {
    match frame.size() {
        Size::Small => small.push(frame),
        Size::Run => runs.push(frame),
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.collect();
        self.arena.retire(self.small.len() + self.runs.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Geometry;
    use super::*;

    const GEOMETRY: Geometry = Geometry { owners: 3, small: 67, runs: 5 };

    #[test]
    fn slots_are_apart_and_writable() {
        let mut pools = Arena::create(GEOMETRY).unwrap();
        let mut frames = Vec::new();
        for pool in &mut pools {
            frames.extend(std::iter::from_fn(|| pool.take(Size::Small)));
            frames.extend(std::iter::from_fn(|| pool.take(Size::Run)));
        }
        assert_eq!(frames.len(), 3 * (67 + 5));
        for (i, frame) in frames.iter_mut().enumerate() {
            frame.bytes_mut().fill(u8::try_from(i % 251).unwrap());
        }
        for (i, frame) in frames.iter().enumerate() {
            assert!(frame.bytes().iter().all(|&b| usize::from(b) == i % 251));
        }
        frames.into_iter().for_each(|frame| pools[0].give(frame));
        pools.iter_mut().for_each(Pool::collect);
        assert!(pools.iter().all(|pool| pool.free() == (67, 5)));
    }

    proptest! {
        /// Whatever is taken, held and given by whom, no slot is lost and none appears twice.
        #[test]
        fn the_sum_of_slots_is_constant(
            steps in prop::collection::vec((0usize..3, any::<bool>(), any::<bool>()), 1..257)
        ) {
            let mut pools = Arena::create(GEOMETRY).unwrap();
            let mut held = Vec::new();
            for (owner, take, run) in steps {
                if take {
                    held.extend(pools[owner].take(if run { Size::Run } else { Size::Small }));
                } else if let Some(frame) = held.pop() {
                    pools[owner].give(frame);
                }
            }
            pools.iter_mut().for_each(Pool::collect);
            let free: usize = pools.iter().map(|p| p.free().0 + p.free().1).sum();
            prop_assert_eq!(free + held.len(), 3 * (67 + 5));
            let mut starts: Vec<_> = held.iter().map(|f| f.bytes().as_ptr()).collect();
            starts.sort_unstable();
            starts.dedup();
            prop_assert_eq!(starts.len(), held.len());
            held.into_iter().for_each(|frame| pools[1].give(frame));
        }
    }
}
