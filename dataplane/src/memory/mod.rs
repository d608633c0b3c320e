//! Packet memory: one arena per process, cut into slots, owned through tokens.
//!
//! A [`Frame`] is the only way to a slot's bytes, and it is neither `Clone` nor `Copy`: a slot is
//! in exactly one place at any time (a free list, a batch, a transmit array, a ring), which is
//! what makes handing a frame from port to port, or from worker to worker, free of copies and of
//! locks. Frames go home to the [`Pool`] of the worker that they were cut for.

mod arena;
mod frame;
mod ledger;
mod packet;
mod pool;

pub use arena::{Arena, ArenaError, Geometry};
pub use frame::{Frame, RUN_BYTES, SMALL_BYTES, Size};
pub use ledger::{Borrower, Ledger, Purpose, Return};
pub use packet::{HEADROOM, Kind, Layers, Packet, TAILROOM, drain_each};
pub use pool::Pool;
