//! Which frames a socket takes: classic socket filters (`linux/filter.h`, `linux/bpf_common.h`).

use libc::sock_filter;

use super::socket::Frames;

/// Takes nothing: for a socket whose group is not complete.
pub(super) const CLOSED: [sock_filter; 1] = [instruction(RETURN, 0, NOTHING)];

/// Takes what `frames` says, and never what this host sends by the device. Sockets are told so
/// themselves; a fanout group of an older kernel does not listen.
pub(super) const fn of(frames: Frames) -> [sock_filter; 7] {
    // Whether a frame without the group bit is passed over.
    let skip = matches!(frames, Frames::Groups) as u8;
    let host = match frames {
        Frames::ForOthers => libc::PACKET_HOST,
        Frames::All | Frames::Groups => libc::PACKET_OUTGOING,
    };
    [
        instruction(LOAD_WORD, 0, PACKET_TYPE),
        sock_filter { code: JUMP_IF_EQUAL, jt: 4, jf: 0, k: libc::PACKET_OUTGOING as u32 },
        sock_filter { code: JUMP_IF_EQUAL, jt: 3, jf: 0, k: host as u32 },
        instruction(LOAD_BYTE, 0, 0),
        sock_filter { code: JUMP_IF_SET, jt: 0, jf: skip, k: GROUP_BIT },
        instruction(RETURN, 0, EVERYTHING),
        instruction(RETURN, 0, NOTHING),
    ]
}

/// In the first octet of the destination (IEEE 802-2014, 8.2.2).
const GROUP_BIT: u32 = 1;

const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where a load finds `skb->pkt_type` (`SKF_AD_OFF + SKF_AD_PKTTYPE`).
const PACKET_TYPE: u32 = (-0x1000i32 + 4).cast_unsigned();

/// Bytes that a frame is cut to.
const NOTHING: u32 = 0;
const EVERYTHING: u32 = u32::MAX;

const fn instruction(code: u16, jump: u8, operand: u32) -> sock_filter {
    sock_filter { code, jt: jump, jf: jump, k: operand }
}
