//! heddle as a host on one network: what it accepts, and the TCP/IP stack that answers.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::drops::{BAD_OFFLOAD, Reason};
use dataplane::ids::PortId;
use dataplane::memory::Packet;
use dataplane::time::Nanos;
use dataplane::wire::gso::{Cut, Finish};
use dataplane::wire::{checksum, ethernet, ipv6};
use ipnet::{IpNet, Ipv6Net};
use pipelines::drops;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::introduction::Introduction;
use super::phy::{Phy, Way};
use super::quota::Quotas;
use super::screen::{self, Visitor};
use super::{Counters, Site};

/// How long the missing fragments of a datagram are waited for. They come from next door, and
/// only a few datagrams can wait at once.
const REASSEMBLY: Duration = Duration::from_secs(2);
/// Steps of sending at once; a datagram of 64 KiB in fragments for an MTU of 1500 takes 46.
const SENDING: usize = 64;

/// heddle on one network.
pub(super) struct Network {
    port: PortId,
    site: Site,
    counters: Arc<Counters>,
    quotas: Quotas,
    /// Made with the first packet, since it takes 70 KiB and most networks never need it; with
    /// all its places for incomplete datagrams full, 330 KiB.
    live: Option<Box<Live>>,
}

/// The TCP/IP stack. Services at the gateway's addresses are sockets in its set.
struct Live {
    interface: Interface,
    sockets: SocketSet<'static>,
    /// When it wants to be asked again.
    due: Option<Instant>,
}

impl Network {
    /// heddle as `site`, by this port.
    pub(super) fn new(port: PortId, mut site: Site, counters: Arc<Counters>) -> Self {
        let link_local = Ipv6Net::new_assert(ipv6::link_local(site.mac), 64);
        site.addresses.push(IpNet::V6(link_local));
        Self { port, site, counters, quotas: Quotas::new(), live: None }
    }

    /// Takes a packet in that a worker gave, and sends the answer.
    pub(super) fn receive(&mut self, packet: &mut Packet, way: &mut Way, now: Nanos) {
        self.counters.received.add(1);
        let taken = if packet.offload.is_super() {
            self.receive_super(packet, way, now)
        } else {
            let mut offload = packet.offload;
            checksum::complete(packet.data_mut(), &mut offload)
                .map_err(|_| BAD_OFFLOAD)
                .and_then(|()| self.accept(packet.data(), way, now))
        };
        if let Err(reason) = taken {
            self.counters.drops.of(reason).add(1);
        }
    }

    /// Cuts a super-packet, until a segment is refused: quotas bound what it can cost.
    fn receive_super(&mut self, packet: &Packet, way: &mut Way, now: Nanos) -> Result<(), Reason> {
        let cut = Cut::plan(packet.data(), packet.offload).map_err(|_| BAD_OFFLOAD)?;
        let mut scratch = std::mem::take(&mut way.scratch);
        let outcome = (0..cut.count()).try_for_each(|index| {
            let written = cut.write(index, packet.data(), &mut scratch, Finish::Complete);
            let (len, _) = written.map_err(|_| BAD_OFFLOAD)?;
            self.accept(scratch.get(..len).unwrap_or_default(), way, now)
        });
        way.scratch = scratch;
        outcome
    }

    /// Lets a frame in that can be answered, within its class's quota.
    fn accept(&mut self, frame: &[u8], way: &mut Way, now: Nanos) -> Result<(), Reason> {
        let visitor = screen::inspect(&self.site, frame).ok_or(drops::UNANSWERABLE)?;
        if !self.quotas.admits(visitor.class, now) {
            return Err(drops::PUNT_LIMIT);
        }
        let introduction = self.introduce(visitor);
        let now = moment(now);
        let (mut live, mut phy) = self.open(way, now);
        if let Some(introduction) = &introduction {
            live.deliver(introduction.frame(), &mut phy, now);
        }
        live.deliver(frame, &mut phy, now);
        live.send(&mut phy, now);
        self.live = Some(live);
        Ok(())
    }

    /// Sends what is due. Answers whether anything was.
    pub(super) fn tend(&mut self, way: &mut Way, now: Nanos) -> bool {
        let now = moment(now);
        let due = self.live.as_ref().and_then(|live| live.due).is_some_and(|due| due <= now);
        if due {
            let (mut live, mut phy) = self.open(way, now);
            live.send(&mut phy, now);
            self.live = Some(live);
        }
        due
    }

    /// When [`Network::tend`] is to be called next.
    pub(super) fn due(&self) -> Option<Nanos> {
        let micros = self.live.as_ref()?.due?.total_micros();
        Some(Nanos(u64::try_from(micros).unwrap_or(0).saturating_mul(1000)))
    }

    fn introduce(&self, visitor: Visitor) -> Option<Introduction> {
        let address = visitor.address?;
        let mut own = self.site.addresses.iter().map(IpNet::addr);
        let own = own.find(|own: &IpAddr| own.is_ipv4() == address.is_ipv4())?;
        Introduction::new((visitor.mac, address), (self.site.mac, own))
    }

    /// The stack, taken out for one step, and its device.
    fn open<'a>(&'a mut self, way: &'a mut Way, now: Instant) -> (Box<Live>, Phy<'a>) {
        let taken = self.live.take();
        let largest = usize::from(self.site.mtu.bytes()) + ethernet::HEADER_LEN;
        let (port, counters) = (self.port, &*self.counters);
        let mut phy = Phy { frame: None, port, largest, counters, way };
        let live = taken.unwrap_or_else(|| Box::new(Live::new(&self.site, &mut phy, now)));
        (live, phy)
    }
}

impl Live {
    fn new(site: &Site, phy: &mut Phy<'_>, now: Instant) -> Self {
        let mut config = Config::new(EthernetAddress(site.mac.0).into());
        // While there are no sockets, only the identifications of fragments come from it.
        config.random_seed = site.mac.to_u64();
        let mut interface = Interface::new(config, phy, now);
        interface.set_reassembly_timeout(REASSEMBLY);
        interface.update_ip_addrs(|addresses| {
            let wanted = site.addresses.iter();
            for net in wanted.map(|net| IpCidr::new(net.addr().into(), net.prefix_len())) {
                // There are places for eight; at a ninth subnet's gateway only the walk answers.
                let _ = addresses.push(net);
            }
        });
        Self { interface, sockets: SocketSet::new(Vec::new()), due: None }
    }

    fn deliver<'a>(&mut self, frame: &'a [u8], phy: &mut Phy<'a>, now: Instant) {
        phy.frame = Some(frame);
        let Self { interface, sockets, .. } = self;
        interface.poll_ingress_single(now, phy, sockets);
    }

    /// Sends what is due: fragments of an answer, and what sockets have to say.
    fn send(&mut self, phy: &mut Phy<'_>, now: Instant) {
        let Self { interface, sockets, due } = self;
        for _ in 0..SENDING {
            *due = interface.poll_at(now, sockets);
            if due.is_none_or(|due| due > now) {
                break;
            }
            interface.poll_egress(now, phy, sockets);
        }
    }
}

fn moment(now: Nanos) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}
