//! The `heddle` binary.
#![forbid(unsafe_code)]

use std::path::PathBuf;

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let path = std::env::args().nth(3).map_or_else(|| PathBuf::from("h.toml"), PathBuf::from);
    if let Err(error) = control::run::run(&path) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
