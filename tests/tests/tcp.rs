//! TCP between containers' own kernels, every byte checked. A switch whose pings work and whose
//! TCP does not is the classic failure of this field: partial checksums, and super-packets.

use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction, Transfer};
use tests::{Family, Plan, World};

/// Bytes of each transfer, in all streams together, and an odd rest.
const BYTES: u64 = 16 << 20;
const REST: u64 = 67;

#[test]
fn offloads_on_mtu_1500() {
    matrix(1500, [true, true]);
}

#[test]
fn offloads_on_mtu_9000() {
    matrix(9000, [true, true]);
}

#[test]
fn offloads_off_mtu_1500() {
    matrix(1500, [false, false]);
}

#[test]
fn offloads_off_mtu_9000() {
    matrix(9000, [false, false]);
}

/// One side leaves work to the switch that the other can't do.
#[test]
fn offloads_on_one_side() {
    matrix(1500, [true, false]);
}

/// v4 and v6, one stream and eight, both directions.
fn matrix(mtu: u32, offloads: [bool; 2]) {
    let world = World::start(Plan::pair(&format!("mtu = {mtu}")));
    for (port, on) in ["a", "b"].into_iter().zip(offloads) {
        world.set_offloads(port, on);
        assert_eq!(world.link(port).unwrap().mtu, mtu);
    }
    // After the first answer nothing is lost any more to a device that is only coming up.
    assert_eq!(world.ping("a", "b", Family::V6).lost(), 0);
    let before = ["a", "b"].map(|port| world.device_counters(port));
    for family in Family::BOTH {
        for streams in [1, 8] {
            for direction in [Direction::ClientSends, Direction::ServerSends] {
                check(&world, family, streams, direction);
            }
        }
    }
    for reason in ["no_memory", "port_full", "port_failed", "bad_offload", "too_big"] {
        assert_eq!(world.drops(reason), 0, "{reason}");
    }
    for ((port, on), before) in ["a", "b"].into_iter().zip(offloads).zip(before) {
        let counters = world.device_counters(port) - before;
        assert_eq!((counters.rx_lost, counters.tx_lost), (0, 0), "lost at {port}'s device");
        // Acknowledgements alone would be far below the MTU on average, segments at it.
        let whole = counters.tx_bytes / counters.tx_packets > u64::from(mtu);
        assert_eq!(whole, on, "super-packets sent by {port}: {counters:?}");
    }
}

fn check(world: &World, family: Family, streams: u64, direction: Direction) {
    let amount = Amount::BytesPerStream(BYTES / streams + REST);
    let verify = Some(streams);
    let plan = Bulk { streams: usize::try_from(streams).unwrap(), amount, direction, verify };
    let case = format!("{family:?}, {streams} streams, {direction:?}");
    let done: Transfer = tcp::bulk(&world.pair("a", "b", family), &plan, world.cancel())
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(done.bytes, BYTES + streams * REST, "{case}");
    assert_eq!(done.checksum_errors(), 0, "{case}");
    assert!(done.retransmissions() <= 16, "{case}: {} sent again", done.retransmissions());
}
