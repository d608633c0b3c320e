//! VLAN tags that a device keeps beside its frames, where AF_XDP doesn't see them: they have to stay
//! in the frames.

use dataplane::device::ethtool::{self, TAG_INSERTION, TAG_STRIPPING};
use dataplane::device::netlink::{Link, Netlink};

use super::drive::DriveError;

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
/// [`DriveError::Tags`] if it can't; [`DriveError::Ethtool`] when the kernel refuses.
pub(super) fn receive_in_frames(link: &Link, adopted: bool) -> Result<TurnedOff, DriveError> {
    let on = ethtool::active(&link.name, &TAG_STRIPPING)?;
    if !on.is_empty() {
        ethtool::switch(&link.name, &on, false)?;
        if !ethtool::active(&link.name, &TAG_STRIPPING)?.is_empty() {
            return Err(DriveError::Tags(link.name.clone()));
        }
        tracing::info!(device = link.name, off = on.join(", "), "VLAN tags stay in its frames");
    }
    if link.kind.as_deref() == Some("veth") {
        let (device, off) = (&link.name, TAG_INSERTION.join(", "));
        tracing::info!(device, off, "turn that off at its other end, or its VLAN tags are lost");
    }
    let features = if adopted { TAG_STRIPPING.to_vec() } else { on };
    Ok(TurnedOff { index: link.index, features })
}

impl TurnedOff {
    /// Turns it on again, if the device is still there. It is called in the device's namespace.
    pub(super) fn put_back(&self) {
        let found = Netlink::open().and_then(|mut netlink| netlink.link_at(self.index));
        let Some(link) = found.ok().flatten().filter(|_| !self.features.is_empty()) else {
            return;
        };
        if let Err(error) = ethtool::switch(&link.name, &self.features, true) {
            tracing::warn!(device = link.name, %error, "VLAN offloads stay off");
        }
    }
}
