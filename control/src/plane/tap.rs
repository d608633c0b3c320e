//! TAPs: made in heddle's namespace, moved into the container's, named and addressed there, and
//! adopted again after a restart.

use std::os::fd::{AsFd, OwnedFd};

use dataplane::device::netlink::Netlink;
use dataplane::device::netns::Netns;
use dataplane::port::tap::device;

use super::device::{DeviceError, Wanted, configure, earlier};

/// A device whose queues are open.
pub(super) struct Opened {
    /// As many as were asked for.
    pub(super) queues: Vec<OwnedFd>,
    /// Whether an earlier heddle has served it.
    pub(super) adopted: bool,
}

/// Begins the name of a device on its way into a container.
const PASSING: &str = "hdl";

/// Opens `queues` queues of the device in `netns`: of the one that is there from an earlier run, or
/// of a new one. It is up and has its addresses, but no carrier yet.
///
/// # Errors
///
/// [`DeviceError`] says what the kernel refused; a new device is gone again then.
pub(super) fn open(netns: &Netns, wanted: &Wanted, queues: usize) -> Result<Opened, DeviceError> {
    match netns.run(|| adopt(netns, wanted, queues))?? {
        Some(queues) => Ok(Opened { queues, adopted: true }),
        None => Ok(Opened { queues: create(netns, wanted, queues)?, adopted: false }),
    }
}

/// Removes devices with an alias that begins with `prefix` from heddle's own namespace: they were
/// on their way into a container when an earlier heddle died.
///
/// # Errors
///
/// [`DeviceError`] when the kernel refuses.
pub fn remove_strays(prefix: &str) -> Result<(), DeviceError> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        let ours = link.alias.as_deref().is_some_and(|alias| alias.starts_with(prefix));
        if ours && link.name.starts_with(PASSING) {
            netlink.delete(link.index)?;
        }
    }
    Ok(())
}

/// Takes the device over that an earlier heddle has left in this namespace.
fn adopt(
    netns: &Netns,
    wanted: &Wanted,
    queues: usize,
) -> Result<Option<Vec<OwnedFd>>, DeviceError> {
    let mut netlink = Netlink::open()?;
    let Some(link) = earlier(&mut netlink, netns, wanted, "tun")? else { return Ok(None) };
    let queues = device::open(&wanted.name, queues)?;
    configure(&mut netlink, &link, wanted)?;
    Ok(Some(queues))
}

/// Makes the device in this namespace, under a passing name, and moves it.
fn create(netns: &Netns, wanted: &Wanted, queues: usize) -> Result<Vec<OwnedFd>, DeviceError> {
    let passing = format!("{PASSING}{:06x}", wanted.mac.to_u64() & 0xff_ffff);
    let queues = device::open(&passing, queues)?;
    move_in(netns, wanted, &passing)?;
    // Last: until then the device goes with its queues.
    if let Some(queue) = queues.first() {
        let vanished = |_| DeviceError::Vanished(wanted.name.clone());
        device::set_persistent(queue.as_fd()).map_err(vanished)?;
    }
    Ok(queues)
}

fn move_in(netns: &Netns, wanted: &Wanted, passing: &str) -> Result<(), DeviceError> {
    let vanished = || DeviceError::Vanished(passing.to_owned());
    let mut netlink = Netlink::open()?;
    let link = netlink.link(passing)?.ok_or_else(vanished)?;
    netlink.set_alias(link.index, &wanted.alias)?;
    netlink.move_to(link.index, netns)?;
    netns.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(passing)?.ok_or_else(vanished)?;
        netlink.rename(link.index, &wanted.name)?;
        configure(&mut netlink, &link, wanted)
    })?
}
