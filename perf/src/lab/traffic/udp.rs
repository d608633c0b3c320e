//! UDP: round trips one at a time, and a paced flow that shows losses and gaps.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Error, Pair, RoundTrips, Stop, is_timeout, look_often, socket_error};
use crate::lab::cancel::Cancel;

/// How long an answer, or the last datagram of a flow, may take.
const ANSWER: Duration = Duration::from_millis(200);

/// Larger than any datagram.
const BUFFER: usize = 64 << 10;

/// Bytes of the sequence number at the start of each datagram.
const NUMBER: usize = 8;

/// Sends requests of `payload` bytes (at least 8) one after another for `time`, each after the
/// answer to the one before or 200 ms later.
///
/// # Errors
/// [`Error::Socket`], [`Error::Netns`], [`Error::Cancelled`]. Losses are no error.
pub fn round_trips(
    pair: &Pair<'_>,
    payload: usize,
    time: Duration,
    cancel: &Cancel,
) -> Result<RoundTrips, Error> {
    let (server, client, address) = open(pair)?;
    with_server(
        address,
        |stop| echo(&server, stop),
        || {
            let started = Instant::now();
            let mut request = vec![0x5a; payload.max(NUMBER)];
            let mut times = Vec::new();
            let mut sent = 0_u64;
            while started.elapsed() < time {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                request[..NUMBER].copy_from_slice(&sent.to_be_bytes());
                sent += 1;
                times.extend(ask(&client, &request).map_err(socket_error("ask", address))?);
            }
            Ok(RoundTrips::new(sent, times))
        },
    )
    .map(|(trips, _)| trips)
}

/// A flow to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// The distance between two datagrams.
    pub interval: Duration,
    /// Bytes in each, at least 8.
    pub payload: usize,
    /// For how long.
    pub time: Duration,
}

/// What became of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Arrivals {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived, each counted once.
    pub received: u64,
    /// Arrivals whose number was not above all earlier ones: late, or doubled.
    pub out_of_order: u64,
    /// The longest time between two arrivals, in microseconds.
    pub longest_gap_us: u64,
}

/// Sends a paced flow from client to server.
///
/// # Errors
/// [`Error::Socket`], [`Error::Netns`], [`Error::Cancelled`]. Losses are no error.
pub fn flow(pair: &Pair<'_>, flow: &Flow, cancel: &Cancel) -> Result<Arrivals, Error> {
    let (server, client, address) = open(pair)?;
    let (sent, mut arrivals) = with_server(
        address,
        |stop| collect(&server, stop),
        || {
            let sent = send_paced(&client, flow, cancel);
            sent.map_err(socket_error("send to", address))
        },
    )?;
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    arrivals.sent = sent;
    Ok(arrivals)
}

/// Runs the server's side on a thread until the client's side is done.
fn with_server<C: Send, S: Send>(
    address: SocketAddr,
    server: impl FnOnce(&AtomicBool) -> io::Result<S> + Send,
    client: impl FnOnce() -> Result<C, Error>,
) -> Result<(C, S), Error> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| server(&stop));
        let outcome = {
            let _stop = Stop(&stop);
            client()
        };
        let served = thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        Ok((outcome?, served.map_err(socket_error("serve", address))?))
    })
}

/// A bound socket on the server's side, a connected one on the client's, and the address.
fn open(pair: &Pair<'_>) -> Result<(UdpSocket, UdpSocket, SocketAddr), Error> {
    let wanted = SocketAddr::new(pair.address, 0);
    let bind = |at| {
        let socket = UdpSocket::bind(at)?;
        look_often(&socket)?;
        Ok(socket)
    };
    let server = pair.server.run(|| bind(wanted))?.map_err(socket_error("listen at", wanted))?;
    let address = server.local_addr().map_err(socket_error("listen at", wanted))?;
    let connect = || {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(socket)
    };
    let client = pair.client.run(connect)?.map_err(socket_error("connect to", address))?;
    Ok((server, client, address))
}

/// Sends a request and waits for its own answer; answers to earlier requests are too late.
fn ask(client: &UdpSocket, request: &[u8]) -> io::Result<Option<Duration>> {
    let mut answer = [0; BUFFER];
    let started = Instant::now();
    match client.send(request) {
        // What came of the request before shows at the next call.
        Err(error) if is_refusal(&error) => return Ok(None),
        sent => sent?,
    };
    while started.elapsed() < ANSWER {
        match client.recv(&mut answer) {
            Ok(length) if answer[..length] == *request => return Ok(Some(started.elapsed())),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) if is_refusal(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether an error is an ICMP error about an earlier datagram.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

fn echo(server: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        match server.recv_from(&mut buffer) {
            Ok((length, from)) => drop(server.send_to(&buffer[..length], from)),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends at the flow's pace, catching up after a delay. A datagram that the own kernel refuses
/// counts as sent: it is a loss that the flow is to show.
fn send_paced(client: &UdpSocket, flow: &Flow, cancel: &Cancel) -> io::Result<u64> {
    let mut datagram = vec![0x5a; flow.payload.max(NUMBER)];
    let started = Instant::now();
    let mut due = Duration::ZERO;
    let mut sent = 0_u64;
    while due < flow.time && !cancel.is_cancelled() {
        if let Some(early) = due.checked_sub(started.elapsed()) {
            thread::sleep(early);
        }
        datagram[..NUMBER].copy_from_slice(&sent.to_be_bytes());
        match client.send(&datagram) {
            Err(error) if !is_refusal(&error) && !is_timeout(&error) => return Err(error),
            _ => sent += 1,
        }
        due += flow.interval;
    }
    Ok(sent)
}

/// Counts arrivals until nothing more has come for a while after the end.
fn collect(server: &UdpSocket, stop: &AtomicBool) -> io::Result<Arrivals> {
    let mut buffer = [0; BUFFER];
    let mut arrivals = Arrivals::default();
    let mut seen = Vec::new();
    let mut last: Option<Instant> = None;
    let mut quiet_since = Instant::now();
    loop {
        match server.recv(&mut buffer) {
            Ok(length) if length >= NUMBER => {
                let now = Instant::now();
                let gap = last.map_or(0, |last| (now - last).as_micros());
                arrivals.longest_gap_us =
                    arrivals.longest_gap_us.max(u64::try_from(gap).unwrap_or(u64::MAX));
                arrivals.note(&buffer, &mut seen);
                (last, quiet_since) = (Some(now), now);
            }
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {
                if stop.load(Ordering::Relaxed) && quiet_since.elapsed() > ANSWER {
                    return Ok(arrivals);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

impl Arrivals {
    /// Notes one datagram; `seen` has a bit per number.
    fn note(&mut self, datagram: &[u8; BUFFER], seen: &mut Vec<bool>) {
        let [a, b, c, d, e, f, g, h, ..] = *datagram;
        let Ok(number) = usize::try_from(u64::from_be_bytes([a, b, c, d, e, f, g, h])) else {
            return;
        };
        if number < seen.len() {
            self.out_of_order += 1;
        } else {
            seen.resize(number + 1, false);
        }
        self.received += u64::from(!seen[number]);
        seen[number] = true;
    }
}
