//! What a network is plugged into: a device of this host, and which of its frames are the
//! network's.
//!
//! In the words of IEEE 802.1Q-2018, a parent is a bridge port. It is a member of every VLAN that a
//! network takes from it. One VLAN at most is in its untagged set, and is what its PVID names: that
//! of the `bridge` network with this parent and of `native`, which are the same one. Frames of all
//! others are tagged. A frame that comes in tagged with the native VLAN belongs to it as well; one
//! that comes in for a VLAN which no network takes is filtered (ingress filtering, 8.6.2).

use std::collections::BTreeSet;

use dataplane::wire::vlan::Vid;

use super::device::Io;
use super::document::Node;
use super::fields::Fields;
use super::network::Driver;
use super::report::{Kind, Problem};
use super::values::{self, Mismatch};

/// A device that connects a network with the world outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its name in heddle's own namespace.
    pub device: String,
    /// How it is driven.
    pub io: Io,
    /// Which of its frames are the network's.
    pub lan: Lan,
}

/// Frames of a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lan {
    /// Those without a VLAN: untagged, or with a tag of nothing but a priority.
    Untagged,
    /// Those of one VLAN. Endpoints get them untagged.
    Vlan(Vid),
    /// Those of several VLANs. Endpoints get them as they are on the parent.
    Trunk(Trunk),
}

/// The VLANs of a trunk network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trunk {
    /// In the order of their numbers, without the native one.
    pub tagged: Vec<Vid>,
    /// What is untagged, if there is such a VLAN.
    pub native: Option<Vid>,
}

impl Parent {
    /// Reads the keys of a network that say what it is plugged into; what is wrong with them
    /// becomes problems.
    pub(super) fn read(fields: &mut Fields<'_>, driver: Driver) -> Option<Self> {
        let device = match driver {
            Driver::Bridge => fields.optional("parent", values::device),
            Driver::Vlan => {
                fields.required("parent", "the device whose VLAN it is", values::device)
            }
        };
        if !fields.has("parent") && fields.has("io") {
            fields.refuse("io", "without a parent", "beside `parent`, which is driven so");
        }
        let io = fields.optional("io", Io::read).unwrap_or_default();
        let lan = match driver {
            Driver::Bridge => untagged(fields),
            Driver::Vlan => vlans(fields),
        };
        Some(Self { device: device?, io, lan: lan? })
    }

    /// Whether the network is a trunk.
    pub fn is_trunk(&self) -> bool {
        matches!(self.lan, Lan::Trunk(_))
    }

    /// Puts the keys into a body that the API takes.
    pub(super) fn put_into(&self, json: &mut serde_json::Value) {
        json["parent"] = self.device.as_str().into();
        json["io"] = self.io.to_string().into();
        match &self.lan {
            Lan::Untagged => {}
            Lan::Vlan(vid) => json["vlan"] = vid.number().into(),
            Lan::Trunk(Trunk { tagged, native }) => {
                json["trunk"] = tagged.iter().map(|vid| vid.number()).collect();
                if let Some(vid) = native {
                    json["native"] = vid.number().into();
                }
            }
        }
    }
}

fn untagged(fields: &mut Fields<'_>) -> Option<Lan> {
    for key in ["vlan", "trunk", "native"] {
        if fields.has(key) {
            fields.refuse(key, "beside driver = \"bridge\"", "for driver = \"vlan\"");
        }
    }
    Some(Lan::Untagged)
}

fn vlans(fields: &mut Fields<'_>) -> Option<Lan> {
    match (fields.has("vlan"), fields.has("trunk")) {
        (false, false) => {
            fields.missing("vlan", "vlan = 10 for one VLAN, or trunk = [10, 20] for several");
            None
        }
        (true, true) => {
            fields.refuse("trunk", "beside `vlan`", "for networks of several VLANs");
            None
        }
        (true, false) => {
            if fields.has("native") {
                fields.refuse("native", "beside `vlan`", "beside `trunk`");
            }
            fields.optional("vlan", vid).map(Lan::Vlan)
        }
        (false, true) => Some(Lan::Trunk(trunk(fields))),
    }
}

fn trunk(fields: &mut Fields<'_>) -> Trunk {
    let native = fields.optional("native", vid);
    let mut tagged = BTreeSet::new();
    let listed = fields.list("trunk", vid);
    if listed.is_empty() {
        let (path, advice) = (fields.path("trunk"), "or write `vlan` for a network of one VLAN");
        let expected = "at least one VLAN";
        fields.problem(Problem::new(Kind::BadValue, path, "none", expected, advice));
    }
    for (path, vid) in listed {
        let expected = if Some(vid) == native {
            "a VLAN other than the native one, which is untagged"
        } else if tagged.insert(vid) {
            continue;
        } else {
            "each VLAN once"
        };
        fields.problem(Problem::new(Kind::Conflict, path, vid.to_string(), expected, ""));
    }
    Trunk { tagged: tagged.into_iter().collect(), native }
}

fn vid(node: &Node) -> Result<Vid, Mismatch> {
    let number = values::integer(1..=4094)(node)?;
    let vid = u16::try_from(number).ok().and_then(Vid::new);
    vid.ok_or_else(|| Mismatch::value("an integer from 1 to 4094", ""))
}
