//! What a port is to be made of.

use std::path::PathBuf;

use dataplane::device::netns::{self, Identity, Netns};

use super::device::{Site, Wanted};
use super::drive::Stations;
use crate::config::Io;

/// What a port is to be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// A TAP in this namespace.
    Tap(PathBuf, Wanted),
    /// A veth into this namespace, whose other end is driven so.
    Veth(PathBuf, Wanted, Io),
    /// A device that there is, in this namespace or in heddle's.
    Existing(Option<PathBuf>, String, Io),
    /// A device that the host uses as well, in heddle's namespace.
    Parent(String, Io, Stations),
    /// Nothing of the kernel's.
    Memory,
}

impl Wish {
    /// Where the device of it is, if heddle makes one.
    pub(super) fn site(&self) -> Option<Site> {
        match self {
            Self::Tap(netns, wanted) | Self::Veth(netns, wanted, _) => Some(Site {
                netns: netns.clone(),
                name: wanted.name.clone(),
                alias: wanted.alias.clone(),
            }),
            Self::Existing(..) | Self::Parent(..) | Self::Memory => None,
        }
    }

    /// Whether a device that was opened for this can't follow the other wish as it is.
    pub(super) fn is_driven_otherwise_than(&self, other: &Self) -> bool {
        let (Self::Parent(_, old, before), Self::Parent(_, new, after)) = (self, other) else {
            return false;
        };
        old != new || before.is_some() != after.is_some()
    }

    /// The namespace that the device is to be in, if that is there.
    pub(super) fn netns(&self) -> Option<Identity> {
        match self {
            Self::Tap(path, _) | Self::Veth(path, ..) | Self::Existing(Some(path), ..) => {
                netns::identity_of(path).ok()
            }
            Self::Existing(None, ..) | Self::Parent(..) => {
                Netns::current().and_then(|netns| netns.identity()).ok()
            }
            Self::Memory => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_parent_is_opened_anew_only_when_it_must_be() {
        let wish = |io, stations| Wish::Parent("eth1".to_owned(), io, stations);
        let some = |number| Some(BTreeSet::from([dataplane::ids::MacAddr::from_u64(number)]));
        let before = wish(Io::Auto, some(1));
        assert!(!before.is_driven_otherwise_than(&wish(Io::Auto, some(2))), "rules change");
        assert!(before.is_driven_otherwise_than(&wish(Io::AfPacket, some(1))));
        assert!(before.is_driven_otherwise_than(&wish(Io::Auto, None)), "a trunk came");
        assert!(wish(Io::Auto, None).is_driven_otherwise_than(&before), "and went");
        assert!(!Wish::Memory.is_driven_otherwise_than(&Wish::Memory));
    }
}
