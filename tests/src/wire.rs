//! The wire that a host's device is plugged into, and what is at its other end.

use std::fs;
use std::net::IpAddr;

use dataplane::device::netlink::Netlink;
use perf::lab::host::Container;

use crate::{PATIENCE, World};

/// The device of a host that its networks are plugged into.
pub const NIC: &str = "nic0";

/// The bridge that [`bridge`] makes.
const BRIDGE: &str = "br0";

impl World {
    /// Connects [`NIC`] of the host with a device called `wire` in a namespace, a veth, and waits
    /// until it is up.
    ///
    /// # Panics
    /// If that can't be had.
    pub fn connect(&self, outside: &Container, wire: &str, mtu: u32) {
        let add = |netlink: &mut Netlink| netlink.add_veth(NIC, wire, 1, Some(outside.netns()));
        self.host().netlink(add).unwrap();
        for (container, device) in [(self.host(), NIC), (outside, wire)] {
            let configure = |netlink: &mut Netlink| {
                let index = netlink.link(device)?.expect("the veth").index;
                netlink.set_mtu(index, mtu)?;
                netlink.set_up(index)
            };
            container.netlink(configure).unwrap();
        }
        outside.wait_until_running(wire, PATIENCE, self.cancel()).unwrap();
    }

    /// How `show ports` says that the parent is driven.
    pub fn driven(&self) -> Option<String> {
        let ports = self.show("ports");
        let uplink = ports["ports"].as_array()?.iter().find(|port| port["kind"] == "uplink")?;
        uplink["io"].as_str().map(str::to_owned)
    }
}

/// Gives a device addresses of a plan's networks.
///
/// # Panics
/// If the device is not there, or the kernel refuses.
pub fn assign(container: &Container, device: &str, addresses: &[IpAddr]) {
    let add = |netlink: &mut Netlink| {
        let index = netlink.link(device)?.expect("the device").index;
        addresses.iter().try_for_each(|&address| {
            netlink.add_address(index, (address, if address.is_ipv4() { 24 } else { 64 }))
        })
    };
    container.netlink(add).unwrap();
}

/// Makes the kernel's bridge of devices in a namespace, which says nothing by itself.
///
/// # Panics
/// If a device is not there, or the kernel refuses.
pub fn bridge(container: &Container, devices: &[&str], mtu: u32) {
    let make = |netlink: &mut Netlink| {
        netlink.add_bridge(BRIDGE)?;
        fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1").unwrap();
        let bridge = netlink.link(BRIDGE)?.expect("it was made").index;
        for device in devices {
            let index = netlink.link(device)?.expect("the device").index;
            netlink.set_master(index, Some(bridge))?;
            netlink.set_up(index)?;
        }
        netlink.set_mtu(bridge, mtu)?;
        netlink.set_up(bridge)
    };
    container.netlink(make).unwrap();
}
