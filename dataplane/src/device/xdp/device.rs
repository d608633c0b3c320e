//! A device as the programs see it: what is attached to it, and what it is called in errors.

use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{ProgramInfo, loaded_programs};
use rustix::io::Errno;

use super::{Cause, Error};
use crate::device::netlink::Netlink;
use crate::device::netlink::xdp::Occupant;
use crate::device::netns::Netns;

/// How long the kernel may take to let go of a removed program.
const DETACH_DEADLINE: Duration = Duration::from_secs(10);
/// How often to look whether it is gone. What it waits for needs the CPU as well.
const LOOK: Duration = Duration::from_micros(200);

/// A device, under the name that it had when it was looked up.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) netns_inode: u64,
}

impl Device {
    /// Looks a device up in the calling thread's namespace.
    pub(super) fn look_up(index: u32) -> Result<Self, Error> {
        let link = Netlink::open()?.link_at(index)?.ok_or(Error::NoDevice(index))?;
        Ok(Self { index, name: link.name, netns_inode: Netns::current()?.identity()?.inode })
    }

    /// The program on the device now.
    pub(super) fn occupant(&self) -> Result<Option<Occupant>, Error> {
        if Netns::current()?.identity()?.inode != self.netns_inode {
            return Err(Error::OtherNamespace { device: self.name.clone() });
        }
        match Netlink::open()?.xdp(self.index) {
            Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => {
                Err(Error::NoDevice(self.index))
            }
            answer => Ok(answer?),
        }
    }

    /// Waits until a removed program is gone: the kernel lets go of it some time after its last
    /// pin and descriptor.
    pub(super) fn wait_until_without(&self, program: u32) -> Result<(), Error> {
        let deadline = Instant::now() + DETACH_DEADLINE;
        loop {
            match self.occupant() {
                Ok(Some(there)) if there.program == program => {}
                Ok(_) | Err(Error::NoDevice(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
            if Instant::now() > deadline {
                return Err(Error::StillAttached { device: self.name.clone() });
            }
            thread::sleep(LOOK);
        }
    }

    pub(super) fn occupied(&self, there: Occupant) -> Error {
        let info = program_info(there.program);
        let name = info.as_ref().and_then(ProgramInfo::name_as_str).unwrap_or_default().to_owned();
        Error::Occupied { device: self.name.clone(), program: there.program, name }
    }

    pub(super) fn refused<E: Into<Cause>>(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(E) -> Error + use<E> {
        let device = self.name.clone();
        move |cause| Error::Refused { operation, device, cause: cause.into() }
    }
}

/// What the kernel knows about a program, if it still has it.
pub(super) fn program_info(number: u32) -> Option<ProgramInfo> {
    loaded_programs().flatten().find(|info| info.id() == number)
}
