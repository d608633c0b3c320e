//! What a namespace's kernel knows of its neighbours (ARP, RFC 826; neighbour discovery,
//! RFC 4861).

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourMessage, NeighbourState};
use rustix::io::Errno;

use super::{Error, Netlink, Subject};

impl Netlink {
    /// Forgets the neighbours behind a device that were asked for and have not answered, so that
    /// the next packet asks at once: the kernel itself would wait for the rest of a second
    /// (`retrans_time_ms`). Answers how many there were.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn forget_unresolved_neighbors(&mut self, index: u32) -> Result<usize, Error> {
        let device = format!("device {index}");
        let subject = Subject { operation: "list the neighbours of", device: &device };
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let found = self.dump(subject, &request)?;
        let unresolved: Vec<_> =
            found.into_iter().filter_map(|message| unresolved(index, message)).collect();
        let count = unresolved.len();
        for neighbor in unresolved {
            let subject = Subject { operation: "forget a neighbour of", device: &device };
            match self.change(subject, RouteNetlinkMessage::DelNeighbour(neighbor), 0) {
                // Gone by itself meanwhile.
                Err(error) if error.is(Errno::NOENT) => {}
                done => done?,
            }
        }
        Ok(count)
    }
}

fn unresolved(index: u32, message: RouteNetlinkMessage) -> Option<NeighbourMessage> {
    let RouteNetlinkMessage::NewNeighbour(neighbor) = message else { return None };
    let state = neighbor.header.state;
    let silent = matches!(state, NeighbourState::Incomplete | NeighbourState::Failed);
    (silent && neighbor.header.ifindex == index).then_some(neighbor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::netns::tests::Guard;
    use std::net::{IpAddr, UdpSocket};

    #[test]
    fn only_neighbours_that_do_not_answer_are_forgotten() {
        let (near, far) = (Guard::new(), Guard::new());
        let addresses = |host: u8| -> [IpAddr; 2] {
            [format!("192.0.2.{host}"), format!("2001:db8::{host}")].map(|a| a.parse().unwrap())
        };
        let prepare = |name: &str, host: u8| {
            let mut nl = Netlink::open().unwrap();
            let index = nl.link(name).unwrap().unwrap().index;
            for (address, length) in addresses(host).into_iter().zip([24, 64]) {
                nl.add_address(index, (address, length)).unwrap();
            }
            nl.set_up(index).unwrap();
            index
        };
        let make = || Netlink::open().unwrap().add_veth("a0", "b0", 1, Some(&far.netns)).unwrap();
        near.netns.run(make).unwrap();
        far.netns.run(|| prepare("b0", 2)).unwrap();
        let work = || {
            let index = prepare("a0", 1);
            let mut nl = Netlink::open().unwrap();
            for (own, to) in addresses(1).iter().zip(addresses(3)) {
                UdpSocket::bind((*own, 0)).unwrap().send_to(b"67", (to, 9)).unwrap();
            }
            assert_eq!(nl.forget_unresolved_neighbors(index + 1).unwrap(), 0);
            assert_eq!(nl.forget_unresolved_neighbors(index).unwrap(), 2);
            // To tell the sender, the kernel may ask for the sender's own address, if that is new.
            let mut again = (0..3).map(|_| nl.forget_unresolved_neighbors(index).unwrap());
            assert!(again.any(|found| found == 0));
        };
        near.netns.run(work).unwrap();
    }
}
