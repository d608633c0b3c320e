//! Veths: what heddle makes of one that it had not finished, and what it has the container's kernel
//! leave in frames.

use dataplane::device::ethtool::{self, TAG_INSERTION};
use dataplane::device::netlink::Netlink;
use dataplane::device::netns::Netns;
use tests::{DEVICE, End, Family, Kind, Plan, World};

fn pair(kind: Kind) -> Plan {
    Plan::new().network("web", "").port("a", "").of(kind).port("b", "").of(kind)
}

#[test]
fn one_that_was_not_finished_is_made_anew() {
    for kind in [Kind::VethPacket, Kind::VethXdp] {
        let mut world = World::start(pair(kind));
        world.end(End::Killed);
        // As if it had died after it made the device, and before it could mark its ends.
        let far = world.link("b").expect("heddle's device");
        let own = Netns::open(world.host().own_netns()).unwrap();
        let unmark = |netlink: &mut Netlink| {
            let links = netlink.links()?;
            let near = links.iter().find(|near| near.alias == far.alias).expect("the near end");
            netlink.set_alias(near.index, "")
        };
        own.run(|| unmark(&mut Netlink::open()?)).unwrap().unwrap();
        world.netlink("b", |netlink| netlink.set_alias(far.index, ""));
        let plan = world.plan().clone();
        world.launch_with(plan);
        world.wait_until_running();
        let made = world.link("b").expect("a device");
        assert_eq!((made.mac, made.alias), (far.mac, far.alias), "{kind:?}");
        assert_eq!(world.ping("a", "b", Family::V4).lost(), 0, "{kind:?}");
    }
}

/// What sends tags beside frames makes them frames of another VLAN, since XDP does not see them.
#[test]
fn tags_are_in_frames_where_xdp_looks_for_them() {
    let world = World::start(pair(Kind::VethXdp));
    for port in ["a", "b"] {
        let features = world.netns(port).run(|| ethtool::features(DEVICE)).unwrap().unwrap();
        let beside = features.iter().filter(|f| TAG_INSERTION.contains(&&*f.name));
        assert!(beside.clone().count() == TAG_INSERTION.len() && beside.clone().all(|f| !f.active));
    }
}
