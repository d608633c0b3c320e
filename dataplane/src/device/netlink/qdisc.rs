//! What queues in front of a device.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{Error, Netlink, Subject};

/// The kernel's word for no queue at all.
pub const NO_QUEUE: &str = "noqueue";

impl Netlink {
    /// Takes away what queues in front of a device: packets go to its driver at once.
    ///
    /// By default a TAP of several queues has 256 queues in front of them, each with room for three
    /// times the device's queue length: 24 MB of the kernel's memory at a length of 4,096, for
    /// nothing, since a TAP's driver keeps packets or drops them and never refuses one.
    ///
    /// # Errors
    /// As [`Netlink::links`].
    pub fn remove_queue(&mut self, index: u32) -> Result<(), Error> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.parent = TcHandle::ROOT;
        message.attributes = vec![TcAttribute::Kind(NO_QUEUE.to_owned())];
        let unnamed = format!("device {index}");
        let subject = Subject { operation: "take away the queue of", device: &unnamed };
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        let refused = self.change(subject, request, NLM_F_CREATE | NLM_F_REPLACE);
        refused.map_err(|error| self.with_name(index, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::netns::tests::Guard;
    use crate::port::tap::device;

    #[test]
    fn a_tap_does_without() {
        let guard = Guard::new();
        let work = || {
            let _queues = device::open("tap0", 1).unwrap();
            let mut netlink = Netlink::open().unwrap();
            let tap = |netlink: &mut Netlink| netlink.link("tap0").unwrap().unwrap();
            let index = tap(&mut netlink).index;
            netlink.remove_queue(index).unwrap();
            netlink.set_up(index).unwrap();
            assert_eq!(tap(&mut netlink).discipline.as_deref(), Some(NO_QUEUE));
            // Neither comes back.
            netlink.set_down(index).unwrap();
            netlink.set_queue_length(index, 67).unwrap();
            netlink.set_up(index).unwrap();
            assert_eq!(tap(&mut netlink).discipline.as_deref(), Some(NO_QUEUE));
        };
        guard.netns.run(work).unwrap();
    }
}
