//! Which XDP program a device has, whoever attached it.

use std::fmt;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

use super::{Error, Netlink, Subject};

/// Where in a device's receive path a program runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// In the driver, before there is a socket buffer.
    Driver,
    /// In the network stack (generic XDP), for drivers that can't.
    Skb,
    /// On the device itself.
    Hardware,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "driver",
            Self::Skb => "skb",
            Self::Hardware => "hardware",
        })
    }
}

/// The program on a device; of several in different modes, one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occupant {
    /// The kernel's number of the program, never used again until the next boot.
    pub program: u32,
    /// How it runs.
    pub mode: Mode,
}

impl Netlink {
    /// The XDP program on the device with this index, or `None` if it has none.
    ///
    /// # Errors
    /// As [`Netlink::links`]; `ENODEV` if there is no such device.
    pub fn xdp(&mut self, index: u32) -> Result<Option<Occupant>, Error> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        let device = format!("device {index}");
        let subject = Subject { operation: "look up the XDP program of", device: &device };
        let answer = self.query(subject, RouteNetlinkMessage::GetLink(request))?;
        Ok(answer.and_then(occupant))
    }
}

fn occupant(message: RouteNetlinkMessage) -> Option<Occupant> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let nested = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(nested) => Some(nested),
        _ => None,
    })?;
    nested.into_iter().find_map(|attribute| match attribute {
        LinkXdp::DrvProgId(program) => Some(Occupant { program, mode: Mode::Driver }),
        LinkXdp::SkbProgId(program) => Some(Occupant { program, mode: Mode::Skb }),
        LinkXdp::HwProgId(program) => Some(Occupant { program, mode: Mode::Hardware }),
        _ => None,
    })
}
