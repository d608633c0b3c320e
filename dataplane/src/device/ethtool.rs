//! A device's offloads and queues, by the ioctl behind `ethtool -k`, `-K`, `-l` and `-L`
//! (`linux/ethtool.h`).
//!
//! Features are named by the kernel's own strings, so that one mechanism serves all of them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use thiserror::Error;

/// `linux/sockios.h`.
const SIOCETHTOOL: Opcode = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;
const ETH_SS_FEATURES: u32 = 4;
/// Words of `struct ethtool_channels`: command, four limits, and the numbers for receiving, for
/// sending, for other things, and for both.
const CHANNELS_WORDS: usize = 9;
/// Bytes of one feature's name with its padding (`ETH_GSTRING_LEN`).
const STRING_BYTES: usize = 32;
/// More features than any kernel has; it had 60 in 2025.
const MOST_FEATURES: u32 = 4096;
/// Words of `struct ethtool_get_features_block`: available, requested, active, never changed.
const GET_WORDS: usize = 4;
/// Words of `struct ethtool_set_features_block`: valid, requested.
const SET_WORDS: usize = 2;
/// Words in front of the blocks: command and number of blocks.
const HEAD_WORDS: usize = 2;

/// What [`set_offloads`] turns on and off: what lets a container's kernel send super-packets
/// and partial checksums, and what lets it merge what it receives.
pub const OFFLOADS: [&str; 12] = [
    "tx-checksum-ipv4",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv6",
    "tx-scatter-gather",
    "tx-scatter-gather-fraglist",
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "rx-gro",
];

/// What keeps VLAN tags beside the frames that a device sends, until hardware puts them in. A veth
/// hands them over so, and an XDP program at its other end sees frames without a tag.
pub const TAG_INSERTION: [&str; 2] = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];

/// What takes VLAN tags out of the frames that a device receives. An XDP program sees frames
/// without a tag then.
pub const TAG_STRIPPING: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

/// What went wrong with a device's features or queues.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused an operation.
    #[error("cannot {operation} {device}: {source}")]
    Refused {
        /// The operation, as a verb.
        operation: &'static str,
        /// The device's name.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A device's name must have 1 to 15 bytes and no NUL.
    #[error("`{0}` can't name a network device")]
    BadName(String),
    /// This kernel knows no feature of this name.
    #[error("no feature is called `{0}`")]
    UnknownFeature(String),
}

impl Error {
    /// Whether the device's driver has no such operation.
    fn is_unsupported(&self) -> bool {
        let unsupported = Some(rustix::io::Errno::OPNOTSUPP.raw_os_error());
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == unsupported)
    }
}

/// One feature of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// The kernel's name for it, as `ethtool -k` shows it.
    pub name: String,
    /// Whether it is in use.
    pub active: bool,
    /// Whether it can be switched: the driver allows it and it is not fixed.
    pub changeable: bool,
}

/// The queues that a device uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queues {
    /// Those by which it receives.
    pub receive: u32,
    /// Those by which it sends; some may be the same.
    pub send: u32,
}

/// The features of a device in the calling thread's namespace.
///
/// # Errors
/// [`Error::Refused`], with `ENODEV` if there is no such device; [`Error::BadName`].
pub fn features(device: &str) -> Result<Vec<Feature>, Error> {
    let request = Request::new(device)?;
    let names = request.names()?;
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0; HEAD_WORDS + blocks * GET_WORDS];
    words[0] = ETHTOOL_GFEATURES;
    words[1] = u32::try_from(blocks).unwrap_or(0);
    request.exchange("read the features of", &mut words)?;
    let bit = |feature: usize, word: usize| {
        words[HEAD_WORDS + feature / 32 * GET_WORDS + word] >> (feature % 32) & 1 == 1
    };
    let named = names.into_iter().enumerate().filter(|(_, name)| !name.is_empty());
    let feature =
        |(i, name)| Feature { name, active: bit(i, 2), changeable: bit(i, 0) && !bit(i, 3) };
    Ok(named.map(feature).collect())
}

/// Switches features by name. What the device can't do stays as it is, and what depends on
/// another feature may change with it, as with `ethtool -K`: read the outcome with [`features`].
///
/// # Errors
/// As [`features`]; [`Error::UnknownFeature`], and nothing is changed.
pub fn set_features(device: &str, wanted: &[(&str, bool)]) -> Result<(), Error> {
    let request = Request::new(device)?;
    let names = request.names()?;
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0; HEAD_WORDS + blocks * SET_WORDS];
    words[0] = ETHTOOL_SFEATURES;
    words[1] = u32::try_from(blocks).unwrap_or(0);
    for &(name, on) in wanted {
        let feature = names.iter().position(|known| known == name);
        let feature = feature.ok_or_else(|| Error::UnknownFeature(name.to_owned()))?;
        let block = HEAD_WORDS + feature / 32 * SET_WORDS;
        words[block] |= 1 << (feature % 32);
        words[block + 1] |= u32::from(on) << (feature % 32);
    }
    request.exchange("set the features of", &mut words)
}

/// Turns all of [`OFFLOADS`] that the device can switch on or off.
///
/// # Errors
/// As [`features`].
pub fn set_offloads(device: &str, on: bool) -> Result<(), Error> {
    switch(device, &OFFLOADS, on)
}

/// Turns those of the named features on or off that the device can switch.
///
/// # Errors
/// As [`features`].
pub fn switch(device: &str, names: &[&str], on: bool) -> Result<(), Error> {
    let known = features(device)?;
    let switchable = |name: &&str| known.iter().any(|f| f.name == **name && f.changeable);
    let wanted: Vec<_> = names.iter().filter(|n| switchable(n)).map(|n| (*n, on)).collect();
    set_features(device, &wanted)
}

/// Those of the named features that are in use.
///
/// # Errors
/// As [`features`].
pub fn active<'n>(device: &str, names: &[&'n str]) -> Result<Vec<&'n str>, Error> {
    let known = features(device)?;
    let active = |name: &&&str| known.iter().any(|f| f.name == **name && f.active);
    Ok(names.iter().filter(active).copied().collect())
}

/// The queues that a device in the calling thread's namespace uses, or `None` if its driver can't
/// say. It may have more.
///
/// # Errors
/// As [`features`].
pub fn queues(device: &str) -> Result<Option<Queues>, Error> {
    match channels(&Request::new(device)?) {
        Ok([.., receive, send, _, both]) => Ok(Some(Queues {
            receive: receive.saturating_add(both),
            send: send.saturating_add(both),
        })),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has a device use so many queues for receiving and for sending, whose driver counts them apart.
///
/// # Errors
/// As [`features`]; `EINVAL` if it has not so many, or is in a state that forbids it.
pub fn set_queues(device: &str, queues: Queues) -> Result<(), Error> {
    let request = Request::new(device)?;
    let mut words = channels(&request)?;
    (words[0], words[5], words[6]) = (ETHTOOL_SCHANNELS, queues.receive, queues.send);
    request.exchange("set the queues of", &mut words)
}

fn channels(request: &Request<'_>) -> Result<[u32; CHANNELS_WORDS], Error> {
    let mut words = [0; CHANNELS_WORDS];
    words[0] = ETHTOOL_GCHANNELS;
    request.exchange("count the queues of", &mut words)?;
    Ok(words)
}

/// `struct ifreq` as SIOCETHTOOL reads it: the device's name, and a pointer in a union of 24
/// bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    data: *mut u32,
    rest: [u64; 2],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// A socket to ask by, and the device in question.
struct Request<'a> {
    socket: OwnedFd,
    device: &'a str,
    name: [u8; 16],
}

impl<'a> Request<'a> {
    fn new(device: &'a str) -> Result<Self, Error> {
        let mut name = [0; 16];
        let bytes = device.as_bytes();
        if bytes.is_empty() || bytes.len() >= name.len() || bytes.contains(&0) {
            return Err(Error::BadName(device.to_owned()));
        }
        name[..bytes.len()].copy_from_slice(bytes);
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
            .map_err(|e| refused("open a socket for", device, e.into()))?;
        Ok(Self { socket, device, name })
    }

    /// The names of all features this kernel knows, by bit; some bits have an empty name.
    fn names(&self) -> Result<Vec<String>, Error> {
        let count = self.feature_count()?;
        let blocks = usize::try_from(count).unwrap_or(0);
        // Command, string set, number of strings, strings.
        let mut words = vec![0; 3 + blocks * (STRING_BYTES / 4)];
        words[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
        self.exchange("read the feature names of", &mut words)?;
        let bytes: Vec<u8> = words[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(bytes.chunks_exact(STRING_BYTES).map(text).collect())
    }

    fn feature_count(&self) -> Result<u32, Error> {
        // Command, reserved, mask of string sets (u64, so its halves by byte order), count.
        let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = mask;
        let (first, second) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        let mut words = [ETHTOOL_GSSET_INFO, 0, first, second, 0];
        self.exchange("count the features of", &mut words)?;
        Ok(words[4].min(MOST_FEATURES))
    }

    /// Gives the kernel a command with its arguments, and takes its answer in the same place.
    fn exchange(&self, operation: &'static str, words: &mut [u32]) -> Result<(), Error> {
        let request = InterfaceRequest { name: self.name, data: words.as_mut_ptr(), rest: [0; 2] };
        // SAFETY: the request has the layout of `struct ifreq`, and its pointer stays valid for
        // the call. What the kernel writes behind it is bounded by the number of blocks in the
        // second word (features), is one word (string sets), is a structure of a fixed size
        // (channels), or is `feature_count` names, a number that never changes while a kernel runs
        // and for which `names` made room.
        let done = unsafe {
            let command = Setter::<SIOCETHTOOL, InterfaceRequest>::new(request);
            ioctl(&self.socket, command)
        };
        done.map_err(|errno| refused(operation, self.device, errno.into()))
    }
}

fn refused(operation: &'static str, device: &str, source: io::Error) -> Error {
    Error::Refused { operation, device: device.to_owned(), source }
}

fn text(padded: &[u8]) -> String {
    let end = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
    String::from_utf8_lossy(&padded[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::netlink::Netlink;
    use crate::device::netns::tests::Guard;

    fn active(device: &str, name: &str) -> bool {
        features(device).unwrap().iter().any(|f| f.name == name && f.active)
    }

    #[test]
    fn offloads_go_off_and_on_again() {
        let guard = Guard::new();
        let work = || {
            Netlink::open().unwrap().add_veth("a0", "b0", 1, None).unwrap();
            let chosen = ["tx-tcp-segmentation", "tx-udp-segmentation", "tx-checksum-ip-generic"];
            assert!(chosen.iter().all(|name| active("a0", name)));
            set_offloads("a0", false).unwrap();
            assert!(!OFFLOADS.iter().any(|name| active("a0", name)));
            set_offloads("a0", true).unwrap();
            assert!(chosen.iter().all(|name| active("a0", name)));
            set_features("a0", &[("tx-tcp-segmentation", false)]).unwrap();
            assert!(!active("a0", chosen[0]) && active("a0", chosen[1]));
        };
        guard.netns.run(work).unwrap();
    }

    #[test]
    fn tags_stay_in_frames() {
        let guard = Guard::new();
        let work = || {
            Netlink::open().unwrap().add_veth("a0", "b0", 1, None).unwrap();
            for names in [TAG_INSERTION, TAG_STRIPPING] {
                assert!(names.iter().all(|name| active("a0", name)));
                switch("a0", &names, false).unwrap();
                assert!(!names.iter().any(|name| active("a0", name)));
            }
            assert!(active("b0", TAG_INSERTION[0]), "that is the other end's business");
        };
        guard.netns.run(work).unwrap();
    }

    #[test]
    fn queues_in_use_are_not_all_that_there_are() {
        let guard = Guard::new();
        let work = || {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_veth("a0", "b0", 3, None).unwrap();
            assert_eq!(queues("a0").unwrap(), Some(Queues { receive: 3, send: 3 }));
            let fewer = Queues { receive: 2, send: 1 };
            set_queues("a0", fewer).unwrap();
            assert_eq!(queues("a0").unwrap(), Some(fewer));
            assert_eq!(netlink.link("a0").unwrap().unwrap().rx_queues, 3);
            assert!(set_queues("a0", Queues { receive: 4, send: 1 }).is_err());
            assert_eq!(queues("lo").unwrap(), None);
        };
        guard.netns.run(work).unwrap();
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let missing = features("nosuch0").unwrap_err();
        assert!(missing.to_string().contains("nosuch0: No such device"), "{missing}");
        assert!(matches!(features("sixteen-bytes-no"), Err(Error::BadName(_))));
        let unknown = set_features("lo", &[("tx-telepathy", true)]).unwrap_err();
        assert!(matches!(unknown, Error::UnknownFeature(name) if name == "tx-telepathy"));
    }
}
