//! How much of each kind of packet the host stack takes from one network.

use dataplane::time::Nanos;
use pipelines::storm::Storm;

/// What a packet for heddle itself asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// ARP and neighbour discovery.
    Neighbor,
    /// A part of a larger packet.
    Fragment,
    /// Other ICMP and ICMPv6.
    Icmp,
    /// A segment.
    Tcp,
    /// A datagram.
    Udp,
    /// Any other protocol.
    Other,
}

/// A rate for each class, so that none of them leaves the others without answers.
#[derive(Debug)]
pub(super) struct Quotas([Storm; 6]);

impl Quotas {
    /// Packets a second, and a tenth of it at once.
    pub(super) fn new() -> Self {
        let rate = |class| match class {
            Class::Neighbor | Class::Icmp => 500,
            Class::Fragment | Class::Tcp => 2000,
            Class::Udp => 1000,
            Class::Other => 50,
        };
        use Class::*;
        Self([Neighbor, Fragment, Icmp, Tcp, Udp, Other].map(|class| Storm::new(rate(class))))
    }

    /// Whether one more packet of the class may pass now; it is counted if so.
    pub(super) fn admits(&self, class: Class, now: Nanos) -> bool {
        self.0[class as usize].admits(now)
    }
}
