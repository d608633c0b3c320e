//! heddle's decisions: the walk of a frame, its steps and the tables they read.
#![forbid(unsafe_code)]

pub mod fdb;
