//! The compiled programs, and how one is loaded over the maps of an earlier start.

use std::sync::PoisonError;

use aya::maps::{Map, MapError, MapInfo, MapType};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, include_bytes_aligned};

use super::Cause;
use super::pins::{Held, Pins};

/// A compiled program with its maps.
pub(super) struct Object {
    /// What the program is called, here and by the kernel.
    pub(super) name: &'static str,
    pub(super) maps: &'static [Shape],
    bytes: &'static [u8],
}

/// What a pinned map must be like to be used again.
pub(super) struct Shape {
    pub(super) name: &'static str,
    kind: MapType,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

/// `dataplane/xdp/everything.c`.
pub(super) static EVERYTHING: Object = Object {
    name: "heddle_all",
    maps: &[SOCKETS, COUNTERS],
    bytes: include_bytes_aligned!("../../../xdp/everything.o"),
};

/// `dataplane/xdp/rules.c`.
pub(super) static RULES: Object = Object {
    name: "heddle_rules",
    maps: &[
        SOCKETS,
        COUNTERS,
        Shape::new("kinds", MapType::Array, 4, 4, 1),
        Shape::new("stations", MapType::Hash, 8, 4, 8192),
        Shape::new("addresses", MapType::Hash, 16, 12, 512),
        Shape::new("tunnels", MapType::Hash, 24, 4, 8192),
        Shape::new("ports", MapType::Hash, 20, 256, 2048),
        Shape::new("fragments", MapType::LruHash, 40, 8, 4096),
    ],
    bytes: include_bytes_aligned!("../../../xdp/rules.o"),
};

const SOCKETS: Shape = Shape::new("sockets", MapType::XskMap, 4, 4, 256);
const COUNTERS: Shape = Shape::new("counters", MapType::PerCpuArray, 4, 32, 1);

impl Object {
    /// Gives the program to the kernel, over those pinned maps that are as it needs them; others
    /// are made anew, and pinned instead.
    pub(super) fn load(&self, pins: &Pins, held: &Held) -> Result<Ebpf, Cause> {
        let mut loader = pins.loader().lock().unwrap_or_else(PoisonError::into_inner);
        for shape in self.maps {
            let path = held.file(shape.name);
            if path.exists() && !shape.fits(&MapInfo::from_pin(&path)?) {
                held.unpin(shape.name)?;
            }
            loader.map_pin_path(shape.name, path);
        }
        let mut ebpf = loader.load(self.bytes)?;
        self.program(&mut ebpf)?.load()?;
        Ok(ebpf)
    }

    pub(super) fn program<'a>(&self, ebpf: &'a mut Ebpf) -> Result<&'a mut Xdp, Cause> {
        Ok(ebpf.program_mut(self.name).ok_or(ProgramError::NotLoaded)?.try_into()?)
    }
}

impl Shape {
    const fn new(
        name: &'static str,
        kind: MapType,
        key_bytes: u32,
        value_bytes: u32,
        entries: u32,
    ) -> Self {
        Self { name, kind, key_bytes, value_bytes, entries }
    }

    pub(super) fn fits(&self, map: &MapInfo) -> bool {
        map.map_type().is_ok_and(|kind| kind == self.kind)
            && map.key_size() == self.key_bytes
            && map.value_size() == self.value_bytes
            && map.max_entries() == self.entries
    }
}

/// Takes a map out of what was loaded, as what it is.
pub(super) fn take_map<M>(ebpf: &mut Ebpf, name: &str) -> Result<M, Cause>
where
    M: TryFrom<Map, Error = MapError>,
{
    Ok(ebpf.take_map(name).ok_or(MapError::ElementNotFound)?.try_into()?)
}
