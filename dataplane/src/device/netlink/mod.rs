//! A blocking rtnetlink client: links in [`link`], what queues in front of them in [`qdisc`],
//! addresses and routes in [`address`], neighbours in [`neighbor`], programs on devices in [`xdp`];
//! and news of links in [`monitor`].
//!
//! It is blocking because each use is short and runs on a thread that has entered a namespace;
//! an asynchronous client would need a runtime per namespace. Every wait is bounded.

pub mod address;
pub mod link;
pub mod monitor;
pub mod neighbor;
pub mod qdisc;
pub mod xdp;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use thiserror::Error;

pub use link::Link;
pub use monitor::{Monitor, News};
pub use qdisc::NO_QUEUE;

/// How long the kernel may take for one answer. It answers within the system call; only the
/// lock that all of rtnetlink shares can keep it waiting, for example behind a namespace that
/// is being removed.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel sends at most 32 KiB per message of a dump (`netlink_dump`, `net/netlink`).
const RECEIVE_BYTES: usize = 64 << 10;

/// How often a dump is started anew when the kernel says that its objects changed meanwhile.
const DUMP_ATTEMPTS: u32 = 10;

/// What went wrong in talking to rtnetlink.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket could not be made.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel refused an operation.
    #[error("cannot {operation} {device}: {source}")]
    Refused {
        /// The operation, as a verb.
        operation: &'static str,
        /// The device's name, or `device` and its index if it has none.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket failed, or the kernel did not answer within [`TIMEOUT`].
    #[error("no answer from rtnetlink to `{operation} {device}`: {source}")]
    NoAnswer {
        /// The operation, as a verb.
        operation: &'static str,
        /// The device's name, or `device` and its index if it has none.
        device: String,
        /// What the socket said.
        source: io::Error,
    },
    /// The kernel's answer could not be read.
    #[error("unreadable answer from rtnetlink to `{operation} {device}`: {detail}")]
    Unreadable {
        /// The operation, as a verb.
        operation: &'static str,
        /// The device's name, or `device` and its index if it has none.
        device: String,
        /// What was found.
        detail: String,
    },
}

impl Error {
    /// The error number with which the kernel refused, as in `errno.h`.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno.raw_os_error())
    }
}

/// A connection to rtnetlink of the namespace in which it was opened, wherever it is used.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

/// What is asked, for error messages.
#[derive(Clone, Copy)]
struct Subject<'a> {
    operation: &'static str,
    device: &'a str,
}

impl Netlink {
    /// Connects to rtnetlink of the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let open = || {
            let flags = SocketFlags::CLOEXEC;
            let family = AddressFamily::NETLINK;
            let socket = rustix::net::socket_with(family, SocketType::RAW, flags, None)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
            Ok(socket)
        };
        let socket = open().map_err(|e: Errno| Error::Open(e.into()))?;
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES], sequence: 0 })
    }

    /// Sends a request that changes something, and waits for its acknowledgement.
    fn change(
        &mut self,
        subject: Subject<'_>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.send(subject, message, NLM_F_ACK | flags)?;
        while !self.receive(subject, &mut |_| ())?.finished {}
        Ok(())
    }

    /// Sends a request for one object, and gives its answer.
    fn query(
        &mut self,
        subject: Subject<'_>,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        self.send(subject, message, NLM_F_ACK)?;
        let mut answer = None;
        while !self.receive(subject, &mut |found| answer = Some(found))?.finished {}
        Ok(answer)
    }

    /// Asks for all objects of a kind, and gives those of one moment.
    fn dump(
        &mut self,
        subject: Subject<'_>,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(subject, message.clone(), NLM_F_DUMP)?;
            let mut found = Vec::new();
            let mut interrupted = false;
            loop {
                let progress = self.receive(subject, &mut |one| found.push(one))?;
                interrupted |= progress.interrupted;
                if progress.finished {
                    break;
                }
            }
            if !interrupted {
                return Ok(found);
            }
        }
        Err(subject.unreadable("it changed faster than it could be read"))
    }

    fn send(
        &mut self,
        subject: Subject<'_>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())
            .map(drop)
            .map_err(|errno| subject.no_answer(errno))
    }

    /// Receives one datagram, hands the objects in it to `each`, and says how far the answer
    /// to the last request is.
    fn receive(
        &mut self,
        subject: Subject<'_>,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<Progress, Error> {
        let (_, received) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)
            .map_err(|errno| subject.no_answer(errno))?;
        let Some(mut rest) = self.buffer.get(..received) else {
            return Err(subject.unreadable("it is longer than any that the kernel sends"));
        };
        let mut progress = Progress::default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| subject.unreadable(&e.to_string()))?;
            let (header, payload) = message.into_parts();
            rest = rest.get(aligned(header.length)..).unwrap_or_default();
            // Another number is the late answer to a request that was given up.
            if header.sequence_number == self.sequence {
                progress.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                progress.finished |= subject.settle(payload, each)?;
            }
        }
        Ok(progress)
    }
}

#[derive(Default)]
struct Progress {
    finished: bool,
    interrupted: bool,
}

impl Subject<'_> {
    /// Takes one message of an answer; true if it is the last.
    fn settle(
        self,
        payload: NetlinkPayload<RouteNetlinkMessage>,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<bool, Error> {
        match payload {
            NetlinkPayload::InnerMessage(found) => {
                each(found);
                Ok(false)
            }
            NetlinkPayload::Error(answer) if answer.code.is_some() => {
                Err(self.refused(answer.to_io()))
            }
            NetlinkPayload::Done(done) if done.code != 0 => {
                Err(self.refused(io::Error::from_raw_os_error(done.code.saturating_abs())))
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => Ok(true),
            NetlinkPayload::Overrun(_) => Err(self.no_answer(Errno::NOBUFS)),
            _ => Ok(false),
        }
    }

    fn refused(self, source: io::Error) -> Error {
        Error::Refused { operation: self.operation, device: self.device.to_owned(), source }
    }

    fn no_answer(self, errno: Errno) -> Error {
        let source = errno.into();
        Error::NoAnswer { operation: self.operation, device: self.device.to_owned(), source }
    }

    fn unreadable(self, detail: &str) -> Error {
        let (operation, device) = (self.operation, self.device.to_owned());
        Error::Unreadable { operation, device, detail: detail.to_owned() }
    }
}

/// The bytes up to the next message of a datagram: each starts at a multiple of four.
fn aligned(length: u32) -> usize {
    usize::try_from(length.next_multiple_of(4)).unwrap_or(usize::MAX)
}
