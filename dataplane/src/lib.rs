//! heddle's engine room: packet memory, rings, ports, devices and the worker loop. It moves
//! frames and knows headers, never policy: what happens to a frame is decided by a
//! [`Pipeline`](pipeline::Pipeline).
#![deny(unsafe_code)]

pub mod device;
pub mod ids;
pub mod memory;
pub mod offload;
pub mod wire;
