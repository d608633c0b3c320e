//! `show workers`: how the workers' time goes.

use dataplane::worker::WorkerError;
use serde::{Deserialize, Serialize};

use super::table::{Align, Table};
use crate::switch::Switch;

/// The body of `/v1/workers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// By number.
    pub workers: Vec<Worker>,
}

/// One worker since it was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number.
    pub worker: u8,
    /// The core that it is pinned to; `null` leaves the choice to the scheduler.
    pub core: Option<usize>,
    /// Batches taken through the walk.
    pub batches: u64,
    /// Packets in them.
    pub packets: u64,
    /// Packets per batch.
    pub packets_per_batch: f64,
    /// Times that it went to sleep.
    pub sleeps: u64,
    /// The part of its time that it slept, from 0 to 1.
    pub asleep_share: f64,
    /// Whether it tells the steps of packets, to `heddle trace`.
    pub tracing: bool,
    /// Whether it copies frames, for `heddle capture`.
    pub capturing: bool,
}

impl View {
    /// The workers as they are now. Each is woken, since one that sleeps has not counted its
    /// present sleep yet.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Ended`] when one is gone.
    pub fn of(switch: &Switch) -> Result<Self, WorkerError> {
        let elapsed = switch.plane.now().0;
        let workers = switch.plane.workers().iter().zip(switch.cores());
        let workers = workers.map(|(handle, &core)| {
            let (tracing, capturing) = handle.ask(|worker| {
                let watch = worker.engine().pipeline().state().watch.as_deref();
                watch.map_or((false, false), |w| (w.teller.is_some(), w.recorder.is_some()))
            })?;
            let counters = handle.counters();
            let (batches, packets) = (counters.batches.read(), counters.packets.read());
            Ok(Worker {
                worker: handle.id().0,
                core,
                batches,
                packets,
                packets_per_batch: share(packets, batches),
                sleeps: counters.sleeps.read(),
                asleep_share: share(counters.asleep_ns.read(), elapsed).min(1.0),
                tracing,
                capturing,
            })
        });
        Ok(Self { workers: workers.collect::<Result<_, WorkerError>>()? })
    }

    /// The same for people.
    pub fn table(&self) -> Table {
        use Align::Right;
        let columns = [
            ("worker", Right),
            ("core", Right),
            ("batches", Right),
            ("packets", Right),
            ("per batch", Right),
            ("sleeps", Right),
            ("asleep", Right),
            ("watched by", Align::Left),
        ];
        let mut table = Table::new(&columns, "no workers");
        for worker in &self.workers {
            table.row([
                worker.worker.to_string(),
                worker.core.map_or("any".to_owned(), |core| core.to_string()),
                worker.batches.to_string(),
                worker.packets.to_string(),
                format!("{:.1}", worker.packets_per_batch),
                worker.sleeps.to_string(),
                format!("{:.1}%", worker.asleep_share * 100.0),
                worker.watched_by().to_owned(),
            ]);
        }
        table
    }
}

impl Worker {
    fn watched_by(&self) -> &'static str {
        match (self.tracing, self.capturing) {
            (false, false) => "nobody",
            (true, false) => "trace",
            (false, true) => "capture",
            (true, true) => "trace, capture",
        }
    }
}

/// `part / whole`, zero of nothing, to four digits: no more of it is known.
#[expect(clippy::cast_precision_loss, reason = "the ratio is rounded far above that error")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 1e4).round() / 1e4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_shown_in_columns() {
        let idle = Worker {
            worker: 1,
            core: None,
            batches: 67,
            packets: 257,
            packets_per_batch: share(0, 0),
            sleeps: 9,
            asleep_share: share(999, 1000),
            tracing: false,
            capturing: false,
        };
        let pinned = Worker {
            worker: 0,
            core: Some(3),
            packets_per_batch: share(257, 67),
            capturing: true,
            ..idle.clone()
        };
        let view = View { workers: vec![pinned, idle] };
        let expected = "\
WORKER  CORE  BATCHES  PACKETS  PER BATCH  SLEEPS  ASLEEP  WATCHED BY
     0     3       67      257        3.8       9   99.9%  capture
     1   any       67      257        0.0       9   99.9%  nobody
";
        assert_eq!(view.table().to_string(), expected);
    }
}
