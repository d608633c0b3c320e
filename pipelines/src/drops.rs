//! Why the walk ends a packet's way: the reasons after those of the worker loop.

use dataplane::drops::{Explanation, OF_THE_LOOP, Reason};

dataplane::drop_reasons! { Reason::FIRST_OF_PIPELINE,
    /// The reasons of the walk, in the order of their numbers.
    OF_THE_WALK,
    NO_NETWORK = "no_network", "The port belongs to no network at the moment.";
    RUNT = "runt", "The frame was shorter than an Ethernet header.";
    MALFORMED = "malformed", "A header contradicts its ethertype or the frame's length, or lies behind more tags or extension headers than are looked through.";
    GROUP_SOURCE = "group_source", "The source address was a group or zero, which no station has.";
    SPOOFED_MAC = "spoofed_mac", "The source MAC was not the endpoint's own.";
    SPOOFED_IP = "spoofed_ip", "The source IP address was not one of the endpoint's own.";
    SPOOFED_ARP = "spoofed_arp", "An ARP packet claimed an address that is not the endpoint's own.";
    SPOOFED_ND = "spoofed_nd", "A neighbour discovery message claimed an address that is not the endpoint's own.";
    ROGUE_ROUTER = "rogue_router", "An endpoint sent a router advertisement or redirect; only the gateway may.";
    STORM = "storm", "Broadcast, multicast or unknown unicast from the port exceeded its storm limit.";
    HAIRPIN = "hairpin", "The destination is behind the port that the frame came in by.";
    ISOLATED = "isolated", "Endpoints of an isolated network reach the gateway, not each other.";
    RESERVED_GROUP = "reserved_group", "A link-local control frame (IEEE 802.1D, 01:80:c2:00:00:0x) is not forwarded by bridges.";
    NO_ROUTE = "no_route", "The gateway was asked to route, and has no way to the destination.";
    STALE_EGRESS = "stale_egress", "The port that the frame was to leave by belongs to another network by now.";
    TOO_BIG = "too_big", "The packet exceeds the MTU of the port that it was to leave by.";
    PUNT_LIMIT = "punt_limit", "The network sent heddle itself more than its host stack takes from one network.";
    UNKNOWN_VLAN = "unknown_vlan", "The frame was tagged with a VLAN that the trunk or uplink does not carry.";
    UNTAGGED = "untagged", "The frame came in by a trunk without a VLAN tag, and the trunk has no native VLAN.";
    OWN_VLAN = "own_vlan", "An endpoint tagged a frame with the VLAN that it is in; there it is to send untagged.";
    NATIVE_TAG = "native_tag", "The frame was to leave a trunk untagged in the native VLAN, but begins with a tag that would put it into another.";
}

/// Far enough behind the walk's.
const FIRST_OF_THE_HOST_STACK: u8 = 48;

dataplane::drop_reasons! { FIRST_OF_THE_HOST_STACK,
    /// The reasons of heddle's own host stack, beside those that it shares with the others.
    OF_THE_HOST_STACK,
    UNANSWERABLE = "unanswerable", "The frame was for heddle itself and can't be answered: damaged, tagged, or from no address of the network.";
}

/// All explanations: the loop's, the walk's and the host stack's.
pub fn explanations() -> impl Iterator<Item = &'static Explanation> {
    OF_THE_LOOP.iter().chain(OF_THE_WALK).chain(OF_THE_HOST_STACK)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn symbols_and_numbers_are_unique() {
        let symbols: HashSet<_> = explanations().map(|e| e.symbol).collect();
        let numbers: HashSet<_> = explanations().map(|e| e.reason).collect();
        assert_eq!(symbols.len(), explanations().count());
        assert_eq!(numbers.len(), explanations().count());
    }
}
