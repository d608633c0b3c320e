//! One frame's journey, in the order in which it happens. Every line is a step or a decision;
//! the steps are in the modules that they name.
//!
//! Deciding happens once per packet, super-packets whole; sending happens once per copy and per
//! segment. Steps decide, the worker's engine disposes: nothing here frees, copies or sends.

use std::ops::ControlFlow::{Break, Continue};

use dataplane::memory::Packet;
use dataplane::pipeline::{Egress, Step, Trace, Verdict};

use crate::classify::Addresses;
use crate::origin::Origin;
use crate::state::WorkerState;
use crate::tables::{Role, Tables};
use crate::{bridge, drops, egress, gateway, guard, vlan};

/// Decides, once per packet.
#[inline(always)]
pub fn walk<T: Trace>(
    state: &mut WorkerState,
    tables: &Tables,
    from: &Origin<'_>,
    addresses: Addresses,
    packet: &mut Packet,
) -> Step<Verdict> {
    // 1. Where does the frame come from, and which network does it belong to? From here on it has
    //    no tag that says so.
    match from.port.role {
        Role::Endpoint(_) => vlan::accept::<T>(state, from, packet)?,
        Role::Trunk(_) => vlan::enter::<T>(state, from, packet)?,
        Role::Host(_) => {}
        Role::Vacant => return Break(Verdict::Drop(drops::NO_NETWORK)),
    }

    // 2. May its sender send it, and where is that?
    guard::admit::<T>(state, from.port, addresses, packet)?;
    bridge::learn::<T>(state, from, addresses);

    // 3. Inside the network: what is for heddle itself is answered, the rest finds its way out.
    gateway::answer::<T>(state, from, addresses, packet)?;
    let egress = bridge::forward::<T>(state, tables, from, addresses)?;
    Continue(Verdict::Forward(egress))
}

/// Prepares one copy or one segment for its way out.
#[inline(always)]
pub fn emit<T: Trace>(
    state: &mut WorkerState,
    tables: &Tables,
    way: Egress,
    packet: &mut Packet,
) -> Step {
    let port = tables.port(way.port);
    egress::confine(port, way)?;
    egress::fit(port, packet)?;
    vlan::leave::<T>(state, port, way, packet)
}
