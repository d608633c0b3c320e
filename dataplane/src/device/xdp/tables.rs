//! The maps of the program that follows rules, kept in step with them while frames come.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};

use super::Cause;
use super::object::take_map;
use super::rule::Compiled;

/// The maps that say what is heddle's.
pub(super) struct Tables {
    kinds: Array<MapData, u32>,
    stations: Table<8, 4>,
    addresses: Table<16, 12>,
    tunnels: Table<24, 4>,
    ports: Table<20, 256>,
}

impl Tables {
    /// Takes the maps of a loaded program, with what an earlier heddle left in them.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Cause> {
        Ok(Self {
            kinds: take_map(ebpf, "kinds")?,
            stations: Table::take(ebpf, "stations")?,
            addresses: Table::take(ebpf, "addresses")?,
            tunnels: Table::take(ebpf, "tunnels")?,
            ports: Table::take(ebpf, "ports")?,
        })
    }

    /// Makes the maps equal to `wanted`. What is in the old rules and in the new is taken all
    /// the time: first comes what is new, then goes what is old. For that the maps have room
    /// for twice as much as there may be. An address is the last to come and the first to go,
    /// since without it nothing else is looked at.
    pub(super) fn set(&mut self, wanted: &Compiled) -> Result<(), Cause> {
        self.stations.add(&wanted.stations)?;
        self.tunnels.add(&wanted.tunnels)?;
        self.ports.add(&wanted.ports)?;
        self.addresses.add(&wanted.addresses)?;
        self.kinds.set(0, wanted.kinds, 0)?;
        self.addresses.keep(&wanted.addresses)?;
        self.ports.keep(&wanted.ports)?;
        self.tunnels.keep(&wanted.tunnels)?;
        self.stations.keep(&wanted.stations)
    }
}

/// A hash in the kernel and what is known to be in it.
struct Table<const K: usize, const V: usize> {
    map: HashMap<MapData, [u8; K], [u8; V]>,
    entries: BTreeMap<[u8; K], [u8; V]>,
}

impl<const K: usize, const V: usize> Table<K, V> {
    fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, Cause> {
        let map: HashMap<MapData, _, _> = take_map(ebpf, name)?;
        let entries = map.iter().collect::<Result<_, MapError>>()?;
        Ok(Self { map, entries })
    }

    fn add(&mut self, wanted: &BTreeMap<[u8; K], [u8; V]>) -> Result<(), Cause> {
        for (key, value) in wanted {
            if self.entries.get(key) != Some(value) {
                self.map.insert(key, value, 0)?;
                self.entries.insert(*key, *value);
            }
        }
        Ok(())
    }

    fn keep(&mut self, wanted: &BTreeMap<[u8; K], [u8; V]>) -> Result<(), Cause> {
        let old: Vec<_> = self.entries.keys().filter(|key| !wanted.contains_key(*key)).collect();
        for key in old.into_iter().copied().collect::<Vec<_>>() {
            self.map.remove(&key)?;
            self.entries.remove(&key);
        }
        Ok(())
    }
}
