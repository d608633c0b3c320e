//! Kernels talk across two AF_XDP ports on veths. It needs root; everything happens in namespaces
//! that end with the test.

mod scene;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use dataplane::counters::PortCounters;
use scene::{ALL, PATIENCE, Scene, until, v4, v6};

/// Bytes of one stream: many windows, and not a multiple of anything.
const STREAM: usize = (24 << 20) + 67;

/// Sends `STREAM` known bytes from the first side to the second, and the sum of what came back.
fn stream(scene: &Scene, to: IpAddr) {
    let [client, server] = &scene.sides[..] else { unreachable!("two sides") };
    let listener = server.container.run(|| TcpListener::bind((to, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::scope(|threads| {
        threads.spawn(move || echo_back(&listener));
        let stream = client.container.run(|| connect(address));
        let mut reader = stream.try_clone().unwrap();
        threads.spawn(move || check(&mut reader));
        (&stream).write_all(&expected()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echo_back(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            length => stream.write_all(&buffer[..length]).unwrap(),
        }
    }
}

fn check(reader: &mut TcpStream) {
    let mut back = Vec::with_capacity(STREAM);
    reader.read_to_end(&mut back).unwrap();
    assert!(back == expected(), "{} bytes came back, not as they were sent", back.len());
}

fn expected() -> Vec<u8> {
    (0..STREAM).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// Frames in = frames out + counted drops, at the worker's side of the ports.
fn conserved(counters: [&PortCounters; 2]) {
    let received: u64 = counters.iter().map(|c| c.rx_packets.read()).sum();
    let sent: u64 = counters.iter().map(|c| c.tx_packets.read()).sum();
    let dropped: u64 = counters.iter().map(|c| c.drops.total()).sum();
    assert_eq!(received, sent + dropped);
    assert!(received > 0);
}

fn tcp_across(mtu: u32) {
    let mut scene = Scene::new(mtu);
    scene.open();
    for to in [v4(2), v6(2)] {
        let started = Instant::now();
        stream(&scene, to);
        eprintln!("mtu {mtu}, {to}: {} MB both ways in {:?}", STREAM >> 20, started.elapsed());
    }
    scene.close();
    conserved([&scene.sides[0].counters, &scene.sides[1].counters]);
    for side in &scene.sides {
        let kernel = side.meter.as_ref().unwrap().read();
        eprintln!("{kernel:?} drops {}", side.counters.drops.total());
        assert_eq!((kernel.tx_invalid, kernel.foreign, kernel.quarantined), (0, 0, 0));
    }
    assert_eq!(scene.free(), ALL);
    let _ = until(|| Some(()));
}

#[test]
fn tcp_crosses_at_mtu_1500() {
    tcp_across(1500);
}

#[test]
fn tcp_crosses_in_jumbo_frames() {
    tcp_across(9000);
}
