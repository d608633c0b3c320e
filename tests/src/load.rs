//! TCP with checked contents that runs beside a test.

use std::thread::{self, JoinHandle};

use dataplane::device::netns::Netns;
use perf::lab::cancel::Cancel;
use perf::lab::traffic::Pair;
use perf::lab::traffic::tcp::{self, Amount, Bulk, Direction};

use crate::{Family, World};

/// TCP from one port to another until [`Load::stop`].
#[derive(Debug)]
pub struct Load {
    stop: Cancel,
    thread: JoinHandle<u64>,
}

impl Load {
    /// Starts one short transfer after the other: that gives others room on the same cores, and
    /// never stalls.
    pub fn start(world: &World, client: &str, server: &str) -> Self {
        let stop = Cancel::new();
        let address = world.plan().address(server, Family::V4);
        let [client, server] =
            [client, server].map(|port| Netns::open(world.netns(port).path()).unwrap());
        let ended = stop.clone();
        let work = move || {
            let pair = Pair { client: &client, server: &server, address };
            let amount = Amount::BytesPerStream(256 << 10);
            let direction = Direction::ClientSends;
            let plan = Bulk { streams: 2, amount, direction, verify: Some(1) };
            let mut moved = 0;
            while !ended.is_cancelled() {
                moved += tcp::bulk(&pair, &plan, &Cancel::new()).unwrap().bytes;
            }
            moved
        };
        Self { stop, thread: thread::spawn(work) }
    }

    /// Ends it. Answers how many bytes it has moved.
    ///
    /// # Panics
    /// If a transfer failed or was damaged.
    pub fn stop(self) -> u64 {
        self.stop.cancel();
        self.thread.join().unwrap()
    }
}
