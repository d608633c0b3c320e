//! heddle's ends of devices, and what the kernel counts there.

use std::cell::Cell;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use dataplane::device::netlink::Netlink;
use dataplane::device::xdp::{Pins, Program};
use dataplane::memory::Ledger;
use dataplane::port::Port;
use dataplane::port::af_packet::{self, socket};
use dataplane::port::af_xdp::{AfXdp, Meter, Peer, Queue, Settings, Umem};
use dataplane::port::tap::{self, device};
use rustix::net::SendFlags;
use tests::hostile::Stage;

use super::bench::PORT;

/// heddle's end.
const NEAR: &str = "hostile0";

/// The kernel's end of a veth.
const FAR: &str = "hostile1";

/// What the kernel has counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    /// Frames that heddle wrote and the kernel took.
    pub(crate) took: u64,
    /// Frames that the kernel had for heddle.
    pub(crate) had: u64,
    /// Frames that the kernel dropped on their way there.
    pub(crate) lost: u64,
}

/// A kind of port, by its device.
pub(crate) trait End: Sized {
    /// What it is called.
    const NAME: &str;
    /// The device that frames are written into.
    const FAR: &str;
    /// Frames that are written at once, at most.
    const BURST: usize;

    /// Whether the kernel cuts super-packets of heddle's that the device can't take.
    const CUTS: bool = false;

    /// Makes the device, and a port on it.
    fn open(stage: &mut Stage) -> (Self, Box<dyn Port>);

    /// What the kernel has counted so far.
    fn counted(&self) -> Counted;

    /// Frames that the kernel had for heddle and then lost, where a device's own count has them.
    fn lost_behind(&self) -> u64 {
        0
    }

    /// Whether the kernel drops a frame that it had for heddle, and counts that nowhere.
    fn is_dropped_in_silence(_frame: &[u8]) -> bool {
        false
    }

    /// Has the port find out about losses that it asks for only now and then.
    fn flush(&self, _socket: &OwnedFd) {}

    /// Frames that were written for that.
    fn flushed(&self) -> u64 {
        0
    }
}

/// A TAP, whose other end is the kernel itself.
pub(crate) struct Tap;

/// A veth by a packet socket.
pub(crate) struct VethPacket {
    flushed: Cell<u64>,
}

/// A veth by an AF_XDP socket.
pub(crate) struct VethXdp {
    meter: Arc<Meter>,
    // In the order in which they must go.
    _program: Program,
    _umem: Umem,
    pins: PathBuf,
}

impl End for Tap {
    const NAME: &str = "TAP";
    const FAR: &str = NEAR;
    const BURST: usize = 1;

    fn open(_: &mut Stage) -> (Self, Box<dyn Port>) {
        let queue = device::open(NEAR, 1).unwrap().remove(0);
        set_up(NEAR, 1500);
        device::set_carrier(queue.as_fd(), true).unwrap();
        (Self, Box::new(tap::Tap::new(PORT, queue)))
    }

    fn counted(&self) -> Counted {
        let [received, sent, lost] = counters(NEAR);
        Counted { took: received, had: sent, lost }
    }
}

impl End for VethPacket {
    const NAME: &str = "veth by packet sockets";
    const FAR: &str = FAR;
    const BURST: usize = 257;
    const CUTS: bool = true;

    fn open(_: &mut Stage) -> (Self, Box<dyn Port>) {
        let index = veth();
        let options = socket::Options { receive_bytes: 64 << 10, ..Default::default() };
        let socket = socket::open(index, &options).unwrap().remove(0);
        (Self { flushed: Cell::new(0) }, Box::new(af_packet::Queue::new(PORT, socket)))
    }

    fn counted(&self) -> Counted {
        counted_by_a_veth()
    }

    /// The kernel takes the tag out of a frame before it looks who is to have it, and of a frame
    /// without a type behind its tag nobody hears again (`skb_vlan_untag`).
    fn is_dropped_in_silence(frame: &[u8]) -> bool {
        let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        tagged && frame.len() < 20
    }

    /// It asks once per some received frames.
    fn flush(&self, socket: &OwnedFd) {
        // A virtio-net header that asks for nothing, and a frame for nobody.
        let frame = [0; 10 + 60];
        rustix::net::send(socket, &frame, SendFlags::DONTWAIT).unwrap();
        self.flushed.set(self.flushed.get() + 1);
    }

    fn flushed(&self) -> u64 {
        self.flushed.get()
    }
}

impl End for VethXdp {
    const NAME: &str = "veth by AF_XDP";
    const FAR: &str = FAR;
    const BURST: usize = 97;

    fn open(stage: &mut Stage) -> (Self, Box<dyn Port>) {
        let index = veth();
        let ledger = Arc::new(Ledger::new(Arc::clone(stage.arena())));
        let umem = Umem::register(ledger).unwrap();
        let pins = std::env::temp_dir().join(format!("heddle-hostile-{}", std::process::id()));
        let mut program = Program::load(&Pins::open(&pins, "hostile").unwrap(), index).unwrap();
        program.attach(None).unwrap();
        let queue = Queue { device: index, number: 0 };
        let settings = Settings { port: PORT, queue, frames: 64, peer: Peer::Veth };
        let port = AfXdp::open(&umem, settings).unwrap();
        program.insert_socket(0, port.socket()).unwrap();
        let meter = Arc::clone(port.meter());
        (Self { meter, _program: program, _umem: umem, pins }, Box::new(port))
    }

    fn counted(&self) -> Counted {
        counted_by_a_veth()
    }

    fn lost_behind(&self) -> u64 {
        self.meter.read().lost()
    }
}

impl Drop for VethXdp {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.pins, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.pins);
    }
}

/// A veth that is up, on which the kernel itself says nothing, and that takes jumbo frames. Answers
/// the index of heddle's end.
fn veth() -> u32 {
    Netlink::open().unwrap().add_veth(NEAR, FAR, 1, None).unwrap();
    [NEAR, FAR].map(|name| set_up(name, 9000))[0]
}

fn set_up(name: &str, mtu: u32) -> u32 {
    fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link(name).unwrap().expect("the device was made").index;
    netlink.set_mtu(index, mtu).unwrap();
    netlink.set_up(index).unwrap();
    index
}

/// What one end sends the other receives, or the sender counts it as dropped.
fn counted_by_a_veth() -> Counted {
    let ([had, took, _], [_, _, lost]) = (counters(NEAR), counters(FAR));
    Counted { took, had, lost }
}

/// Of a device's line in the table of the thread's namespace: packets received, sent, and dropped
/// instead of sent.
fn counters(device: &str) -> [u64; 3] {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let mut lines = table.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, line) = lines.find(|(name, _)| *name == device).expect("the device");
    let columns: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    [columns[1], columns[9], columns[11]]
}
