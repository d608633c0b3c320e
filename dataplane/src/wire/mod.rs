//! Headers as they lie on the wire, their checksums, and the cutting and coalescing of packets.
//!
//! Each protocol has one file, in one order: the figure of its RFC as a struct, accessors,
//! `Display`, tests. The structs are views: `Header::ref_from_prefix(bytes)` (zerocopy) checks
//! the length once, and nothing after it can fail. Multi-byte fields are in network order and
//! convert with `get` and `set`; nowhere outside this module does wire order exist.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod gro;
pub mod gso;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod layers;
pub mod partial;
pub mod protocol;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vnet;
