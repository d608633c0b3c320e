//! How a program comes onto its device, and off it.

use aya::programs::XdpMode;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use rustix::io::Errno;

use super::device::program_info;
use super::pins::LINK;
use super::{Cause, Error, Mode, Program};
use crate::device::netlink::xdp::Occupant;

/// How a program came onto its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adoption {
    /// There was none.
    New,
    /// An earlier heddle's goes on: it has the same instructions and maps.
    Kept,
    /// An earlier heddle's was replaced; no frame met neither of them.
    Replaced,
}

/// What attaching came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Where the program runs.
    pub mode: Mode,
    /// Whether one was there before.
    pub adoption: Adoption,
}

impl Program {
    /// Attaches the program, or takes over what an earlier heddle attached. Without a `mode`,
    /// an earlier one's mode is kept; of a new attachment, driver mode is tried first, then skb
    /// mode. It is called in the device's namespace, once.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the device has another program; [`Error::Attach`];
    /// [`Error::OtherNamespace`]; [`Error::NoDevice`]; [`Error::Refused`].
    pub fn attach(&mut self, mode: Option<Mode>) -> Result<Attached, Error> {
        let attached = match (self.device.occupant()?, self.pinned_link()?) {
            (Some(there), Some((program, link))) if there.program == program => {
                if mode.is_none_or(|mode| mode == there.mode) {
                    Attached { mode: there.mode, adoption: self.adopt(there, link)? }
                } else {
                    drop(link);
                    self.take_off(program)?;
                    self.attach_anew(mode)?
                }
            }
            (Some(there), _) => return Err(self.device.occupied(there)),
            (None, _) => {
                // A link that is pinned nevertheless has lost its device.
                self.pins.unpin(LINK)?;
                self.attach_anew(mode)?
            }
        };
        // What is attached needs no descriptor of ours; what isn't a map of its goes.
        self.ebpf = None;
        self.pins.keep(self.object.maps.iter().map(|map| map.name))?;
        Ok(attached)
    }

    /// Takes the program off the device, and removes it with its maps and pins. It is called in
    /// the device's namespace; a device that is gone is no error.
    ///
    /// # Errors
    /// [`Error::Pins`]; [`Error::StillAttached`]; [`Error::OtherNamespace`].
    pub fn detach(mut self) -> Result<(), Error> {
        let pinned = self.pinned_link()?.map(|(program, _)| program);
        if let Some(program) = pinned {
            self.take_off(program)?;
        }
        self.pins.remove()
    }

    /// Removes the pins of a device that can't be asked any more, because its namespace is gone.
    /// What is left of it, wherever the kernel has put it, loses the program.
    ///
    /// # Errors
    /// [`Error::Pins`].
    pub fn abandon(mut self) -> Result<(), Error> {
        self.pins.remove()
    }

    fn take_off(&mut self, program: u32) -> Result<(), Error> {
        self.pins.unpin(LINK)?;
        self.device.wait_until_without(program)
    }

    /// The pinned link, with the number of the program that it holds.
    fn pinned_link(&self) -> Result<Option<(u32, FdLink)>, Error> {
        let path = self.pins.file(LINK);
        if !path.exists() {
            return Ok(None);
        }
        let open = || -> Result<_, Cause> {
            let link = FdLink::from(PinnedLink::from_pin(path)?);
            Ok(Some((link.info()?.program_id(), link)))
        };
        open().map_err(self.device.refused("open the XDP link"))
    }

    fn adopt(&mut self, running: Occupant, link: FdLink) -> Result<Adoption, Error> {
        let refused = self.device.refused("replace the XDP program");
        let replace = || -> Result<Adoption, Cause> {
            if self.is_same_as(running.program)? {
                return Ok(Adoption::Kept);
            }
            self.xdp()?.attach_to_link(XdpLink::try_from(link)?)?;
            Ok(Adoption::Replaced)
        };
        replace().map_err(refused)
    }

    /// Whether a running program has our instructions and our maps.
    fn is_same_as(&mut self, program: u32) -> Result<bool, Cause> {
        let ours = self.xdp()?.info()?;
        let Some(theirs) = program_info(program) else { return Ok(false) };
        Ok(ours.tag() == theirs.tag() && ours.map_ids()? == theirs.map_ids()?)
    }

    fn attach_anew(&mut self, wanted: Option<Mode>) -> Result<Attached, Error> {
        let mode = wanted.unwrap_or(Mode::Driver);
        let mut tried = (mode, self.attach_in(mode));
        if wanted.is_none() && tried.1.is_err() {
            tried = (Mode::Skb, self.attach_in(Mode::Skb));
        }
        let (mode, outcome) = tried;
        let Err(cause) = outcome else { return Ok(Attached { mode, adoption: Adoption::New }) };
        // Somebody may have been faster.
        match self.device.occupant()? {
            Some(there) => Err(self.device.occupied(there)),
            None => Err(Error::Attach { device: self.device.name.clone(), mode, cause }),
        }
    }

    fn attach_in(&mut self, mode: Mode) -> Result<(), Cause> {
        let (index, path) = (self.device.index, self.pins.file(LINK));
        let mode = match mode {
            Mode::Driver => XdpMode::Driver,
            Mode::Skb => XdpMode::Skb,
            Mode::Hardware => return Err(Errno::OPNOTSUPP.into()),
        };
        let program = self.xdp()?;
        let id = program.attach_to_if_index(index, mode)?;
        // Where the kernel has no links for devices this fails, and dropping it detaches.
        FdLink::try_from(program.take_link(id)?)?.pin(path)?;
        Ok(())
    }
}
