//! Addresses and routes of a namespace's devices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{Error, Netlink, Subject};

/// An address with the length of its prefix in bits, as in `10.0.9.65/24`.
pub type Prefix = (IpAddr, u8);

impl Netlink {
    /// The addresses of a device, with their prefix lengths.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Prefix>, Error> {
        let device = format!("device {index}");
        let subject = Subject { operation: "list the addresses of", device: &device };
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.dump(subject, &request)?;
        Ok(found.into_iter().filter_map(|message| parse(index, message)).collect())
    }

    /// Gives a device an address; if it has it already, nothing changes. An IPv6 address is
    /// usable at once: no duplicate address detection (RFC 4862, 5.4), since heddle itself
    /// knows who has which address.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn add_address(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewAddress(message(index, address));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let added = self.change_at("add an address to", index, request, flags);
        unless(Errno::EXIST, added)
    }

    /// Takes an address from a device; if it has none such, nothing changes.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn remove_address(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelAddress(message(index, address));
        let removed = self.change_at("remove an address from", index, request, 0);
        unless(Errno::ADDRNOTAVAIL, removed)
    }

    /// Sends what has no better route to `gateway`, through the device. The same as
    /// [`Netlink::add_route`] for the prefix of length zero.
    ///
    /// # Errors
    /// As [`Netlink::add_route`].
    pub fn add_default_route(&mut self, gateway: IpAddr, index: u32) -> Result<(), Error> {
        self.add_route((EVERYTHING[usize::from(gateway.is_ipv6())], 0), Some(gateway), index)
    }

    /// Takes a family's default route through the device away that [`Netlink::add_default_route`]
    /// made; if there is none, nothing changes.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn remove_default_route(&mut self, v6: bool, index: u32) -> Result<(), Error> {
        let mut route = route((EVERYTHING[usize::from(v6)], 0), None, index);
        // Nowhere: of any scope.
        (route.header.scope, route.header.kind) = (RouteScope::NoWhere, RouteType::Unspec);
        let request = RouteNetlinkMessage::DelRoute(route);
        let removed = self.change_at("remove the default route through", index, request, 0);
        // A namespace without IPv6 has no routes of it.
        unless(Errno::AFNOSUPPORT, unless(Errno::OPNOTSUPP, unless(Errno::SRCH, removed)))
    }

    /// Routes a prefix through a device, to a next hop or to neighbours directly. A route to
    /// the same prefix is replaced, so that it can be said twice.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `ENETUNREACH` or `EHOSTUNREACH` if the next hop is not a
    /// neighbour, `ENETDOWN` if the device is down.
    pub fn add_route(
        &mut self,
        destination: Prefix,
        via: Option<IpAddr>,
        index: u32,
    ) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRoute(route(destination, via, index));
        self.change_at("add a route through", index, request, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn change_at(
        &mut self,
        operation: &'static str,
        index: u32,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        let unnamed = format!("device {index}");
        let changed = self.change(Subject { operation, device: &unnamed }, request, flags);
        changed.map_err(|error| self.with_name(index, error))
    }
}

/// The prefix of length zero, v4 and v6.
const EVERYTHING: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

fn route(destination: Prefix, via: Option<IpAddr>, index: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: family(destination.0),
        destination_prefix_length: destination.1,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: if via.is_some() { RouteScope::Universe } else { RouteScope::Link },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    route.attributes.push(RouteAttribute::Destination(destination.0.into()));
    route.attributes.push(RouteAttribute::Oif(index));
    route.attributes.extend(via.map(|hop| RouteAttribute::Gateway(hop.into())));
    route
}

/// Takes one refusal as success: the kernel found that there was nothing to do.
fn unless(errno: Errno, done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(error) if error.is(errno) => Ok(()),
        other => other,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn message(index: u32, (address, prefix_len): Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(address);
    message.header.prefix_len = prefix_len;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// The device's own address in a message. IPv4 has it in `IFA_LOCAL`, and in `IFA_ADDRESS` the
/// peer of a point-to-point link; IPv6 gives only `IFA_ADDRESS` unless there is a peer.
fn parse(index: u32, message: RouteNetlinkMessage) -> Option<Prefix> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != index {
        return None;
    }
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let only = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    Some((local.or_else(only)?, message.header.prefix_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::netns::tests::Guard;
    use std::net::UdpSocket;

    #[test]
    fn addresses_are_usable_at_once_and_said_twice_without_harm() {
        let (near, far) = (Guard::new(), Guard::new());
        let four: IpAddr = "192.0.2.7".parse().unwrap();
        let six: IpAddr = "2001:db8::7".parse().unwrap();
        let work = || {
            let mut nl = Netlink::open().unwrap();
            nl.add_veth("a0", "b0", 1, Some(&far.netns)).unwrap();
            let index = nl.link("a0").unwrap().unwrap().index;
            nl.set_up(index).unwrap();
            for prefix in [(four, 24), (six, 64)] {
                nl.add_address(index, prefix).unwrap();
                nl.add_address(index, prefix).unwrap();
                assert!(nl.addresses(index).unwrap().contains(&prefix));
                UdpSocket::bind((prefix.0, 0)).unwrap();
            }
            let everything = nl.addresses(index).unwrap();
            assert_eq!(everything.iter().filter(|(a, _)| *a == four || *a == six).count(), 2);
            nl.remove_address(index, (four, 24)).unwrap();
            nl.remove_address(index, (four, 24)).unwrap();
            assert!(UdpSocket::bind((four, 0)).is_err());
        };
        near.netns.run(work).unwrap();
    }

    #[test]
    fn routes_lead_out_and_are_replaced() {
        let guard = Guard::new();
        let work = || {
            let mut nl = Netlink::open().unwrap();
            nl.add_veth("a0", "a1", 1, None).unwrap();
            let index = nl.link("a0").unwrap().unwrap().index;
            let peer = nl.link("a1").unwrap().unwrap().index;
            nl.set_up(index).unwrap();
            nl.set_up(peer).unwrap();
            for (own, gateway, far) in [
                ("192.0.2.7", "192.0.2.1", "198.51.100.1"),
                ("2001:db8::7", "2001:db8::1", "2001:db8:1::1"),
            ] {
                let [own, gateway, far]: [IpAddr; 3] =
                    [own, gateway, far].map(|a| a.parse().unwrap());
                let length = if own.is_ipv4() { 24 } else { 64 };
                nl.add_address(index, (own, length)).unwrap();
                let reaches = || UdpSocket::bind((own, 0)).unwrap().connect((far, 9)).is_ok();
                assert!(!reaches());
                nl.add_default_route(gateway, index).unwrap();
                nl.add_default_route(gateway, index).unwrap();
                assert!(reaches());
                let host = if far.is_ipv4() { 32 } else { 128 };
                nl.add_route((far, host), None, index).unwrap();
                let stranger = nl.add_default_route("203.0.113.1".parse().unwrap(), index);
                assert!(stranger.unwrap_err().to_string().contains("route through a0"));
            }
        };
        guard.netns.run(work).unwrap();
    }
}
