//! Devices under a running heddle are set down and up, changed, renamed, deleted and made again: it
//! notices, serves what is there, and is quiet afterwards.

use std::fs;
use std::thread;
use std::time::Duration;

use dataplane::device::ethtool::{self, Queues};
use dataplane::device::netlink::{self, Link, Netlink};
use dataplane::device::netns::Netns;
use perf::lab::process::cpu_time;
use tests::{DEVICE, Family, Kind, PATIENCE, Plan, World, eventually, near_end, plug};

/// heddle says this when it serves a device that was gone.
const THERE: &str = "its device is there";

#[test]
fn links_go_down_and_up() {
    for kind in Kind::ALL {
        let mut world = World::start(plan(kind));
        down_and_up(&world, world.netns("b"), DEVICE);
        if kind != Kind::Tap {
            let (netns, near) = near(&world, kind);
            down_and_up(&world, &netns, &near.name);
        }
        is_quiet(&mut world, kind, 0);
    }
}

#[test]
fn mtus_and_names_change() {
    for kind in [Kind::DevicePacket, Kind::DeviceXdp] {
        let mut world = World::start(plan(kind));
        for mtu in [9000, 1280, 1500] {
            world.set_mtu("b", mtu);
            answers(&world);
        }
        let (netns, near) = near(&world, kind);
        for name in ["renamed", &near.name] {
            change(&netns, |netlink| netlink.rename(near.index, name));
            answers(&world);
        }
        is_quiet(&mut world, kind, 0);
    }
}

#[test]
fn veths_that_are_deleted_are_made_again() {
    for kind in [Kind::VethPacket, Kind::VethXdp] {
        let mut world = World::start(plan(kind));
        let (netns, near) = near(&world, kind);
        change(&netns, |netlink| netlink.delete(near.index));
        is_made_again(&mut world);
        world.netlink("b", |netlink| {
            let index = netlink.link(DEVICE)?.expect("heddle's device").index;
            netlink.delete(index)
        });
        is_made_again(&mut world);
        is_quiet(&mut world, kind, 2);
    }
}

#[test]
fn existing_devices_that_are_deleted_are_waited_for() {
    for kind in [Kind::DevicePacket, Kind::DeviceXdp] {
        let mut world = World::start(plan(kind));
        for _ in 0..2 {
            let (netns, near) = near(&world, kind);
            change(&netns, |netlink| netlink.delete(near.index));
            eventually("heddle waits", PATIENCE, || {
                (state(&world, "b") == "waiting").then_some(())
            });
            let addresses = Family::BOTH.map(|family| world.plan().address("b", family));
            plug(world.host(), "b", world.container("b"), &addresses);
            answers(&world);
        }
        is_quiet(&mut world, kind, 2);
    }
}

/// A device may have more queues than it uses, and use more of them later, or fewer: but the kernel
/// keeps those in use that have an AF_XDP socket.
#[test]
fn queues_that_come_into_use_are_served() {
    for kind in [Kind::DevicePacket, Kind::DeviceXdp] {
        let mut world = World::start(plan(kind));
        let (netns, near) = near(&world, kind);
        let mut served = 0;
        for (queues, fits) in [(2, true), (3, false), (2, true)] {
            // What a program is on receives by as many queues as the other end sends by.
            let both = [(&netns, &*near.name), (world.netns("b"), DEVICE)];
            let grows = queues_of(&netns, &near.name) < queues;
            for (netns, name) in if grows { both } else { [both[1], both[0]] } {
                let queues = Queues { receive: queues, send: queues };
                netns.run(|| ethtool::set_queues(name, queues)).unwrap().unwrap();
            }
            if kind == Kind::DeviceXdp && !fits {
                eventually("heddle has too few workers", PATIENCE, || {
                    (state(&world, "b") == "waiting").then_some(())
                });
                continue;
            }
            served += usize::from(kind == Kind::DeviceXdp);
            eventually("heddle serves all queues", PATIENCE, || {
                (log(&world).matches(THERE).count() == served).then_some(())
            });
            // Of so many flows some use the last queue.
            for _ in 0..17 {
                assert_eq!(world.ping("b", "a", Family::V4).lost(), 0, "{kind:?}, {queues}");
            }
        }
        is_quiet(&mut world, kind, served);
    }
}

fn plan(kind: Kind) -> Plan {
    let plan = Plan::new().host("workers = [0, 1]").network("web", "");
    plan.port("a", "").port("b", "").of(kind)
}

/// heddle's end of the device of port `b`, and where it is.
fn near(world: &World, kind: Kind) -> (Netns, Link) {
    let place = if kind.is_existing() {
        world.host().netns_name().to_owned()
    } else {
        world.host().own_netns()
    };
    let netns = Netns::open(place).unwrap();
    let links = netns.run(|| Netlink::open()?.links()).unwrap().unwrap();
    let ours = |link: &Link| {
        link.name == near_end("b") || link.alias.as_deref().is_some_and(|a| a.ends_with(":b"))
    };
    (netns, links.into_iter().find(ours).expect("heddle's end"))
}

fn queues_of(netns: &Netns, name: &str) -> u32 {
    netns.run(|| ethtool::queues(name)).unwrap().unwrap().expect("a veth can say").receive
}

fn change(netns: &Netns, work: impl FnOnce(&mut Netlink) -> Result<(), netlink::Error> + Send) {
    netns.run(|| work(&mut Netlink::open()?)).unwrap().unwrap();
}

fn down_and_up(world: &World, netns: &Netns, name: &str) {
    change(netns, |netlink| {
        let index = netlink.link(name)?.expect("the device").index;
        netlink.set_down(index)
    });
    assert!(!world.answers("b", "a", Family::V4));
    change(netns, |netlink| {
        let index = netlink.link(name)?.expect("the device").index;
        netlink.set_up(index)
    });
    answers(world);
}

fn answers(world: &World) {
    eventually("traffic goes on", PATIENCE, || world.answers("b", "a", Family::V4).then_some(()));
}

fn is_made_again(world: &mut World) {
    eventually("the device is gone and there again", PATIENCE, || {
        world.link("b").is_some_and(|link| link.running).then_some(())
    });
    answers(world);
}

fn state(world: &World, port: &str) -> String {
    let ports = world.show("ports");
    let found = ports["ports"].as_array().unwrap().iter().find(|row| row["name"] == port);
    found.expect("the port")["state"].as_str().expect("a word").to_owned()
}

fn log(world: &World) -> String {
    fs::read_to_string(world.lab().directory().join("host.log")).unwrap()
}

/// heddle has served a device again as often as that was needed, and has nothing to do now: what it
/// does to devices itself is no news.
fn is_quiet(world: &mut World, kind: Kind, served_again: usize) {
    const WINDOW: Duration = Duration::from_secs(1);
    let before = log(world);
    assert_eq!(before.matches(THERE).count(), served_again, "{kind:?}: {before}");
    let pid = world.switch().pid();
    let spent = cpu_time(pid).unwrap();
    thread::sleep(WINDOW);
    let spent = cpu_time(pid).unwrap() - spent;
    assert!(spent < WINDOW / 20, "{kind:?}: {spent:?} of {WINDOW:?}");
    assert_eq!(log(world), before, "{kind:?}");
}
