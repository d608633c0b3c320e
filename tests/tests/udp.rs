//! UDP: datagrams at the edge of the MTU, fragments, and segmentation by the kernel (USO).

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use perf::lab::traffic::pattern::Pattern;
use perf::lab::traffic::ping::ping;
use perf::lab::traffic::udp;
use tests::{Family, Plan, World};

const MTU: usize = 1500;
const HEADER: usize = 8;

#[test]
fn datagrams_around_the_mtu_come_back() {
    let world = World::start(Plan::pair(""));
    for offloads in [true, false] {
        set_offloads(&world, offloads);
        for family in Family::BOTH {
            let most = MTU - family.header() - HEADER;
            // Beyond `most`, and far beyond it, there are fragments.
            for payload in [67, most - 1, most, most + 1, 8000, 65_000] {
                let pair = world.pair("a", "b", family);
                let time = Duration::from_millis(20);
                let trips = udp::round_trips(&pair, payload, time, world.cancel()).unwrap();
                let case = format!("{family:?}, {payload} bytes, offloads {offloads}");
                assert!(trips.received > 0 && trips.lost() == 0, "{case}: {trips:?}");
            }
        }
    }
}

#[test]
fn fragmented_echo_requests_come_back() {
    let world = World::start(Plan::pair(""));
    for family in Family::BOTH {
        let address = world.plan().address("b", family);
        let trips = ping(world.netns("a"), address, 5, 8000, world.cancel()).unwrap();
        assert_eq!(trips.lost(), 0, "{family:?}");
    }
}

#[test]
fn datagrams_cut_by_the_kernel_arrive_whole() {
    let world = World::start(Plan::pair(""));
    // After the first answer nothing is lost any more to a device that is only coming up.
    assert_eq!(world.ping("a", "b", Family::V6).lost(), 0);
    let before = world.device_counters("a");
    for offloads in [true, false] {
        set_offloads(&world, offloads);
        for family in Family::BOTH {
            // The last segment is shorter; 44 of 1,400 bytes are near the 64 KiB limit.
            for (count, last) in [(2, 1), (7, 1399), (44, 67)] {
                let case = format!("{family:?}, {count} segments, offloads {offloads}");
                check_segments(&world, family, count, last, &case);
            }
        }
    }
    let sent = world.device_counters("a") - before;
    assert!(sent.tx_bytes / sent.tx_packets > 1500, "no super-packet was sent: {sent:?}");
    assert_eq!(sent.tx_lost, 0);
}

fn check_segments(world: &World, family: Family, count: usize, last: usize, case: &str) {
    const SEGMENT: usize = 1400;
    let pair = world.pair("a", "b", family);
    let server = pair.server.run(|| UdpSocket::bind((pair.address, 0)).unwrap()).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let from = world.plan().address("a", family);
    let client = pair.client.run(|| UdpSocket::bind((from, 0)).unwrap()).unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    setsockopt(&client, sockopt::UdpGsoSegment, &1400).unwrap();
    let mut contents = vec![0; (count - 1) * SEGMENT + last];
    Pattern::new(7).fill(0, &mut contents);
    assert_eq!(client.send(&contents).unwrap(), contents.len(), "{case}");
    let mut buffer = [0; 2048];
    for (index, expected) in contents.chunks(SEGMENT).enumerate() {
        let length = server.recv(&mut buffer).unwrap_or_else(|e| panic!("{case}: {index}: {e}"));
        assert!(buffer[..length] == *expected, "{case}: segment {index} is damaged");
    }
}

fn set_offloads(world: &World, on: bool) {
    ["a", "b"].iter().for_each(|port| world.set_offloads(port, on));
}
