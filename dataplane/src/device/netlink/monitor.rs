//! News of a namespace's devices: which of them came, changed or went.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind};

use super::{Error, RECEIVE_BYTES};

/// The group that hears of links (`RTMGRP_LINK`, `linux/rtnetlink.h`).
const LINKS: u32 = 1;

/// Hears of the devices of the namespace in which it was opened, wherever it is used.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What happened since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These devices came, changed or went, by their indices; often none.
    Of(BTreeSet<u32>),
    /// There was more than could be kept: any device may have changed.
    OfAny,
}

impl News {
    /// Whether a device may have changed.
    pub fn concern(&self, index: u32) -> bool {
        match self {
            Self::Of(devices) => devices.contains(&index),
            Self::OfAny => true,
        }
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Of(devices) if devices.is_empty())
    }
}

impl Monitor {
    /// Listens in the calling thread's namespace from now on.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let family = AddressFamily::NETLINK;
            let socket = rustix::net::socket_with(family, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, LINKS))?;
            Ok(socket)
        };
        let socket = open().map_err(|e: Errno| Error::Open(e.into()))?;
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// What happened since the last call. It never waits.
    pub fn take(&mut self) -> News {
        let mut devices = BTreeSet::new();
        loop {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, received)) => match self.buffer.get(..received) {
                    Some(datagram) => devices.extend(indices(datagram)),
                    None => return News::OfAny,
                },
                Err(Errno::AGAIN) => return News::Of(devices),
                Err(Errno::INTR) => {}
                // ENOBUFS above all: messages are lost. What is left is read at the next call.
                Err(_) => return News::OfAny,
            }
        }
    }
}

/// The devices that a datagram's messages are about.
fn indices(mut datagram: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
        if let NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
        ) = &message.payload
        {
            found.push(link.header.index);
        }
        // Messages begin on 4 bytes (`NLMSG_ALIGN`).
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        match datagram.get(length.next_multiple_of(4)..) {
            Some(rest) if length > 0 && !rest.is_empty() => datagram = rest,
            _ => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Netlink;
    use super::*;
    use crate::device::netns::tests::Guard;

    #[test]
    fn what_comes_changes_and_goes_is_heard_of() {
        let guard = Guard::new();
        let work = || {
            let (mut netlink, mut monitor) = (Netlink::open().unwrap(), Monitor::open().unwrap());
            assert!(monitor.take().is_empty());
            netlink.add_veth("a0", "a1", 3, None).unwrap();
            let link = |netlink: &mut Netlink, name| netlink.link(name).unwrap().unwrap();
            let [near, far] = ["a0", "a1"].map(|name| link(&mut netlink, name));
            assert_eq!((near.rx_queues, far.rx_queues), (3, 3));
            assert_eq!(monitor.take(), News::Of([near.index, far.index].into()));
            netlink.set_mtu(near.index, 9000).unwrap();
            netlink.rename(near.index, "b0").unwrap();
            let news = monitor.take();
            assert!(news.concern(near.index) && !news.concern(far.index));
            netlink.delete(far.index).unwrap();
            assert_eq!(monitor.take(), News::Of([near.index, far.index].into()));
            assert!(monitor.take().is_empty());
        };
        guard.netns.run(work).unwrap();
    }

    #[test]
    fn more_news_than_can_be_kept_are_about_any_device() {
        let guard = Guard::new();
        let work = || {
            let (mut netlink, mut monitor) = (Netlink::open().unwrap(), Monitor::open().unwrap());
            netlink.add_veth("a0", "a1", 1, None).unwrap();
            let index = netlink.link("a0").unwrap().unwrap().index;
            for mtu in 1000..2000 {
                netlink.set_mtu(index, mtu).unwrap();
            }
            assert_eq!(monitor.take(), News::OfAny);
            while !monitor.take().is_empty() {}
            netlink.set_mtu(index, 68).unwrap();
            assert_eq!(monitor.take(), News::Of([index].into()));
        };
        guard.netns.run(work).unwrap();
    }
}
