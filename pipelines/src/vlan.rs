//! VLANs: what tags say when a frame comes in, and which one it leaves with.
//!
//! | | comes in | leaves |
//! |---|---|---|
//! | endpoint, no VLAN or priority tag | as of its network; the tag is taken off | as it is in the segment |
//! | endpoint, tagged | the tag is payload, unless it is that of the endpoint's own VLAN: dropped | as it is in the segment |
//! | trunk, no VLAN or priority tag | as of the native segment, if there is one; the tag is taken off | native: as it is in the segment, unless that begins with a tag: dropped |
//! | trunk, tagged | as of the VLAN's segment, if there is one; the tag is taken off | tagged |
//!
//! Only the outermost tag counts, customer or service. Inside a segment frames have none, or further
//! ones that nobody looks at. Priority, drop eligible and the tag's type stay with the frame: it
//! leaves a trunk with what it came with, and where it leaves untagged they are lost (IEEE
//! 802.1Q-2018, 6.9). What comes untagged leaves with priority zero in a customer tag.
//!
//! So an endpoint's port is one that admits untagged and priority-tagged frames only (802.1Q-2018,
//! 6.9), but for tags of other VLANs: these are the endpoint's business, and its network carries
//! them as a provider's does its customers'.

use std::ops::ControlFlow::{Break, Continue};

use dataplane::drops::{BAD_OFFLOAD, Reason};
use dataplane::ids::SegmentId;
use dataplane::memory::Packet;
use dataplane::pipeline::{Egress, Step, Trace, Verdict};
use dataplane::wire::{ethernet, vlan};
use zerocopy::FromBytes;

use crate::origin::Origin;
use crate::state::WorkerState;
use crate::tables::{Port, Role};
use crate::trace::Told;
use crate::trunk::{Tagging, Trunk};
use crate::{classify, drops};

/// Frames of an endpoint, of which nearly all are plain: a priority tag is taken off, a tag of the
/// endpoint's own VLAN ends the walk, any other is payload. Damaged headers end it too.
#[inline(always)]
pub fn accept<T: Trace>(state: &mut WorkerState, from: &Origin<'_>, packet: &mut Packet) -> Step {
    if packet.layers.are_plain() { Continue(()) } else { look_closer::<T>(state, from, packet) }
}

#[cold]
#[inline(never)]
fn look_closer<T: Trace>(state: &mut WorkerState, from: &Origin<'_>, packet: &mut Packet) -> Step {
    classify::complete(packet)?;
    match vlan::Tag::outermost(packet.data()).map_or(0, vlan::Tag::vid) {
        0 => untag::<T>(state, from.segment, packet),
        own if from.port.vlan.is_some_and(|vid| vid.number() == own) => drop(drops::OWN_VLAN),
        _ => Continue(()),
    }
}

/// Frames of a trunk: those whose VLAN is one of its segments ([`Origin`] says which) lose their
/// tag, the walk of others ends, and that of damaged ones.
#[inline(never)]
pub fn enter<T: Trace>(state: &mut WorkerState, from: &Origin<'_>, packet: &mut Packet) -> Step {
    classify::complete(packet)?;
    if from.segment == SegmentId::NONE {
        let tag = vlan::Tag::outermost(packet.data()).filter(|tag| tag.vid() != 0);
        return drop(if tag.is_some() { drops::UNKNOWN_VLAN } else { drops::UNTAGGED });
    }
    untag::<T>(state, from.segment, packet)
}

/// Takes the outermost tag off, if there is one; what it says beside the VLAN stays with the packet.
fn untag<T: Trace>(state: &mut WorkerState, segment: SegmentId, packet: &mut Packet) -> Step {
    let mut vid = 0;
    if !packet.layers.are_plain() {
        let Some(tag) = vlan::pull(packet) else { return drop(BAD_OFFLOAD) };
        packet.layers.marking = tag.marking();
        vid = tag.vid();
    }
    state.tell::<T>(|| Told::Vlan { vid, segment });
    Continue(())
}

/// Gives the packet the tag of its segment at a port, if that is a trunk.
#[inline(always)]
pub fn leave<T: Trace>(
    state: &mut WorkerState,
    port: &Port,
    way: Egress,
    packet: &mut Packet,
) -> Step {
    match &port.role {
        Role::Trunk(trunk) => tag::<T>(state, trunk, way.segment, packet),
        _ => Continue(()),
    }
}

#[inline(never)]
fn tag<T: Trace>(
    state: &mut WorkerState,
    trunk: &Trunk,
    segment: SegmentId,
    packet: &mut Packet,
) -> Step {
    let Some(tagging) = trunk.tagging(segment) else { return drop(drops::STALE_EGRESS) };
    match tagging {
        Tagging::Tagged(vid) => {
            let tag = vlan::Tag::new(vid, packet.layers.marking);
            // Headroom there is: what can be wrong is where a checksum starts.
            if vlan::push(packet, tag).is_none() {
                return drop(BAD_OFFLOAD);
            }
        }
        // It would be the outermost one then, and the frame in another VLAN.
        Tagging::Native(_) if begins_with_tag(packet) => return drop(drops::NATIVE_TAG),
        Tagging::Native(_) => {}
    }
    state.tell::<T>(|| Told::Tagged(tagging));
    Continue(())
}

fn begins_with_tag(packet: &Packet) -> bool {
    let header = ethernet::Header::ref_from_prefix(packet.data());
    header.is_ok_and(|(header, _)| ethernet::is_tag(header.ethertype.get()))
}

fn drop(reason: Reason) -> Step {
    Break(Verdict::Drop(reason))
}
