//! A frame's headers in a few words: who speaks to whom.

use std::fmt;

use dataplane::memory::{Kind, Layers};
use dataplane::wire::{arp, ethernet, icmp, ipv4, ipv6, protocol, udp};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The first bytes of a frame, and what parsing found in all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) layers: Layers,
    pub(crate) bytes: &'a [u8],
}

impl Head<'_> {
    /// The header at an offset, if the head reaches that far.
    fn at<T>(&self, offset: u8) -> Option<&T>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let bytes = self.bytes.get(usize::from(offset)..)?;
        T::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    fn show_transport(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layers { l4, protocol, .. } = self.layers;
        if l4 == 0 {
            return write!(f, " fragment or unknown");
        }
        match protocol {
            // Both have their ports in the same place.
            protocol::TCP | protocol::UDP => {
                write!(f, " {}", if protocol == protocol::TCP { "tcp" } else { "udp" })?;
                let Some(ports) = self.at::<udp::Header>(l4) else { return Ok(()) };
                write!(f, " {} > {}", ports.source_port, ports.destination_port)
            }
            protocol::ICMP | protocol::ICMPV6 => {
                write!(f, " {}", if protocol == protocol::ICMP { "icmp" } else { "icmp6" })?;
                let Some(header) = self.at::<icmp::Header>(l4) else { return Ok(()) };
                write!(f, " type {} code {}", header.kind, header.code)
            }
            other => write!(f, " protocol {other}"),
        }
    }

    fn show_arp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(arp) = self.at::<arp::Packet>(self.layers.l3) else { return write!(f, " arp") };
        let (sender, target) = (arp.sender(), arp.target());
        match arp.operation.get() {
            arp::REQUEST => write!(f, " arp {sender} asks for {target}"),
            arp::REPLY => {
                write!(f, " arp {sender} is at {}", arp.sender_hardware_address)
            }
            other => write!(f, " arp operation {other}"),
        }
    }
}

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ethernet) = self.at::<ethernet::Header>(0) else { return Ok(()) };
        write!(f, "{} > {}", ethernet.source, ethernet.destination)?;
        let l3 = self.layers.l3;
        match self.layers.kind {
            Kind::Ipv4 => {
                let Some(ip) = self.at::<ipv4::Header>(l3) else { return write!(f, " ip") };
                write!(f, " ip {} > {}", ip.source(), ip.destination())?;
                self.show_transport(f)
            }
            Kind::Ipv6 => {
                let Some(ip) = self.at::<ipv6::Header>(l3) else { return write!(f, " ip6") };
                write!(f, " ip6 {} > {}", ip.source(), ip.destination())?;
                self.show_transport(f)
            }
            Kind::Arp => self.show_arp(f),
            Kind::Other => write!(f, " ethertype {:#06x}", ethernet.ethertype),
            Kind::Malformed => write!(f, " malformed, ethertype {:#06x}", ethernet.ethertype),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_end_anywhere_are_shown() {
        let bytes = [0x45; 80];
        for kind in [Kind::Ipv4, Kind::Ipv6, Kind::Arp, Kind::Other, Kind::Malformed] {
            for protocol in [0, 1, 6, 17, 58, 67] {
                for offset in 0..=255 {
                    let layers =
                        Layers { kind, l3: offset, l4: offset, protocol, ..Layers::default() };
                    let head = Head { layers, bytes: &bytes[..usize::from(offset).min(80)] };
                    let shown = head.to_string();
                    assert!(shown.is_empty() == (offset < 14), "{shown}");
                }
            }
        }
    }

    #[test]
    fn an_arp_request_says_who_asks_for_whom() {
        let mut bytes = [0; 42];
        let request = arp::Packet::request(
            dataplane::ids::MacAddr([2; 6]),
            [10, 0, 9, 65].into(),
            [10, 0, 9, 1].into(),
        );
        bytes[14..].copy_from_slice(zerocopy::IntoBytes::as_bytes(&request));
        let layers = Layers { kind: Kind::Arp, l3: 14, ..Layers::default() };
        let shown = Head { layers, bytes: &bytes }.to_string();
        assert!(shown.ends_with(" arp 10.0.9.65 asks for 10.0.9.1"), "{shown}");
    }
}
