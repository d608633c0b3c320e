//! The peer for comparisons: containers on the kernel's own bridge, as container engines do it.

use dataplane::device::netlink::{self, Netlink};
use ipnet::IpNet;

use super::Error;
use super::host::{Container, Lab};

/// A container's place on the bridge.
#[derive(Debug)]
pub struct Member<'a> {
    /// The container.
    pub container: &'a Container,
    /// What the device is called inside.
    pub device: &'a str,
    /// The addresses that the device gets.
    pub addresses: &'a [IpNet],
}

/// Plugs containers into a new bridge, each by a veth, and waits until packets get through. The bridge lives
/// in a namespace of its own, which is returned and goes with the lab.
///
/// # Errors
/// [`Error::Netns`], [`Error::Netlink`].
pub fn connect(
    lab: &Lab,
    name: &str,
    mtu: u32,
    members: &[Member<'_>],
) -> Result<Container, Error> {
    let host = lab.container(name)?;
    host.netlink(|netlink| {
        netlink.add_bridge("br0")?;
        let bridge = index_of(netlink, "br0")?;
        for (number, member) in members.iter().enumerate() {
            let port = port_name(number);
            netlink.add_veth(&port, member.device, 1, Some(member.container.netns()))?;
            let index = index_of(netlink, &port)?;
            netlink.set_mtu(index, mtu)?;
            netlink.set_master(index, Some(bridge))?;
            netlink.set_up(index)?;
        }
        netlink.set_up(bridge)
    })?;
    for member in members {
        member.container.netlink(|netlink| address(netlink, member, mtu))?;
    }
    // Both ends: the bridge forwards only to ports that are running.
    for (number, member) in members.iter().enumerate() {
        member.container.wait_until_running(member.device, netlink::TIMEOUT, lab.cancel())?;
        host.wait_until_running(&port_name(number), netlink::TIMEOUT, lab.cancel())?;
    }
    Ok(host)
}

fn address(netlink: &mut Netlink, member: &Member<'_>, mtu: u32) -> Result<(), netlink::Error> {
    let index = index_of(netlink, member.device)?;
    netlink.set_mtu(index, mtu)?;
    netlink.set_up(index)?;
    for address in member.addresses {
        netlink.add_address(index, (address.addr(), address.prefix_len()))?;
    }
    Ok(())
}

fn port_name(number: usize) -> String {
    format!("port{number}")
}

/// The index of a device that was just made. If it is gone, zero lets the next step be refused
/// with the reason.
fn index_of(netlink: &mut Netlink, name: &str) -> Result<u32, netlink::Error> {
    Ok(netlink.link(name)?.map_or(0, |link| link.index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::cancel::Cancel;
    use crate::lab::traffic::tcp::{self, Amount, Bulk, Direction};
    use crate::lab::traffic::{self, Pair, ping, udp};
    use dataplane::device::netns::Netns;
    use std::fs;
    use std::net::IpAddr;
    use std::thread;
    use std::time::{Duration, Instant};

    struct Two {
        cancel: Cancel,
        containers: [Container; 2],
        // Last, so that it goes after its users.
        lab: Lab,
    }

    impl Two {
        fn new(mtu: u32) -> Self {
            let lab = Lab::new(Cancel::new()).unwrap();
            let containers = [lab.container("a").unwrap(), lab.container("b").unwrap()];
            let addresses: [[IpNet; 2]; 2] = [
                ["192.0.2.11/24", "2001:db8::11/64"].map(|a| a.parse().unwrap()),
                ["192.0.2.12/24", "2001:db8::12/64"].map(|a| a.parse().unwrap()),
            ];
            let members: Vec<_> = containers
                .iter()
                .zip(&addresses)
                .map(|(container, addresses)| Member { container, device: "eth0", addresses })
                .collect();
            connect(&lab, "bridge", mtu, &members).unwrap();
            Self { cancel: lab.cancel().clone(), containers, lab }
        }

        fn pair(&self, address: &str) -> Pair<'_> {
            let [client, server] = [0, 1].map(|i: usize| self.containers[i].netns());
            Pair { client, server, address: address.parse().unwrap() }
        }
    }

    fn take_down(container: &Container) {
        let down = |nl: &mut Netlink| nl.link("eth0").and_then(|l| nl.set_down(l.unwrap().index));
        container.netlink(down).unwrap();
    }

    const BOTH: [&str; 2] = ["192.0.2.12", "2001:db8::12"];
    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn tcp_is_intact_in_both_directions_and_families() {
        let two = Two::new(1500);
        for address in BOTH {
            for direction in [Direction::ClientSends, Direction::ServerSends] {
                let amount = Amount::BytesPerStream((1 << 20) + 257);
                let plan = Bulk { streams: 3, amount, direction, verify: Some(1) };
                let done = tcp::bulk(&two.pair(address), &plan, &two.cancel).unwrap();
                assert_eq!(done.bytes, 3 * ((1 << 20) + 257));
                assert_eq!(done.checksum_errors(), 0);
            }
        }
    }

    #[test]
    fn throughput_and_jumbo_frames() {
        let two = Two::new(9000);
        let plan = Bulk::throughput(2, SHORT);
        let done = tcp::bulk(&two.pair(BOTH[0]), &plan, &two.cancel).unwrap();
        assert!(done.seconds >= 0.1 && done.bits_per_second() > 1e6);
        let largest = 9000 - 20 - 8;
        let whole = ping::ping(
            two.containers[0].netns(),
            two.pair(BOTH[0]).address,
            1,
            largest,
            &two.cancel,
        );
        assert_eq!(whole.unwrap().received, 1);
    }

    #[test]
    fn small_packets_come_back() {
        let two = Two::new(1500);
        for address in BOTH {
            let pair = two.pair(address);
            let pings = ping::ping(pair.client, pair.address, 3, 57, &two.cancel).unwrap();
            assert_eq!((pings.sent, pings.received), (3, 3));
            let trips = udp::round_trips(&pair, 67, SHORT, &two.cancel).unwrap();
            assert!(trips.received > 0 && trips.lost() == 0 && trips.p50_us <= trips.p99_us);
            let made = tcp::connections(&pair, SHORT, &two.cancel).unwrap();
            assert!(made.count > 0 && made.per_second() > 0.0);
            assert!(tcp::reaches(&pair, SHORT).unwrap());
        }
    }

    #[test]
    fn a_paced_flow_shows_losses_and_gaps() {
        let two = Two::new(1500);
        let pair = two.pair(BOTH[0]);
        let plan = udp::Flow { interval: Duration::from_millis(1), payload: 67, time: SHORT };
        let whole = udp::flow(&pair, &plan, &two.cancel).unwrap();
        assert_eq!((whole.sent, whole.received, whole.out_of_order), (100, 100, 0));
        assert!(whole.longest_gap_us > 0);
        take_down(&two.containers[1]);
        // The far side's device is down, but its address still binds.
        let none = udp::flow(&pair, &plan, &two.cancel).unwrap();
        assert_eq!((none.sent, none.received), (100, 0));
    }

    #[test]
    fn what_is_not_connected_is_not_reached() {
        let two = Two::new(1500);
        let stranger: IpAddr = "192.0.2.99".parse().unwrap();
        let lone = two.lab.container("lone").unwrap();
        let pings = ping::ping(two.containers[0].netns(), stranger, 1, 8, &two.cancel).unwrap();
        assert_eq!((pings.sent, pings.received), (1, 0));
        let pair = Pair { client: lone.netns(), ..two.pair(BOTH[0]) };
        assert!(!tcp::reaches(&pair, SHORT).unwrap());
        assert_eq!(ping::ping(lone.netns(), pair.address, 1, 8, &two.cancel).unwrap().received, 0);
        let plan = Bulk::throughput(1, SHORT);
        let failed = tcp::bulk(&pair, &plan, &two.cancel).unwrap_err();
        assert!(failed.to_string().starts_with("cannot connect to 192.0.2.12:"), "{failed}");
    }

    /// Runs a transfer, and `disturb` once it moves bytes.
    fn disturbed(two: &Two, disturb: impl FnOnce()) -> traffic::Error {
        let pair = two.pair(BOTH[1]);
        let plan = Bulk::throughput(2, Duration::from_secs(60));
        thread::scope(|scope| {
            let transfer = scope.spawn(|| tcp::bulk(&pair, &plan, &two.cancel));
            let deadline = Instant::now() + Duration::from_secs(10);
            while received_bytes(two.containers[1].netns()) < 1 << 20 {
                assert!(Instant::now() < deadline, "no traffic");
            }
            disturb();
            transfer.join().unwrap().unwrap_err()
        })
    }

    fn received_bytes(netns: &Netns) -> u64 {
        let table = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let table = netns.run(table).unwrap();
        let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_cut_path_is_a_stall() {
        let two = Two::new(1500);
        let ended = disturbed(&two, || take_down(&two.containers[1]));
        assert!(matches!(ended, traffic::Error::Stalled { bytes, .. } if bytes > 0), "{ended}");
    }

    #[test]
    fn cancelling_ends_a_transfer_at_once() {
        let two = Two::new(1500);
        let mut cancelled_at = None;
        let ended = disturbed(&two, || {
            two.cancel.cancel();
            cancelled_at = Some(Instant::now());
        });
        assert!(matches!(ended, traffic::Error::Cancelled), "{ended}");
        assert!(cancelled_at.unwrap().elapsed() < traffic::STALL);
    }
}
