//! What the networks so far take from each parent, and whether one more fits beside them.

use std::collections::BTreeMap;

use dataplane::wire::vlan::Vid;

use super::device::Io;
use super::document::Path;
use super::parent::{Lan, Parent};
use super::report::{Kind, Problem};

/// By device.
#[derive(Debug, Clone, Default)]
pub(super) struct Parents(BTreeMap<String, Taken>);

/// The names of the networks that take something.
#[derive(Debug, Clone, Default)]
struct Taken {
    /// Any of them.
    user: String,
    /// The one that says how the device is driven.
    io: Option<(Io, String)>,
    /// The one of frames without a VLAN.
    untagged: Option<String>,
    /// A trunk that says which VLAN is native.
    native: Option<(Vid, String)>,
    /// The one of each VLAN, trunks left out.
    vlans: BTreeMap<Vid, String>,
}

impl Parents {
    /// A network that the device is the parent of, if there is one.
    pub(super) fn user(&self, device: &str) -> Option<&str> {
        self.0.get(device).map(|taken| &*taken.user)
    }

    /// What keeps a network from having this parent, with a path that starts at the network.
    pub(super) fn clash(&self, parent: &Parent) -> Option<Problem> {
        let taken = self.0.get(&parent.device)?;
        let (device, io) = (&parent.device, parent.io);
        let conflict = |key: &str, found: String, expected: String| {
            Problem::new(Kind::Conflict, Path::default().key(key), found, expected, "")
        };
        if let Some((other, network)) = &taken.io
            && ![Io::Auto, *other].contains(&io)
        {
            let expected = format!("`{other}`, as network `{network}` drives {device}");
            return Some(conflict("io", format!("`{io}`"), expected));
        }
        match &parent.lan {
            Lan::Untagged => {
                let expected = taken.clash_of_untagged(device)?;
                Some(conflict("parent", format!("`{device}`"), expected))
            }
            Lan::Vlan(vid) => {
                let expected = taken.clash_of_vlan(*vid, device)?;
                Some(conflict("vlan", vid.to_string(), expected))
            }
            Lan::Trunk(trunk) => {
                let native = trunk.native?;
                let expected = taken.clash_of_native(native, device)?;
                Some(conflict("native", native.to_string(), expected))
            }
        }
    }

    /// Notes what a network that fits takes.
    pub(super) fn count(&mut self, network: &str, parent: &Parent) {
        let taken = self.0.entry(parent.device.clone()).or_default();
        let name = || network.to_owned();
        taken.user = name();
        if parent.io != Io::Auto {
            taken.io.get_or_insert_with(|| (parent.io, name()));
        }
        match &parent.lan {
            Lan::Untagged => taken.untagged = Some(name()),
            Lan::Vlan(vid) => _ = taken.vlans.insert(*vid, name()),
            Lan::Trunk(trunk) => {
                if let Some(native) = trunk.native {
                    taken.native.get_or_insert_with(|| (native, name()));
                }
            }
        }
    }
}

impl Taken {
    /// What a network of frames without a VLAN should have instead.
    fn clash_of_untagged(&self, device: &str) -> Option<String> {
        if let Some(network) = &self.untagged {
            let taken = format!("whose untagged frames are network `{network}`'s");
            return Some(format!("a parent other than {device}, {taken}"));
        }
        let (native, trunk) = self.native.as_ref()?;
        let network = self.vlans.get(native)?;
        let taken = format!("whose native VLAN {native} (by `{trunk}`) is network `{network}`'s");
        Some(format!("a parent other than {device}, {taken}"))
    }

    /// What a network of one VLAN should have instead.
    fn clash_of_vlan(&self, vid: Vid, device: &str) -> Option<String> {
        if let Some(network) = self.vlans.get(&vid) {
            return Some(format!("a VLAN of {device} that is not network `{network}`'s"));
        }
        let (native, trunk) = self.native.as_ref()?;
        let network = self.untagged.as_ref().filter(|_| *native == vid)?;
        let taken = format!("which is network `{network}`'s");
        Some(format!("a VLAN of {device} other than the native one (by `{trunk}`), {taken}"))
    }

    /// What a trunk with a native VLAN should have instead.
    fn clash_of_native(&self, vid: Vid, device: &str) -> Option<String> {
        if let Some((native, trunk)) = self.native.as_ref().filter(|(native, _)| *native != vid) {
            return Some(format!("{native}, the native VLAN of {device} by network `{trunk}`"));
        }
        let (untagged, tagged) = (self.untagged.as_ref()?, self.vlans.get(&vid)?);
        let taken = format!("since the untagged frames of {device} are network `{untagged}`'s");
        Some(format!("a VLAN that is not network `{tagged}`'s, {taken}"))
    }
}
