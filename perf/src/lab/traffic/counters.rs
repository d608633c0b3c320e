//! What a namespace's own kernel counted: retransmissions and wrong checksums.

use std::fs;
use std::ops::Sub;

use dataplane::device::netns::{self, Netns};
use serde::Serialize;

/// Counters of a namespace, from `/proc/net/snmp` (RFC 4022 and RFC 4113 by name).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// TCP segments sent again, over IPv4 and IPv6.
    pub tcp_retransmissions: u64,
    /// TCP segments received with a wrong checksum, over IPv4 and IPv6.
    pub tcp_checksum_errors: u64,
    /// UDP datagrams received with a wrong checksum, over IPv4.
    pub udp_checksum_errors: u64,
}

impl Counters {
    /// Reads the counters of a namespace.
    ///
    /// # Errors
    /// If it can't be entered.
    pub fn of(netns: &Netns) -> Result<Self, netns::Error> {
        // Not /proc/net: that is the namespace of the process's first thread.
        let read = || fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
        Ok(Self::parse(&netns.run(read)?))
    }

    fn parse(text: &str) -> Self {
        Self {
            tcp_retransmissions: value(text, "Tcp:", "RetransSegs"),
            tcp_checksum_errors: value(text, "Tcp:", "InCsumErrors"),
            udp_checksum_errors: value(text, "Udp:", "InCsumErrors"),
        }
    }
}

impl Sub for Counters {
    type Output = Self;

    /// What was counted between two readings.
    fn sub(self, earlier: Self) -> Self {
        let since = u64::saturating_sub;
        Self {
            tcp_retransmissions: since(self.tcp_retransmissions, earlier.tcp_retransmissions),
            tcp_checksum_errors: since(self.tcp_checksum_errors, earlier.tcp_checksum_errors),
            udp_checksum_errors: since(self.udp_checksum_errors, earlier.udp_checksum_errors),
        }
    }
}

/// A number from a table of two lines per protocol, names and values. Zero if it is not there.
fn value(text: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(found, _)| *found == name).and_then(|(_, v)| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let text = "Ip: A B\nIp: 1 2\n\
                    Tcp: RetransSegs InErrs InCsumErrors\nTcp: 5 6 7\n\
                    Udp: InCsumErrors\nUdp: 9\n";
        let counters = Counters::parse(text);
        let earlier =
            Counters { tcp_retransmissions: 2, tcp_checksum_errors: 0, udp_checksum_errors: 10 };
        let expected =
            Counters { tcp_retransmissions: 3, tcp_checksum_errors: 7, udp_checksum_errors: 0 };
        assert_eq!(counters - earlier, expected);
        let current = Counters::of(&Netns::current().unwrap()).unwrap();
        assert_eq!(current - current, Counters::default());
    }
}
