//! What a port is made of: a device, where it is, and how it is driven.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::document::Node;
use super::fields::Fields;
use super::values::{self, Mismatch};

/// What frames of a port come from and go to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Device {
    /// A TAP device that heddle makes and moves.
    Tap {
        /// Where the device is moved to.
        netns: Netns,
        /// The device's name there.
        name: String,
    },
    /// A pair of connected devices that heddle makes: one moves, the other stays with heddle.
    Veth {
        /// Where the one is moved to.
        netns: Netns,
        /// Its name there.
        name: String,
        /// How the other is driven.
        io: Io,
    },
    /// A device that there is already. It stays as it is.
    Existing {
        /// Where it is; `None` is heddle's own namespace.
        netns: Option<Netns>,
        /// Its name there.
        name: String,
        /// How it is driven.
        io: Io,
    },
    /// Frames in memory, for tests and measurements.
    Memory,
    /// A capture, for `replay`.
    Pcap,
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Netns {
    /// A name under `/run/netns`.
    Name(String),
    /// A file that is a namespace, such as `/proc/1234/ns/net`.
    Path(PathBuf),
}

/// How frames are taken from a device and given to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// heddle chooses by what the device can do.
    #[default]
    Auto,
    /// Rings shared with the kernel's driver.
    AfXdp,
    /// A socket on the device, super-packets whole.
    AfPacket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tap,
    Veth,
    Existing,
    Memory,
    Pcap,
}

impl Device {
    /// Reads the keys of a port that say what it is made of; what is wrong with them becomes
    /// problems.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let kinds = &[
            ("tap", Kind::Tap),
            ("veth", Kind::Veth),
            ("device", Kind::Existing),
            ("memory", Kind::Memory),
            ("pcap", Kind::Pcap),
        ];
        let expected = "kind = \"tap\", \"veth\", \"device\", \"memory\" or \"pcap\"";
        match fields.required("kind", expected, values::choice(kinds, &[]))? {
            Kind::Tap => tap(fields),
            Kind::Veth => veth(fields),
            Kind::Existing => existing(fields),
            Kind::Memory => without_device(fields, Self::Memory),
            Kind::Pcap => without_device(fields, Self::Pcap),
        }
    }

    /// The `kind` that the configuration calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tap { .. } => "tap",
            Self::Veth { .. } => "veth",
            Self::Existing { .. } => "device",
            Self::Memory => "memory",
            Self::Pcap => "pcap",
        }
    }

    /// The name of the kernel's device, if it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Tap { name, .. } | Self::Veth { name, .. } | Self::Existing { name, .. } => {
                Some(name)
            }
            Self::Memory | Self::Pcap => None,
        }
    }

    /// The namespace that the kernel's device is in, if that is not heddle's own.
    pub fn netns(&self) -> Option<&Netns> {
        match self {
            Self::Tap { netns, .. } | Self::Veth { netns, .. } => Some(netns),
            Self::Existing { netns, .. } => netns.as_ref(),
            Self::Memory | Self::Pcap => None,
        }
    }

    /// How the device is driven, where there is a choice.
    pub fn io(&self) -> Option<Io> {
        match self {
            Self::Veth { io, .. } | Self::Existing { io, .. } => Some(*io),
            Self::Tap { .. } | Self::Memory | Self::Pcap => None,
        }
    }
}

impl Io {
    /// Reads how a device is driven.
    pub(super) fn read(node: &Node) -> Result<Self, Mismatch> {
        let words = &[("auto", Self::Auto), ("af_xdp", Self::AfXdp), ("af_packet", Self::AfPacket)];
        values::choice(words, &[])(node)
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::AfXdp => "af_xdp",
            Self::AfPacket => "af_packet",
        })
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

fn tap(fields: &mut Fields<'_>) -> Option<Device> {
    refuse_io(fields, "tap");
    let expected = "a namespace's name or path, since a tap is moved into one";
    let (name, netns) = (device_or_eth0(fields), fields.required("netns", expected, netns));
    Some(Device::Tap { netns: netns?, name })
}

fn veth(fields: &mut Fields<'_>) -> Option<Device> {
    let expected = "a namespace's name or path, since one end of a veth is moved into one";
    let (name, netns) = (device_or_eth0(fields), fields.required("netns", expected, netns));
    let io = fields.optional("io", Io::read).unwrap_or_default();
    Some(Device::Veth { netns: netns?, name, io })
}

fn existing(fields: &mut Fields<'_>) -> Option<Device> {
    let name = fields.required("device", "the name of a device that there is", values::device);
    let netns = fields.optional("netns", netns);
    let io = fields.optional("io", Io::read).unwrap_or_default();
    Some(Device::Existing { netns, name: name?, io })
}

/// Refuses what only a kernel's device has.
fn without_device(fields: &mut Fields<'_>, device: Device) -> Option<Device> {
    let beside = format!("beside kind = \"{}\"", device.kind());
    for key in ["netns", "device"].into_iter().filter(|key| fields.has(key)).collect::<Vec<_>>() {
        fields.refuse(key, &beside, "for kind = \"tap\", \"veth\" or \"device\"");
    }
    refuse_io(fields, device.kind());
    Some(device)
}

fn refuse_io(fields: &mut Fields<'_>, kind: &str) {
    if fields.has("io") {
        let beside = format!("beside kind = \"{kind}\"");
        fields.refuse("io", &beside, "for kind = \"veth\" or \"device\"");
    }
}

fn device_or_eth0(fields: &mut Fields<'_>) -> String {
    fields.optional("device", values::device).unwrap_or_else(|| "eth0".to_owned())
}

/// A name under `/run/netns`, or anything with a slash as a path.
fn netns(node: &Node) -> Result<Netns, Mismatch> {
    let text: String = values::parsed("a namespace's name or its absolute path")(node)?;
    if text.contains('/') {
        return values::path(node).map(Netns::Path);
    }
    let bad = text.len() > 255 || text.contains(|c: char| c.is_control() || c.is_whitespace());
    if bad || ["", ".", ".."].contains(&&*text) {
        return Err(Mismatch::value("a namespace's name or its absolute path", ""));
    }
    Ok(Netns::Name(text))
}
