//! Configuration, model, tables, API and command line of the switch.
#![forbid(unsafe_code)]

pub mod config;
pub mod ipam;
pub mod model;
