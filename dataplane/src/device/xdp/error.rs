//! What can be wrong with a device's program, in words that name the device.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{BadRules, Mode};
use crate::device::{netlink, netns};

/// What went wrong with the program of a device.
#[derive(Debug, Error)]
pub enum Error {
    /// A program that is not ours, or not of this heddle, is on the device.
    #[error(
        "{device} has an XDP program already: number {program}, called `{name}`; \
         heddle can't share a device with another program (`bpftool net` shows it)"
    )]
    Occupied {
        /// The device's name.
        device: String,
        /// The kernel's number of the program.
        program: u32,
        /// The name that it was loaded with; empty if it is gone by now.
        name: String,
    },
    /// Another process holds the pins of the device.
    #[error("another heddle runs on {device}: it holds {}", path.display())]
    InUse {
        /// The device's name.
        device: String,
        /// The directory of pins.
        path: PathBuf,
    },
    /// The kernel takes the program in no mode.
    #[error("cannot attach to {device} in {mode} mode: {cause}")]
    Attach {
        /// The device's name.
        device: String,
        /// The last mode that was tried.
        mode: Mode,
        /// What the kernel said.
        cause: Cause,
    },
    /// A step with the program, its link or its maps was refused.
    #[error("cannot {operation} of {device}: {cause}")]
    Refused {
        /// The step, as a verb.
        operation: &'static str,
        /// The device's name.
        device: String,
        /// What the kernel said.
        cause: Cause,
    },
    /// The rules of a device can't be.
    #[error("cannot set the XDP rules of {device}: {source}")]
    Rules {
        /// The device's name.
        device: String,
        /// What is wrong with them.
        source: BadRules,
    },
    /// Rules for a program that has none.
    #[error("the XDP program of {device} takes everything, and follows no rules")]
    TakesEverything {
        /// The device's name.
        device: String,
    },
    /// The program is still on the device some time after it was removed.
    #[error("the XDP program of {device} was removed, but the kernel still has it there")]
    StillAttached {
        /// The device's name.
        device: String,
    },
    /// The device is in another namespace than the calling thread.
    #[error("{device} is in another network namespace than the one that this was called in")]
    OtherNamespace {
        /// The device's name.
        device: String,
    },
    /// There is no such device here.
    #[error("there is no device with index {0} in this network namespace")]
    NoDevice(u32),
    /// The directory of pins can't be used.
    #[error("cannot {operation} {}: {source}", path.display())]
    Pins {
        /// The step, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// rtnetlink could not answer.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The calling thread's namespace could not be told.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
}

impl Error {
    /// Whether a file of the pins does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Pins { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// An error with all that caused it, in one line.
#[derive(Debug)]
pub struct Cause(Box<dyn StdError + Send + Sync>);

impl Cause {
    /// The number in `errno.h` with which a system call failed, if that is at the bottom of it.
    pub fn errno(&self) -> Option<i32> {
        self.chain().find_map(|e| e.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error)
    }

    fn chain(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let first: &(dyn StdError + 'static) = self.0.as_ref();
        std::iter::successors(Some(first), |&error| error.source())
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Cause {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = String::new();
        for (depth, error) in self.chain().enumerate() {
            let text = error.to_string();
            // Some wrappers say what they wrap, and some only are it.
            if before.ends_with(&text) {
                continue;
            }
            write!(f, "{}{text}", if depth == 0 { "" } else { ": " })?;
            before = text;
        }
        Ok(())
    }
}
