//! Links: the network devices of a namespace.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;

use super::{Error, Netlink, Subject};
use crate::device::netns::Netns;
use crate::ids::MacAddr;

/// A network device, as it was when it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Its number, unique in its namespace.
    pub index: u32,
    /// Its name, unique in its namespace, at most 15 bytes.
    pub name: String,
    /// Its Ethernet address; zero if it has none.
    pub mac: MacAddr,
    /// The largest layer 3 packet, in bytes.
    pub mtu: u32,
    /// Whether it was set up (`IFF_UP`).
    pub up: bool,
    /// Whether it has carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Whether the kernel has acted on the carrier, and lets packets through (`IFF_RUNNING`,
    /// RFC 2863's operational state). It comes some time after the carrier; until then all
    /// packets are lost.
    pub running: bool,
    /// A free text of up to 255 bytes that stays with the device wherever it is moved.
    pub alias: Option<String>,
    /// What it is, in the kernel's words (`veth`, `bridge`, `tun`); none for hardware.
    pub kind: Option<String>,
    /// What queues in front of it, in the kernel's words (`mq`, `noqueue`).
    pub discipline: Option<String>,
    /// Its receive queues, those that are not in use included.
    pub rx_queues: u32,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
}

impl Netlink {
    /// The device called `name`, or `None` if the namespace has none.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let subject = Subject { operation: "look up", device: name };
        self.find(subject, message(0, vec![LinkAttribute::IfName(name.to_owned())]))
    }

    /// The device with this index, or `None` if the namespace has none.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let device = format!("device {index}");
        let subject = Subject { operation: "look up", device: &device };
        self.find(subject, message(index, vec![]))
    }

    /// All devices of the namespace.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] or [`Error::Unreadable`]; this and all other operations also give
    /// [`Error::Refused`] when the kernel says no.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let subject = Subject { operation: "list", device: "devices" };
        let found = self.dump(subject, &RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(found.into_iter().filter_map(parse).collect())
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        self.set_flag_up("set up", index, LinkFlags::Up)
    }

    /// Sets a device down, which also drops its routes.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn set_down(&mut self, index: u32) -> Result<(), Error> {
        self.set_flag_up("set down", index, LinkFlags::empty())
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EEXIST` if the name is taken.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Error> {
        self.set("rename", index, LinkAttribute::IfName(name.to_owned()))
    }

    /// Gives a device another Ethernet address.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EADDRNOTAVAIL` for a group address.
    pub fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), Error> {
        self.set("set the address of", index, LinkAttribute::Address(mac.0.to_vec()))
    }

    /// Sets the largest layer 3 packet, in bytes.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EINVAL` if the device can't carry it.
    pub fn set_mtu(&mut self, index: u32, bytes: u32) -> Result<(), Error> {
        self.set("set the MTU of", index, LinkAttribute::Mtu(bytes))
    }

    /// Sets a device's alias.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EINVAL` above 255 bytes.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), Error> {
        self.set("set the alias of", index, LinkAttribute::IfAlias(alias.to_owned()))
    }

    /// Sets how many packets wait in a device's transmit queue, `txqlen`. A TAP drops what is
    /// beyond.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn set_queue_length(&mut self, index: u32, packets: u32) -> Result<(), Error> {
        self.set("set the queue length of", index, LinkAttribute::TxQueueLen(packets))
    }

    /// Limits the super-packets that the kernel gives to a device: their bytes, and the
    /// segments that each is to be cut into.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EINVAL` beyond what the device takes.
    pub fn set_gso_max(&mut self, index: u32, bytes: u32, segments: u32) -> Result<(), Error> {
        self.set("limit the GSO size of", index, LinkAttribute::GsoMaxSize(bytes))?;
        self.set("limit the GSO segments of", index, LinkAttribute::GsoMaxSegs(segments))
    }

    /// Makes a device a port of a bridge, or of none.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn set_master(&mut self, index: u32, bridge: Option<u32>) -> Result<(), Error> {
        self.set("set the bridge of", index, LinkAttribute::Controller(bridge.unwrap_or(0)))
    }

    /// Moves a device into another namespace. It arrives down and without addresses, and may
    /// get another index there.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EEXIST` if its name is taken there.
    pub fn move_to(&mut self, index: u32, netns: &Netns) -> Result<(), Error> {
        self.set("move", index, LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()))
    }

    /// Deletes a device; of a veth, both ends.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EOPNOTSUPP` for hardware.
    pub fn delete(&mut self, index: u32) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelLink(message(index, vec![]));
        self.change_link("delete", index, request)
    }

    /// Makes a veth: `name` here, its other end `peer` here or in `peer_netns`, each with
    /// `queues` receive and transmit queues.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EEXIST` if a name is taken.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        queues: u32,
        peer_netns: Option<&Netns>,
    ) -> Result<(), Error> {
        let mut far = named(peer, queues);
        far.extend(peer_netns.map(|n| LinkAttribute::NetNsFd(n.as_fd().as_raw_fd())));
        let data = InfoData::Veth(InfoVeth::Peer(message(0, far)));
        let mut near = named(name, queues);
        near.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(data),
        ]));
        self.create("add veth", name, near)
    }

    /// Makes a bridge without spanning tree.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `EEXIST` if the name is taken.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]);
        self.create("add bridge", name, vec![LinkAttribute::IfName(name.to_owned()), info])
    }

    fn find(&mut self, subject: Subject<'_>, wanted: LinkMessage) -> Result<Option<Link>, Error> {
        match self.query(subject, RouteNetlinkMessage::GetLink(wanted)) {
            Err(error) if error.is(Errno::NODEV) => Ok(None),
            answer => Ok(answer?.and_then(parse)),
        }
    }

    fn create(
        &mut self,
        operation: &'static str,
        device: &str,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewLink(message(0, attributes));
        self.change(Subject { operation, device }, request, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn set(
        &mut self,
        operation: &'static str,
        index: u32,
        attribute: LinkAttribute,
    ) -> Result<(), Error> {
        let request = RouteNetlinkMessage::SetLink(message(index, vec![attribute]));
        self.change_link(operation, index, request)
    }

    fn set_flag_up(
        &mut self,
        operation: &'static str,
        index: u32,
        flags: LinkFlags,
    ) -> Result<(), Error> {
        let mut request = message(index, vec![]);
        request.header.change_mask = LinkFlags::Up;
        request.header.flags = flags;
        self.change_link(operation, index, RouteNetlinkMessage::SetLink(request))
    }

    fn change_link(
        &mut self,
        operation: &'static str,
        index: u32,
        request: RouteNetlinkMessage,
    ) -> Result<(), Error> {
        let unnamed = format!("device {index}");
        let refused = self.change(Subject { operation, device: &unnamed }, request, 0);
        refused.map_err(|error| self.with_name(index, error))
    }

    /// Puts the device's name into an error, for people who know no indices.
    pub(super) fn with_name(&mut self, index: u32, error: Error) -> Error {
        let Error::Refused { operation, source, device } = error else { return error };
        let named = self.link_at(index).ok().flatten().map(|link| link.name);
        Error::Refused { operation, source, device: named.unwrap_or(device) }
    }
}

fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn named(name: &str, queues: u32) -> Vec<LinkAttribute> {
    vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::NumTxQueues(queues),
        LinkAttribute::NumRxQueues(queues),
    ]
}

fn parse(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        running: flags.contains(LinkFlags::Running),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(octets) => {
                link.mac = octets.try_into().map_or(link.mac, MacAddr);
            }
            LinkAttribute::Mtu(bytes) => link.mtu = bytes,
            LinkAttribute::Qdisc(name) => link.discipline = Some(name),
            LinkAttribute::NumRxQueues(queues) => link.rx_queues = queues,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::LinkInfo(infos) => link.kind = kind_of(&infos),
            _ => {}
        }
    }
    Some(link)
}

fn kind_of(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::netns::tests::Guard;

    fn inside<R: Send>(guard: &Guard, work: impl FnOnce(&mut Netlink) -> R + Send) -> R {
        guard.netns.run(|| work(&mut Netlink::open().unwrap())).unwrap()
    }

    #[test]
    fn a_veth_across_namespaces_gets_carrier_when_both_ends_are_up() {
        let (near, far) = (Guard::new(), Guard::new());
        let index = inside(&near, |nl| {
            nl.add_veth("a0", "b0", 3, Some(&far.netns)).unwrap();
            let link = nl.link("a0").unwrap().unwrap();
            nl.set_up(link.index).unwrap();
            let lone = nl.link("a0").unwrap().unwrap();
            assert!(lone.up && !lone.carrier && !lone.running);
            link.index
        });
        inside(&far, |nl| {
            let link = nl.link("b0").unwrap().unwrap();
            assert_eq!(link.kind.as_deref(), Some("veth"));
            nl.set_up(link.index).unwrap();
        });
        inside(&near, |nl| {
            let link = nl.link_at(index).unwrap().unwrap();
            assert!(link.up && link.carrier);
            nl.set_down(index).unwrap();
            assert!(!nl.link("a0").unwrap().unwrap().up);
            nl.delete(index).unwrap();
            assert_eq!(nl.link("a0").unwrap(), None);
        });
        assert_eq!(inside(&far, |nl| nl.link("b0").unwrap()), None);
    }

    #[test]
    fn attributes_are_set_and_read_back() {
        let guard = Guard::new();
        inside(&guard, |nl| {
            nl.add_bridge("br0").unwrap();
            nl.add_veth("a0", "a1", 1, None).unwrap();
            let bridge = nl.link("br0").unwrap().unwrap();
            let index = nl.link("a0").unwrap().unwrap().index;
            let mac: MacAddr = "02:42:0a:00:09:41".parse().unwrap();
            nl.rename(index, "eth0").unwrap();
            nl.set_mac(index, mac).unwrap();
            nl.set_mtu(index, 9000).unwrap();
            nl.set_alias(index, "heddle:web-1").unwrap();
            nl.set_queue_length(index, 257).unwrap();
            nl.set_gso_max(index, 32_000, 44).unwrap();
            nl.set_master(index, Some(bridge.index)).unwrap();
            let link = nl.link("eth0").unwrap().unwrap();
            assert_eq!((link.index, link.mac, link.mtu), (index, mac, 9000));
            assert_eq!(link.alias.as_deref(), Some("heddle:web-1"));
            assert_eq!(link.master, Some(bridge.index));
            assert_eq!(bridge.kind.as_deref(), Some("bridge"));
            nl.set_master(index, None).unwrap();
            assert_eq!(nl.link("eth0").unwrap().unwrap().master, None);
            let names: Vec<_> = nl.links().unwrap().into_iter().map(|l| l.name).collect();
            assert!(["lo", "br0", "eth0", "a1"].iter().all(|n| names.iter().any(|m| m == n)));
        });
    }

    #[test]
    fn a_device_moves_and_keeps_its_alias() {
        let (from, to) = (Guard::new(), Guard::new());
        inside(&from, |nl| {
            nl.add_veth("a0", "a1", 1, None).unwrap();
            let index = nl.link("a0").unwrap().unwrap().index;
            nl.set_alias(index, "kept").unwrap();
            nl.move_to(index, &to.netns).unwrap();
            assert_eq!(nl.link("a0").unwrap(), None);
        });
        let moved = inside(&to, |nl| nl.link("a0").unwrap().unwrap());
        assert_eq!(moved.alias.as_deref(), Some("kept"));
    }

    #[test]
    fn refusals_name_operation_and_device() {
        let guard = Guard::new();
        inside(&guard, |nl| {
            nl.add_bridge("br0").unwrap();
            let again = nl.add_bridge("br0").unwrap_err();
            assert!(again.is(Errno::EXIST));
            let index = nl.link("br0").unwrap().unwrap().index;
            let group = nl.set_mac(index, MacAddr::BROADCAST).unwrap_err();
            assert!(group.to_string().starts_with("cannot set the address of br0: "));
            let missing = nl.set_up(4711).unwrap_err();
            assert!(missing.to_string().starts_with("cannot set up device 4711: "));
        });
    }
}
