//! heddle's engine room: packet memory, rings, ports, devices and the worker loop. It moves
//! frames and knows headers, never policy: what happens to a frame is decided by a
//! [`Pipeline`](pipeline::Pipeline).
#![deny(unsafe_code)]

pub mod cpu;
pub mod ids;
pub mod offload;
pub mod publish;
pub mod shared;
pub mod sleep;
pub mod sync;
pub mod time;
