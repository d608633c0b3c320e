//! What a heddle holds of the system, so that a test can see whether it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use aya::maps::loaded_maps;
use aya::programs::loaded_programs;
use dataplane::device::netlink::Netlink;
use dataplane::device::netns::Netns;
use dataplane::device::xdp;

use crate::World;

/// Everything but memory, counted: two that are equal say that nothing was kept in between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// Open files, by what they are.
    pub files: BTreeMap<String, usize>,
    /// Threads.
    pub threads: usize,
    /// Devices by namespace: the host's, heddle's own, and all containers'.
    pub devices: BTreeSet<String>,
    /// Directories of what outlives it on the BPF file system.
    pub pins: BTreeSet<String>,
}

/// BPF objects in the whole kernel; those of others count as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Programs.
    pub programs: usize,
    /// Maps.
    pub maps: usize,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Its own, in use (`RssAnon`).
    pub anonymous: u64,
    /// What it shares with the kernel or others, and has touched (`RssShmem`): packets and learned
    /// addresses.
    pub shared: u64,
}

impl Holdings {
    /// What the running heddle of a world holds, and what there is in its namespaces and those of
    /// `more`, by their names.
    pub fn of(world: &mut World, more: &[&str]) -> Self {
        let pid = world.switch().pid();
        let own = world.host().own_netns();
        let ports = world.plan().ports().map(|port| world.container(port).netns_name().to_owned());
        let mut names: Vec<String> = ports.collect();
        names.push(world.host().netns_name().to_owned());
        names.extend(more.iter().map(|&name| name.to_owned()));
        // heddle makes its own when it needs it.
        names.extend(Netns::open(&own).is_ok().then(|| own.clone()));
        Self {
            files: files(pid),
            threads: entries(format!("/proc/{pid}/task")).len(),
            devices: names.iter().flat_map(|name| devices(name)).collect(),
            pins: entries(Path::new(xdp::MOUNT_POINT).join(xdp::OURS).join(own)),
        }
    }
}

impl Loaded {
    /// What is loaded now.
    pub fn now() -> Self {
        Self { programs: loaded_programs().count(), maps: loaded_maps().count() }
    }
}

impl Memory {
    /// What a process has now.
    ///
    /// # Panics
    /// If there is none with this pid.
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
        let bytes = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.expect("every kernel says so").trim().trim_end_matches(" kB");
            value.parse::<u64>().expect("a number") << 10
        };
        Self { anonymous: bytes("RssAnon:"), shared: bytes("RssShmem:") }
    }
}

/// Open files of a process, without the numbers that tell those of one kind apart.
fn files(pid: u32) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(format!("/proc/{pid}/fd")).expect("the process").flatten() {
        // One that was closed meanwhile has no target.
        let Ok(target) = fs::read_link(file.path()) else { continue };
        let target = target.to_string_lossy();
        let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind);
        *found.entry(kind.to_owned()).or_default() += 1;
    }
    found
}

fn devices(netns: &str) -> Vec<String> {
    let links = Netns::open(netns).unwrap().run(|| Netlink::open()?.links());
    let links = links.unwrap().unwrap();
    links.iter().map(|link| format!("{netns}: {} {}", link.index, link.name)).collect()
}

fn entries(directory: impl AsRef<Path>) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
