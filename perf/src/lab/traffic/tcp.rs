//! TCP: bulk transfers, connections per second, and whether there is a way at all.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use serde::Serialize;

use super::counters::Counters;
use super::pattern::Pattern;
use super::{CONNECT, Error, Pair, STALL, Stop, is_timeout, look_often, socket_error};
use crate::lab::cancel::Cancel;

/// Bytes per read and write.
const CHUNK: usize = 128 << 10;

/// How long or how much to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    /// As much as goes in this time.
    Time(Duration),
    /// This many bytes on each stream, however long it takes while it makes progress.
    BytesPerStream(u64),
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The side that connects.
    ClientSends,
    /// The side that listens.
    ServerSends,
}

/// A bulk transfer to be made.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// Parallel connections.
    pub streams: usize,
    /// How long or how much.
    pub amount: Amount,
    /// Who sends.
    pub direction: Direction,
    /// Send contents that follow from this seed, and check every byte of them. Without a seed
    /// the contents cost nothing and are not looked at: for throughput.
    pub verify: Option<u64>,
}

impl Bulk {
    /// A measurement of throughput from client to server.
    pub fn throughput(streams: usize, time: Duration) -> Self {
        let amount = Amount::Time(time);
        Self { streams, amount, direction: Direction::ClientSends, verify: None }
    }
}

/// A bulk transfer that was made.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Transfer {
    /// Bytes received, all streams together.
    pub bytes: u64,
    /// From the first byte sent to the last received.
    pub seconds: f64,
    /// What both kernels counted meanwhile.
    pub counters: [Counters; 2],
}

impl Transfer {
    /// The rate of the contents, in bits per second.
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds
    }

    /// Segments sent again, by either side.
    pub fn retransmissions(&self) -> u64 {
        self.counters.iter().map(|side| side.tcp_retransmissions).sum()
    }

    /// Segments that arrived with a wrong checksum, at either side.
    pub fn checksum_errors(&self) -> u64 {
        self.counters.iter().map(|side| side.tcp_checksum_errors).sum()
    }
}

/// Makes a bulk transfer: all that was sent arrived, or it is an error.
///
/// # Errors
/// [`Error::Stalled`], [`Error::Damaged`], [`Error::Short`], [`Error::Socket`],
/// [`Error::Cancelled`].
pub fn bulk(pair: &Pair<'_>, plan: &Bulk, cancel: &Cancel) -> Result<Transfer, Error> {
    let (address, connections) = connect_all(pair, plan.streams)?;
    let read = || Ok::<_, Error>([Counters::of(pair.client)?, Counters::of(pair.server)?]);
    let before = read()?;
    let started = Instant::now();
    let bytes: Result<u64, Error> = thread::scope(|scope| {
        let streams: Vec<_> = connections
            .iter()
            .enumerate()
            .map(|(number, (client, server))| {
                let (from, to) = match plan.direction {
                    Direction::ClientSends => (client, server),
                    Direction::ServerSends => (server, client),
                };
                let pattern = plan.verify.map(|seed| Pattern::new(seed ^ number as u64));
                let stream = Stream { number, address, pattern, amount: plan.amount, cancel };
                (
                    number,
                    scope.spawn(move || stream.send(from)),
                    scope.spawn(move || stream.receive(to)),
                )
            })
            .collect();
        streams.into_iter().map(|(n, from, to)| settle(n, address, from, to)).sum()
    });
    let (bytes, seconds) = (bytes?, started.elapsed().as_secs_f64());
    let after = read()?;
    let counters = [after[0] - before[0], after[1] - before[1]];
    Ok(Transfer { bytes, seconds, counters })
}

/// Connections that were made and closed one after another.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Connections {
    /// How many.
    pub count: u64,
    /// In which time.
    pub seconds: f64,
}

impl Connections {
    /// Connections per second.
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

/// Opens connections one after another for `time`. Each carries one byte from the server, as
/// the proof that both directions work, and is then reset, so that none lingers.
///
/// # Errors
/// [`Error::Socket`] if one of them fails, [`Error::Cancelled`].
pub fn connections(pair: &Pair<'_>, time: Duration, cancel: &Cancel) -> Result<Connections, Error> {
    let (listener, address) = listen(pair)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| greet_all(&listener, &stop));
        let client = {
            let _stop = Stop(&stop);
            pair.client.run(|| connect_repeatedly(address, time, cancel))
        };
        let served = join(server);
        let made = client??;
        served.map_err(socket_error("accept at", address))?;
        Ok(made)
    })
}

/// Whether a connection from client to server can be established within `time`. Refusals and
/// unreachable networks are an answer, not an error.
///
/// # Errors
/// [`Error::Socket`] if the server can't listen; [`Error::Netns`].
pub fn reaches(pair: &Pair<'_>, time: Duration) -> Result<bool, Error> {
    let (_listener, address) = listen(pair)?;
    Ok(pair.client.run(|| TcpStream::connect_timeout(&address, time).is_ok())?)
}

/// One stream of a bulk transfer.
#[derive(Clone, Copy)]
struct Stream<'a> {
    number: usize,
    address: SocketAddr,
    pattern: Option<Pattern>,
    amount: Amount,
    cancel: &'a Cancel,
}

impl Stream<'_> {
    /// Sends, then says that it was all. Gives the number of bytes.
    fn send(&self, mut socket: &TcpStream) -> Result<u64, Error> {
        let mut chunk = vec![0x5a; CHUNK];
        let started = Instant::now();
        let mut progress = Progress::new();
        loop {
            let length = self.length_at(progress.bytes, started);
            if length == 0 {
                break;
            }
            if let Some(pattern) = &self.pattern {
                pattern.fill(progress.bytes, &mut chunk[..length]);
            }
            let written = socket.write(&chunk[..length]);
            self.advance(&mut progress, "send to", written)?;
        }
        socket.shutdown(Shutdown::Write).map_err(socket_error("finish", self.address))?;
        Ok(progress.bytes)
    }

    /// Receives to the end, and checks. Gives the number of bytes.
    fn receive(&self, mut socket: &TcpStream) -> Result<u64, Error> {
        let mut chunk = vec![0; CHUNK];
        let mut scratch = Vec::new();
        let mut progress = Progress::new();
        loop {
            let offset = progress.bytes;
            let read = socket.read(&mut chunk);
            if matches!(read, Ok(0)) {
                return Ok(offset);
            }
            let length = self.advance(&mut progress, "receive from", read)?;
            let wrong =
                self.pattern.and_then(|p| p.mismatch(offset, &chunk[..length], &mut scratch));
            if let Some(at) = wrong {
                let (stream, address) = (self.number, self.address);
                return Err(Error::Damaged { stream, address, offset: offset + at as u64 });
            }
        }
    }

    /// How many bytes to send next; zero at the end.
    fn length_at(&self, sent: u64, started: Instant) -> usize {
        match self.amount {
            Amount::Time(time) if started.elapsed() >= time => 0,
            Amount::Time(_) => CHUNK,
            Amount::BytesPerStream(bytes) => {
                usize::try_from(bytes - sent).map_or(CHUNK, |left| left.min(CHUNK))
            }
        }
    }

    /// Notes what one system call moved; a call without result is no error until [`STALL`].
    fn advance(
        &self,
        progress: &mut Progress,
        operation: &'static str,
        moved: io::Result<usize>,
    ) -> Result<usize, Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match moved {
            Ok(length) => {
                progress.bytes += length as u64;
                progress.last = Instant::now();
                Ok(length)
            }
            Err(error) if is_timeout(&error) && progress.last.elapsed() < STALL => Ok(0),
            Err(error) if is_timeout(&error) => {
                let (stream, address) = (self.number, self.address);
                Err(Error::Stalled { stream, address, bytes: progress.bytes })
            }
            Err(error) => Err(socket_error(operation, self.address)(error)),
        }
    }
}

struct Progress {
    bytes: u64,
    last: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { bytes: 0, last: Instant::now() }
    }
}

/// Waits for both ends of a stream and compares what they say. The receiver's complaint comes
/// first: a sender's broken pipe is only its echo.
fn settle(
    stream: usize,
    address: SocketAddr,
    from: ScopedJoinHandle<'_, Result<u64, Error>>,
    to: ScopedJoinHandle<'_, Result<u64, Error>>,
) -> Result<u64, Error> {
    let sent = join(from);
    let received = join(to)?;
    let sent = sent?;
    if sent == received {
        Ok(received)
    } else {
        Err(Error::Short { stream, address, sent, received })
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// A listener in the server's namespace, on a free port, and where it is.
fn listen(pair: &Pair<'_>) -> Result<(TcpListener, SocketAddr), Error> {
    let wanted = SocketAddr::new(pair.address, 0);
    let open = || {
        let listener = TcpListener::bind(wanted)?;
        look_often(&listener)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    pair.server.run(open)?.map_err(socket_error("listen at", wanted))
}

type Connection = (TcpStream, TcpStream);

/// Connections between the two, with both ends of each.
fn connect_all(pair: &Pair<'_>, count: usize) -> Result<(SocketAddr, Vec<Connection>), Error> {
    let (listener, address) = listen(pair)?;
    let connections = pair
        .client
        .run(|| (0..count).map(|_| connect(&listener, address)).collect::<Result<Vec<_>, _>>())??;
    Ok((address, connections))
}

/// One connection: the kernel completes it before it is accepted, so one thread does both.
fn connect(listener: &TcpListener, address: SocketAddr) -> Result<Connection, Error> {
    let client = TcpStream::connect_timeout(&address, CONNECT)
        .map_err(socket_error("connect to", address))?;
    let deadline = Instant::now() + CONNECT;
    let (server, _) = loop {
        match listener.accept() {
            Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
            other => break other.map_err(socket_error("accept at", address))?,
        }
    };
    for socket in [&client, &server] {
        look_often(socket).map_err(socket_error("prepare", address))?;
    }
    Ok((client, server))
}

fn greet_all(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut socket, _)) => socket.write_all(b"!")?,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn connect_repeatedly(
    address: SocketAddr,
    time: Duration,
    cancel: &Cancel,
) -> Result<Connections, Error> {
    let connect_once = || {
        let mut socket = TcpStream::connect_timeout(&address, CONNECT)?;
        socket.set_read_timeout(Some(CONNECT))?;
        socket.read_exact(&mut [0])?;
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        Ok(())
    };
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < time {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        connect_once().map_err(socket_error("connect to", address))?;
        count += 1;
    }
    Ok(Connections { count, seconds: started.elapsed().as_secs_f64() })
}
