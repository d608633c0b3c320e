//! Port kinds, and networks that are plugged into the world outside.

use dataplane::wire::vlan::Vid;

use super::refused::{memory, problems, refused};
use super::*;

/// A network `name` with the parent `eth1` and these further lines.
fn plugged(name: &str, driver: &str, lines: &str) -> String {
    format!("[[network]]\nname = \"{name}\"\ndriver = \"{driver}\"\nparent = \"eth1\"\n{lines}\n")
}

fn vids(numbers: &[u16]) -> Vec<Vid> {
    numbers.iter().filter_map(|&number| Vid::new(number)).collect()
}

/// What is expected in the place of the only thing that is wrong.
#[track_caller]
fn expected(text: &str, key: &str) -> String {
    let report = parse(text).expect_err("must be refused");
    let [problem] = &report.problems[..] else { panic!("{report}") };
    assert_eq!(
        (problem.key.to_string(), problem.kind),
        (key.to_owned(), Kind::Conflict),
        "{report}"
    );
    problem.expected.clone()
}

#[test]
fn kinds_of_ports_are_read() {
    let config = parse(FULL).unwrap();
    let veth = Device::Veth {
        netns: Netns::Name("db".to_owned()),
        name: "eth0".to_owned(),
        io: Io::AfXdp,
    };
    assert_eq!(config.ports[2].device, veth);
    let device = Device::Existing { netns: None, name: "vm0".to_owned(), io: Io::Auto };
    assert_eq!(config.ports[3].device, device);
    let elsewhere = &config.ports[4].device;
    assert_eq!(elsewhere.netns(), Some(&Netns::Path("/run/netns/router".into())));
    assert_eq!((elsewhere.name(), elsewhere.io()), (Some("wan"), Some(Io::AfPacket)));
    let kinds: Vec<&str> = config.ports.iter().map(|port| port.device.kind()).collect();
    assert_eq!(kinds, ["tap", "memory", "veth", "device", "device"]);
}

#[test]
fn parents_are_read() {
    let config = parse(FULL).unwrap();
    let [_, _, lan10, all, house] = &config.networks[..] else { panic!("five networks") };
    let parent = |device: &str, io, lan| Some(Parent { device: device.to_owned(), io, lan });
    let vid = Vid::new(10).unwrap();
    assert_eq!(lan10.parent, parent("eth1", Io::AfPacket, Lan::Vlan(vid)));
    let trunk = Trunk { tagged: vids(&[10, 20]), native: Vid::new(1) };
    assert_eq!(all.parent, parent("eth1", Io::Auto, Lan::Trunk(trunk)));
    assert_eq!(house.parent, parent("eth2", Io::Auto, Lan::Untagged));
    // What is behind a trunk has addresses of its own.
    assert!(lan10.anti_spoof && !all.anti_spoof && house.anti_spoof);
    // Nobody's first address is claimed.
    assert_eq!(lan10.subnets[0].gateway, None);
    assert_eq!(house.subnets[0].gateway, Some("192.168.57.11".parse().unwrap()));
    assert_eq!(house.subnets[1].gateway, None);
}

#[test]
fn default_routes_go_to_routers_before_gateways() {
    let config = parse(FULL).unwrap();
    let next_hops = |network: usize| -> Vec<String> {
        config.networks[network].next_hops().map(|address| address.to_string()).collect()
    };
    // Internal.
    assert_eq!(next_hops(0), [""; 0]);
    assert_eq!(next_hops(2), ["192.168.10.1"]);
    assert_eq!(next_hops(4), ["192.168.57.1", "fd00:57::1", "192.168.57.11"]);
    let alone = "[[network]]\nname = \"n\"\ndriver = \"bridge\"\nsubnets = \"10.0.9.0/24\"\n";
    let router = |reserved: &str| {
        let config = parse(&format!("{alone}reserved = {{ {reserved} }}")).unwrap();
        config.networks[0].next_hops().next().unwrap().to_string()
    };
    assert_eq!(router("r = \"10.0.9.9\""), "10.0.9.1");
    assert_eq!(router("router = \"10.0.9.9\""), "10.0.9.9");
    let text = format!("{alone}reserved = {{ router6 = \"10.0.9.9\" }}");
    assert!(expected(&text, "network[0].reserved.router6").starts_with("an IPv6 address"));
}

#[test]
fn keys_belong_to_their_drivers_and_kinds() {
    let refused = |text: &str, line, key: &str, kind| refused(text, line, 1, key, kind);
    for key in ["vlan = 10", "trunk = [10]", "native = 1"] {
        let name = key.split(' ').next().unwrap();
        let text = plugged("n", "bridge", key);
        refused(&text, 5, &format!("network[0].{name}"), Kind::Conflict);
    }
    refused(&plugged("n", "vlan", ""), 1, "network[0].vlan", Kind::MissingKey);
    let both = plugged("n", "vlan", "vlan = 10\ntrunk = [20]");
    refused(&both, 6, "network[0].trunk", Kind::Conflict);
    let native = plugged("n", "vlan", "vlan = 10\nnative = 1");
    refused(&native, 6, "network[0].native", Kind::Conflict);
    let alone = "[[network]]\nname = \"n\"\ndriver = \"bridge\"\nio = \"auto\"";
    refused(alone, 4, "network[0].io", Kind::Conflict);
    let nowhere = "[[network]]\nname = \"n\"\ndriver = \"vlan\"\nvlan = 10";
    refused(nowhere, 1, "network[0].parent", Kind::MissingKey);
    refused(&memory("io = \"auto\""), 10, "port[0].io", Kind::Conflict);
    let tap = memory("netns = \"n\"\nio = \"af_xdp\"").replace("\"memory\"", "\"tap\"");
    let problem = refused(&tap, 11, "port[0].io", Kind::Conflict);
    assert_eq!(problem.expected, "`io` only for kind = \"veth\" or \"device\"");
    let veth = memory("").replace("\"memory\"", "\"veth\"");
    refused(&veth, 6, "port[0].netns", Kind::MissingKey);
    let device = memory("").replace("\"memory\"", "\"device\"");
    refused(&device, 6, "port[0].device", Kind::MissingKey);
}

#[test]
fn vlans_have_numbers() {
    let wrong = |lines: &str, column, key: &str, kind| {
        let text = plugged("n", "vlan", lines);
        refused(&text, 5, column, &format!("network[0].{key}"), kind)
    };
    for vid in ["0", "4095", "-1", "65546"] {
        let problem = wrong(&format!("vlan = {vid}"), 8, "vlan", Kind::BadValue);
        assert_eq!(problem.expected, "an integer from 1 to 4094");
    }
    wrong("vlan = \"10\"", 8, "vlan", Kind::WrongType);
    wrong("trunk = []", 9, "trunk", Kind::BadValue);
    wrong("trunk = [10, 4095]", 14, "trunk[1]", Kind::BadValue);
    wrong("trunk = [10, 10]", 14, "trunk[1]", Kind::Conflict);
    wrong("trunk = [1, 10]\nnative = 1", 10, "trunk[0]", Kind::Conflict);
    wrong("subnets = [\"10.0.0.0/24\"]\ntrunk = [10]", 11, "subnets", Kind::Conflict);
    wrong("anti_spoof = true\ntrunk = [10]", 14, "anti_spoof", Kind::Conflict);
    let all: Vec<String> = (1..=4094).map(|vid| vid.to_string()).collect();
    let config = parse(&plugged("n", "vlan", &format!("trunk = [{}]", all.join(",")))).unwrap();
    assert_eq!(Network::from_json(config.networks[0].to_json()).as_ref(), Ok(&config.networks[0]));
}

#[test]
fn networks_of_one_parent_share_it_without_contradiction() {
    let house = plugged("house", "bridge", "");
    let (ten, one) = (plugged("ten", "vlan", "vlan = 10"), plugged("one", "vlan", "vlan = 1"));
    let trunk = plugged("trunk", "vlan", "trunk = [10, 20]\nnative = 1");
    let same = plugged("same", "vlan", "trunk = [20]\nnative = 1");
    for good in [[&house, &ten, &trunk, &same], [&one, &ten, &same, &trunk]] {
        parse(&good.map(String::as_str).concat()).unwrap();
    }
    let clash = |networks: &[&String], key: &str| {
        let text: String = networks.iter().map(|network| network.as_str()).collect();
        expected(&text, &format!("network[{}].{key}", networks.len() - 1))
    };
    let again = house.replace("house", "again");
    let words = clash(&[&house, &again], "parent");
    assert_eq!(words, "a parent other than eth1, whose untagged frames are network `house`'s");
    let words = clash(&[&ten, &ten.replace("\"ten\"", "\"more\"")], "vlan");
    assert_eq!(words, "a VLAN of eth1 that is not network `ten`'s");
    let words = clash(&[&trunk, &same.replace("native = 1", "native = 2")], "native");
    assert_eq!(words, "1, the native VLAN of eth1 by network `trunk`");
    // Two networks would be the native VLAN, whichever comes last.
    assert!(clash(&[&trunk, &one, &house], "parent").contains("(by `trunk`) is network `one`'s"));
    assert!(
        clash(&[&trunk, &house, &one], "vlan").contains("(by `trunk`), which is network `house`'s")
    );
    assert!(clash(&[&house, &one, &trunk], "native").contains("`one`'s, since the untagged"));
}

#[test]
fn who_says_how_a_parent_is_driven_agrees() {
    let network = |vid: u16, io: &str| {
        plugged(&format!("n{vid}"), "vlan", &format!("vlan = {vid}\nio = \"{io}\""))
    };
    let auto = network(1, "auto") + &network(2, "af_xdp") + &network(3, "auto");
    parse(&(auto.clone() + &network(4, "af_xdp"))).unwrap();
    let words = expected(&(auto + &network(4, "af_packet")), "network[3].io");
    assert_eq!(words, "`af_xdp`, as network `n2` drives eth1");
    let text = network(1, "udp");
    refused(&text, 6, 6, "network[0].io", Kind::BadValue);
}

#[test]
fn a_device_has_one_use() {
    let lan = plugged("lan", "bridge", "");
    let port = |name: &str, lines: &str| {
        format!("[[port]]\nnetwork = \"lan\"\nname = \"{name}\"\nkind = \"device\"\n{lines}\n")
    };
    let words = expected(&(lan.clone() + &port("p", "device = \"eth1\"")), "port[0].device");
    assert_eq!(words, "a device that is not the parent of network `lan`");
    let words = expected(&(lan.clone() + &port("eth1", "device = \"eth9\"")), "port[0].name");
    assert_eq!(words, "a name other than that of network `lan`'s parent");
    // In another namespace it is another device.
    parse(&(lan.clone() + &port("p", "device = \"eth1\"\nnetns = \"n\""))).unwrap();
    let twice = port("p", "device = \"a\"") + &port("q", "device = \"a\"");
    let words = expected(&(lan.clone() + &twice), "port[1].device");
    assert_eq!(words, "a device other than port `p` has in heddle's namespace");
    let mixed = port("p", "device = \"a\"\nnetns = \"n\"")
        + &port("q", "device = \"a\"\nnetns = \"n\"").replace("\"device\"", "\"veth\"");
    assert_eq!(problems(&(lan.clone() + &mixed)).len(), 1);

    // A network made at run time comes after the file's ports.
    let mut census = Census::default();
    let config = parse(&(lan + &port("p", "device = \"eth2\""))).unwrap();
    census.add_network(&config.networks[0]).unwrap();
    census.add_port(&config.ports[0]).unwrap();
    for (device, expected) in [("eth2", "not port `p`'s"), ("p", "not called like port `p`")] {
        let body = serde_json::json!({ "name": "n", "driver": "bridge", "parent": device });
        let problems = census.add_network(&Network::from_json(body).unwrap()).unwrap_err();
        assert!(problems[0].expected.contains(expected), "{problems:?}");
    }
}

#[test]
fn check_says_how_frames_look_outside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("heddle.toml");
    std::fs::write(&path, FULL).unwrap();
    let words = check(&path).unwrap().to_string();
    for line in [
        "parent eth1, mtu 1500, driven by af_packet\n  untagged vlan 1, trunk only\n  \
         tagged   vlan 10, lan10\n  tagged   vlan 20, trunk only\n",
        "parent eth2, mtu 1500, driven by auto\n  untagged house\n",
        "network lan10 (vlan 10 of eth1 by af_packet), mtu 1500",
        "subnet   192.168.10.0/24, no gateway",
        "reserved 192.168.10.1 for router, where default routes go",
        "network all (trunk of eth1: vlans 10, 20, native 1), mtu 1500",
        "network house (bridge, untagged on eth2), mtu 1500",
        "subnet   192.168.57.0/24, gateway 192.168.57.11, automatic addresses from 192.168.57.64/28",
        "port     db, veth eth0 in db by af_xdp, mac 02:42:c0:a8:0a:02, 192.168.10.2/24 (automatic)",
        "port     vm, device vm0, mac 06:",
        "port     router, device wan in /run/netns/router by af_packet, mac 06:",
    ] {
        assert!(words.contains(line), "{line}\nis not in\n{words}");
    }
}
