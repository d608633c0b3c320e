//! Configuration, model, tables, API and command line of the switch.
#![forbid(unsafe_code)]

pub mod api;
pub mod capture;
pub mod cli;
pub mod compile;
pub mod config;
pub mod daemon;
pub mod host;
pub mod ipam;
pub mod model;
pub mod plane;
pub mod replay;
pub mod run;
pub mod show;
pub mod store;
pub mod switch;
pub mod trace;
