//! The life of an attachment, on veths in namespaces.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::device::netns::tests::Guard;

/// A veth `a0` and its peer `b0` in a namespace of a test, both up, and a BPF file system.
pub(super) struct Scene {
    netns: Guard,
    bpffs: PathBuf,
    pub(super) index: u32,
}

impl Scene {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bpffs = std::env::temp_dir().join(format!("hdltest-bpf-{}-{number}", process::id()));
        let netns = Guard::new();
        let index = netns.netns.run(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_veth("a0", "b0", 1, None).unwrap();
            let [near, far] = ["a0", "b0"].map(|name| netlink.link(name).unwrap().unwrap().index);
            netlink.set_up(near).unwrap();
            netlink.set_up(far).unwrap();
            near
        });
        Self { netns, bpffs, index: index.unwrap() }
    }

    pub(super) fn pins(&self) -> Pins {
        Pins::open(&self.bpffs).unwrap()
    }

    pub(super) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.netns.netns.run(work).unwrap()
    }

    fn occupant(&self) -> Option<Occupant> {
        self.run(|| Netlink::open().unwrap().xdp(self.index).unwrap())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.bpffs, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.bpffs);
    }
}

#[test]
fn it_attaches_counts_and_detaches() {
    let scene = Scene::new();
    scene.run(|| {
        let mut program = Program::load(&scene.pins(), scene.index).unwrap();
        let attached = program.attach(None).unwrap();
        assert_eq!(attached, Attached { mode: Mode::Driver, adoption: Adoption::New });
        assert!(scene.occupant().is_some());
        let deadline = Instant::now() + DETACH_DEADLINE;
        // The peer's own neighbour discovery.
        while program.counters().unwrap().unserved == 0 {
            assert!(Instant::now() < deadline);
        }
        program.detach().unwrap();
        assert_eq!(scene.occupant(), None);
    });
}

#[test]
fn without_its_process_it_stays_and_is_adopted() {
    let scene = Scene::new();
    scene.run(|| {
        let pins = scene.pins();
        let mut first = Program::load(&pins, scene.index).unwrap();
        first.attach(None).unwrap();
        drop(first);
        let there = scene.occupant().unwrap();
        let mut second = Program::load(&pins, scene.index).unwrap();
        let attached = second.attach(None).unwrap();
        assert_eq!(attached.adoption, Adoption::Kept);
        assert_eq!(scene.occupant(), Some(there));
        second.detach().unwrap();
        assert_eq!(scene.occupant(), None);
    });
}
