//! What the worker loop asks of the decisions: the one trait between moving and deciding.

use std::ops::ControlFlow;

use crate::drops::Reason;
use crate::ids::{PortId, SegmentId, WorkerId};
use crate::memory::Packet;
use crate::time::Nanos;

/// A way out for one packet, once its copy is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Egress {
    /// The port to leave by.
    pub port: PortId,
    /// The segment that the decision was made in: checked again when the packet leaves.
    pub segment: SegmentId,
}

/// The end of a packet's walk, in 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Leaves by one port.
    Forward(Egress),
    /// Leaves by all ports of a segment that [`Pipeline::copy`] names.
    Flood(SegmentId),
    /// Rewritten in place, goes back where it came from.
    Reply(Egress),
    /// Is for heddle's own host stack, which has this port in the network.
    Punt(PortId),
    /// Is another worker's to walk, from the start.
    Handoff(WorkerId),
    /// Goes no further.
    Drop(Reason),
}

const _: () = assert!(size_of::<Verdict>() <= 8);

/// What a step answers: go on with a value, or end the walk.
pub type Step<T = ()> = ControlFlow<Verdict, T>;

/// Whether somebody watches a walk, who is told its steps or takes copies of its packets: a type,
/// so that the copy of the code that nobody watches costs nothing.
pub trait Trace {
    /// Whether the walk is watched.
    const ON: bool;
}

/// Nobody watches.
#[derive(Debug)]
pub enum Untraced {}

/// Somebody watches.
#[derive(Debug)]
pub enum Traced {}

impl Trace for Untraced {
    const ON: bool = false;
}

impl Trace for Traced {
    const ON: bool = true;
}

/// The decisions of a switch. One value per worker; nothing here blocks, allocates or reads a
/// clock.
pub trait Pipeline {
    /// Starts a batch at `now`: the place to take up newer tables.
    fn begin(&mut self, now: Nanos);

    /// Whether batches are to be walked with [`Traced`].
    fn tracing(&self) -> bool;

    /// Decides, once per packet, super-packets whole: appends one verdict for each packet of
    /// `part`, which is small enough for a first-level cache. Loop one parses and hashes, and
    /// prefetches the rows that the walk will read; loop two walks.
    fn decide<T: Trace>(&mut self, part: &mut [Packet], verdicts: &mut Vec<Verdict>);

    /// Prepares one copy or segment for its way out. Only a drop ends it.
    fn emit<T: Trace>(&mut self, egress: Egress, packet: &mut Packet) -> Step;

    /// Is told of a packet that goes no further although it was decided, or emitted, otherwise:
    /// there was no way, or no memory for it.
    fn lost<T: Trace>(&mut self, _reason: Reason, _packet: &Packet) {}

    /// How many ways out a flood of `segment` may have.
    fn copies(&self, segment: SegmentId) -> usize;

    /// The way out number `index`, unless this packet does not take it.
    fn copy(&self, segment: SegmentId, index: usize, packet: &Packet) -> Option<Egress>;

    /// Runs `wait`, during which the worker uses no tables and no grace period waits for it.
    fn offline<R>(&mut self, wait: impl FnOnce() -> R) -> R;
}
