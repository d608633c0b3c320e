//! The configuration as people write it: what is read, what is refused, and in which words.

mod outside;
mod refused;
mod robust;

use std::path::Path as FilePath;

use super::*;

/// Every key of this version.
const FULL: &str = r#"
[host]
name    = "host-a"
workers = [2, 3]
state   = "/tmp/heddle-a"
api     = "/tmp/heddle-a/api.sock"
memory  = "256MiB"

[[network]]
name       = "web"
driver     = "bridge"
subnets    = ["10.0.9.0/24", "fd00:9::/64"]
gateway    = "10.0.9.254"
gateway6   = "fd00:9::ff"
ip_range   = ["10.0.9.64/26"]
reserved   = { router = "10.0.9.9" }
internal   = true
isolated   = true
anti_spoof = false
mtu        = 9000
ageing     = "2m"
mac_limit  = 7

[[network]]
name   = "plain"
driver = "bridge"

[[network]]
name     = "lan10"
driver   = "vlan"
parent   = "eth1"
vlan     = 10
io       = "af_packet"
subnets  = ["192.168.10.0/24"]
reserved = { router = "192.168.10.1" }

[[network]]
name   = "all"
driver = "vlan"
parent = "eth1"
trunk  = [20, 10]
native = 1

[[network]]
name     = "house"
driver   = "bridge"
parent   = "eth2"
subnets  = ["192.168.57.0/24", "fd00:57::/64"]
gateway  = "192.168.57.11"
ip_range = "192.168.57.64/28"
reserved = { router = "192.168.57.1", router6 = "fd00:57::1" }

[[port]]
network = "web"
name    = "web-1"
kind    = "tap"
netns   = "web-1"
device  = "net0"
address = ["10.0.9.65/24", "fd00:9::65"]
mac     = "02:42:0a:00:09:41"
aliases = ["db", "db.local"]
limits  = { storm = "1000pps" }

[[port]]
network = "plain"
name    = "probe"
kind    = "memory"

[[port]]
network = "lan10"
name    = "db"
kind    = "veth"
netns   = "db"
io      = "af_xdp"

[[port]]
network = "all"
name    = "vm"
kind    = "device"
device  = "vm0"

[[port]]
network = "all"
name    = "router"
kind    = "device"
netns   = "/run/netns/router"
device  = "wan"
io      = "af_packet"
"#;

pub(super) fn parse(text: &str) -> Result<Config, Report> {
    Config::parse(text, "heddle.toml")
}

#[test]
fn every_key_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.host.workers, Workers::Cores(vec![2, 3]));
    assert_eq!(config.host.memory.bytes(), 256 << 20);
    let web = &config.networks[0];
    assert_eq!(web.subnets[0].gateway.unwrap().to_string(), "10.0.9.254");
    assert_eq!(web.subnets[0].range.to_string(), "10.0.9.64/26");
    assert_eq!(web.subnets[1].gateway.unwrap().to_string(), "fd00:9::ff");
    assert_eq!(web.subnets[1].range, web.subnets[1].prefix);
    assert_eq!(web.reserved[0].name, "router");
    assert!(web.internal && web.isolated && !web.anti_spoof);
    assert_eq!((web.mtu.bytes(), web.mac_limit), (9000, 7));
    assert_eq!(web.ageing, units::Interval::from_secs(120));
    let port = &config.ports[0];
    let tap = Device::Tap { netns: Netns::Name("web-1".into()), name: "net0".into() };
    assert_eq!(port.device, tap);
    assert_eq!(port.addresses[0].to_string(), "10.0.9.65/24");
    assert_eq!(port.addresses[1].to_string(), "fd00:9::65");
    assert_eq!(port.mac.unwrap().to_string(), "02:42:0a:00:09:41");
    assert_eq!(port.aliases, ["db", "db.local"]);
    assert_eq!(port.limits.storm, Some(units::PacketRate(1000)));
}

#[test]
fn defaults_are_filled_in() {
    let text = "[[network]]\nname = \"n\"\ndriver = \"bridge\"\nsubnets = \"10.1.0.0/16\"\nmtu = \"auto\"\n\
                [[port]]\nnetwork = \"n\"\nname = \"p\"\nkind = \"tap\"\nnetns = \"/run/netns/p\"";
    let config = parse(text).unwrap();
    assert_eq!(config.host, Host::default());
    let network = &config.networks[0];
    assert_eq!(network.subnets[0].gateway.unwrap().to_string(), "10.1.0.1");
    assert!(network.anti_spoof && !network.internal && !network.isolated);
    assert_eq!((network.mtu.bytes(), network.mac_limit), (1500, 1024));
    let netns = Netns::Path("/run/netns/p".into());
    assert_eq!(config.ports[0].device, Device::Tap { netns, name: "eth0".into() });
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn different_networks_may_use_the_same_addresses() {
    let network = |name: &str| {
        format!(
            "[[network]]\nname = \"{name}\"\ndriver = \"bridge\"\nsubnets = [\"10.0.0.0/24\"]\n"
        )
    };
    let port = |name: &str, network: &str| {
        format!(
            "[[port]]\nnetwork = \"{network}\"\nname = \"{name}\"\nkind = \"memory\"\n\
             address = \"10.0.0.2\"\nmac = \"02:00:00:00:00:01\"\n"
        )
    };
    let text = [network("a"), network("b"), port("p", "a"), port("q", "b")].concat();
    assert_eq!(parse(&text).unwrap().ports.len(), 2);
}

#[test]
fn json_bodies_read_back() {
    let config = parse(FULL).unwrap();
    for network in &config.networks {
        assert_eq!(Network::from_json(network.to_json()).as_ref(), Ok(network));
    }
    for port in &config.ports {
        assert_eq!(Port::from_json(port.to_json()).as_ref(), Ok(port));
    }
}

#[test]
fn json_bodies_are_checked_like_the_file() {
    let body = serde_json::json!({ "name": "n", "driver": "bridge", "subnet": ["10.0.0.0/24"], "mtu": 1.5 });
    let problems = Network::from_json(body).unwrap_err();
    let words: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert!(
        words[0].contains("subnet: unknown key") && words[0].contains("`subnets`"),
        "{words:?}"
    );
    assert!(words[1].starts_with("mtu: wrong type: found float 1.5"), "{words:?}");
    assert!(Network::from_json(serde_json::json!([])).is_err());
    assert!(Port::from_json(serde_json::json!({})).unwrap_err().len() == 3);
}

#[test]
fn check_explains_what_there_would_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("heddle.toml");
    std::fs::write(&path, FULL).unwrap();
    let words = check(&path).unwrap().to_string();
    for line in [
        "5 networks, 5 ports",
        "network web (bridge), mtu 9000; internal: no way out; isolated",
        "subnet   10.0.9.0/24, gateway 10.0.9.254, automatic addresses from 10.0.9.64/26",
        "reserved 10.0.9.9 for router",
        "learns   up to 7 addresses per port, kept for 2m",
        "port     web-1, tap net0 in web-1, mac 02:42:0a:00:09:41, 10.0.9.65/24, fd00:9::65/64",
        "no subnets",
    ] {
        assert!(words.contains(line), "{line}\nis not in\n{words}");
    }
    std::fs::write(&path, FULL.replace("10.0.9.64/26", "10.0.9.65/32")).unwrap();
    assert!(check(&path).is_ok());
    let automatic = FULL.replace("address = [\"10.0.9.65/24\", \"fd00:9::65\"]", "");
    std::fs::write(&path, automatic.replace("\"10.0.9.64/26\"", "\"10.0.9.9/32\"")).unwrap();
    let report = check(&path).unwrap_err().to_string();
    assert!(report.contains("no address is left in 10.0.9.9/32"), "{report}");
    assert_eq!(
        check(FilePath::new("/nonexistent")).unwrap_err().problems[0].kind,
        Kind::Unreadable
    );
}
