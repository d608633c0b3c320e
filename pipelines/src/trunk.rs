//! What a trunk carries: several segments by one port, told apart by the outermost tag.

use dataplane::ids::SegmentId;
use dataplane::wire::vlan::Vid;
use thiserror::Error;

/// The segments of a port that carries more than one, or one by tag: the uplink of networks to a
/// parent device, or an endpoint that gets VLANs tagged. Each segment is at most one VLAN, and
/// each VLAN one segment: a frame that comes in has no way back out.
///
/// What comes in for another VLAN, or untagged without a native segment, is dropped. Frames of
/// the native segment that carry a tag of their own don't leave here: see
/// [`leave`](crate::vlan::leave). So an uplink without tags carries one network, and no VLAN of the
/// wire in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trunk {
    /// What frames without a VLAN belong to; [`SegmentId::NONE`] if they belong to nothing.
    native: SegmentId,
    /// The segment of each VLAN, by VLAN.
    inwards: Vec<(Vid, SegmentId)>,
    /// How each segment looks here, by segment.
    outwards: Vec<(SegmentId, Tagging)>,
}

/// How the frames of a segment look on a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagging {
    /// Tagged with this VLAN.
    Tagged(Vid),
    /// Untagged. Where the native VLAN has an identifier, frames that come in tagged with it belong
    /// to it as well (IEEE 802.1Q-2018, 6.9).
    Native(Option<Vid>),
}

impl Tagging {
    const fn vid(self) -> Option<Vid> {
        match self {
            Self::Tagged(vid) | Self::Native(Some(vid)) => Some(vid),
            Self::Native(None) => None,
        }
    }
}

/// Why a segment can't be on a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TrunkError {
    /// It is the segment of ports without one.
    #[error("segment 0 is that of ports without a network")]
    NoSegment,
    /// It is there already.
    #[error("segment {0} is on the trunk already")]
    Twice(SegmentId),
    /// Its VLAN is another's there.
    #[error("VLAN {vid} of the trunk is segment {taken} already, not {segment}")]
    VlanTaken {
        /// The VLAN.
        vid: Vid,
        /// Whose it is.
        taken: SegmentId,
        /// Which was to be added.
        segment: SegmentId,
    },
    /// Another is native there.
    #[error("segment {taken} is native on the trunk already, not {segment}")]
    NativeTaken {
        /// The native one.
        taken: SegmentId,
        /// Which was to be added.
        segment: SegmentId,
    },
}

impl Trunk {
    /// The trunk with one more segment.
    ///
    /// # Errors
    ///
    /// [`TrunkError`] if the segment, its VLAN or the native place is taken.
    pub fn with(mut self, segment: SegmentId, tagging: Tagging) -> Result<Self, TrunkError> {
        let place = self.place_of(segment)?;
        if let Some(vid) = tagging.vid() {
            let at = match self.inwards.binary_search_by_key(&vid, |&(vid, _)| vid) {
                Ok(at) => {
                    let taken = self.inwards[at].1;
                    return Err(TrunkError::VlanTaken { vid, taken, segment });
                }
                Err(at) => at,
            };
            self.inwards.insert(at, (vid, segment));
        }
        if let Tagging::Native(_) = tagging {
            if self.native != SegmentId::NONE {
                return Err(TrunkError::NativeTaken { taken: self.native, segment });
            }
            self.native = segment;
        }
        self.outwards.insert(place, (segment, tagging));
        Ok(self)
    }

    /// The trunk without a segment; the same if that is not there.
    #[must_use]
    pub fn without(mut self, segment: SegmentId) -> Self {
        self.outwards.retain(|&(other, _)| other != segment);
        self.inwards.retain(|&(_, other)| other != segment);
        if self.native == segment {
            self.native = SegmentId::NONE;
        }
        self
    }

    /// The segment of a frame that comes in with this VLAN identifier, 0 if it is untagged;
    /// [`SegmentId::NONE`] if it has none here.
    #[inline]
    pub fn segment(&self, vid: u16) -> SegmentId {
        if vid == 0 {
            return self.native;
        }
        match self.inwards.binary_search_by_key(&vid, |(vid, _)| vid.number()) {
            Ok(at) => self.inwards[at].1,
            Err(_) => SegmentId::NONE,
        }
    }

    /// How frames of this segment look here; `None` if it is not here.
    #[inline]
    pub fn tagging(&self, segment: SegmentId) -> Option<Tagging> {
        let at = self.outwards.binary_search_by_key(&segment, |&(segment, _)| segment);
        at.ok().map(|at| self.outwards[at].1)
    }

    /// All segments, in the order of their numbers.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, Tagging)> {
        self.outwards.iter().copied()
    }

    /// Where the segment is to be put.
    fn place_of(&self, segment: SegmentId) -> Result<usize, TrunkError> {
        if segment == SegmentId::NONE {
            return Err(TrunkError::NoSegment);
        }
        match self.outwards.binary_search_by_key(&segment, |&(segment, _)| segment) {
            Ok(_) => Err(TrunkError::Twice(segment)),
            Err(place) => Ok(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn vid(number: u16) -> Vid {
        Vid::new(number).unwrap()
    }

    #[test]
    fn a_trunk_translates_both_ways() {
        let trunk = Trunk::default();
        let trunk = trunk.with(SegmentId(3), Tagging::Tagged(vid(4094))).unwrap();
        let trunk = trunk.with(SegmentId(9), Tagging::Native(Some(vid(67)))).unwrap();
        let trunk = trunk.with(SegmentId(1), Tagging::Tagged(vid(1))).unwrap();
        let segments = [0, 1, 67, 68, 4094, 4095].map(|vid| trunk.segment(vid).0);
        assert_eq!(segments, [9, 1, 9, 0, 3, 0]);
        assert_eq!(trunk.tagging(SegmentId(3)), Some(Tagging::Tagged(vid(4094))));
        assert_eq!(trunk.tagging(SegmentId(9)), Some(Tagging::Native(Some(vid(67)))));
        assert_eq!([0, 2, 10].map(|segment| trunk.tagging(SegmentId(segment))), [None; 3]);
        assert_eq!(trunk.segments().map(|(segment, _)| segment.0).collect::<Vec<_>>(), [1, 3, 9]);
    }

    #[test]
    fn what_is_taken_is_refused_and_says_by_whom() {
        let trunk = Trunk::default().with(SegmentId(1), Tagging::Tagged(vid(67))).unwrap();
        let trunk = trunk.with(SegmentId(2), Tagging::Native(Some(vid(257)))).unwrap();
        let (taken, segment) = (SegmentId(1), SegmentId(3));
        for (segment, tagging, error) in [
            (SegmentId::NONE, Tagging::Native(None), TrunkError::NoSegment),
            (SegmentId(1), Tagging::Tagged(vid(68)), TrunkError::Twice(SegmentId(1))),
            (SegmentId(2), Tagging::Tagged(vid(68)), TrunkError::Twice(SegmentId(2))),
            (
                segment,
                Tagging::Tagged(vid(67)),
                TrunkError::VlanTaken { vid: vid(67), taken, segment },
            ),
            (
                segment,
                Tagging::Native(Some(vid(67))),
                TrunkError::VlanTaken { vid: vid(67), taken, segment },
            ),
            (
                segment,
                Tagging::Native(None),
                TrunkError::NativeTaken { taken: SegmentId(2), segment },
            ),
        ] {
            assert_eq!(trunk.clone().with(segment, tagging), Err(error), "{error}");
        }
    }

    fn tagging() -> impl Strategy<Value = Tagging> {
        prop_oneof![
            4 => (1u16..9).prop_map(|number| Tagging::Tagged(vid(number))),
            1 => prop::option::of(1u16..9).prop_map(|number| Tagging::Native(number.map(vid))),
        ]
    }

    proptest! {
        /// After any steps, the trunk is what one made of the remaining segments is, and every
        /// VLAN leads to the segment that leaves as it.
        #[test]
        fn steps_lead_where_starting_anew_does(
            steps in prop::collection::vec((1u16..9, prop::option::weighted(0.7, tagging())), 0..67)
        ) {
            let (mut trunk, mut model) = (Trunk::default(), BTreeMap::new());
            for (segment, tagging) in steps {
                let segment = SegmentId(segment);
                match tagging {
                    Some(tagging) => {
                        if let Ok(larger) = trunk.clone().with(segment, tagging) {
                            trunk = larger;
                            model.insert(segment, tagging);
                        }
                    }
                    None => {
                        trunk = trunk.without(segment);
                        model.remove(&segment);
                    }
                }
                let anew = model.iter().try_fold(Trunk::default(), |trunk, (&segment, &tagging)| {
                    trunk.with(segment, tagging)
                });
                prop_assert_eq!(Ok(&trunk), anew.as_ref());
            }
            for (segment, tagging) in trunk.segments() {
                prop_assert_eq!(trunk.tagging(segment), Some(tagging));
                if let Some(vid) = tagging.vid() {
                    prop_assert_eq!(trunk.segment(vid.number()), segment);
                }
                prop_assert_eq!(matches!(tagging, Tagging::Native(_)), trunk.segment(0) == segment);
            }
        }
    }
}
