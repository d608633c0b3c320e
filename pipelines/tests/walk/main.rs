//! The walk as people would check it with a cable tester: a frame goes in, and what comes out where,
//! or why nothing does. Frames are made and read by another stack.

mod bench;
mod capture;
mod drops;
mod forwarding;
mod frames;
mod replies;
mod reuse;
mod tags;
mod vlan;

/// So that a test can say what a walk allocates.
#[global_allocator]
static COUNTING: dataplane::alloc::Counting = dataplane::alloc::Counting;
