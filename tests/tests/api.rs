//! The command line against a running heddle: objects at run time, what is shown, how it ends.

use dataplane::device::netlink::Netlink;
use tests::{DEVICE, End, Family, PATIENCE, Plan, World, eventually};

#[test]
fn objects_made_at_run_time_carry_traffic_and_survive_a_crash() {
    let mut world = World::start(Plan::pair(""));
    let late = world.lab().container("late").unwrap();
    world.call(&["network", "create", "more", "--subnet", "10.201.0.0/24"]).unwrap();
    let netns = late.netns_name().to_owned();
    let endpoint = ["endpoint", "create", "late", "--network", "web", "--netns", &netns];
    let made: serde_json::Value = serde_json::from_str(&world.call(&endpoint).unwrap()).unwrap();
    late.wait_until_running(DEVICE, PATIENCE, world.cancel()).unwrap();
    let address = made["address"][0].as_str().unwrap_or_else(|| panic!("{made:#}"));
    let address = address.split('/').next().unwrap().parse().unwrap();
    let reaches = |world: &World| {
        let ping = perf::lab::traffic::ping::ping;
        ping(world.netns("a"), address, 1, 56, world.cancel()).unwrap().lost() == 0
    };
    assert!(reaches(&world));
    world.restart(End::Killed);
    late.wait_until_running(DEVICE, PATIENCE, world.cancel()).unwrap();
    eventually("it answers again", PATIENCE, || reaches(&world).then_some(()));
    let networks = world.show("networks");
    let names: Vec<_> = networks["networks"].as_array().unwrap().iter().collect();
    assert!(names.iter().any(|network| network["name"] == "more"), "{networks:#}");
    world.call(&["endpoint", "rm", "late"]).unwrap();
    assert_eq!(late.netlink(|netlink| netlink.link(DEVICE)).unwrap(), None);
    world.call(&["network", "rm", "more"]).unwrap();
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
}

#[test]
fn what_the_file_owns_is_not_removed() {
    let world = World::start(Plan::pair(""));
    let refused = world.call(&["endpoint", "rm", "a"]).unwrap_err();
    assert!(refused.contains('a') && refused.contains("file"), "{refused}");
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
}

#[test]
fn a_wrong_file_is_explained() {
    let mut world = World::start(Plan::pair(""));
    world.switch().configure("[[network]]\nnmae = \"web\"\n").unwrap();
    let refused = world.call(&["reload"]).unwrap_err();
    assert!(refused.contains("nmae") && refused.contains("name"), "{refused}");
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
}

#[test]
fn stopping_with_detach_removes_the_devices() {
    let world = World::start(Plan::pair(""));
    world.call(&["stop", "--detach"]).unwrap();
    for port in ["a", "b"] {
        let links = world.netlink(port, Netlink::links);
        assert_eq!(links.len(), 1, "only lo is left in {port}: {links:?}");
    }
}

#[test]
fn ports_show_what_they_carried() {
    let world = World::start(Plan::pair(""));
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let ports = world.show("ports");
    for port in ports["ports"].as_array().unwrap() {
        assert_eq!(port["state"], "serving");
        assert!(port["rx_packets"].as_u64().unwrap() >= 3, "{port}");
        assert!(port["tx_bytes"].as_u64().unwrap() >= 3 * (56 + 42), "{port}");
    }
}
