//! Devices that go down, come back and are deleted; frames for which there was no room.

use super::super::Link;
use super::*;
use crate::drops;

/// More small frames than 128 KiB hold.
const FLOOD: u64 = 257;

/// A frame of the ethertype for local experiments.
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    (frame[0], frame[6], frame[12], frame[13]) = (2, 2, 0x88, 0xb5);
    frame
};

/// Calls the port until it has nothing more; the worker does the same when it is told to.
fn last_answer(receiver: &mut Receiver, queue: &mut Queue) -> Intake {
    loop {
        let intake = receiver.turn(queue);
        if intake != Intake::More {
            return intake;
        }
    }
}

#[test]
fn a_deleted_device_is_gone_and_one_that_is_down_is_not() {
    let veth = Veth::silent();
    let (mut queues, far) =
        (veth.near(Options { sockets: 2, ..Options::default() }), veth.sender());
    let mut receiver = Receiver::new();
    let change = |change: fn(&mut Netlink, u32)| {
        let index = veth.near;
        veth.switch.netns.run(|| change(&mut Netlink::open().unwrap(), index)).unwrap();
    };
    change(|netlink, index| netlink.set_down(index).unwrap());
    for queue in &mut queues {
        assert_eq!(last_answer(&mut receiver, queue), Intake::Empty);
        assert_eq!(last_answer(&mut receiver, queue), Intake::Empty);
        assert!(queue.socket.is_there());
    }
    change(|netlink, index| netlink.set_up(index).unwrap());
    veth.wait_until_running();
    send(&far, &FRAME, Offload::PLAIN);
    let heard: usize = queues.iter_mut().map(|queue| receiver.drain(queue).len()).sum();
    assert_eq!(heard, 1, "after it came back");

    // What arrived before the end is not lost to it.
    send(&far, &FRAME, Offload::PLAIN);
    change(|netlink, index| netlink.delete(index).unwrap());
    let heard: usize = queues.iter_mut().map(|queue| receiver.drain(queue).len()).sum();
    assert_eq!(heard, 1, "from before it was deleted");
    for queue in &mut queues {
        assert_eq!(last_answer(&mut receiver, queue), Intake::Gone);
        assert_eq!(last_answer(&mut receiver, queue), Intake::Gone);
    }
}

#[test]
fn a_link_that_flaps_is_seen_again() {
    let veth = Veth::silent();
    let (mut queue, far) = (veth.near(Options::default()).remove(0), veth.sender());
    let mut receiver = Receiver::new();
    for _ in 0..3 {
        let flap = || {
            let mut netlink = Netlink::open().unwrap();
            netlink.set_down(veth.near).unwrap();
            netlink.set_up(veth.near).unwrap();
        };
        veth.switch.netns.run(flap).unwrap();
        veth.wait_until_running();
        assert_eq!(last_answer(&mut receiver, &mut queue), Intake::Empty);
        assert_eq!(queue.link, Link::Down);
        send(&far, &FRAME, Offload::PLAIN);
        assert_eq!(receiver.drain(&mut queue).len(), 1);
        assert_eq!(queue.link, Link::Up);
    }
}

#[test]
fn a_device_that_moves_away_is_gone() {
    let veth = Veth::silent();
    let mut queue = veth.near(Options::default()).remove(0);
    let move_away = || {
        let mut netlink = Netlink::open().unwrap();
        netlink.move_to(veth.near, &veth.container.netns).unwrap();
    };
    veth.switch.netns.run(move_away).unwrap();
    let mut receiver = Receiver::new();
    assert_eq!(last_answer(&mut receiver, &mut queue), Intake::Gone);
}

#[test]
fn a_frame_for_a_device_that_is_gone_is_refused() {
    let veth = Veth::silent();
    let mut queue = veth.near(Options::default()).remove(0);
    let delete = || Netlink::open().unwrap().delete(veth.near).unwrap();
    veth.switch.netns.run(delete).unwrap();
    let mut receiver = Receiver::new();
    let packet = Packet::holding(&mut receiver.pool, PortId(3), &FRAME).unwrap();
    let refused = queue.transmit(&mut receiver.pool, &mut vec![packet]);
    assert_eq!((refused.failed, refused.bytes), (1, 60));
    assert_eq!(last_answer(&mut receiver, &mut queue), Intake::Gone);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let veth = Veth::silent();
    let open = || socket::open(4711, &Options::default()).unwrap_err();
    let error = veth.switch.netns.run(open).unwrap();
    assert!(error.to_string().starts_with("packet socket on device 4711: bind: No such device"));
}

#[test]
fn what_the_kernel_had_no_room_for_is_counted() {
    let veth = Veth::silent();
    let options = Options { receive_bytes: 128 << 10, ..Options::default() };
    let (mut queue, far) = (veth.near(options).remove(0), veth.sender());
    let mut receiver = Receiver::new();
    for round in 1..=3 {
        (0..FLOOD).for_each(|_| send(&far, &FRAME, Offload::PLAIN));
        let received = receiver.drain(&mut queue).len() as u64;
        let lost = receiver.counters.drops.of(drops::QUEUE_FULL).read();
        assert!(received > 0 && received < FLOOD);
        assert_eq!(lost, (FLOOD - received) * round);
        // What was received is counted by the engine.
        assert_eq!(receiver.counters.rx_packets.read(), lost);
    }
}
