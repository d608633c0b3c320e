//! The rules, said once more: whose is a frame? Bytes are taken off its front one header after
//! the other, and rules are asked one after the other; no map and no table is involved.

use std::collections::HashSet;
use std::net::IpAddr;

use super::super::{Rule, Transport};
use crate::ids::MacAddr;
use crate::wire::{ethernet, protocol};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose {
    Others,
    Ours,
    Malformed,
}

use Whose::{Malformed, Others, Ours};

/// A header is missing.
struct CutShort;

/// A packet's addresses, identification and (in IPv4) protocol.
type Packet = (IpAddr, IpAddr, u32, u8);

/// Rules, and the packets whose first fragment was ours under whatever rules there were then.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) rules: Vec<Rule>,
    firsts: HashSet<Packet>,
}

/// What is known of a packet before its transport header.
struct Found {
    packet: Packet,
    protocol: u8,
    first: bool,
    more: bool,
}

impl Oracle {
    pub(super) fn judge(&mut self, frame: &[u8]) -> Whose {
        self.frame(frame).unwrap_or(Malformed)
    }

    fn frame(&mut self, mut rest: &[u8]) -> Result<Whose, CutShort> {
        let [destination, _source] = [take::<6>(&mut rest)?, take::<6>(&mut rest)?].map(MacAddr);
        let mut ethertype = number(&mut rest)?;
        if destination.is_group() {
            return Ok(Others);
        }
        if self.rules.contains(&Rule::Station(destination)) {
            return Ok(Ours);
        }
        if !self.rules.iter().any(|rule| address_of(rule).is_some()) {
            return Ok(Others);
        }
        for _ in 0..2 {
            if ethernet::is_tag(ethertype) {
                let vlan = number(&mut rest)? % 4096;
                ethertype = number(&mut rest)?;
                if vlan != 0 {
                    return Ok(Others);
                }
            }
        }
        match ethertype {
            ethernet::IPV4 => self.ipv4(rest),
            ethernet::IPV6 => self.ipv6(rest),
            _ => Ok(Others),
        }
    }

    fn ipv4(&mut self, packet: &[u8]) -> Result<Whose, CutShort> {
        let header: [u8; 20] = *packet.first_chunk().ok_or(CutShort)?;
        let [version_length, _, total_high, total_low, id_high, id_low, high, low, ..] = header;
        let total = usize::from(u16::from_be_bytes([total_high, total_low]));
        let length = usize::from(version_length % 16) * 4;
        if version_length / 16 != 4 || length < 20 || total < length {
            return Err(CutShort);
        }
        let address =
            |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let identification = u32::from(u16::from_be_bytes([id_high, id_low]));
        let found = Found {
            packet: (address(12), address(16), identification, header[9]),
            protocol: header[9],
            first: high & 0x1f == 0 && low == 0,
            more: high & 0x20 != 0,
        };
        let within = &packet[..total.min(packet.len())];
        self.packet(&found, within.get(length..).unwrap_or_default(), total - length)
    }

    fn ipv6(&mut self, mut rest: &[u8]) -> Result<Whose, CutShort> {
        let first = take::<4>(&mut rest)?;
        let length = usize::from(number(&mut rest)?);
        let [next, _hops] = take::<2>(&mut rest)?;
        let source = IpAddr::from(take::<16>(&mut rest)?);
        let destination = IpAddr::from(take::<16>(&mut rest)?);
        if first[0] / 16 != 6 {
            return Err(CutShort);
        }
        if !self.is_local(destination) {
            return Ok(Others);
        }
        let mut found =
            Found { packet: (source, destination, 0, 0), protocol: next, first: true, more: false };
        rest = &rest[..length.min(rest.len())];
        // How long the rest would be if the frame had all of it.
        let mut claimed = length;
        if !extensions(&mut found, &mut rest, &mut claimed)? {
            return Ok(Others);
        }
        if found.protocol == protocol::FRAGMENT {
            let [next, _, high, low] = take::<4>(&mut rest)?;
            found.packet.2 = u32::from_le_bytes(take(&mut rest)?);
            found.protocol = next;
            found.first = high == 0 && low & 0xf8 == 0;
            found.more = low & 1 != 0;
            claimed -= 8;
            if found.first && !extensions(&mut found, &mut rest, &mut claimed)? {
                return Ok(Others);
            }
        }
        self.packet(&found, rest, claimed)
    }

    /// `claimed` is what the packet's own length says that `rest` should be.
    fn packet(&mut self, found: &Found, rest: &[u8], claimed: usize) -> Result<Whose, CutShort> {
        let destination = found.packet.1;
        if !self.is_local(destination) {
            return Ok(Others);
        }
        if !found.first {
            return Ok(if self.firsts.contains(&found.packet) { Ours } else { Others });
        }
        let whose = self.transport(found, destination, rest, claimed).unwrap_or(Malformed);
        if found.more && whose == Ours {
            self.firsts.insert(found.packet);
        } else if found.more {
            self.firsts.remove(&found.packet);
        }
        Ok(whose)
    }

    fn transport(
        &self,
        found: &Found,
        destination: IpAddr,
        mut rest: &[u8],
        claimed: usize,
    ) -> Result<Whose, CutShort> {
        let ours = |yes| if yes { Ours } else { Others };
        let transport = match found.protocol {
            protocol::ESP => {
                let spi = u32::from_be_bytes(take(&mut rest)?);
                take::<4>(&mut rest)?;
                return Ok(ours(self.is_our_spi(destination, spi)));
            }
            protocol::TCP => Transport::Tcp,
            protocol::UDP => Transport::Udp,
            _ => return Ok(Others),
        };
        let (_source, port) = (number(&mut rest)?, number(&mut rest)?);
        let published = |rule: &Rule| match *rule {
            Rule::Ports { address, transport: of, ports } => {
                address == destination && of == transport && ports.ports().contains(&port)
            }
            _ => false,
        };
        if self.rules.iter().any(published) || transport == Transport::Tcp {
            return Ok(ours(self.rules.iter().any(published)));
        }
        let length = usize::from(number(&mut rest)?);
        number(&mut rest)?;
        if length < 8 || (length > claimed && !found.more) {
            return Err(CutShort);
        }
        let claimed = claimed.min(length) - 8;
        self.datagram(destination, port, &rest[..claimed.min(rest.len())], claimed)
    }

    fn datagram(
        &self,
        destination: IpAddr,
        port: u16,
        mut rest: &[u8],
        claimed: usize,
    ) -> Result<Whose, CutShort> {
        let concerned = |rule: &Rule| matches!(*rule, Rule::Vxlan { address, .. } | Rule::Esp { address, .. } if address == destination);
        if claimed < 8 || !self.rules.iter().any(concerned) {
            return Ok(Others);
        }
        let first = u32::from_be_bytes(take(&mut rest)?);
        let second = u32::from_be_bytes(take(&mut rest)?);
        let sealed = port == 4500 && first != 0 && self.is_our_spi(destination, first);
        let network = |rule: &Rule| match *rule {
            Rule::Vxlan { address, port: of, vni } => {
                (address, of, vni.to_u32()) == (destination, port, second / 256)
            }
            _ => false,
        };
        let tunnelled = first & 0x0800_0000 != 0 && self.rules.iter().any(network);
        Ok(if sealed || tunnelled { Ours } else { Others })
    }

    fn is_our_spi(&self, destination: IpAddr, spi: u32) -> bool {
        self.rules.iter().any(|rule| match *rule {
            Rule::Esp { address, spis } => {
                let shift = 32 - spis.length();
                address == destination && spi >> shift == spis.value() >> shift
            }
            _ => false,
        })
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.rules.iter().any(|rule| address_of(rule) == Some(address))
    }
}

/// Goes over at most four extension headers; false if the packet is only on its way through.
fn extensions(found: &mut Found, rest: &mut &[u8], claimed: &mut usize) -> Result<bool, CutShort> {
    for _ in 0..4 {
        let kind = found.protocol;
        let [options, routing] = [
            [protocol::HOP_BY_HOP, protocol::DESTINATION_OPTIONS].contains(&kind),
            kind == protocol::ROUTING,
        ];
        if !options && !routing {
            break;
        }
        let [next, length, _, segments, ..] = take::<8>(rest)?;
        if routing && segments != 0 {
            return Ok(false);
        }
        found.protocol = next;
        let more = usize::from(length) * 8;
        *rest = rest.get(more..).unwrap_or_default();
        *claimed = (*claimed - 8).saturating_sub(more);
    }
    Ok(true)
}

fn address_of(rule: &Rule) -> Option<IpAddr> {
    match *rule {
        Rule::Station(_) => None,
        Rule::Ports { address, .. } | Rule::Vxlan { address, .. } | Rule::Esp { address, .. } => {
            Some(address)
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CutShort> {
    let (bytes, after) = rest.split_first_chunk().ok_or(CutShort)?;
    *rest = after;
    Ok(*bytes)
}

fn number(rest: &mut &[u8]) -> Result<u16, CutShort> {
    take(rest).map(u16::from_be_bytes)
}
