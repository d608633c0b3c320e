//! The `heddle` binary.
#![forbid(unsafe_code)]

fn main() {}
