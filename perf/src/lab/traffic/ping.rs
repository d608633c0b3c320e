//! ICMP and ICMPv6 echo by raw sockets: the unprivileged kind needs a sysctl per namespace.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use dataplane::device::netns::Netns;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv,
    send, socket_with,
};

use super::pattern::Pattern;
use super::{Error, RoundTrips, look_often, socket_error};
use crate::lab::cancel::Cancel;

/// How long an answer may take; the first request also waits for ARP or ND.
const ANSWER: Duration = Duration::from_millis(500);

/// Sends `count` echo requests with `payload` bytes, each after the answer to the one before
/// or half a second later. An answer counts if all its bytes are right.
///
/// # Errors
/// [`Error::Socket`], [`Error::Netns`], [`Error::Cancelled`]. Losses are no error, and neither
/// is an unreachable network.
pub fn ping(
    client: &Netns,
    address: IpAddr,
    count: u16,
    payload: usize,
    cancel: &Cancel,
) -> Result<RoundTrips, Error> {
    let whom = SocketAddr::new(address, 0);
    let failed = |operation| move |errno: Errno| socket_error(operation, whom)(errno.into());
    let echo = match client.run(|| Echo::open(address, payload))? {
        Err(Errno::NETUNREACH | Errno::HOSTUNREACH) => {
            return Ok(RoundTrips::new(count.into(), vec![]));
        }
        opened => opened.map_err(failed("open a raw socket to"))?,
    };
    let mut times = Vec::new();
    for sequence in 0..count {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        times.extend(echo.ask(sequence).map_err(failed("ping"))?);
    }
    Ok(RoundTrips::new(count.into(), times))
}

struct Echo {
    socket: OwnedFd,
    is_v4: bool,
    identifier: u16,
    payload: Vec<u8>,
}

impl Echo {
    fn open(address: IpAddr, payload: usize) -> Result<Self, Errno> {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let identifier = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut contents = vec![0; payload];
        Pattern::new(identifier.into()).fill(0, &mut contents);
        let socket = raw_socket(address)?;
        Ok(Self { socket, is_v4: address.is_ipv4(), identifier, payload: contents })
    }

    fn ask(&self, sequence: u16) -> Result<Option<Duration>, Errno> {
        let request = self.message(if self.is_v4 { 8 } else { 128 }, sequence);
        let answer = self.message(if self.is_v4 { 0 } else { 129 }, sequence);
        let started = Instant::now();
        match send(&self.socket, &request, SendFlags::empty()) {
            Err(error) if is_unreachable(error) => return Ok(None),
            sent => sent?,
        };
        let mut buffer = [0; 64 << 10];
        while started.elapsed() < ANSWER {
            match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, length)) if self.is_answer(&buffer[..length], &answer) => {
                    return Ok(Some(started.elapsed()));
                }
                Err(error) if is_unreachable(error) => return Ok(None),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Type, code, checksum, identifier, sequence number (RFC 792; RFC 4443, 4.1), contents.
    fn message(&self, kind: u8, sequence: u16) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend(&self.payload);
        if self.is_v4 {
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        message
    }

    /// Raw IPv4 sockets receive the IP header too; raw ICMPv6 sockets have their checksum
    /// made and verified by the kernel (RFC 3542, 3.1), so it is not compared.
    fn is_answer(&self, received: &[u8], expected: &[u8]) -> bool {
        if !self.is_v4 {
            return received.len() == expected.len()
                && received[..2] == expected[..2]
                && received[4..] == expected[4..];
        }
        let header = received.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
        received.get(header..) == Some(expected)
    }
}

fn raw_socket(address: IpAddr) -> Result<OwnedFd, Errno> {
    let (family, protocol): (_, Protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    look_often(&socket).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    connect(&socket, &SocketAddr::new(address, 0))?;
    Ok(socket)
}

fn is_unreachable(error: Errno) -> bool {
    matches!(
        error,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::CONNREFUSED | Errno::ACCESS | Errno::PROTO
    )
}

/// The Internet checksum (RFC 1071).
fn checksum(message: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = message.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}
