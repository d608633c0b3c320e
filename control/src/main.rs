//! The `heddle` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Counts what each thread allocates, so that `perf` can show that the walk allocates nothing.
#[global_allocator]
static ALLOCATOR: dataplane::alloc::Counting = dataplane::alloc::Counting;

fn main() -> ExitCode {
    control::cli::main()
}
