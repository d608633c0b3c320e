//! The programs that take heddle's frames from a device (XDP), and give them to the AF_XDP
//! sockets of its queues.
//!
//! Of a device that is heddle's alone everything is taken; of one that the host uses, too, what
//! [`Rule`]s say, and the rest goes on to the kernel. The programs are C (`dataplane/xdp`), and
//! their objects are part of this crate.
//!
//! Link and maps are pinned ([`Pins`]): while there is no heddle, what was heddle's is dropped,
//! and not answered by the host, which knows nothing of its connections. The next start adopts
//! them, and only [`Program::detach`] ends them.

mod attach;
mod device;
mod error;
mod object;
mod pins;
mod rule;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp};
use rustix::io::Errno;

pub use self::attach::{Adoption, Attached};
pub use self::error::{Cause, Error};
pub use self::pins::{MOUNT_POINT, OURS, Pins};
pub use self::rule::{
    BadRules, MOST_ADDRESSES, MOST_BLOCKS, MOST_STATIONS, MOST_TUNNELS, PortRange, Rule, SpiPrefix,
    Transport,
};
pub use super::netlink::xdp::Mode;

use self::device::Device;
use self::object::{Object, take_map};
use self::rule::Compiled;
use self::tables::Tables;

/// What a program did with frames since it was first attached.
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

/// heddle's program for one device. Dropping it leaves an attached one where it is.
pub struct Program {
    device: Device,
    object: &'static Object,
    pins: pins::Held,
    /// What is loaded, until it is attached.
    ebpf: Option<Ebpf>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; 4]>,
    tables: Option<Tables>,
    rules: BTreeSet<Rule>,
}

impl Program {
    /// Loads the program that takes everything, for the device with this index in the calling
    /// thread's namespace. It does nothing to frames until it is attached.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::InUse`]; [`Error::Refused`] if the kernel doesn't take the
    /// program; [`Error::Pins`].
    pub fn load(pins: &Pins, index: u32) -> Result<Self, Error> {
        Self::load_object(&object::EVERYTHING, pins, index)
    }

    /// Loads the program that takes what rules say; there are none at first, and they can be
    /// set before it is attached. Where an earlier heddle's is attached, its rules hold until
    /// they are changed.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_with_rules(pins: &Pins, index: u32) -> Result<Self, Error> {
        let mut program = Self::load_object(&object::RULES, pins, index)?;
        let tables = program.ebpf.as_mut().map(Tables::take).transpose();
        program.tables = tables.map_err(program.device.refused("read the XDP rules"))?;
        Ok(program)
    }

    fn load_object(object: &'static Object, pins: &Pins, index: u32) -> Result<Self, Error> {
        let device = Device::look_up(index)?;
        let held = pins.hold(&device)?;
        let load = || -> Result<_, Cause> {
            let mut ebpf = object.load(pins, &held)?;
            let (sockets, counters) =
                (take_map(&mut ebpf, "sockets")?, take_map(&mut ebpf, "counters")?);
            Ok((ebpf, sockets, counters))
        };
        let (ebpf, sockets, counters) = load().map_err(device.refused("load the XDP program"))?;
        let (tables, rules) = (None, BTreeSet::new());
        Ok(Self { device, object, pins: held, ebpf: Some(ebpf), sockets, counters, tables, rules })
    }

    /// Replaces all rules, while frames come: what is in the old and in the new is taken all the
    /// time.
    ///
    /// # Errors
    /// [`Error::Rules`], and nothing is changed; [`Error::TakesEverything`]; [`Error::Refused`],
    /// and some of the old or new rules may be in effect.
    pub fn set_rules(&mut self, rules: impl IntoIterator<Item = Rule>) -> Result<(), Error> {
        let rules: BTreeSet<Rule> = rules.into_iter().collect();
        let compiled = Compiled::new(&rules)
            .map_err(|source| Error::Rules { device: self.device.name.clone(), source })?;
        let Some(tables) = &mut self.tables else {
            return Err(Error::TakesEverything { device: self.device.name.clone() });
        };
        tables.set(&compiled).map_err(self.device.refused("change the XDP rules"))?;
        self.rules = rules;
        Ok(())
    }

    /// Adds a rule. What an earlier heddle left goes with the first change.
    ///
    /// # Errors
    /// As [`Program::set_rules`].
    pub fn add_rule(&mut self, rule: Rule) -> Result<(), Error> {
        let rules = self.rules.iter().copied().chain([rule]).collect::<Vec<_>>();
        self.set_rules(rules)
    }

    /// Removes a rule, if it is there. What an earlier heddle left goes with the first change.
    ///
    /// # Errors
    /// As [`Program::set_rules`].
    pub fn remove_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let rules = self.rules.iter().copied().filter(|other| other != rule).collect::<Vec<_>>();
        self.set_rules(rules)
    }

    /// The rules that were set.
    pub fn rules(&self) -> &BTreeSet<Rule> {
        &self.rules
    }

    /// Gives what is taken from a receive queue to an AF_XDP socket that is bound to it. The
    /// kernel takes a socket away when it is closed.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is another kind of socket, or the queue's number is above 255.
    pub fn insert_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), Error> {
        let inserted = self.sockets.set(queue, socket.as_fd().as_raw_fd(), 0);
        inserted.map_err(self.device.refused("insert a socket into the XDP program"))
    }

    /// Takes the socket of a queue away, if it has one; what is heddle's is dropped from then on.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn remove_socket(&mut self, queue: u32) -> Result<(), Error> {
        match self.sockets.unset(queue).map_err(Cause::from) {
            Err(cause) if cause.errno() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            removed => removed.map_err(self.device.refused("remove a socket from the XDP program")),
        }
    }

    /// What happened to frames so far, summed over CPUs.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn counters(&self) -> Result<Counters, Error> {
        let counts = self.counters.get(&0, 0);
        let counts = counts.map_err(self.device.refused("read the XDP counters"))?;
        let sum = |at: usize| counts.iter().map(|of_cpu| of_cpu[at]).sum();
        Ok(Counters { taken: sum(0), passed: sum(1), unserved: sum(2), malformed: sum(3) })
    }

    fn xdp(&mut self) -> Result<&mut Xdp, Cause> {
        self.object.program(self.ebpf.as_mut().ok_or(ProgramError::AlreadyAttached)?)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Program");
        shown.field("device", &self.device).field("name", &self.object.name);
        shown.field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}
