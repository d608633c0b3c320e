//! Kernels talk across two AF_XDP ports on veths. It needs root; everything happens in namespaces
//! that end with the test.

mod scene;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::counters::PortCounters;
use dataplane::device::netlink::Netlink;
use dataplane::drops;
use dataplane::port::Intake;
use dataplane::port::af_xdp::{AfXdp, Queue, Settings};
use rustix::io::Errno;
use scene::{ALL, Namespace, PATIENCE, Scene, until, v4, v6};

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

/// What the kernel counted makes sense, and all frames are home.
fn at_rest(scene: &Scene) {
    for side in &scene.sides {
        let kernel = side.meter.as_ref().unwrap().read();
        assert_eq!((kernel.tx_invalid, kernel.foreign, kernel.quarantined), (0, 0, 0));
    }
    assert_eq!(scene.free(), ALL);
}

/// All that the programs gave to the sockets has come in by the ports, or the kernel has counted
/// its loss.
fn nothing_lost_uncounted(scene: &Scene) {
    for side in &scene.sides {
        until(|| {
            // The port counts them now and then.
            let counted = side.counters.drops.of(drops::QUEUE_FULL).read();
            let lost = side.meter.as_ref().unwrap().read().lost() - counted;
            (side.taken() == side.counters.rx_packets.read() + lost).then_some(())
        });
    }
}

fn tcp_across(mtu: u32) {
    let mut scene = Scene::new(mtu);
    scene.open();
    for to in [v4(2), v6(2)] {
        stream(&scene, to);
    }
    nothing_lost_uncounted(&scene);
    scene.close();
    conserved([&scene.sides[0].counters, &scene.sides[1].counters]);
    at_rest(&scene);
}

#[test]
fn tcp_crosses_at_mtu_1500() {
    tcp_across(1500);
}

#[test]
fn tcp_crosses_in_jumbo_frames() {
    tcp_across(9000);
}

/// Memory that a device registers for itself, in aligned chunks and without metadata.
#[test]
fn tcp_crosses_native_memory_in_copy_mode() {
    let mut scene = Scene::new(9000);
    scene.open_with(|_, ledger, settings| {
        AfXdp::open_native(ledger, &[settings]).map(|mut ports| ports.remove(0))
    });
    for to in [v4(2), v6(2)] {
        stream(&scene, to);
    }
    scene.close();
    conserved([&scene.sides[0].counters, &scene.sides[1].counters]);
    at_rest(&scene);
}

#[test]
fn ports_that_are_closed_and_opened_under_traffic_lose_no_frame_of_memory() {
    let mut scene = Scene::new(9000);
    let flood = Flood::start(&scene.sides[0].container);
    for _ in 0..7 {
        scene.open();
        let before = scene.sides[1].counters.tx_packets.read();
        until(|| (scene.sides[1].counters.tx_packets.read() > before + 257).then_some(()));
        scene.close();
        at_rest(&scene);
    }
    drop(flood);
    conserved([&scene.sides[0].counters, &scene.sides[1].counters]);
}

#[test]
fn a_device_that_is_down_is_not_gone() {
    let mut scene = Scene::new(1500);
    scene.open();
    let device = scene.sides[0].device;
    scene.switch.run(|| Netlink::open().unwrap().set_down(device).unwrap());
    assert_eq!(scene.ask(0), Intake::Empty);
    scene.switch.run(|| Netlink::open().unwrap().set_up(device).unwrap());
    stream(&scene, v4(2));
    scene.close();
    at_rest(&scene);
}

#[test]
fn a_device_that_is_deleted_is_gone_and_its_frames_come_home() {
    let mut scene = Scene::new(1500);
    scene.open();
    stream(&scene, v6(2));
    let device = scene.sides[0].device;
    scene.switch.run(|| Netlink::open().unwrap().delete(device).unwrap());
    until(|| (scene.ask(0) == Intake::Gone).then_some(()));
    scene.close();
    at_rest(&scene);
}

#[test]
fn a_queue_has_one_socket() {
    let mut scene = Scene::new(1500);
    scene.open();
    let (umem, settings) = (&scene.umem, scene.settings(0));
    let second = scene.switch.run(|| AfXdp::open(umem, settings)).unwrap_err();
    assert_eq!((second.source, second.step), (Errno::BUSY, "bind"));
    let other = Queue { number: 4711, ..settings.queue };
    let settings = Settings { queue: other, ..settings };
    let none = scene.switch.run(|| AfXdp::open(umem, settings)).unwrap_err();
    assert_eq!(
        none.to_string(),
        format!("AF_XDP on queue 4711 of device {}: bind: {}", other.device, none.source)
    );
    scene.close();
    at_rest(&scene);
}

/// Datagrams from a container to nobody in particular, until dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(container: &Namespace) -> Self {
        let socket = container.run(|| UdpSocket::bind((v4(1), 0)).unwrap());
        socket.set_broadcast(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // Frames of one and of three pieces.
            let payload = [7; 8900];
            for length in [67, 8900].into_iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // A full queue is as good as a loss.
                let _ = socket.send_to(&payload[..length], ("10.67.0.255", 9));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
