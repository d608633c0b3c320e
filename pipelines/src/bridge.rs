//! The bridge of a network: learns where stations are, and finds the way to them.

use std::ops::ControlFlow::{Break, Continue};

use dataplane::ids::{PortId, SegmentId};
use dataplane::memory::Packet;
use dataplane::pipeline::{Egress, Step, Trace, Verdict};

use crate::classify::Addresses;
use crate::drops;
use crate::fdb::{Entry, Key, Learned};
use crate::guard;
use crate::origin::Origin;
use crate::state::{Learning, WorkerState};
use crate::tables::{Port, Tables};
use crate::trace::Told;

/// Notes behind which port the source is (IEEE 802.1Q-2018, 8.7), where that is not configured.
#[inline(always)]
pub fn learn<T: Trace>(state: &mut WorkerState, from: &Origin<'_>, addresses: Addresses) {
    if !from.port.learns {
        return;
    }
    let Some(key) = Key::of_word(from.segment, addresses.source) else { return };
    let at = Entry { port: from.id, generation: from.port.generation };
    let learned = state.fdb.learn(key, at, state.tick, from.port.mac_limit);
    if learned != Learned::Known {
        count(&state.learning, learned);
    }
    state.tell::<T>(|| Told::Learned(learned));
}

/// Finds the way out inside the segment: one port, or all for groups and unknown stations. Never
/// back out of the port that the frame came in by.
#[inline(always)]
pub fn forward<T: Trace>(
    state: &mut WorkerState,
    tables: &Tables,
    from: &Origin<'_>,
    addresses: Addresses,
) -> Step<Egress> {
    let Some(key) = Key::of_word(from.segment, addresses.destination) else {
        return flood(from.segment, addresses.destination);
    };
    match locate::<T>(state, tables, from, key) {
        Some((port, _)) if port == from.id => Break(Verdict::Drop(drops::HAIRPIN)),
        Some((_, to)) if to.isolated && from.port.isolated => Break(Verdict::Drop(drops::ISOLATED)),
        Some((port, _)) => Continue(Egress { port, segment: from.segment }),
        None => {
            state.tell::<T>(|| Told::Unknown(key.mac()));
            guard::calm(state, from.port)?;
            flood(from.segment, addresses.destination)
        }
    }
}

/// Whether a flooded packet leaves by `port` as well.
#[inline]
pub fn reaches(tables: &Tables, port: PortId, packet: &Packet) -> bool {
    let isolated = tables.port(port).isolated && tables.port(packet.in_port).isolated;
    port != packet.in_port && !isolated
}

/// The port of a station, and its row: a configured endpoint's, else where it was heard.
#[inline(always)]
fn locate<'t, T: Trace>(
    state: &mut WorkerState,
    tables: &'t Tables,
    from: &Origin<'_>,
    station: Key,
) -> Option<(PortId, &'t Port)> {
    if let Some(port) = tables.stations.find(station) {
        state.tell::<T>(|| Told::Station(port));
        return Some((port, tables.port(port)));
    }
    let entry = state.fdb.lookup(station, state.tick, from.ageing)?;
    let port = tables.port(entry.port);
    // The number may have another owner since: what was heard of the old one is outdated.
    if port.generation != entry.generation || !port.role.carries(from.segment) {
        return None;
    }
    state.tell::<T>(|| Told::Heard(entry.port));
    Some((entry.port, port))
}

/// Groups reach the whole segment, but for those that address bridges themselves.
#[inline(always)]
fn flood<T>(segment: SegmentId, destination: u64) -> Step<T> {
    // 01:80:c2:00:00:00 to 0f (IEEE 802.1Q-2018, table 8-1).
    if destination & !0xf == 0x0180_c200_0000 {
        return Break(Verdict::Drop(drops::RESERVED_GROUP));
    }
    Break(Verdict::Flood(segment))
}

#[cold]
fn count(learning: &Learning, learned: Learned) {
    match learned {
        Learned::New => learning.learned.add(1),
        Learned::Moved { .. } => learning.moved.add(1),
        Learned::Evicted { .. } => learning.evicted.add(1),
        Learned::Refused => learning.refused.add(1),
        Learned::Full => learning.full.add(1),
        Learned::Known | Learned::Refreshed | Learned::Busy => {}
    }
}
