//! heddle's engine room: packet memory, rings, ports, devices and the worker loop. It moves
//! frames and knows headers, never policy: what happens to a frame is decided by a
//! [`Pipeline`](pipeline::Pipeline).
//!
//! # Unsafe code
//!
//! All of heddle's unsafe code is in these files; everywhere else the compiler refuses it.
//!
//! | file | what for | what it rests on |
//! |---|---|---|
//! | `memory/arena.rs` | maps the arena, cuts it into frames, unmaps it | one frame per slot; unmapped only when all are home |
//! | `memory/ledger.rs` | makes the token of a slot that the kernel returns | its last token was consumed when it was lent; an entry is cleared once, by its borrower |
//! | `memory/frame.rs` | the bytes of a slot | a frame is the only token of its slot, and is never copied |
//! | `memory/packet.rs` | the bytes of a packet without a bounds check; moves packets out of a batch | `start + len` stays inside the slot |
//! | `shared.rs` | maps lines of atomics | a file sealed against resizing, mapped until the value goes |
//! | `port/tap/device.rs` | ioctls of `/dev/net/tun` | arguments outlive the call |
//! | `port/af_xdp/socket.rs` | maps the rings of a socket; one socket option | offsets checked against the mapping, which lives as long as its view |
//! | `port/af_packet/system.rs` | socket options, addresses and messages of packet sockets | arguments outlive the call, lengths are those of what they point to |
//! | `port/steering.rs` | loads the steering program by bpf(2) | attributes outlive the call |
//! | `device/ethtool.rs` | SIOCETHTOOL | the buffer is as long as the request says |
//! | `device/netns.rs` | unshare(2) | on a thread of its own |
//! | `cpu.rs` | prefetch and time-stamp counter | neither touches memory |
//! | `alloc.rs` | counts allocations | hands every call to the system's allocator |
#![deny(unsafe_code)]

pub mod alloc;
pub mod counters;
pub mod cpu;
pub mod device;
pub mod drops;
pub mod engine;
#[cfg(not(loom))]
pub mod forwarder;
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
