//! Every kind of port with every other: TCP with checked contents, both families, one stream and
//! eight, both directions, container offloads on and off.

use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use tests::{Family, Kind, Plan, World};

/// Bytes of each transfer, in all streams together, and an odd rest.
const BYTES: u64 = 4 << 20;
const REST: u64 = 67;

#[test]
fn offloads_on_mtu_1500() {
    matrix(1500, true);
}

#[test]
fn offloads_on_mtu_9000() {
    matrix(9000, true);
}

#[test]
fn offloads_off_mtu_1500() {
    matrix(1500, false);
}

#[test]
fn offloads_off_mtu_9000() {
    matrix(9000, false);
}

fn matrix(mtu: u32, offloads: bool) {
    for (index, one) in Kind::ALL.into_iter().enumerate() {
        for other in Kind::ALL.into_iter().skip(index) {
            pair(one, other, mtu, offloads);
        }
    }
}

fn pair(one: Kind, other: Kind, mtu: u32, offloads: bool) {
    let plan = Plan::new().network("web", &format!("mtu = {mtu}"));
    let world = World::start(plan.port("a", "").of(one).port("b", "").of(other));
    let case = format!("{one:?} and {other:?}");
    for (port, kind) in [("a", one), ("b", other)] {
        if kind.is_existing() {
            world.set_mtu(port, mtu);
        }
        assert_eq!(world.link(port).unwrap().mtu, mtu);
        if !(offloads && kind.is_xdp()) {
            world.set_offloads(port, offloads);
        }
    }
    assert_eq!(world.ping("a", "b", Family::V6).lost(), 0, "{case}");
    for family in Family::BOTH {
        for streams in [1, 8] {
            for direction in [Direction::ClientSends, Direction::ServerSends] {
                let case = format!("{case}, {family:?}, {streams} streams, {direction:?}");
                check(&world, &case, family, streams, direction);
            }
        }
    }
    for reason in ["no_memory", "port_failed", "bad_offload", "too_big"] {
        assert_eq!(world.drops(reason), 0, "{case}: {reason}");
    }
    // TCP learns from losses how much AF_XDP takes; a super-packet is never among them.
    let xdp = one.is_xdp() || other.is_xdp();
    assert!(xdp || world.drops("queue_full") == 0, "{case}: queue_full");
}

fn check(world: &World, case: &str, family: Family, streams: u64, direction: Direction) {
    let amount = Amount::BytesPerStream(BYTES / streams + REST);
    let verify = Some(streams);
    let plan = Bulk { streams: usize::try_from(streams).unwrap(), amount, direction, verify };
    let done = tcp::bulk(&world.pair("a", "b", family), &plan, world.cancel())
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(done.bytes, BYTES + streams * REST, "{case}");
    assert_eq!(done.checksum_errors(), 0, "{case}");
    println!("figure: {case}: {} sent again", done.retransmissions());
}
