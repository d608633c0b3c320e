//! Uplinks: the devices that networks are plugged into, each with the segments that it carries.
//!
//! A VLAN of a parent is one segment, whichever networks take it: an access network and a trunk
//! network of the same VLAN are the same broadcast domain. What is untagged on the parent is one
//! segment too, and it is the native VLAN's.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::ids::{Mtu, PortId, SegmentId};
use dataplane::wire::vlan::Vid;
use pipelines::fdb::PortGeneration;
use pipelines::trunk::{Tagging, Trunk, TrunkError};

use super::Desired;
use crate::config::units::Interval;
use crate::config::{self, Io, Lan, Parent};

/// A device that networks are plugged into, as a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its row among the ports, kept as long as the device is a parent.
    pub id: PortId,
    /// How often that row has been given.
    pub generation: PortGeneration,
    /// The device's name in heddle's own namespace.
    pub device: String,
    /// How it is driven.
    pub io: Io,
    /// That of the network with the largest packets.
    pub mtu: Mtu,
    /// Its segments, and how their frames look on the wire.
    pub trunk: Arc<Trunk>,
    /// How long a learned address lives in each of its segments.
    pub ageing: BTreeMap<SegmentId, Interval>,
}

impl Uplink {
    /// The segment of what the parent's network takes from it; [`SegmentId::NONE`] for a trunk,
    /// which has several.
    pub(super) fn segment(&self, lan: &Lan) -> SegmentId {
        match lan {
            Lan::Untagged => self.trunk.segment(0),
            Lan::Vlan(vid) => self.trunk.segment(vid.number()),
            Lan::Trunk(_) => SegmentId::NONE,
        }
    }

    /// The VLAN of a segment here, if it has a number.
    pub(super) fn vlan(&self, segment: SegmentId) -> Option<Vid> {
        match self.trunk.tagging(segment)? {
            Tagging::Tagged(vid) | Tagging::Native(Some(vid)) => Some(vid),
            Tagging::Native(None) => None,
        }
    }

    /// The segments of a trunk network, as its endpoints get them.
    pub(super) fn trunk_of(&self, lan: &Lan) -> Result<Option<Arc<Trunk>>, TrunkError> {
        let Lan::Trunk(config::Trunk { tagged, native }) = lan else { return Ok(None) };
        let tagged = tagged.iter().map(|&vid| (vid, Tagging::Tagged(vid)));
        let native = native.map(|vid| (vid, Tagging::Native(Some(vid))));
        let trunk = tagged.chain(native).try_fold(Trunk::default(), |trunk, (vid, tagging)| {
            trunk.with(self.trunk.segment(vid.number()), tagging)
        });
        trunk.map(|trunk| Some(Arc::new(trunk)))
    }
}

/// The segment that had this place on a trunk, if there was one.
pub(super) fn kept(trunk: &Trunk, tagging: Tagging) -> Option<SegmentId> {
    let of = |vid| Some(trunk.segment(vid)).filter(|segment| *segment != SegmentId::NONE);
    match tagging {
        Tagging::Tagged(vid) => of(vid.number()),
        Tagging::Native(vid) => of(0).or_else(|| of(vid?.number())),
    }
}

/// What the networks of one parent want of it together.
#[derive(Debug)]
pub(super) struct Wish<'d> {
    /// The last of these networks.
    pub(super) network: &'d str,
    pub(super) io: Io,
    pub(super) mtu: Mtu,
    untagged: Option<Ageing>,
    native: Option<Vid>,
    vlans: BTreeMap<Vid, Ageing>,
}

/// How long learned addresses live in one segment.
#[derive(Debug, Clone, Copy)]
enum Ageing {
    /// As the network of that segment alone has it, which counts.
    Own(Interval),
    /// As a trunk network has it. The longest of them counts.
    Trunk(Interval),
}

/// What is wanted of each parent.
pub(super) fn wishes(desired: &Desired) -> BTreeMap<&str, Wish<'_>> {
    let mut wishes = BTreeMap::new();
    for (_, network) in &desired.networks {
        let Some(parent) = &network.parent else { continue };
        let wish = wishes.entry(&*parent.device).or_insert_with(|| Wish::new(network));
        wish.add(network, parent);
    }
    wishes
}

impl<'d> Wish<'d> {
    fn new(network: &'d config::Network) -> Self {
        Self {
            network: &network.name,
            io: Io::Auto,
            mtu: network.mtu,
            untagged: None,
            native: None,
            vlans: BTreeMap::new(),
        }
    }

    fn add(&mut self, network: &'d config::Network, parent: &Parent) {
        self.network = &network.name;
        self.mtu = self.mtu.max(network.mtu);
        if parent.io != Io::Auto {
            self.io = parent.io;
        }
        let ageing = network.ageing;
        match &parent.lan {
            Lan::Untagged => self.untagged = Some(Ageing::Own(ageing)),
            Lan::Vlan(vid) => self.take(*vid, Ageing::Own(ageing)),
            Lan::Trunk(config::Trunk { tagged, native }) => {
                self.native = self.native.or(*native);
                let vids = tagged.iter().chain(native);
                vids.for_each(|vid| self.take(*vid, Ageing::Trunk(ageing)));
            }
        }
    }

    fn take(&mut self, vid: Vid, ageing: Ageing) {
        let taken = self.vlans.entry(vid).or_insert(ageing);
        *taken = taken.beside(ageing);
    }

    /// The segments that the parent is to carry: how each looks there, and how long its learned
    /// addresses live.
    pub(super) fn lans(mut self) -> Vec<(Tagging, Interval)> {
        let native = self.native.and_then(|vid| self.vlans.remove(&vid));
        let untagged = match (self.untagged, native) {
            (Some(untagged), Some(native)) => Some(untagged.beside(native)),
            (untagged, native) => untagged.or(native),
        };
        let untagged = untagged.map(|ageing| (Tagging::Native(self.native), ageing));
        let tagged = self.vlans.into_iter().map(|(vid, ageing)| (Tagging::Tagged(vid), ageing));
        let all = untagged.into_iter().chain(tagged);
        all.map(|(tagging, ageing)| (tagging, ageing.interval())).collect()
    }
}

impl Ageing {
    fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Self::Own(_), _) => self,
            (_, Self::Own(_)) => other,
            (Self::Trunk(one), Self::Trunk(other)) => Self::Trunk(one.max(other)),
        }
    }

    fn interval(self) -> Interval {
        match self {
            Self::Own(interval) | Self::Trunk(interval) => interval,
        }
    }
}
