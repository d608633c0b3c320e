//! `/v1/trace`: what traced walks tell, a line of JSON per packet, for as long as the client
//! listens.
//!
//! Each worker tells on a bounded ring of its own and waits for nobody: what does not fit is not
//! told. The rings are looked at on a timer, and only while there is a client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;
use pipelines::filter::Filter;
use pipelines::trace::{Teller, Told};
use rtrb::{Consumer, RingBuffer};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

use super::answer::Answer;
use super::{Api, PATIENCE, query};
use crate::daemon::Daemon;
use crate::trace::{Line, Names, parse_filter};

/// Records that wait for their next look, of each worker.
const RING: usize = 8192;
/// How often the rings are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Lines that wait for the client.
const WAITING: usize = 64;
/// How old the names of ports and networks may be.
const NAMES: Duration = Duration::from_secs(1);

/// That packets are being followed, until it is dropped.
struct Following(Rc<Cell<bool>>);

/// One worker's ring.
struct Ear {
    worker: u8,
    ring: Consumer<Told>,
    /// What was told of the packet that is being told of.
    open: Vec<Told>,
}

/// A trace that goes on.
struct Trace {
    daemon: Rc<RefCell<Daemon>>,
    ears: Vec<Ear>,
    /// Packets that are still to be told of; `None` goes on for ever.
    left: Option<u64>,
    lines: Sender<Bytes>,
    _following: Following,
}

impl Api {
    /// Follows the packets that meet `?filter`, at most `?count` of them.
    pub(super) fn trace(&self, asked: Option<&str>) -> Result<Answer, Answer> {
        let refused = |error: String| Answer::refusal(StatusCode::BAD_REQUEST, error);
        let words = query::value(asked, "filter").unwrap_or_default();
        let left = match query::value(asked, "count").map(|count| count.parse()) {
            None => None,
            Some(Ok(count)) => Some(count),
            Some(Err(_)) => return Err(refused("count: expected a number".to_owned())),
        };
        let filter = {
            let daemon = self.daemon.borrow();
            let model = daemon.switch().inventory.model();
            parse_filter(&[words], model).map_err(|error| refused(error.to_string()))?
        };
        if self.followed.replace(true) {
            let error = "somebody follows packets already, and one can at a time";
            return Err(Answer::refusal(StatusCode::CONFLICT, error));
        }
        let following = Following(Rc::clone(&self.followed));
        let ears = listen(&self.daemon.borrow(), filter)?;
        let (lines, client) = channel(WAITING);
        let daemon = Rc::clone(&self.daemon);
        let trace = Trace { daemon, ears, left, lines, _following: following };
        tokio::task::spawn_local(trace.go_on());
        Ok(Answer::lines(client))
    }
}

/// Has every worker tell of what meets `filter`.
fn listen(daemon: &Daemon, filter: Filter) -> Result<Vec<Ear>, Answer> {
    let workers = daemon.switch().plane.workers().iter();
    let ears = workers.map(|worker| {
        let (told, ring) = RingBuffer::new(RING);
        let teller = Teller::new(filter, told);
        worker
            .ask(move |worker| worker.engine().pipeline().follow(Some(teller)))
            .map_err(|e| Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        Ok(Ear { worker: worker.id().0, ring, open: Vec::new() })
    });
    ears.collect()
}

impl Trace {
    /// Tells until the client is gone, or has had what it asked for. The workers notice that
    /// their rings have no reader any more.
    async fn go_on(mut self) {
        let mut names = Names::default();
        let mut named: Option<Instant> = None;
        while self.left != Some(0) {
            if timeout(LOOK, self.lines.closed()).await.is_ok() {
                return;
            }
            if named.is_none_or(|at| at.elapsed() > NAMES) {
                names = Names::of(self.daemon.borrow().switch().inventory.model());
                named = Some(Instant::now());
            }
            for packet in self.hear(&names) {
                if !self.tell(packet).await {
                    return;
                }
            }
        }
    }

    fn hear(&mut self, names: &Names) -> Vec<Value> {
        let mut packets = Vec::new();
        for ear in &mut self.ears {
            let worker = ear.worker;
            packets.extend(ear.hear().iter().map(|packet| body(worker, packet, names)));
        }
        packets
    }

    /// Tells of a packet. Answers whether there may be more.
    async fn tell(&mut self, packet: Value) -> bool {
        if self.left == Some(0) {
            return false;
        }
        self.left = self.left.map(|left| left - 1);
        let line = Bytes::from(format!("{packet}\n"));
        // A client that takes nothing for so long is as good as gone.
        matches!(timeout(PATIENCE, self.lines.send(line)).await, Ok(Ok(())))
    }
}

impl Ear {
    /// The packets that all has been told of: another one has begun, or nothing more has come
    /// since the last look.
    fn hear(&mut self) -> Vec<Vec<Told>> {
        let mut whole = Vec::new();
        let waiting = self.ring.slots();
        if waiting == 0 && !self.open.is_empty() {
            whole.push(std::mem::take(&mut self.open));
        }
        for _ in 0..waiting {
            let Ok(told) = self.ring.pop() else { break };
            if matches!(told, Told::Entered { .. }) && !self.open.is_empty() {
                whole.push(std::mem::take(&mut self.open));
            }
            self.open.push(told);
        }
        whole
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// One packet: its steps for programs, and the same as a text for people.
fn body(worker: u8, packet: &[Told], names: &Names) -> Value {
    let lines = || packet.iter().map(|told| Line { told, names });
    let text: Vec<String> = lines().map(|line| line.to_string()).collect();
    let steps: Vec<Value> = lines().map(|line| line.to_json()).collect();
    json!({ "worker": worker, "steps": steps, "text": text.join("\n") })
}

#[cfg(test)]
mod tests {
    use dataplane::ids::{MacAddr, PortId};
    use dataplane::memory::Layers;
    use dataplane::time::Nanos;
    use pipelines::trace::HEAD;

    use super::*;

    #[test]
    fn packets_are_told_of_whole() {
        let (mut told, ring) = RingBuffer::new(67);
        let mut ear = Ear { worker: 0, ring, open: Vec::new() };
        let (at, port) = (Nanos(7), PortId(1));
        let entered =
            Told::Entered { at, port, len: 60, layers: Layers::default(), head: [0; HEAD] };
        let unknown = Told::Unknown(MacAddr([2; 6]));
        for record in [entered, Told::Admitted, unknown, entered] {
            told.push(record).unwrap();
        }
        assert_eq!(ear.hear(), [[entered, Told::Admitted, unknown]]);
        // Of the second one there may be more to come.
        told.push(Told::Admitted).unwrap();
        assert!(ear.hear().is_empty());
        assert_eq!(ear.hear(), [[entered, Told::Admitted]]);
        assert!(ear.hear().is_empty());
    }
}
