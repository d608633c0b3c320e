//! Sending to a kernel device with a virtio-net header in front of each frame: from where it lies,
//! and segments of one flow that follow each other as one super-packet.

use std::io::IoSlice;

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::Refused;
use crate::memory::{Packet, Pool};
use crate::wire::gro::Run;
use crate::wire::vnet::{HEADER_LEN, Header};

/// Messages that a device is given at once.
pub(super) const MESSAGES: usize = 32;

/// Packets that one message carries as one super-packet.
const RUN: usize = 48;

/// Slices of all messages that a device is given at once.
const SLICES: usize = MESSAGES + RUN;

const _: () = assert!(SLICES >= RUN, "one message always fits");

/// A longer packet begins no run: it is a super-packet already.
const RUN_HEAD: usize = 16 << 10;

/// Sends all of `packets`, in order, and gives their frames back.
///
/// `send` is given messages, each a frame behind its virtio-net header in one or more slices. It
/// answers how many of them, from the first on, it has sent: one at least, or why not the first.
pub(super) fn transmit(
    pool: &mut Pool,
    packets: &mut Vec<Packet>,
    mut send: impl FnMut(&[&[IoSlice<'_>]]) -> Result<usize, Errno>,
) -> Refused {
    let mut refused = Refused::default();
    let mut waiting = packets.as_mut_slice();
    while !waiting.is_empty() {
        let mut outbox = Outbox::new();
        while !waiting.is_empty() && outbox.has_room() {
            waiting = outbox.add(waiting, &mut refused);
        }
        outbox.deliver(&mut refused, &mut send);
    }
    packets.drain(..).for_each(|packet| pool.give(packet.into_frame()));
    refused
}

/// What a message carries, for when it is refused.
#[derive(Clone, Copy, Default)]
struct Load {
    packets: u64,
    bytes: u64,
}

/// Messages on their way to the device.
struct Outbox<'a> {
    /// Of all messages, one after the other.
    slices: [IoSlice<'a>; SLICES],
    used: usize,
    /// Where the slices of each message end, and what it carries.
    messages: [(usize, Load); MESSAGES],
    count: usize,
}

impl<'a> Outbox<'a> {
    #[inline(always)]
    fn new() -> Self {
        let messages = [(0, Load::default()); MESSAGES];
        Self { slices: [IoSlice::new(&[]); SLICES], used: 0, messages, count: 0 }
    }

    /// Whether the longest message fits in.
    #[inline(always)]
    fn has_room(&self) -> bool {
        self.count < MESSAGES && self.used + RUN <= SLICES
    }

    /// Takes the first packet, and with it in one super-packet those that follow it in its flow.
    /// Answers the rest.
    #[inline]
    fn add(&mut self, packets: &'a mut [Packet], refused: &mut Refused) -> &'a mut [Packet] {
        let Some((head, mut rest)) = packets.split_first_mut() else { return &mut [] };
        let mut load = Load { packets: 1, bytes: head.len() as u64 };
        let first = self.used;
        self.used += 1;
        if let Some(run) = first_of_run(head, rest) {
            rest = self.extend(run, head, rest, &mut load);
        }
        match with_header(head) {
            Ok(bytes) => {
                self.slices[first] = IoSlice::new(bytes);
                self.messages[self.count] = (self.used, load);
                self.count += 1;
            }
            Err(error) => {
                self.used = first;
                refuse(refused, load, error);
            }
        }
        rest
    }

    /// Adds the payloads of the packets that continue a run, from where they are, and makes its
    /// head that of the super-packet. Answers the rest.
    #[inline]
    fn extend(
        &mut self,
        mut run: Run,
        head: &mut Packet,
        mut packets: &'a mut [Packet],
        load: &mut Load,
    ) -> &'a mut [Packet] {
        for slice in &mut self.slices[self.used..][..RUN - 1] {
            let Some(next) = packets.first() else { break };
            let Some(payload) = run.accept(next.data(), next.offload) else { break };
            let Some((next, rest)) = std::mem::take(&mut packets).split_first_mut() else { break };
            let next: &'a Packet = next;
            *slice = IoSlice::new(next.data().get(payload).unwrap_or_default());
            *load = Load { packets: load.packets + 1, bytes: load.bytes + next.len() as u64 };
            self.used += 1;
            packets = rest;
        }
        head.offload = run.finish(head.data_mut());
        packets
    }

    fn deliver(
        &self,
        refused: &mut Refused,
        send: &mut impl FnMut(&[&[IoSlice<'_>]]) -> Result<usize, Errno>,
    ) {
        let mut views: [&[IoSlice<'_>]; MESSAGES] = [&[]; MESSAGES];
        let mut start = 0;
        for (view, &(end, _)) in views.iter_mut().zip(&self.messages[..self.count]) {
            *view = &self.slices[start..end];
            start = end;
        }
        let mut sent = 0;
        while sent < self.count {
            match send(&views[sent..self.count]) {
                Ok(count) => sent += count.max(1),
                Err(Errno::INTR) => {}
                Err(error) => {
                    refuse(refused, self.messages[sent].1, error);
                    sent += 1;
                }
            }
        }
    }
}

fn refuse(refused: &mut Refused, load: Load, error: Errno) {
    match error {
        Errno::AGAIN | Errno::NOBUFS => refused.full += load.packets,
        _ => refused.failed += load.packets,
    }
    refused.bytes += load.bytes;
}

/// The run that a packet begins, if another packet follows that could be part of it.
fn first_of_run(head: &Packet, rest: &[Packet]) -> Option<Run> {
    if rest.is_empty() || head.len() > RUN_HEAD {
        return None;
    }
    Run::start(head.data(), head.offload)
}

/// The packet behind its virtio-net header, which is written to its headroom.
fn with_header(packet: &mut Packet) -> Result<&[u8], Errno> {
    let header = Header::from_offload(packet.offload, packet.data());
    let bytes = packet.data_behind(HEADER_LEN).ok_or(Errno::INVAL)?;
    header.write_to_prefix(bytes).map_err(|_| Errno::INVAL)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PortId;
    use crate::memory::{Arena, Geometry};

    const PACKETS: u8 = 67;

    /// Whatever the device takes at once and refuses, each packet is offered in order until it is
    /// sent or refused, once, and every slot comes home.
    #[test]
    fn each_packet_is_sent_or_refused_once() {
        let geometry = Geometry { owners: 1, small: 67, runs: 1 };
        let mut pool = Arena::create(geometry).unwrap().remove(0);
        let packet = |mark| Packet::holding(&mut pool, PortId(3), &[mark; 60]).unwrap();
        let mut packets: Vec<Packet> = (0..PACKETS).map(packet).collect();
        let (mut sent, mut calls) = (Vec::new(), 0);
        let refused = transmit(&mut pool, &mut packets, |messages| {
            calls += 1;
            match calls % 7 {
                0 => Err(Errno::AGAIN),
                3 => Err(Errno::INTR),
                5 => Err(Errno::MSGSIZE),
                _ => {
                    let taken = &messages[..messages.len().min(3)];
                    sent.extend(taken.iter().map(|message| message[0][HEADER_LEN]));
                    Ok(taken.len())
                }
            }
        });
        assert!(refused.full > 1 && refused.failed > 1);
        let missing = refused.full + refused.failed;
        assert_eq!(sent.len() as u64 + missing, u64::from(PACKETS));
        assert_eq!(refused.bytes, 60 * missing);
        assert!(sent.is_sorted_by(|a, b| a < b));
        assert!(packets.is_empty() && pool.free() == (67, 1));
    }
}
