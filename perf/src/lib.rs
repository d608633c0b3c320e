//! heddle's harness: generator, measurement, and the lab.
#![forbid(unsafe_code)]

pub mod lab;
pub mod pipeline;
