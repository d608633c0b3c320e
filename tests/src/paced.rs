//! A UDP flow at a steady pace that runs beside a test and shows every loss and gap.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use perf::lab::traffic::Pair;

/// How long the last datagram may be on its way.
const LAST: Duration = Duration::from_millis(300);

/// A flow that runs until [`Paced::stop`].
#[derive(Debug)]
pub struct Paced {
    stop: Stop,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<(u64, Instant)>>,
}

/// What became of a flow.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// Datagrams sent.
    pub sent: u64,
    /// The number and time of each that arrived, in the order of arrival.
    pub received: Vec<(u64, Instant)>,
}

impl Paced {
    /// Starts a datagram every `interval` from client to server.
    pub fn start(pair: &Pair<'_>, interval: Duration) -> Self {
        let server = pair.server.run(|| UdpSocket::bind((pair.address, 0)).unwrap()).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = server.local_addr().unwrap();
        let client = pair.client.run(|| connected(address)).unwrap();
        let stop = Stop::default();
        let (ends, ended) = (stop.0.clone(), stop.0.clone());
        let sender = thread::spawn(move || send(&client, interval, &ends));
        let receiver = thread::spawn(move || receive(&server, &ended));
        Self { stop, sender, receiver }
    }

    /// Ends the flow, and waits for what is still on its way.
    pub fn stop(self) -> Arrivals {
        self.stop.0.set();
        let sent = self.sender.join().unwrap();
        Arrivals { sent, received: self.receiver.join().unwrap() }
    }
}

impl Arrivals {
    /// The numbers of datagrams that never arrived.
    pub fn lost(&self) -> Vec<u64> {
        let mut arrived = vec![false; usize::try_from(self.sent).unwrap()];
        for &(number, _) in &self.received {
            arrived[usize::try_from(number).unwrap()] = true;
        }
        (0..).zip(arrived).filter(|(_, arrived)| !arrived).map(|(number, _)| number).collect()
    }

    /// The time from a moment to the next arrival after it.
    pub fn first_after(&self, moment: Instant) -> Option<Duration> {
        let mut times = self.received.iter().map(|&(_, at)| at);
        times.find(|at| *at > moment).map(|at| at - moment)
    }
}

/// Ends the threads, also when a test has failed meanwhile.
#[derive(Default, Debug)]
struct Stop(Flag);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Set once.
#[derive(Clone, Default, Debug)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn connected(address: SocketAddr) -> UdpSocket {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(address).unwrap();
    socket
}

/// Sends at the pace, catching up after a delay. What the own kernel refuses counts as sent: it
/// is a loss that the flow is to show.
fn send(client: &UdpSocket, interval: Duration, stop: &Flag) -> u64 {
    let started = Instant::now();
    let mut due = Duration::ZERO;
    let mut sent = 0_u64;
    while !stop.is_set() {
        if let Some(early) = due.checked_sub(started.elapsed()) {
            thread::sleep(early);
        }
        let _ = client.send(&sent.to_be_bytes());
        sent += 1;
        due += interval;
    }
    sent
}

fn receive(server: &UdpSocket, stop: &Flag) -> Vec<(u64, Instant)> {
    let mut received = Vec::new();
    let mut quiet_since = Instant::now();
    loop {
        let mut number = [0; 8];
        match server.recv(&mut number) {
            Ok(8) => {
                quiet_since = Instant::now();
                received.push((u64::from_be_bytes(number), quiet_since));
            }
            Ok(length) => panic!("a datagram of {length} bytes"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.is_set() && quiet_since.elapsed() > LAST {
                    return received;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}
