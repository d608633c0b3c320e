//! The program that takes heddle's frames from a device (XDP), and gives them to the AF_XDP
//! sockets of its queues. What isn't heddle's goes on to the kernel.
//!
//! The program is C (`dataplane/xdp/heddle.c`); its object is part of this crate. One start of
//! heddle after the other uses one attachment: link and maps are pinned ([`Pins`]), so what the
//! program takes is dropped, not answered by the host, while there is no heddle. The next start
//! adopts them, and only [`Program::detach`] ends them.

mod error;
mod pins;

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray, XskMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, XdpMode, loaded_programs};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use rustix::io::Errno;

pub use self::error::{Cause, Error};
pub use self::pins::{MOUNT_POINT, Pins};
use super::netlink::Netlink;
pub use super::netlink::xdp::Mode;
use super::netlink::xdp::Occupant;
use super::netns::Netns;

/// The compiled program.
static OBJECT: &[u8] = include_bytes_aligned!("../../../xdp/heddle.o");

/// What the program is called, in the object and by the kernel.
const NAME: &str = "heddle";

/// The maps that are pinned.
const MAPS: [&str; 2] = ["sockets", "counters"];

/// How long the kernel may take to let go of a removed program.
const DETACH_DEADLINE: Duration = Duration::from_secs(10);

/// What the program did with frames since it was first attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Given to a socket. What a socket had no room for is in that socket's statistics.
    pub taken: u64,
    /// Left to the kernel.
    pub passed: u64,
    /// heddle's, but dropped: their queue has no socket.
    pub unserved: u64,
    /// Left to the kernel because a header is cut short or contradicts itself; part of `passed`.
    pub malformed: u64,
}

/// How a program came onto its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adoption {
    /// There was none.
    New,
    /// An earlier heddle's, of this version, goes on.
    Kept,
    /// An earlier heddle's of another version was replaced; no frame met neither of them.
    Replaced,
}

/// What attaching came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Where the program runs.
    pub mode: Mode,
    /// Whether it was there before.
    pub adoption: Adoption,
}

/// heddle's program for one device. Dropping it leaves the program where it is.
pub struct Program {
    device: Device,
    pins: pins::Held,
    ebpf: Ebpf,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; 4]>,
    link: Option<FdLink>,
}

impl Program {
    /// Loads the program for the device with this index in the calling thread's namespace. It
    /// does nothing to frames until it is attached, but what an earlier heddle attached goes on,
    /// and its maps are those of this value.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::InUse`]; [`Error::Occupied`]; [`Error::Refused`] if the
    /// kernel doesn't take the program; [`Error::Pins`].
    pub fn load(pins: &Pins, index: u32) -> Result<Self, Error> {
        let device = Device::look_up(index)?;
        let held = pins.hold(index, device.netns_inode)?.ok_or_else(|| Error::InUse {
            device: device.name.clone(),
            path: pins.path(index, device.netns_inode),
        })?;
        let mut ebpf = load_object(&held).map_err(device.refused("load the XDP program"))?;
        let sockets = take_map(&mut ebpf, "sockets");
        let sockets = sockets.map_err(device.refused("open the sockets"))?;
        let counters = take_map(&mut ebpf, "counters");
        let counters = counters.map_err(device.refused("open the counters"))?;
        Ok(Self { device, pins: held, ebpf, sockets, counters, link: None })
    }

    /// Attaches the program, or takes over what an earlier heddle attached. Without a `mode`,
    /// driver mode is tried first, then skb mode. It is called in the device's namespace.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the device has another program; [`Error::Attach`];
    /// [`Error::OtherNamespace`]; [`Error::Refused`].
    pub fn attach(&mut self, mode: Option<Mode>) -> Result<Attached, Error> {
        let occupant = self.device.occupant()?;
        let pinned = self.pinned_link()?;
        let attached = match (occupant, pinned) {
            (Some(there), Some((program, link))) if there.program == program => {
                let adoption = self.adopt(there, link)?;
                Attached { mode: there.mode, adoption }
            }
            (Some(there), _) => return Err(self.device.occupied(there)),
            (None, _) => {
                // A link that is pinned nevertheless lost its device.
                self.pins.unpin("link")?;
                Attached { mode: self.attach_anew(mode)?, adoption: Adoption::New }
            }
        };
        Ok(attached)
    }

    /// Gives what is taken from a receive queue to an AF_XDP socket that is bound to it. A
    /// socket that is closed is removed by the kernel.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is another kind of socket, or the queue's number is above 255.
    pub fn insert_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), Error> {
        let inserted = self.sockets.set(queue, socket.as_fd().as_raw_fd(), 0);
        inserted.map_err(self.device.refused("insert a socket into the program"))
    }

    /// Takes the socket of a queue away; what is heddle's is dropped from then on.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn remove_socket(&mut self, queue: u32) -> Result<(), Error> {
        match self.sockets.unset(queue).map_err(Cause::from) {
            Err(cause) if cause.errno() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            removed => removed.map_err(self.device.refused("remove a socket from the program")),
        }
    }

    /// What happened to frames so far, summed over CPUs.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn counters(&self) -> Result<Counters, Error> {
        let counts = self.counters.get(&0, 0);
        let counts = counts.map_err(self.device.refused("read the counters"))?;
        let sum = |at: usize| counts.iter().map(|of_cpu| of_cpu[at]).sum();
        Ok(Counters { taken: sum(0), passed: sum(1), unserved: sum(2), malformed: sum(3) })
    }

    /// Takes the program off the device, and removes it with its maps and pins. It is called in
    /// the device's namespace; a device that is gone is no error.
    ///
    /// # Errors
    /// [`Error::Pins`]; [`Error::StillAttached`]; [`Error::OtherNamespace`].
    pub fn detach(mut self) -> Result<(), Error> {
        self.pins.remove()?;
        let Some(link) = self.link.take() else { return Ok(()) };
        let program =
            link.info().map_err(self.device.refused("inspect the XDP link"))?.program_id();
        drop(link);
        self.device.wait_until_without(program)
    }

    fn pinned_link(&self) -> Result<Option<(u32, FdLink)>, Error> {
        let path = self.pins.link();
        if !path.exists() {
            return Ok(None);
        }
        let link = FdLink::from(
            PinnedLink::from_pin(&path).map_err(self.device.refused("open the pinned XDP link"))?,
        );
        let info = link.info().map_err(self.device.refused("inspect the pinned XDP link"))?;
        Ok(Some((info.program_id(), link)))
    }

    fn adopt(&mut self, running: Occupant, link: FdLink) -> Result<Adoption, Error> {
        let refused = self.device.refused("replace the XDP program");
        let same = self.is_same_as(running.program).map_err(refused)?;
        if same {
            self.link = Some(link);
            return Ok(Adoption::Kept);
        }
        let refused = self.device.refused("replace the XDP program");
        let replace = || -> Result<FdLink, Cause> {
            let program = xdp_of(&mut self.ebpf)?;
            let id = program.attach_to_link(XdpLink::try_from(link)?)?;
            Ok(FdLink::try_from(program.take_link(id)?)?)
        };
        self.link = Some(replace().map_err(refused)?);
        Ok(Adoption::Replaced)
    }

    /// Whether a running program has our instructions and our maps.
    fn is_same_as(&mut self, program: u32) -> Result<bool, Cause> {
        let ours = xdp_of(&mut self.ebpf)?.info()?;
        let Some(theirs) = program_info(program) else { return Ok(false) };
        Ok(ours.tag() == theirs.tag() && ours.map_ids()? == theirs.map_ids()?)
    }

    fn attach_anew(&mut self, wanted: Option<Mode>) -> Result<Mode, Error> {
        let modes: &[Mode] = match wanted {
            Some(Mode::Driver) => &[Mode::Driver],
            Some(Mode::Skb) => &[Mode::Skb],
            Some(Mode::Hardware) => &[Mode::Hardware],
            None => &[Mode::Driver, Mode::Skb],
        };
        let mut last = None;
        for &mode in modes {
            match self.attach_in(mode) {
                Ok(link) => {
                    self.link = Some(link);
                    return Ok(mode);
                }
                Err(cause) => last = Some((mode, cause)),
            }
        }
        // Somebody may have been faster.
        if let Some(there) = self.device.occupant()? {
            return Err(self.device.occupied(there));
        }
        let (mode, cause) = last.unwrap_or((Mode::Driver, Errno::OPNOTSUPP.into()));
        Err(Error::Attach { device: self.device.name.clone(), mode, cause })
    }

    fn attach_in(&mut self, mode: Mode) -> Result<FdLink, Cause> {
        let path = self.pins.link();
        let program = xdp_of(&mut self.ebpf)?;
        let mode = match mode {
            Mode::Driver => XdpMode::Driver,
            Mode::Skb => XdpMode::Skb,
            Mode::Hardware => XdpMode::Hardware,
        };
        let id = program.attach_to_if_index(self.device.index, mode)?;
        // Without a link of the kernel's this fails, and dropping it detaches.
        let link = FdLink::try_from(program.take_link(id)?)?;
        Ok(link.pin(path)?.into())
    }
}

/// The device of a program, as it was called when that was loaded.
#[derive(Debug)]
struct Device {
    index: u32,
    name: String,
    netns_inode: u64,
}

impl Device {
    fn look_up(index: u32) -> Result<Self, Error> {
        let link = Netlink::open()?.link_at(index)?.ok_or(Error::NoDevice(index))?;
        let netns_inode = Netns::current()?.identity()?.inode;
        Ok(Self { index, name: link.name, netns_inode })
    }

    fn occupant(&self) -> Result<Option<Occupant>, Error> {
        if Netns::current()?.identity()?.inode != self.netns_inode {
            return Err(Error::OtherNamespace { device: self.name.clone() });
        }
        Ok(Netlink::open()?.xdp(self.index)?)
    }

    /// The kernel ends a link some time after its last file and descriptor are gone.
    fn wait_until_without(&self, program: u32) -> Result<(), Error> {
        let deadline = Instant::now() + DETACH_DEADLINE;
        loop {
            let there = match self.occupant() {
                Err(Error::Netlink(error)) if error.errno() == Some(libc::ENODEV) => return Ok(()),
                occupant => occupant?,
            };
            if there.is_none_or(|there| there.program != program) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::StillAttached { device: self.name.clone() });
            }
            std::thread::yield_now();
        }
    }

    fn occupied(&self, there: Occupant) -> Error {
        let info = program_info(there.program);
        let name = info.and_then(|info| info.name_as_str().map(str::to_owned)).unwrap_or_default();
        Error::Occupied { device: self.name.clone(), program: there.program, name }
    }

    fn refused<E: Into<Cause>>(&self, operation: &'static str) -> impl FnOnce(E) -> Error + use<E> {
        let device = self.name.clone();
        move |cause| Error::Refused { operation, device, cause: cause.into() }
    }
}

fn load_object(pins: &pins::Held) -> Result<Ebpf, Cause> {
    let mut loader = EbpfLoader::new();
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader.load(OBJECT)?;
    xdp_of(&mut ebpf)?.load()?;
    Ok(ebpf)
}

fn xdp_of(ebpf: &mut Ebpf) -> Result<&mut Xdp, Cause> {
    let program = ebpf.program_mut(NAME).ok_or(aya::programs::ProgramError::NotLoaded)?;
    Ok(program.try_into()?)
}

fn take_map<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<M, Cause> {
    Ok(ebpf.take_map(name).ok_or(aya::maps::MapError::ElementNotFound)?.try_into()?)
}

fn program_info(number: u32) -> Option<aya::programs::ProgramInfo> {
    loaded_programs().flatten().find(|info| info.id() == number)
}

#[cfg(test)]
mod tests;
