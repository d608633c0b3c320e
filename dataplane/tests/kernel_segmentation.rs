//! Our cutting against the kernel's own, byte for byte.
//!
//! A TAP that asked for no offloads makes the kernel segment in software: what is sent into it by
//! a packet socket as a super-packet with a virtio-net header comes out at its file as segments.
//! It needs root; everything happens in a network namespace that ends with its thread.
#![allow(unsafe_code)]

mod packets;
mod wire_end;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use std::{io, mem};

use dataplane::offload::Offload;
use dataplane::wire::gro::Run;
use dataplane::wire::gso::{Cut, Finish};
use dataplane::wire::vnet;
use packets::{SOURCE, Shape, any_shape};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use wire_end::{in_a_namespace, packet_socket};
use zerocopy::IntoBytes;

/// Super-packets of any shape that are compared.
const CASES: usize = 257;

/// How long the kernel may take to hand out what it has.
const DEADLINE: Duration = Duration::from_secs(10);

/// A TAP without offloads and a packet socket that sends into it.
struct Wire {
    tap: File,
    socket: OwnedFd,
}

#[test]
fn segments_are_those_of_the_kernel() {
    in_a_namespace(|| {
        let mut wire = Wire::new().unwrap();
        let mut runner = TestRunner::deterministic();
        for case in 0..CASES {
            let shape = shape(&mut runner);
            let (frame, offload) = shape.build();
            let header = vnet::Header::from_offload(offload, &frame);
            wire.send(&header, &frame).unwrap();
            for (index, ours) in cut(&frame, offload).iter().enumerate() {
                let theirs = wire.receive().unwrap();
                assert_eq!(&theirs, ours, "segment {index} of case {case}, {shape:?}");
            }
            assert_eq!(wire.try_receive().unwrap(), None, "more than ours, case {case}");
        }
    });
}

#[test]
fn the_kernel_cuts_what_was_coalesced_into_what_it_was() {
    in_a_namespace(|| {
        let mut wire = Wire::new().unwrap();
        let mut runner = TestRunner::deterministic();
        let mut coalesced = 0;
        for case in 0..CASES {
            let shape = shape(&mut runner);
            let (frame, offload) = shape.build();
            let segments = cut(&frame, offload);
            let Some((packet, offload, count)) = coalesce(&segments) else { continue };
            coalesced += 1;
            wire.send(&vnet::Header::from_offload(offload, &packet), &packet).unwrap();
            for (index, ours) in segments[..count].iter().enumerate() {
                let theirs = wire.receive().unwrap();
                assert_eq!(&theirs, ours, "segment {index} of case {case}, {shape:?}");
            }
        }
        assert!(coalesced > CASES / 3, "{coalesced} cases had a run");
    });
}

/// The next shape that the kernel takes: it drops a super-packet that has only one segment.
fn shape(runner: &mut TestRunner) -> Shape {
    let shape = any_shape().new_tree(runner).unwrap().current();
    let payload = shape.payload.max(usize::from(shape.gso_size) + 1);
    Shape { payload, ..shape }
}

/// All segments of a super-packet, complete.
fn cut(frame: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let plan = Cut::plan(frame, offload).unwrap();
    let segment = |index| {
        let mut slot = vec![0; plan.segment_len()];
        let (length, _) = plan.write(index, frame, &mut slot, Finish::Complete).unwrap();
        slot.truncate(length);
        slot
    };
    (0..plan.count()).map(segment).collect()
}

/// The super-packet of the first run and how many segments it has, if more than one.
fn coalesce(segments: &[Vec<u8>]) -> Option<(Vec<u8>, Offload, usize)> {
    let (first, rest) = segments.split_first()?;
    let mut run = Run::start(first, Offload::PLAIN)?;
    let mut packet = first.clone();
    let mut count = 1;
    for segment in rest {
        let Some(payload) = run.accept(segment, Offload::PLAIN) else { break };
        packet.extend_from_slice(&segment[payload]);
        count += 1;
    }
    let offload = run.finish(&mut packet);
    offload.is_super().then_some((packet, offload, count))
}

impl Wire {
    fn new() -> io::Result<Self> {
        let tap = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        let mut request = interface_request(libc::IFF_TAP | libc::IFF_NO_PI);
        interface_ioctl(&tap, libc::TUNSETIFF, &mut request)?;
        let socket = packet_socket("cut0")?;
        let mut request = interface_request(libc::IFF_UP);
        interface_ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)?;
        Ok(Self { tap, socket })
    }

    fn send(&self, header: &vnet::Header, frame: &[u8]) -> io::Result<()> {
        let packet = [header.as_bytes(), frame].concat();
        let sent = rustix::net::send(&self.socket, &packet, rustix::net::SendFlags::empty())?;
        assert_eq!(sent, packet.len());
        Ok(())
    }

    /// The next frame of ours, which must come before the deadline.
    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(frame) = self.try_receive()? {
                return Ok(frame);
            }
            let left = deadline.checked_duration_since(Instant::now());
            let timeout = left.ok_or(ErrorKind::TimedOut)?.try_into().map_err(io::Error::other)?;
            let mut ready = [rustix::event::PollFd::new(&self.tap, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut ready, Some(&timeout))?;
        }
    }

    /// The next frame of ours that is there: the namespace's own stack speaks, too.
    fn try_receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; 1 << 17];
        loop {
            match self.tap.read(&mut frame) {
                Ok(length) if frame[6..12] == SOURCE => {
                    frame.truncate(length);
                    return Ok(Some(frame));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A request about the one interface of these tests.
fn interface_request(flags: i32) -> libc::ifreq {
    // SAFETY: all zeroes is a value of this plain C struct.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"cut0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags.try_into().unwrap();
    request
}

fn interface_ioctl(fd: &impl AsFd, number: u64, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: these numbers take an ifreq, which lives and is ours for the time of the call.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), number, request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
