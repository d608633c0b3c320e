//! `heddle capture`: frames as they came in and left, and those that went no further, as pcapng.
//!
//! Each worker copies what is wanted into rings of its own and waits for nobody; here they are
//! emptied, and the records get the names that the model has for their ports.

mod pcapng;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dataplane::drops::{OVERSIZED, PORT_FAILED, PORT_FULL, Reason};
use dataplane::ids::PortId;
use dataplane::worker::WorkerError;
use pipelines::capture::{Recording, Wanted};
use pipelines::fdb::PortGeneration;
use pipelines::filter::Filter;
use pipelines::tables::Tables;
use thiserror::Error;

use crate::model::{Model, Network};
use crate::plane::sum;
use crate::switch::{Switch, since_epoch};
use crate::trace::{FilterError, explain, parse_filter};
use pcapng::{Pcapng, Statistics};

/// What is to be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name of an endpoint's port or of a parent; `all` for every port, those of heddle's own host stack too.
    pub port: String,
    /// A filter's words, as of `heddle trace`.
    pub filter: String,
    /// Bytes of each frame at most.
    pub snaplen: u32,
    /// Bytes of frames that may wait on their way from each worker, within [`BUFFERS`].
    pub buffer: usize,
    /// Ends after so many frames.
    pub count: Option<u64>,
}

/// Why there is no capture.
#[derive(Debug, Error)]
pub enum Error {
    /// The port or the filter is wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A buffer that is too small for a frame, or larger than a host should spend on it.
    #[error("a buffer of {found} bytes: expected {} to {}", BUFFERS.start(), BUFFERS.end())]
    Buffer {
        /// What was asked for.
        found: usize,
    },
    /// A worker is gone.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The capture can't be written.
    #[error("the capture can't be begun: {0}")]
    Write(#[from] pcap_file::PcapError),
}

/// A snap length that cuts nothing.
pub const WHOLE: u32 = 256 << 10;
/// The buffer of each worker, unless another is asked for: 4 ms of 16 Gbit/s.
pub const BUFFER: usize = 8 << 20;
/// Buffers that can be asked for. The longest frame fits into the smallest.
pub const BUFFERS: std::ops::RangeInclusive<usize> = 128 << 10..=1 << 30;
/// The word for every port.
const ALL: &str = "all";

/// A capture that goes on until [`Capture::stop`].
pub struct Capture {
    /// The port; `None` for every port.
    only: Option<Only>,
    recordings: Vec<Recording>,
    file: Pcapng,
    interfaces: HashMap<PortId, Interface>,
    /// The tables by which the interfaces got their names.
    named_by: Option<Arc<Tables>>,
    left: Option<u64>,
    began: Duration,
    /// The frame at hand.
    frame: Vec<u8>,
}

/// The one port that is captured.
struct Only {
    name: String,
    id: PortId,
    generation: PortGeneration,
}

/// A port in the file.
struct Interface {
    number: u32,
    name: String,
    written: u64,
    /// What it had missed before it got this name.
    missed: u64,
    /// What its devices had refused before.
    refused: [u64; REFUSED.len()],
}

/// Drops that happen inside a port, where no capture sees the frames.
const REFUSED: [Reason; 3] = [PORT_FULL, PORT_FAILED, OVERSIZED];

impl Capture {
    /// Has every worker copy what is asked for.
    ///
    /// # Errors
    ///
    /// [`enum@Error`] when the request is wrong or a worker is gone.
    pub fn start(switch: &Switch, request: &Request) -> Result<Self, Error> {
        let model = switch.inventory.model();
        let filter = parse_filter(&[&request.filter], model)?;
        let only = Only::named(model, &request.port)?;
        if !BUFFERS.contains(&request.buffer) {
            return Err(Error::Buffer { found: request.buffer });
        }
        let began = since_epoch();
        let origin = began.saturating_sub(switch.plane.now().into());
        let mut capture = Self {
            only,
            recordings: Vec::new(),
            file: Pcapng::begin(origin, request.snaplen)?,
            interfaces: HashMap::new(),
            named_by: None,
            left: request.count,
            began,
            frame: Vec::new(),
        };
        capture.name_interfaces(switch);
        capture.record(switch, filter, request)?;
        Ok(capture)
    }

    fn record(
        &mut self,
        switch: &Switch,
        filter: Filter,
        request: &Request,
    ) -> Result<(), WorkerError> {
        let snaplen = usize::try_from(request.snaplen).unwrap_or(usize::MAX);
        let port = self.only.as_ref().map(|only| only.id);
        for worker in switch.plane.workers() {
            let (recorder, recording) = Wanted { port, filter, snaplen }.recorder(request.buffer);
            let recorded = worker.ask(|worker| worker.engine().pipeline().record(Some(recorder)));
            if let Err(error) = recorded {
                self.stop(switch);
                return Err(error);
            }
            self.recordings.push(recording);
        }
        Ok(())
    }

    /// Blocks of the file that have come up, about `most` bytes at most; none if nothing has.
    pub fn look(&mut self, switch: &Switch, most: usize) -> Vec<u8> {
        if self.has_lost_its_port(switch) {
            // What is on the rings may be of the number's next owner.
            self.left = Some(0);
        }
        self.name_interfaces(switch);
        while self.left != Some(0) && self.file.len() < most && self.take_one() {}
        self.file.take()
    }

    /// Whether nothing more will be taken: all that was asked for is there, or the port is gone.
    pub fn is_over(&self) -> bool {
        self.left == Some(0)
    }

    /// Has the workers copy nothing more, at once. What is on the rings can still be looked at.
    pub fn stop(&self, switch: &Switch) {
        for worker in switch.plane.workers() {
            // The memory is freed here, not there. A worker that is gone copies nothing.
            drop(worker.ask(|worker| worker.engine().pipeline().record(None)));
        }
    }

    /// The end of the file: what the capture came to at each port.
    pub fn finish(mut self, switch: &Switch) -> Vec<u8> {
        let time = [self.began, since_epoch()];
        let mut ports: Vec<_> = self.interfaces.iter().collect();
        ports.sort_by_key(|(_, interface)| interface.number);
        for (&port, interface) in ports {
            let missed = missed(&self.recordings, port) - interface.missed;
            let comment = comment(interface.refused, refused(switch, port));
            let statistics = Statistics { time, written: interface.written, missed, comment };
            self.file.statistics(interface.number, &statistics);
        }
        self.file.take()
    }

    /// Whether the port is gone, or another one of the same name.
    fn has_lost_its_port(&self, switch: &Switch) -> bool {
        let model = switch.inventory.model();
        self.only.as_ref().is_some_and(|only| find(model, &only.name) != Some(only.identity()))
    }

    /// Describes ports that have come, or have another name than before.
    fn name_interfaces(&mut self, switch: &Switch) {
        let tables = switch.plane.tables();
        if self.named_by.as_ref().is_some_and(|named_by| Arc::ptr_eq(named_by, &tables)) {
            return;
        }
        let model = switch.inventory.model();
        let only = self.only.as_ref().map(|only| only.name.clone());
        let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
        for endpoint in model.endpoints.values().filter(|e| is_wanted(&e.spec.name)) {
            let network = format!("network {}", endpoint.spec.network);
            self.name_interface(switch, endpoint.id, &endpoint.spec.name, &network);
        }
        for uplink in model.uplinks.values().filter(|uplink| is_wanted(&uplink.device)) {
            self.name_interface(switch, uplink.id, &uplink.device, "parent of networks");
        }
        let has_host = |n: &Network| tables.segment(n.id).is_some_and(|row| row.host.is_some());
        let hosts = model.networks.values().filter(|network| only.is_none() && has_host(network));
        for network in hosts {
            let name = format!("gateway of {}", network.spec.name);
            self.name_interface(switch, network.host, &name, "heddle's own host stack");
        }
        self.named_by = Some(tables);
    }

    fn name_interface(&mut self, switch: &Switch, port: PortId, name: &str, description: &str) {
        if self.interfaces.get(&port).is_some_and(|interface| interface.name == name) {
            return;
        }
        let interface = Interface {
            number: self.file.interface(name, description),
            name: name.to_owned(),
            written: 0,
            missed: missed(&self.recordings, port),
            refused: refused(switch, port),
        };
        self.interfaces.insert(port, interface);
    }

    /// Writes the oldest record that there is. Answers whether there was one.
    fn take_one(&mut self) -> bool {
        let waiting = self.recordings.iter_mut().filter_map(|r| Some((r.next_at()?, r)));
        let Some((_, oldest)) = waiting.min_by_key(|(at, _)| *at) else { return false };
        let Some(record) = oldest.take(&mut self.frame) else { return false };
        // A port that is gone meanwhile, of which nothing is known any more, shows nothing.
        if let Some(interface) = self.interfaces.get_mut(&record.port) {
            interface.written += 1;
            self.left = self.left.map(|left| left - 1);
            self.file.frame(interface.number, &record, &self.frame);
        }
        true
    }
}

impl Only {
    /// The port of this name, or `None` for all.
    fn named(model: &Model, name: &str) -> Result<Option<Self>, FilterError> {
        if name == ALL {
            return Ok(None);
        }
        let found = find(model, name).ok_or_else(|| FilterError::NoPort(name.to_owned()))?;
        Ok(Some(Self { name: name.to_owned(), id: found.0, generation: found.1 }))
    }

    fn identity(&self) -> (PortId, PortGeneration) {
        (self.id, self.generation)
    }
}

/// The number of an endpoint's port, or of an uplink, and how often that has been given.
fn find(model: &Model, name: &str) -> Option<(PortId, PortGeneration)> {
    let endpoint = model.endpoints.get(name).map(|endpoint| (endpoint.id, endpoint.generation));
    endpoint.or_else(|| model.uplinks.get(name).map(|uplink| (uplink.id, uplink.generation)))
}

fn missed(recordings: &[Recording], port: PortId) -> u64 {
    recordings.iter().map(|recording| recording.missed(port)).sum()
}

/// What a port's devices have refused so far.
fn refused(switch: &Switch, port: PortId) -> [u64; REFUSED.len()] {
    let counted = switch.ports.port(port);
    REFUSED.map(|reason| {
        counted.map_or(0, |port| sum(&port.counters, |counters| counters.drops.of(reason).read()))
    })
}

/// What is to be said of frames that no capture sees.
fn comment(before: [u64; REFUSED.len()], after: [u64; REFUSED.len()]) -> Option<String> {
    let counted = REFUSED.iter().zip(before).zip(after);
    let counted = counted.map(|((reason, before), after)| (reason, after.saturating_sub(before)));
    let said: Vec<String> = counted
        .filter(|(_, count)| *count > 0)
        .map(|(&reason, count)| {
            let (symbol, sentence) = explain(reason);
            format!("{symbol} ({count}): {sentence}")
        })
        .collect();
    (!said.is_empty()).then(|| format!("dropped inside the port, {}", said.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_capture_sees_is_said_at_the_end() {
        assert_eq!(comment([1, 2, 3], [1, 2, 3]), None);
        let said = comment([1, 2, 3], [1, 69, 3]);
        let expected = "dropped inside the port, port_failed (67): The device refused the frame: \
                        it is down, gone, or smaller than the frame.";
        assert_eq!(said.as_deref(), Some(expected));
    }
}
