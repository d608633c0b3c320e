//! `heddle lab`, as a user runs it: it works, and leaves nothing behind however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use dataplane::device::netns::RUN_DIR;
use dataplane::device::xdp::{MOUNT_POINT, OURS};
use perf::lab::process::Identity;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{PATIENCE, Turn, eventually, heddle};

#[test]
fn every_row_of_the_lab_passes() {
    every_row_passes("bridge");
}

#[test]
fn every_row_of_all_kinds_of_ports_passes() {
    every_row_passes("ports");
}

fn every_row_passes(scenario: &str) {
    let _turn = Turn::take();
    let lab = Lab::start(scenario);
    let prefix = lab.prefix.clone();
    let Output { status, stdout, .. } = lab.child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let failed: Vec<_> = rows.iter().filter(|row| row["passed"] != true).collect();
    assert!(rows.len() > 10 && failed.is_empty(), "{failed:#?}");
    assert!(status.success(), "{status}");
    println!("figure: lab {scenario} takes {:.1} s", report["seconds"].as_f64().unwrap());
    assert_nothing_is_left(&prefix);
}

#[test]
fn an_interrupted_lab_leaves_nothing() {
    let _turn = Turn::take();
    for scenario in ["bridge", "ports"] {
        let mut lab = Lab::start(scenario);
        let switch = lab.switch();
        lab.signal(Signal::INT);
        assert_eq!(lab.child.wait().unwrap().code(), Some(1));
        assert_nothing_is_left(&lab.prefix);
        assert!(!switch.is_alive(), "its heddle still runs");
    }
}

#[test]
fn the_next_lab_removes_what_a_killed_one_left() {
    let _turn = Turn::take();
    let mut killed = Lab::start("ports");
    let switch = killed.switch();
    killed.signal(Signal::KILL);
    killed.child.wait().unwrap();
    assert!(!leftovers(&killed.prefix).is_empty() && switch.is_alive(), "it was too fast");
    let mut next = Lab::start("bridge");
    eventually("what the killed one left goes", PATIENCE, || {
        (leftovers(&killed.prefix).is_empty() && !switch.is_alive()).then_some(())
    });
    next.signal(Signal::INT);
    next.child.wait().unwrap();
    assert_nothing_is_left(&next.prefix);
}

/// A running `heddle lab`.
struct Lab {
    child: Child,
    /// How the names of all that it makes begin.
    prefix: String,
}

impl Lab {
    fn start(scenario: &str) -> Self {
        let mut command = Command::new(heddle());
        command.args(["lab", scenario, "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let prefix = format!("hdl-{}-", child.id());
        Self { child, prefix }
    }

    /// Its heddle, once that runs.
    fn switch(&self) -> Identity {
        eventually("the lab's heddle starts", PATIENCE, || {
            let directory = named(&std::env::temp_dir(), &self.prefix).pop()?;
            let record = named(&directory, "").into_iter().find(|path| is_record(path))?;
            Identity::of(record.file_stem()?.to_str()?.parse().ok()?)
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

fn assert_nothing_is_left(prefix: &str) {
    let found = leftovers(prefix);
    assert!(found.is_empty(), "{found:?}");
}

/// Namespaces and files of a lab, and its programs and maps.
fn leftovers(prefix: &str) -> Vec<PathBuf> {
    let pinned = Path::new(MOUNT_POINT).join(OURS);
    let places = [Path::new(RUN_DIR), &std::env::temp_dir(), &pinned];
    places.iter().flat_map(|place| named(place, prefix)).collect()
}

fn named(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).collect()
}

fn is_record(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pid")
}
