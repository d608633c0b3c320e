//! Devices in namespaces of their own, with a BPF file system of their own.

mod frames;
mod life;
mod oracle;
mod verdicts;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{UnmountFlags, unmount};

use super::{OURS, Pins};
use crate::device::netlink::Netlink;
use crate::device::netlink::xdp::Occupant;
use crate::device::netns::tests::Guard;

/// A veth `a0` with its peer `b0` in a namespace, both up, and a BPF file system.
struct Scene {
    netns: Guard,
    bpffs: PathBuf,
    index: u32,
}

impl Scene {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bpffs = env::temp_dir().join(format!("hdltest-bpf-{}-{number}", process::id()));
        let netns = Guard::new();
        let index = netns.netns.run(add_veth).unwrap();
        Self { netns, bpffs, index }
    }

    fn pins(&self) -> Pins {
        Pins::open(&self.bpffs, "67").unwrap()
    }

    /// What is pinned: directories of devices and the files in them.
    fn pinned(&self) -> Vec<String> {
        let names = |path: PathBuf| -> Vec<PathBuf> {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let files = names(self.bpffs.join(OURS).join("67")).into_iter().flat_map(names);
        let mut files: Vec<_> =
            files.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        files.sort();
        files
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.netns.netns.run(work).unwrap()
    }

    fn occupant(&self) -> Option<Occupant> {
        self.run(|| Netlink::open().unwrap().xdp(self.index).unwrap())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = unmount(&self.bpffs, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.bpffs);
    }
}

fn add_veth() -> u32 {
    let mut netlink = Netlink::open().unwrap();
    netlink.add_veth("a0", "b0", 1, None).unwrap();
    let [near, far] = ["a0", "b0"].map(|name| netlink.link(name).unwrap().unwrap().index);
    netlink.set_up(near).unwrap();
    netlink.set_up(far).unwrap();
    near
}
