//! The device of an endpoint, as its container sees it: named and addressed there, found again
//! after a restart, and removed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dataplane::device::ethtool;
use dataplane::device::netlink::{self, Link, NO_QUEUE, Netlink};
use dataplane::device::netns::{self, Netns};
use dataplane::ids::{MacAddr, Mtu};
use dataplane::port::tap::device::TapError;
use dataplane::wire::ipv6;
use ipnet::IpNet;
use thiserror::Error;

use super::drive::DriveError;

/// Where a device that heddle has made is, and how it is known there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Site {
    /// The name or path of its namespace.
    pub netns: PathBuf,
    /// Its name there.
    pub name: String,
    /// Its alias, which tells it from a stranger's of the same name.
    pub alias: String,
}

/// What a device is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The name in its namespace.
    pub name: String,
    /// By which heddle knows it again: stored as the device's alias.
    pub alias: String,
    /// What the aliases of all this heddle's devices begin with.
    pub instance: String,
    /// Station address.
    pub mac: MacAddr,
    /// Largest layer 3 packet.
    pub mtu: Mtu,
    /// Addresses with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
    /// Default routes: one per family, at most.
    pub gateways: Vec<IpAddr>,
}

/// Why an endpoint has no device.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The namespace is not there, or can't be entered.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The kernel refused a change to the device.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The kernel refused a queue.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The kernel refused to change what the device leaves to hardware.
    #[error(transparent)]
    Ethtool(#[from] ethtool::Error),
    /// No socket on it.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// Something else has the name.
    #[error(
        "the namespace `{netns}` has a device `{name}` that is not heddle's: rename one of them"
    )]
    NameTaken {
        /// Where.
        netns: String,
        /// The name.
        name: String,
    },
    /// The device vanished while it was set up.
    #[error("the device `{0}` vanished while it was set up")]
    Vanished(String),
}

/// Super-packets wait here for their worker; the kernel's default of 1,000 small packets drops
/// some when eight streams burst.
const QUEUE_LENGTH: u32 = 4096;

/// How long the kernel is given to act on a carrier; it takes a millisecond, unless the machine is
/// very busy or the device was set down by somebody else.
const RUNS: Duration = Duration::from_millis(100);

/// Changes a device that is in use to what it is to be now.
///
/// # Errors
///
/// [`DeviceError`] when it is gone, or the kernel refuses.
pub(super) fn change(netns: &Netns, wanted: &Wanted) -> Result<(), DeviceError> {
    netns.run(|| {
        let mut netlink = Netlink::open()?;
        let link = link(&mut netlink, &wanted.name)?;
        configure(&mut netlink, &link, wanted)
    })?
}

/// Waits until the kernel has acted on an adopted device's carrier, and lets packets through.
///
/// # Errors
///
/// [`DeviceError`] when the device is gone.
pub(super) fn wait_until_running(netns: &Netns, name: &str) -> Result<(), DeviceError> {
    netns.run(|| {
        let mut netlink = Netlink::open()?;
        let deadline = Instant::now() + RUNS;
        while !link(&mut netlink, name)?.running && Instant::now() < deadline {
            std::thread::sleep(RUNS / 100);
        }
        Ok(())
    })?
}

/// Has an adopted device's kernel forget neighbours for which it asked while nobody served the
/// device. Otherwise traffic would wait for its next question, up to a second.
///
/// # Errors
///
/// [`DeviceError`] when the device is gone, or the kernel refuses.
pub(super) fn forget_neighbors(netns: &Netns, name: &str) -> Result<(), DeviceError> {
    netns.run(|| {
        let mut netlink = Netlink::open()?;
        let index = link(&mut netlink, name)?.index;
        netlink.forget_unresolved_neighbors(index)?;
        Ok(())
    })?
}

/// The device that an earlier heddle has left in this namespace, if it is of this `kind`. One of
/// an endpoint that is no more is removed.
///
/// # Errors
///
/// [`DeviceError::NameTaken`]; [`DeviceError`] when the kernel refuses.
pub(super) fn earlier(
    netlink: &mut Netlink,
    netns: &Netns,
    wanted: &Wanted,
    kind: &str,
) -> Result<Option<Link>, DeviceError> {
    let Some(link) = netlink.link(&wanted.name)? else { return Ok(None) };
    let alias = link.alias.as_deref().unwrap_or_default();
    if alias == wanted.alias && link.kind.as_deref() == Some(kind) {
        return Ok(Some(link));
    }
    if !alias.starts_with(&wanted.instance) {
        let netns = netns.path().display().to_string();
        return Err(DeviceError::NameTaken { netns, name: wanted.name.clone() });
    }
    netlink.delete(link.index)?;
    Ok(None)
}

pub(super) fn link(netlink: &mut Netlink, name: &str) -> Result<Link, DeviceError> {
    netlink.link(name)?.ok_or_else(|| DeviceError::Vanished(name.to_owned()))
}

impl Site {
    /// Removes the device, if it is there.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] when the namespace can't be entered, or the kernel refuses.
    pub(super) fn clear(&self) -> Result<(), DeviceError> {
        let netns = match Netns::open(&self.netns) {
            // With its namespace the device is gone as well.
            Err(error) if error.is_not_found() => return Ok(()),
            netns => netns?,
        };
        netns.run(|| {
            let mut netlink = Netlink::open()?;
            match netlink.link(&self.name)? {
                Some(link) if link.alias.as_ref() == Some(&self.alias) => {
                    Ok(netlink.delete(link.index)?)
                }
                _ => Ok(()),
            }
        })?
    }
}

/// Gives a device what it is to have, and nothing that it has already.
///
/// # Errors
///
/// [`DeviceError`] when the kernel refuses.
pub(super) fn configure(
    netlink: &mut Netlink,
    link: &Link,
    wanted: &Wanted,
) -> Result<(), DeviceError> {
    if link.mac != wanted.mac {
        change_mac(netlink, link, wanted.mac)?;
    }
    if link.mtu != u32::from(wanted.mtu.bytes()) {
        netlink.set_mtu(link.index, u32::from(wanted.mtu.bytes()))?;
    }
    // Before it goes up, which makes the queues: and never again, since packets get lost then.
    if link.kind.as_deref() == Some("tun") && link.discipline.as_deref() != Some(NO_QUEUE) {
        netlink.remove_queue(link.index)?;
    }
    netlink.set_queue_length(link.index, QUEUE_LENGTH)?;
    for address in &wanted.addresses {
        netlink.add_address(link.index, (address.addr(), address.prefix_len()))?;
    }
    for stale in netlink.addresses(link.index)? {
        let wanted = wanted.addresses.iter().any(|net| (net.addr(), net.prefix_len()) == stale);
        if !wanted && !is_link_local(stale.0) {
            netlink.remove_address(link.index, stale)?;
        }
    }
    netlink.set_up(link.index)?;
    for v6 in [false, true] {
        match wanted.gateways.iter().find(|gateway| gateway.is_ipv6() == v6) {
            Some(gateway) => netlink.add_default_route(*gateway, link.index)?,
            None => netlink.remove_default_route(v6, link.index)?,
        }
    }
    Ok(())
}

/// Changes a device's address, and with it the link-local one, which the kernel makes only once.
fn change_mac(netlink: &mut Netlink, link: &Link, mac: MacAddr) -> Result<(), DeviceError> {
    netlink.set_mac(link.index, mac)?;
    let addresses = netlink.addresses(link.index)?;
    let old: Vec<_> =
        addresses.into_iter().filter(|(address, _)| is_link_local(*address)).collect();
    for address in &old {
        netlink.remove_address(link.index, *address)?;
    }
    if !old.is_empty() {
        netlink.add_address(link.index, (ipv6::link_local(mac).into(), 64))?;
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
