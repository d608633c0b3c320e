//! End-to-end tests of heddle.
#![forbid(unsafe_code)]

pub mod hostile;
