//! Network devices as the kernel sees them: the namespaces that hold them, their links,
//! addresses and routes (rtnetlink), their offloads (ethtool), and the program that takes frames
//! from them (XDP).
//!
//! Everything here is blocking and bounded in time. What concerns another namespace runs on a
//! short-lived thread inside it, see [`netns::Netns::run`].

pub mod ethtool;
pub mod netlink;
pub mod netns;
pub mod xdp;
