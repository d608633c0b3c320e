//! Networks and ports that come and go under load cost the others nothing.

use std::thread;
use std::time::Duration;

use dataplane::device::netns::Netns;
use perf::lab::cancel::Cancel;
use perf::lab::traffic::Pair;
use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};
use tests::{Family, Paced, Plan, World};

/// Times that a network and its ports come, and times that they go.
const ROUNDS: usize = 25;

#[test]
fn untouched_ports_lose_nothing() {
    let mut world = World::start(untouched());
    let flows = Family::BOTH
        .map(|family| Paced::start(&world.pair("a", "b", family), Duration::from_millis(1)));
    let load = Load::start(&world);
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

/// TCP between two other untouched ports, until it is stopped.
struct Load {
    stop: Cancel,
    thread: thread::JoinHandle<u64>,
}

impl Load {
    fn start(world: &World) -> Self {
        let stop = Cancel::new();
        let [client, server] =
            ["c", "d"].map(|port| Netns::open(world.netns(port).path()).unwrap());
        let address = world.plan().address("d", Family::V4);
        let ended = stop.clone();
        let work = move || {
            let pair = Pair { client: &client, server: &server, address };
            // Gives the others room on the same cores, and never stalls: short transfers.
            let amount = Amount::BytesPerStream(256 << 10);
            let plan =
                Bulk { streams: 2, amount, direction: Direction::ClientSends, verify: Some(1) };
            let mut moved = 0;
            while !ended.is_cancelled() {
                moved += tcp::bulk(&pair, &plan, &Cancel::new()).unwrap().bytes;
            }
            moved
        };
        Self { stop, thread: thread::spawn(work) }
    }

    fn stop(self) -> u64 {
        self.stop.cancel();
        self.thread.join().unwrap()
    }
}
