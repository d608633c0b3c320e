//! heddle's engine room: packet memory, rings, ports, devices and the worker loop. It moves
//! frames and knows headers, never policy: what happens to a frame is decided by a
//! [`Pipeline`](pipeline::Pipeline).
#![deny(unsafe_code)]

pub mod alloc;
pub mod counters;
pub mod cpu;
pub mod device;
pub mod drops;
pub mod engine;
pub mod ids;
pub mod memory;
pub mod offload;
pub mod pipeline;
pub mod port;
pub mod publish;
pub mod shared;
pub mod sleep;
pub mod sync;
pub mod time;
pub mod wire;
pub mod worker;
