//! Which worker's queue a frame goes to: a socket filter that answers a hash of the flow, equal
//! in both directions, which the kernel takes modulo the number of queues of a TAP
//! (`tun_select_queue`) or of sockets of a fanout group (`fanout_demux_bpf`).
//!
//! Without it a TAP sends a flow to the queue that last wrote it, so flows jump between workers.
//! Fragments are hashed on addresses only, so that one worker sees all of a packet's; what is not
//! IP, or is behind a tag that lies in the frame, goes to the first queue.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::wire::{ethernet, protocol};

/// What the program finds at the first byte of what it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layer {
    /// The Ethernet header: a TAP's frames on their way out of the kernel.
    Ethernet,
    /// What follows the Ethernet header: frames that a device has received.
    Network,
}

/// Loads the program for frames that are shown from `layer` on, and answers its descriptor.
///
/// # Errors
///
/// The kernel's, when it refuses the program.
pub(super) fn load(layer: Layer) -> Result<OwnedFd, Errno> {
    let program = program(layer);
    let licence = c"Dual MIT/GPL";
    let attributes = LoadAttributes {
        program_type: SOCKET_FILTER,
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        licence: licence.as_ptr().expose_provenance() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: BPF_PROG_LOAD reads the attributes, and through them the instructions and the
    // licence; all of them outlive the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of_val(&attributes))
    };
    let code = i32::try_from(answer).unwrap_or(-1);
    if code < 0 {
        let error = std::io::Error::last_os_error().raw_os_error();
        return Err(error.map_or(Errno::IO, Errno::from_raw_os_error));
    }
    // SAFETY: a successful BPF_PROG_LOAD answers a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(code) })
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD (`linux/bpf.h`).
#[derive(Default)]
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const SOCKET_FILTER: u32 = 1;

/// `struct bpf_insn`: code, registers (destination in the low nibble), offset, immediate.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Operations (`linux/bpf.h`, `linux/bpf_common.h`). Packet loads answer in r0, in host order,
// take the context in r6, and end the program with 0 when they leave the frame.
/// A word of the context, at the instruction's offset.
const LOAD_CONTEXT: u8 = 0x61;
const LOAD_BYTE: u8 = 0x30;
const LOAD_HALF: u8 = 0x28;
const LOAD_WORD: u8 = 0x20;
const LOAD_HALF_INDIRECT: u8 = 0x48;
const MOVE: u8 = 0xbf;
const MOVE_CONSTANT: u8 = 0xb7;
const AND_CONSTANT: u8 = 0x57;
const SHIFT_LEFT: u8 = 0x67;
const XOR: u8 = 0xaf;
/// 32-bit, so that the upper half is cleared.
const MULTIPLY_CONSTANT: u8 = 0x24;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_SET: u8 = 0x45;
const EXIT: u8 = 0x95;

const R0: u8 = 0;
const R1: u8 = 1;
const CONTEXT: u8 = 6;
const HASH: u8 = 7;
const TRANSPORT: u8 = 8;

/// An odd constant near 2^32 divided by the golden ratio: spreads what differs in few bits.
const SPREAD: i32 = 0x9e37_79b1_u32.cast_signed();

/// Where `struct __sk_buff` has the ethertype, in network order (`linux/bpf.h`).
const PROTOCOL: i16 = 16;

/// Builds the program, with labels for its four jump targets.
fn program(layer: Layer) -> Vec<Instruction> {
    let l3 = if layer == Layer::Ethernet { 14 } else { 0 };
    let mut code = Assembler::default();
    code.push(MOVE, CONTEXT, R1, 0);
    code.push(MOVE_CONSTANT, HASH, 0, 0);
    code.load_context(PROTOCOL);
    code.jump(JUMP_IF_EQUAL, i32::from(ethernet::IPV4.to_be()), Label::Ipv4);
    code.jump(JUMP_IF_EQUAL, i32::from(ethernet::IPV6.to_be()), Label::Ipv6);
    code.jump(JUMP, 0, Label::Fold);

    code.here(Label::Ipv4);
    code.mix(LOAD_WORD, l3 + 12);
    code.mix(LOAD_WORD, l3 + 16);
    code.push(LOAD_HALF, 0, 0, l3 + 6);
    code.jump(JUMP_IF_SET, 0x3fff, Label::Fold);
    // The transport header's offset from the IP header.
    code.push(LOAD_BYTE, 0, 0, l3);
    code.push(AND_CONSTANT, R0, 0, 0x0f);
    code.push(SHIFT_LEFT, R0, 0, 2);
    code.push(MOVE, TRANSPORT, R0, 0);
    code.push(LOAD_BYTE, 0, 0, l3 + 9);
    code.jump(JUMP, 0, Label::Ports);

    code.here(Label::Ipv6);
    (8..40).step_by(4).for_each(|offset| code.mix(LOAD_WORD, l3 + offset));
    code.push(MOVE_CONSTANT, TRANSPORT, 0, 40);
    code.push(LOAD_BYTE, 0, 0, l3 + 6);

    code.here(Label::Ports);
    code.jump_over(JUMP_IF_EQUAL, i32::from(protocol::TCP), 2);
    code.jump_over(JUMP_IF_EQUAL, i32::from(protocol::UDP), 1);
    code.jump(JUMP, 0, Label::Fold);
    code.push(LOAD_HALF_INDIRECT, 0, TRANSPORT, l3);
    code.push(XOR, HASH, R0, 0);
    code.push(LOAD_HALF_INDIRECT, 0, TRANSPORT, l3 + 2);
    code.push(XOR, HASH, R0, 0);

    code.here(Label::Fold);
    code.push(MULTIPLY_CONSTANT, HASH, 0, SPREAD);
    code.push(MOVE, R0, HASH, 0);
    code.push(SHIFT_RIGHT, R0, 0, 16);
    code.push(EXIT, 0, 0, 0);
    code.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Ipv4,
    Ipv6,
    Ports,
    Fold,
}

/// Collects instructions and resolves jumps to labels.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    labels: Vec<(Label, usize)>,
    jumps: Vec<(Label, usize)>,
}

impl Assembler {
    fn push(&mut self, code: u8, destination: u8, source: u8, immediate: i32) {
        let registers = source << 4 | destination;
        self.code.push(Instruction { code, registers, offset: 0, immediate });
    }

    /// Loads a word from the context.
    fn load_context(&mut self, offset: i16) {
        let registers = CONTEXT << 4 | R0;
        self.code.push(Instruction { code: LOAD_CONTEXT, registers, offset, immediate: 0 });
    }

    /// Loads from the packet and folds the value into the hash.
    fn mix(&mut self, load: u8, offset: i32) {
        self.push(load, 0, 0, offset);
        self.push(XOR, HASH, R0, 0);
    }

    fn jump(&mut self, code: u8, immediate: i32, label: Label) {
        self.jumps.push((label, self.code.len()));
        self.push(code, R0, 0, immediate);
    }

    fn jump_over(&mut self, code: u8, immediate: i32, instructions: i16) {
        self.code.push(Instruction { code, registers: R0, offset: instructions, immediate });
    }

    fn here(&mut self, label: Label) {
        self.labels.push((label, self.code.len()));
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (label, at) in self.jumps {
            let target = self.labels.iter().find(|(name, _)| *name == label);
            let distance = target.map_or(0, |(_, target)| target - at - 1);
            self.code[at].offset = i16::try_from(distance).unwrap_or(0);
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_the_program() {
        load(Layer::Ethernet).unwrap();
        load(Layer::Network).unwrap();
    }
}
