//! Networks and ports that come and go under load cost the others nothing.

use std::time::Duration;

use tests::{Family, Load, Paced, Plan, World};

/// Times that a network and its ports come, and times that they go.
const ROUNDS: usize = 25;

#[test]
fn untouched_ports_lose_nothing() {
    let mut world = World::start(untouched());
    let flows = Family::BOTH
        .map(|family| Paced::start(&world.pair("a", "b", family), Duration::from_millis(1)));
    let load = Load::start(&world, "c", "d");
    for round in 0..ROUNDS {
        world.reload(untouched().network("more", "").port("x", "").port("y", ""));
        if round % 8 == 0 {
            assert_eq!(world.ping("x", "y", Family::V4).lost(), 0, "round {round}");
        }
        world.reload(untouched());
    }
    let moved = load.stop();
    for (flow, family) in flows.into_iter().zip(Family::BOTH) {
        let arrivals = flow.stop();
        let sent = arrivals.sent;
        println!("figure: {family:?}: {sent} datagrams passed while {} MB of TCP did", moved >> 20);
        assert!(arrivals.sent > 1000, "{family:?}: {} sent", arrivals.sent);
        assert_eq!(arrivals.lost(), [0; 0], "{family:?}, of {}", arrivals.sent);
    }
    assert!(moved > 1 << 20);
}

/// A file that is wrong changes nothing.
#[test]
fn a_wrong_file_changes_nothing() {
    let mut world = World::start(untouched());
    world.switch().configure("[[network]]\nnmae = \"web\"\n").unwrap();
    world.switch().reload().unwrap();
    tests::eventually("the log says why", tests::PATIENCE, || {
        world.switch().log_tail().contains("nmae").then_some(())
    });
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    world.switch().check().unwrap();
}

fn untouched() -> Plan {
    Plan::new().network("web", "").port("a", "").port("b", "").port("c", "").port("d", "")
}
