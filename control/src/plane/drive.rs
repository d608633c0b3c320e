//! How a device that is there is driven: by packet sockets, or by AF_XDP.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use dataplane::device::ethtool::{self, Queues};
use dataplane::device::netlink::Link;
use dataplane::device::netns::{self, Netns};
use dataplane::device::xdp::{self, Adoption, Pins, Program, Rule};
use dataplane::engine::Place;
use dataplane::ids::{MacAddr, PortId, WorkerId};
use dataplane::port::Port;
use dataplane::port::af_packet::Queue;
use dataplane::port::af_packet::socket::{self, Frames, Membership, Options, Socket};
use dataplane::port::af_xdp::{self, AfXdp, Peer, Umem};
use dataplane::port::shared::Shared;
use thiserror::Error;

use super::backstage::{Backstage, BackstageError};
use super::tags::{self, TurnedOff};
use crate::config::Io;

/// A device that is to be driven.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    /// What all devices share.
    pub backstage: &'a Backstage,
    /// Where the device is.
    pub netns: &'a Netns,
    /// What it is.
    pub link: &'a Link,
    /// The number of its port.
    pub port: PortId,
    /// What was asked for.
    pub io: Io,
    /// Workers, each of which is to have a queue of it.
    pub workers: usize,
    /// Frames that wait for arrivals on each queue.
    pub frames: u32,
    /// Whether the host uses the device as well.
    pub shared: Option<&'a Stations>,
    /// Whether heddle has made the device.
    pub made: bool,
}

/// The stations behind heddle's ports of a shared device; `None` if any may come up there.
pub(super) type Stations = Option<BTreeSet<MacAddr>>;

/// Its queues, by worker, and what drives them.
pub(super) struct Opened {
    pub places: Vec<Place>,
    pub drive: Drive,
}

/// What drives a device.
#[derive(Debug)]
pub enum Drive {
    /// Packet sockets.
    Packet {
        /// The sockets: the kernel takes milliseconds to close the last descriptor of one, for
        /// which no worker is to wait.
        sockets: Vec<Socket>,
        /// Why.
        why: Why,
    },
    /// An XDP program and AF_XDP sockets.
    Xdp {
        /// The program. It stays on the device when heddle dies.
        program: Box<Program>,
        /// Where it runs.
        runs: xdp::Mode,
        /// Who moves the bytes.
        mode: af_xdp::Mode,
        /// Queues that are served.
        queues: usize,
        /// The packet socket for frames to groups, of a device that the host uses as well; here
        /// for the same reason as with packet sockets alone.
        groups: Option<Socket>,
        /// What was turned off at the device.
        off: Option<TurnedOff>,
        /// Why.
        why: Why,
    },
}

/// Why a device is driven in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was asked for.
    Asked,
    /// Super-packets cross a veth whole only by packet sockets.
    Veth,
    /// Hardware has receive queues that AF_XDP can have to itself.
    Hardware,
    /// Other devices of the kernel's copy for AF_XDP, and cut super-packets.
    Virtual,
    /// AF_XDP was tried first; the log says what kept it.
    NoXdp,
    /// The program must know which frames are not the host's, and here any may be.
    Stations,
}

/// Why a device can't be driven.
#[derive(Debug, Error)]
pub enum DriveError {
    /// Its namespace is gone.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// What all devices share can't be had.
    #[error(transparent)]
    Backstage(#[from] BackstageError),
    /// Its queues can't be counted, or its offloads not be turned off.
    #[error(transparent)]
    Ethtool(#[from] ethtool::Error),
    /// No packet socket.
    #[error(transparent)]
    Packet(#[from] socket::SocketError),
    /// No XDP program.
    #[error(transparent)]
    Program(#[from] xdp::Error),
    /// No AF_XDP socket.
    #[error(transparent)]
    Xdp(#[from] af_xdp::Error),
    /// The program can't know which frames are not the host's.
    #[error(
        "`{0}` has a trunk network or one with anti_spoof = false, behind which any station may \
         be, and the host uses it as well: AF_XDP can't tell whose a frame is, use \
         io = \"af_packet\""
    )]
    AnyStation(String),
    /// Frames would be in the wrong VLAN.
    #[error(
        "`{0}` takes VLAN tags out of frames, and can't be told not to (`ethtool -K`): AF_XDP \
         does not see them, use io = \"af_packet\""
    )]
    Tags(String),
    /// A socket sends by the queue that it receives by.
    #[error(
        "`{device}` receives by {receive} queues and sends by {send}: AF_XDP needs as many to send \
         (`ethtool -L`), or use io = \"af_packet\""
    )]
    FewToSend {
        /// Its name.
        device: String,
        /// Queues that it receives by.
        receive: u32,
        /// Queues that it sends by.
        send: u32,
    },
    /// Frames that arrive on a queue without a worker would be lost.
    #[error(
        "`{device}` has {queues} receive queues, and heddle {workers} workers: give it fewer \
         (`ethtool -L`), or use io = \"af_packet\""
    )]
    Queues {
        /// Its name.
        device: String,
        /// Its queues.
        queues: u32,
        /// Workers.
        workers: usize,
    },
}

impl DriveError {
    /// Whether the device itself is not fit for AF_XDP: another try would end the same. That
    /// somebody else has it is not of this kind.
    fn is_of_the_device(&self) -> bool {
        match self {
            Self::Queues { .. } | Self::FewToSend { .. } | Self::Tags(_) | Self::Ethtool(_) => true,
            Self::Program(error) => matches!(error, xdp::Error::Attach { .. }),
            Self::Xdp(error) => !error.is_busy(),
            _ => false,
        }
    }
}

/// How long a queue is waited for that a heddle which has just died still holds.
const RELEASE: Duration = Duration::from_millis(500);

/// Opens a device's queues. Frames are taken from then on, and wait for their workers.
///
/// # Errors
///
/// [`DriveError`]; nothing stays open.
pub(super) fn open(task: &Task<'_>) -> Result<Opened, DriveError> {
    match choose(task.io, task.link.kind.as_deref(), task.shared) {
        (Io::AfXdp, Why::Hardware) => match open_xdp(task, Why::Hardware) {
            Err(error) if error.is_of_the_device() => {
                tracing::info!(device = task.link.name, %error, "AF_XDP can't be had");
                open_packet(task, Why::NoXdp)
            }
            opened => opened,
        },
        (Io::AfXdp, why) => open_xdp(task, why),
        (_, why) => open_packet(task, why),
    }
}

/// How a device of this kind is to be driven, and why.
fn choose(io: Io, kind: Option<&str>, shared: Option<&Stations>) -> (Io, Why) {
    match (io, kind) {
        (Io::Auto, Some("veth")) => (Io::AfPacket, Why::Veth),
        (Io::Auto, Some(_)) => (Io::AfPacket, Why::Virtual),
        (Io::Auto, None) if shared == Some(&None) => (Io::AfPacket, Why::Stations),
        (Io::Auto, None) => (Io::AfXdp, Why::Hardware),
        (asked, _) => (asked, Why::Asked),
    }
}

fn open_packet(task: &Task<'_>, why: Why) -> Result<Opened, DriveError> {
    let frames = if task.shared.is_some() { Frames::ForOthers } else { Frames::All };
    let sockets = packet_sockets(task, frames, task.workers)?;
    let here = |socket: &Socket| Place::Here(Box::new(Queue::new(task.port, socket.clone())) as _);
    let places = sockets.iter().map(here).collect();
    Ok(Opened { places, drive: Drive::Packet { sockets, why } })
}

fn packet_sockets(
    task: &Task<'_>,
    frames: Frames,
    sockets: usize,
) -> Result<Vec<Socket>, DriveError> {
    // A veth lets everything in by itself.
    let membership = match task.link.kind.as_deref() {
        Some("veth") => Membership::None,
        _ => Membership::Promiscuous,
    };
    let options = Options { sockets, frames, membership, ..Options::default() };
    Ok(task.netns.run(|| socket::open(task.link.index, &options))??)
}

fn open_xdp(task: &Task<'_>, why: Why) -> Result<Opened, DriveError> {
    let Queues { receive: queues, send } = queues(task.netns, task.link)?;
    if send < queues {
        let (device, receive) = (task.link.name.clone(), queues);
        return Err(DriveError::FewToSend { device, receive, send });
    }
    if usize::try_from(queues).is_ok_and(|queues| queues > task.workers) {
        let (device, workers) = (task.link.name.clone(), task.workers);
        return Err(DriveError::Queues { device, queues, workers });
    }
    let (pins, umem) = (task.backstage.pins()?, task.backstage.umem()?);
    let settings: Vec<_> = (0..queues).map(|number| settings(task, number)).collect();
    let (link, made, rules) = (task.link, task.made, rules(task)?);
    // What heddle chooses by itself is worth it: in the network stack it is not. There a veth would
    // also hand over super-packets, which AF_XDP loses.
    let in_driver = why == Why::Hardware || link.kind.as_deref() == Some("veth");
    let mode = in_driver.then_some(xdp::Mode::Driver);
    // First: what fails after the program is on the device has to take it off again.
    let groups = match task.shared {
        Some(_) => packet_sockets(task, Frames::Groups, 1)?.pop(),
        None => None,
    };
    let open = || -> Result<_, DriveError> {
        let mut program = load(pins, link.index, rules)?;
        let attached = program.attach(mode)?;
        let adoption = (!made).then_some(attached.adoption);
        match serve(&mut program, umem, link, &settings, adoption) {
            Ok((off, ports)) => Ok((program, attached.mode, off, ports)),
            Err(error) => {
                program.detach()?;
                Err(error)
            }
        }
    };
    let (program, runs, off, ports) = task.netns.run(open)??;
    let mode = ports.first().map_or(af_xdp::Mode::Copy, AfXdp::mode);
    let queue = groups.clone().map(|socket| Queue::new(task.port, socket));
    let program = Box::new(program);
    let drive = Drive::Xdp { program, runs, mode, queues: ports.len(), groups, off, why };
    Ok(Opened { places: places(ports, queue, task.workers), drive })
}

/// Has the program give what arrives to sockets, with its VLAN tags: of a veth of heddle's the far
/// end sees to that, and `adoption` is of another device.
fn serve(
    program: &mut Program,
    umem: &Umem,
    link: &Link,
    settings: &[af_xdp::Settings],
    adoption: Option<Adoption>,
) -> Result<(Option<TurnedOff>, Vec<AfXdp>), DriveError> {
    let in_frames = |adoption| tags::receive_in_frames(link, adoption != Adoption::New);
    let off = adoption.map(in_frames).transpose()?;
    match sockets(program, umem, link, settings) {
        Ok(ports) => Ok((off, ports)),
        Err(error) => {
            off.iter().for_each(TurnedOff::put_back);
            Err(error)
        }
    }
}

/// The queues that a device uses. It may have more.
fn queues(netns: &Netns, link: &Link) -> Result<Queues, DriveError> {
    let all = link.rx_queues.max(1);
    let in_use = netns.run(|| ethtool::queues(&link.name))??;
    Ok(in_use.unwrap_or(Queues { receive: all, send: all }))
}

/// What the program is to take; `None` is everything.
fn rules(task: &Task<'_>) -> Result<Option<Vec<Rule>>, DriveError> {
    match task.shared {
        None => Ok(None),
        Some(None) => Err(DriveError::AnyStation(task.link.name.clone())),
        Some(Some(stations)) => Ok(Some(rules_for(stations))),
    }
}

fn rules_for(stations: &BTreeSet<MacAddr>) -> Vec<Rule> {
    stations.iter().copied().map(Rule::Station).collect()
}

fn load(pins: &Pins, index: u32, rules: Option<Vec<Rule>>) -> Result<Program, xdp::Error> {
    let Some(rules) = rules else { return Program::load(pins, index) };
    let mut program = Program::load_with_rules(pins, index)?;
    program.set_rules(rules)?;
    Ok(program)
}

/// Opens a socket on each queue, and has the program give it what arrives there.
fn sockets(
    program: &mut Program,
    umem: &Umem,
    link: &Link,
    settings: &[af_xdp::Settings],
) -> Result<Vec<AfXdp>, DriveError> {
    let ports: Vec<AfXdp> = patiently(|| match link.kind {
        None => AfXdp::open_native(umem.ledger(), settings),
        Some(_) => settings.iter().map(|&settings| AfXdp::open(umem, settings)).collect(),
    })?;
    for (number, port) in (0..).zip(&ports) {
        program.insert_socket(number, port.socket())?;
    }
    Ok(ports)
}

fn settings(task: &Task<'_>, number: u32) -> af_xdp::Settings {
    let peer = if task.link.kind.is_some() { Peer::Veth } else { Peer::Wire };
    let queue = af_xdp::Queue { device: task.link.index, number };
    af_xdp::Settings { port: task.port, queue, frames: task.frames, peer }
}

/// A heddle that was killed a moment ago may not have let go of its queues yet.
fn patiently<T>(open: impl Fn() -> Result<T, af_xdp::Error>) -> Result<T, af_xdp::Error> {
    let deadline = Instant::now() + RELEASE;
    loop {
        match open() {
            Err(error) if error.is_busy() && Instant::now() < deadline => {
                std::thread::sleep(RELEASE / 500);
            }
            opened => return opened,
        }
    }
}

/// A worker without a queue of its own hands what it has to send to one that has. The first takes
/// what is for groups.
fn places(ports: Vec<AfXdp>, mut groups: Option<Queue>, workers: usize) -> Vec<Place> {
    let queues = ports.len().max(1);
    let port = |port| -> Box<dyn Port> {
        match groups.take() {
            Some(groups) => Box::new(Shared::new(port, groups)),
            None => Box::new(port),
        }
    };
    let here = ports.into_iter().map(port).map(Place::Here);
    let owner = |worker: usize| WorkerId(u8::try_from(worker % queues).unwrap_or(0));
    here.chain((queues..workers).map(|worker| Place::At(owner(worker)))).collect()
}

impl Drive {
    /// Lets the device go: nothing of heddle's stays on it. To be called when no worker has a
    /// queue of it any more.
    ///
    /// # Errors
    ///
    /// [`DriveError`] when the program can't be taken off.
    pub(super) fn stop(self, netns: &Netns) -> Result<(), DriveError> {
        match self {
            Self::Packet { .. } => Ok(()),
            Self::Xdp { program, off, .. } => {
                let stop = || {
                    off.iter().for_each(TurnedOff::put_back);
                    program.detach()
                };
                Ok(netns.run(stop)??)
            }
        }
    }

    /// The same for a device whose namespace is gone.
    ///
    /// # Errors
    ///
    /// [`DriveError`] when what outlives heddle can't be removed.
    pub(super) fn abandon(self) -> Result<(), DriveError> {
        match self {
            Self::Packet { .. } => Ok(()),
            Self::Xdp { program, .. } => Ok(program.abandon()?),
        }
    }

    /// Takes up which stations are behind heddle's ports of a shared device. Packet sockets get
    /// everything anyway.
    ///
    /// # Errors
    ///
    /// [`DriveError`] when the program can't be told, or any station may be there now.
    pub(super) fn set_stations(
        &mut self,
        name: &str,
        stations: &Stations,
    ) -> Result<(), DriveError> {
        match (self, stations) {
            (Self::Packet { .. }, _) => Ok(()),
            (Self::Xdp { program, .. }, Some(stations)) => {
                Ok(program.set_rules(rules_for(stations))?)
            }
            (Self::Xdp { .. }, None) => Err(DriveError::AnyStation(name.to_owned())),
        }
    }

    /// Whether a device uses other queues now than those that are served.
    pub(super) fn misses_queues(&self, netns: &Netns, link: &Link) -> bool {
        let Self::Xdp { queues: served, .. } = self else { return false };
        let others =
            |now: Queues| usize::try_from(now.receive) != Ok(*served) || now.send < now.receive;
        // What can't be counted now is counted with the next news.
        queues(netns, link).is_ok_and(others)
    }
}

impl fmt::Display for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet { why, .. } => write!(f, "af_packet{why}"),
            Self::Xdp { runs, mode, why, .. } => write!(f, "af_xdp, {runs} mode, {mode}{why}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "",
            Self::Veth => " (auto: super-packets cross a veth whole)",
            Self::Hardware => " (auto: a device with receive queues of its own)",
            Self::Virtual => " (auto: AF_XDP would copy, and cut super-packets)",
            Self::NoXdp => " (auto: AF_XDP can't be had, see the log)",
            Self::Stations => " (auto: any station may be behind its networks)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_drives_hardware_by_af_xdp_unless_any_station_may_be_there() {
        let (some, any) = (Some(BTreeSet::new()), None);
        for (kind, shared, chosen) in [
            (Some("veth"), None, (Io::AfPacket, Why::Veth)),
            (Some("bond"), Some(&some), (Io::AfPacket, Why::Virtual)),
            (None, None, (Io::AfXdp, Why::Hardware)),
            (None, Some(&some), (Io::AfXdp, Why::Hardware)),
            (None, Some(&any), (Io::AfPacket, Why::Stations)),
        ] {
            assert_eq!(choose(Io::Auto, kind, shared), chosen);
            for asked in [Io::AfXdp, Io::AfPacket] {
                assert_eq!(choose(asked, kind, shared), (asked, Why::Asked));
            }
        }
    }
}
