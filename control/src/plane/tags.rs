//! VLAN tags that a device keeps beside its frames, where AF_XDP doesn't see them: they have to stay
//! in the frames.

use dataplane::device::ethtool::{self, TAG_INSERTION, TAG_STRIPPING};
use dataplane::device::netlink::{Link, Netlink};

/// What was turned off at a device.
#[derive(Debug)]
pub struct TurnedOff {
    index: u32,
    features: Vec<&'static str>,
}

/// Has a device, in this namespace, leave tags in frames that come. One that was `adopted` from an
/// earlier heddle had it turned off by that, and is to have it back as well.
///
/// # Errors
///
/// [`ethtool::Error`] when the kernel refuses.
pub(super) fn receive_in_frames(link: &Link, adopted: bool) -> Result<TurnedOff, ethtool::Error> {
    let known = ethtool::features(&link.name)?;
    let switchable = |name: &&str| known.iter().any(|f| f.name == **name && f.changeable);
    let active = |name: &&str| known.iter().any(|f| f.name == **name && f.active);
    let mut features: Vec<_> = TAG_STRIPPING.into_iter().filter(switchable).collect();
    let on: Vec<_> = features.iter().copied().filter(active).collect();
    if !on.is_empty() {
        ethtool::set_features(&link.name, &switched(&on, false))?;
        tracing::info!(device = link.name, off = on.join(", "), "VLAN tags stay in its frames");
    }
    if !adopted {
        features = on;
    }
    if link.kind.as_deref() == Some("veth") {
        let (device, off) = (&link.name, TAG_INSERTION.join(", "));
        tracing::info!(device, off, "turn that off at its other end, or its VLAN tags are lost");
    }
    Ok(TurnedOff { index: link.index, features })
}

impl TurnedOff {
    /// Turns it on again, if the device is still there. It is called in the device's namespace.
    pub(super) fn put_back(&self) {
        let put_back = |link: Link| {
            let done = ethtool::set_features(&link.name, &switched(&self.features, true));
            if let Err(error) = done {
                tracing::warn!(device = link.name, %error, "VLAN offloads stay off");
            }
        };
        let found = Netlink::open().and_then(|mut netlink| netlink.link_at(self.index));
        if let Some(link) = found.ok().flatten().filter(|_| !self.features.is_empty()) {
            put_back(link);
        }
    }
}

fn switched<'a>(features: &[&'a str], on: bool) -> Vec<(&'a str, bool)> {
    features.iter().map(|&name| (name, on)).collect()
}
