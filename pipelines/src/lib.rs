//! heddle's decisions: the walk of a frame ([`walk`]), its steps, and the tables they read.
//!
//! Nothing here does I/O, reads a clock, draws a random number, allocates, locks or logs.
#![forbid(unsafe_code)]

pub mod bridge;
pub mod capture;
pub mod classify;
pub mod drops;
pub mod egress;
pub mod fdb;
pub mod filter;
pub mod gateway;
pub mod guard;
pub mod origin;
pub mod pages;
pub mod state;
pub mod stations;
pub mod storm;
pub mod switch;
pub mod tables;
pub mod trace;
pub mod trunk;
pub mod vlan;
pub mod walk;
pub mod watch;
