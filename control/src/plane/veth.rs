//! Veths: one end in the container, named and addressed there, the other in heddle's own
//! namespace, where sockets drive it.

use dataplane::device::ethtool;
use dataplane::device::netlink::{Link, Netlink};
use dataplane::device::netns::Netns;

use super::device::{DeviceError, Wanted, configure, earlier, link};
use crate::model::fnv1a;

/// heddle's end of a veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    /// It, in heddle's own namespace.
    pub(super) near: Link,
    /// Whether an earlier heddle has served it.
    pub(super) adopted: bool,
}

/// What it is, in the kernel's words.
const KIND: &str = "veth";

/// The veth between `netns` and `backstage`, heddle's own namespace: the one that is there from an
/// earlier run, or a new one with as many queues as there are workers. Its far end is up and has
/// its addresses; it has carrier once the near end is up.
///
/// # Errors
///
/// [`DeviceError`] says what the kernel refused; a new device is gone again then.
pub(super) fn open(
    netns: &Netns,
    backstage: &Netns,
    wanted: &Wanted,
    queues: u32,
) -> Result<Opened, DeviceError> {
    backstage.run(|| remove_unfinished(wanted))??;
    let far = netns.run(|| earlier(&mut Netlink::open()?, netns, wanted, KIND))??;
    let near = backstage.run(|| near(far.is_some(), wanted, queues))??;
    let adopted = near.is_some();
    let near = match near {
        Some(near) => near,
        None => backstage.run(|| create(netns, wanted, queues))??,
    };
    let finished = finish(netns, backstage, wanted, &near)
        .and_then(|()| backstage.run(|| mark(&near, wanted))?);
    finished.inspect_err(|_| {
        if !adopted {
            // The first error is what matters.
            let _ = backstage.run(|| Netlink::open()?.delete(near.index));
        }
    })?;
    Ok(Opened { near, adopted })
}

/// Has the container's kernel put VLAN tags into the frames that it sends: an XDP program at the
/// near end sees nothing beside them, and a frame without its tag is in another VLAN.
///
/// # Errors
///
/// [`DeviceError`] when the device is gone, or the kernel refuses.
pub(super) fn keep_tags(netns: &Netns, wanted: &Wanted) -> Result<(), DeviceError> {
    Ok(netns.run(|| ethtool::switch(&wanted.name, &ethtool::TAG_INSERTION, false))??)
}

/// Changes a veth that is in use to what it is to be now.
///
/// # Errors
///
/// [`DeviceError`] when it is gone, or the kernel refuses.
pub(super) fn change(netns: &Netns, backstage: &Netns, wanted: &Wanted) -> Result<(), DeviceError> {
    let near = backstage.run(|| link(&mut Netlink::open()?, &near_name(wanted)))??;
    finish(netns, backstage, wanted, &near)
}

/// Removes both ends of a veth that an earlier heddle was making when it died.
fn remove_unfinished(wanted: &Wanted) -> Result<(), DeviceError> {
    let mut netlink = Netlink::open()?;
    match netlink.link(&near_name(wanted))? {
        Some(near) if near.alias.is_none() => Ok(netlink.delete(near.index)?),
        _ => Ok(()),
    }
}

/// The near end from an earlier run, if its far end is there as well.
fn near(far: bool, wanted: &Wanted, queues: u32) -> Result<Option<Link>, DeviceError> {
    let mut netlink = Netlink::open()?;
    let found = netlink.link(&near_name(wanted))?;
    let Some(near) = found.filter(|near| near.alias.as_ref() == Some(&wanted.alias)) else {
        return Ok(None);
    };
    if far && near.rx_queues == queues {
        return Ok(Some(near));
    }
    // Both ends go.
    netlink.delete(near.index)?;
    Ok(None)
}

/// Makes a veth in this namespace, and answers its near end.
fn create(netns: &Netns, wanted: &Wanted, queues: u32) -> Result<Link, DeviceError> {
    let name = near_name(wanted);
    let mut netlink = Netlink::open()?;
    netlink.add_veth(&name, &wanted.name, queues, Some(netns))?;
    link(&mut netlink, &name)
}

/// Gives a near end its alias, last of all: one without was not finished.
fn mark(near: &Link, wanted: &Wanted) -> Result<(), DeviceError> {
    Ok(Netlink::open()?.set_alias(near.index, &wanted.alias)?)
}

fn finish(
    netns: &Netns,
    backstage: &Netns,
    wanted: &Wanted,
    near: &Link,
) -> Result<(), DeviceError> {
    let mtu = u32::from(wanted.mtu.bytes());
    if near.mtu != mtu {
        backstage.run(|| Netlink::open()?.set_mtu(near.index, mtu))??;
    }
    netns.run(|| {
        let mut netlink = Netlink::open()?;
        let far = link(&mut netlink, &wanted.name)?;
        netlink.set_alias(far.index, &wanted.alias)?;
        configure(&mut netlink, &far, wanted)
    })?
}

/// The near end's name: it follows from the alias, which is too long for a name.
fn near_name(wanted: &Wanted) -> String {
    format!("hdl{:012x}", fnv1a(wanted.alias.bytes()) >> 16)
}
