//! AF_XDP: frames of one queue of a device, as its XDP program redirects them.
//!
//! The arena is registered with the kernel, so frames are received into its slots and sent from
//! them. Most devices copy between their own buffers and ours; a few drivers (zero-copy) do not.
//!
//! A socket has four rings. Free frames go to the kernel by the *fill* ring and come back with a
//! frame in them by the *receive* ring; frames to be sent go by the *transmit* ring and come back by
//! the *completion* ring. What the kernel has is on a [`Ledger`]'s account of this socket.
//!
//! A veth leaves checksums open and does not say so: see [`Peer`].

#[cfg(not(loom))]
mod metadata;
#[cfg(not(loom))]
mod meter;
#[cfg(not(loom))]
mod receive;
mod ring;
#[cfg(not(loom))]
mod socket;
#[cfg(not(loom))]
mod transmit;
#[cfg(not(loom))]
mod umem;

#[cfg(not(loom))]
mod port;

#[cfg(not(loom))]
pub use meter::{Meter, Statistics};
#[cfg(not(loom))]
pub use port::{AfXdp, Error, Mode, Peer, Queue, Settings};
#[cfg(not(loom))]
pub use umem::Umem;
