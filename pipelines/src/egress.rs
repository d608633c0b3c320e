//! The last look at a packet before it leaves.

use std::ops::ControlFlow::{Break, Continue};

use dataplane::memory::Packet;
use dataplane::offload::Gso;
use dataplane::pipeline::{Egress, Step, Verdict};
use dataplane::wire::{ethernet, tcp, udp};

use crate::drops;
use crate::guard::layer4;
use crate::tables::Port;

/// The port must still be in the segment in which it was chosen: a number that is used again can't
/// carry a frame into another network.
#[inline(always)]
pub fn confine(port: &Port, way: Egress) -> Step {
    if port.role.carries(way.segment) {
        Continue(())
    } else {
        Break(Verdict::Drop(drops::STALE_EGRESS))
    }
}

/// The packet, or each segment of a super-packet, must fit the port's MTU.
#[inline(always)]
pub fn fit(port: &Port, packet: &Packet) -> Step {
    let mtu = usize::from(port.mtu.bytes());
    if packet.len() <= mtu + ethernet::HEADER_LEN || fits(packet, mtu) {
        return Continue(());
    }
    Break(Verdict::Drop(drops::TOO_BIG))
}

/// The long way, for tagged frames and super-packets.
fn fits(packet: &Packet, mtu: usize) -> bool {
    let l3 = usize::from(packet.layers.l3).max(ethernet::HEADER_LEN);
    let longest = match packet.offload.gso {
        Gso::None => packet.len(),
        Gso::Udp => usize::from(packet.layers.l4) + udp::HEADER_LEN + segment(packet),
        Gso::Tcp4 | Gso::Tcp6 => {
            let header = layer4::<tcp::Header>(packet).and_then(|(tcp, _)| tcp.length());
            usize::from(packet.layers.l4) + header.unwrap_or(packet.len()) + segment(packet)
        }
    };
    longest <= mtu + l3
}

fn segment(packet: &Packet) -> usize {
    usize::from(packet.offload.gso_size)
}
