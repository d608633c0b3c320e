//! Frames into the kernel's end of a device and out of it again.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dataplane::drops::{self, Reason};
use dataplane::ids::PortId;
use dataplane::wire::vnet::Header;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tests::hostile::{Generator, Shot, Stage};
use zerocopy::IntoBytes;

use super::ends::{Counted, End};
use super::wire_end::packet_socket;

/// The port whose endpoint most hostile frames claim to be.
pub(crate) const PORT: PortId = PortId(0);

/// How long the kernel may take to hand over what it was given.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of the frames that were written into the kernel's end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// Taken, or dropped on the way to heddle, which the kernel counts.
    pub(crate) sent: u64,
    /// Refused before they were the device's.
    pub(crate) refused: u64,
    /// Of those that were taken: dropped by the kernel, which does not count it.
    pub(crate) silent: u64,
}

/// A device, the switch that has one end of it, and frames for the other.
pub(crate) struct Bench<E> {
    socket: OwnedFd,
    end: E,
    stage: Stage,
    generator: Generator,
    silent: u64,
}

impl<E: End> Bench<E> {
    pub(crate) fn new() -> Self {
        let (mut stage, generator) = (Stage::new(), Generator::new(257));
        let (end, port) = E::open(&mut stage);
        let socket = packet_socket(E::FAR).unwrap();
        stage.plug(PORT, port);
        Self { socket, end, stage, generator, silent: 0 }
    }

    /// Writes frames into the kernel's end, and as many to another port, for the device, in bursts
    /// of every length.
    pub(crate) fn write(&mut self, frames: usize, change: impl Fn(&mut Header)) -> Written {
        let mut written = Written::default();
        let mut left = frames;
        while left > 0 {
            let burst = left.min(1 + left % E::BURST);
            for _ in 0..burst {
                let mut shot = self.generator.shot();
                change(&mut shot.header);
                let bytes = [shot.header.as_bytes(), &shot.frame].concat();
                match rustix::net::send(&self.socket, &bytes, SendFlags::DONTWAIT) {
                    Ok(_) | Err(Errno::NOBUFS) => {
                        written.sent += 1;
                        written.silent += u64::from(E::is_dropped_in_silence(&shot.frame));
                    }
                    Err(_) => written.refused += 1,
                }
            }
            self.stage.poll();
            for _ in 0..burst {
                self.stage.feed(&[towards_the_device(self.generator.shot())]);
            }
            left -= burst;
        }
        self.silent += written.silent;
        self.read_all();
        written
    }

    /// Reads until heddle has what the kernel had for it.
    fn read_all(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.kernel().had != self.read() + self.end.lost_behind() + self.silent {
            assert!(Instant::now() < deadline, "{:?}, {} read", self.kernel(), self.read());
            self.end.flush(&self.socket);
            self.stage.poll();
        }
    }

    /// Checks that the kernel has had for heddle, or lost, all of `written` whole frames.
    pub(crate) fn has_all_of(&self, written: u64) {
        let kernel = self.kernel();
        assert_eq!(kernel.had + kernel.lost, written + self.end.flushed(), "{kernel:?}");
    }

    /// Checks the accounts, which is the end.
    pub(crate) fn balance(&mut self, written: u64) -> Counted {
        self.read_all();
        let kernel = self.kernel();
        self.stage.unplug();
        assert_eq!(self.stage.balance(), Ok(()));
        let given = self.stage.counters(PORT).tx_packets.read();
        assert!(kernel.had + kernel.lost >= written, "{kernel:?} of {written}");
        // Packets of one flow leave together, so that the kernel counts fewer.
        assert!(kernel.took <= given || E::CUTS, "{kernel:?}, {given} given to it");
        assert!(given > 1_000, "{given}");
        kernel
    }

    /// How many frames that came in by the device were dropped for `reason`.
    pub(crate) fn dropped(&self, reason: Reason) -> u64 {
        self.stage.counters(PORT).drops.of(reason).read()
    }

    /// Frames that the kernel lost after it had taken them for heddle's.
    pub(crate) fn lost_behind(&self) -> u64 {
        self.end.lost_behind()
    }

    fn kernel(&self) -> Counted {
        self.end.counted()
    }

    /// Frames that were read, without those that the end knows to be lost and the port has counted.
    fn read(&self) -> u64 {
        let counters = self.stage.counters(PORT);
        let counted = counters.drops.of(drops::QUEUE_FULL).read().min(self.end.lost_behind());
        counters.rx_packets.read() - counted
    }
}

/// The shot from a port where anything goes, for the station behind the device.
fn towards_the_device(mut shot: Shot) -> Shot {
    if let Some(destination) = shot.frame.get_mut(..6) {
        destination.copy_from_slice(&[2, 0, 0, 0, 9, 0]);
    }
    Shot { port: PortId(2), ..shot }
}
