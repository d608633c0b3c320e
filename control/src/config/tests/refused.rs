//! Mistakes, one by one: where each is said to be, and in which words.

use super::*;

/// What a configuration is refused for: line, column, key and kind of each problem.
pub(super) fn problems(text: &str) -> Vec<(usize, usize, String, Kind)> {
    let report = parse(text).expect_err("must be refused");
    let place = |problem: &Problem| {
        let place = problem.place.as_ref().unwrap();
        (place.line, place.column, problem.key.to_string(), problem.kind)
    };
    report.problems.iter().map(place).collect()
}

/// Puts `lines` into the first network of an otherwise good configuration, as its fourth line
/// and on.
fn network(lines: &str) -> String {
    format!(
        "[[network]]\nname = \"web\"\ndriver = \"bridge\"\n{lines}\n\
         [[network]]\nname = \"other\"\ndriver = \"bridge\"\nsubnets = [\"10.7.0.0/24\"]\n"
    )
}

/// Puts `lines` into a port of a good network, as its ninth line and on.
fn port(lines: &str) -> String {
    format!(
        "[[network]]\nname = \"web\"\ndriver = \"bridge\"\n\
         subnets = [\"10.0.9.0/24\", \"fd00:9::/64\"]\nreserved = {{ r = \"10.0.9.9\" }}\n\
         [[port]]\nname = \"p\"\nnetwork = \"web\"\n{lines}"
    )
}

/// Puts `lines` into a memory port of a good network, as its tenth line and on.
pub(super) fn memory(lines: &str) -> String {
    port(&format!("kind = \"memory\"\n{lines}"))
}

#[track_caller]
pub(super) fn refused(text: &str, line: usize, column: usize, key: &str, kind: Kind) -> Problem {
    assert_eq!(problems(text), [(line, column, key.to_owned(), kind)], "{text}");
    parse(text).unwrap_err().problems.remove(0)
}

#[test]
fn a_report_looks_like_a_compilers() {
    let text = network("subnets = [\"10.0.9.0/24\", \"10.0.9.3/24\"]\nmtu_ = 1500");
    assert_eq!(
        parse(&text).unwrap_err().to_string(),
        "\
error: network[0].subnets[1]: bad value
  --> heddle.toml:4:27
  |
4 | subnets = [\"10.0.9.0/24\", \"10.0.9.3/24\"]
  |                           ^^^^^^^^^^^^^
  = found: \"10.0.9.3/24\"
  = expected: a prefix without host bits
  = help: write \"10.0.9.0/24\"

error: network[0].mtu_: unknown key
  --> heddle.toml:5:1
  |
5 | mtu_ = 1500
  | ^^^^
  = found: \"mtu_\"
  = expected: a key of [[network]]
  = help: did you mean `mtu`?

2 errors in heddle.toml"
    );
}

#[test]
fn keys_of_later_versions_are_not_unknown() {
    for key in ["vni = 1", "encrypted = true", "unknown_neighbor = \"drop\""] {
        let name = key.split(' ').next().unwrap();
        let problem =
            refused(&network(key), 4, 1, &format!("network[0].{name}"), Kind::NotSupported);
        assert!(problem.to_string().contains("not supported by this version"));
    }
    refused("[underlay]\ndevice = \"eth0\"", 1, 2, "underlay", Kind::NotSupported);
    refused("[[peer]]\nname = \"b\"", 1, 3, "peer", Kind::NotSupported);
    refused("[host]\nmetrics = \"x\"", 2, 1, "host.metrics", Kind::NotSupported);
    let text = port("kind = \"memory\"\nlimits = { rate = \"1Gbps\" }");
    refused(&text, 10, 12, "port[0].limits.rate", Kind::NotSupported);
    let text = "[[network]]\nname = \"n\"\ndriver = \"overlay\"";
    refused(text, 3, 10, "network[0].driver", Kind::NotSupported);
    let text = port("kind = \"memory\"\nacl = [\"allow any\"]");
    refused(&text, 10, 1, "port[0].acl", Kind::NotSupported);
}

#[test]
fn types_units_and_ranges() {
    let web = |line: &str, column, key: &str, kind| {
        refused(&network(line), 4, column, &format!("network[0].{key}"), kind)
    };
    web("internal = \"yes\"", 12, "internal", Kind::WrongType);
    web("subnets = [1]", 12, "subnets[0]", Kind::WrongType);
    web("subnets = [\"10.0.9.0\"]", 12, "subnets[0]", Kind::BadValue);
    web("subnets = [\"224.0.0.0/4\"]", 12, "subnets[0]", Kind::BadValue);
    web("subnets = [\"0.0.0.0/0\"]", 12, "subnets[0]", Kind::BadValue);
    web("subnets = [\"fe80::/64\"]", 12, "subnets[0]", Kind::BadValue);
    web("mtu = 67", 7, "mtu", Kind::BadValue);
    web("mtu = 65536", 7, "mtu", Kind::BadValue);
    web("mtu = 99999999999999999999999", 7, "mtu", Kind::BadValue);
    web("mtu = -1", 7, "mtu", Kind::BadValue);
    web("mtu = \"big\"", 7, "mtu", Kind::WrongType);
    web("ageing = \"0s\"", 10, "ageing", Kind::BadValue);
    web("mac_limit = 0", 13, "mac_limit", Kind::BadValue);
    web("reserved = [\"10.0.0.1\"]", 12, "reserved", Kind::WrongType);
    let problem = web("ageing = \"300\"", 10, "ageing", Kind::BadValue);
    assert!(problem.advice.contains("has no unit"));
    refused("[host]\nmemory = \"63MiB\"", 2, 10, "host.memory", Kind::BadValue);
    refused("[host]\nstate = \"var\"", 2, 9, "host.state", Kind::BadValue);
    refused("[host]\nworkers = [1, 1]", 2, 11, "host.workers", Kind::BadValue);
    refused("[host]\nname = \"a b\"", 2, 8, "host.name", Kind::BadValue);
    refused("host = 1", 1, 8, "host", Kind::WrongType);
    refused("[network]\nname = \"n\"", 1, 1, "network", Kind::WrongType);
    refused("network = [1]", 1, 12, "network[0]", Kind::WrongType);
}

#[test]
fn subnets_gateways_and_ranges_fit_together() {
    let web = |lines: &str, line, column, key: &str| {
        refused(&network(lines), line, column, &format!("network[0].{key}"), Kind::Conflict)
    };
    web("subnets = [\"10.0.0.0/16\", \"10.0.9.0/24\"]", 4, 27, "subnets[1]");
    let with = |line: &str| format!("subnets = [\"10.0.9.0/24\", \"fd00::/64\"]\n{line}");
    web(&with("gateway = \"10.0.8.1\""), 5, 11, "gateway");
    web(&with("gateway = \"10.0.9.0\""), 5, 11, "gateway");
    web(&with("gateway = \"10.0.9.255\""), 5, 11, "gateway");
    web(&with("gateway = \"fd00::1\""), 5, 11, "gateway");
    web(&with("gateway = [\"10.0.9.1\", \"10.0.9.2\"]"), 5, 24, "gateway[1]");
    web(&with("gateway6 = \"fd00::\""), 5, 12, "gateway6");
    web(&with("ip_range = \"10.0.8.0/26\""), 5, 12, "ip_range");
    web(&with("ip_range = \"10.0.0.0/16\""), 5, 12, "ip_range");
    web(&with("reserved = { a = \"10.0.9.1\" }"), 5, 18, "reserved.a");
    web(&with("reserved = { a = \"10.0.8.1\" }"), 5, 18, "reserved.a");
    web(&with("reserved = { a = \"10.0.9.3\", b = \"10.0.9.3\" }"), 5, 34, "reserved.b");
    web(&with("mtu = 1279"), 5, 7, "mtu");
}

#[test]
fn ports_fit_their_network() {
    let wrong = |line: &str, column, key: &str, kind| {
        refused(&memory(line), 10, column, &format!("port[0].{key}"), kind)
    };
    let address = |value: &str| {
        wrong(&format!("address = \"{value}\""), 11, "address", Kind::Conflict);
    };
    for value in ["10.0.8.1", "10.0.9.1/24", "10.0.9.0", "10.0.9.255", "10.0.9.9", "10.0.9.7/25"] {
        address(value);
    }
    for value in ["fd00:9::", "fd00:9::1/64", "fd00:8::2"] {
        address(value);
    }
    wrong("address = \"10.0.9\"", 11, "address", Kind::BadValue);
    let twice = "address = [\"10.0.9.2\", \"10.0.9.2/24\"]";
    wrong(twice, 24, "address[1]", Kind::Conflict);
    wrong("mac = \"01:00:00:00:00:00\"", 7, "mac", Kind::BadValue);
    wrong("mac = \"00:00:00:00:00:00\"", 7, "mac", Kind::BadValue);
    wrong("netns = \"x\"", 1, "netns", Kind::Conflict);
    wrong("limits = { storm = \"0pps\" }", 20, "limits.storm", Kind::BadValue);
    let missing = refused(&port("kind = \"tap\""), 6, 1, "port[0].netns", Kind::MissingKey);
    assert!(missing.advice.contains("add `netns`"));
    for device in ["", "sixteen-bytes-xx", "a/b", "..", "a b"] {
        let text = port(&format!("kind = \"tap\"\nnetns = \"n\"\ndevice = \"{device}\""));
        refused(&text, 11, 10, "port[0].device", Kind::BadValue);
    }
}

#[test]
fn names_addresses_and_devices_are_unique() {
    let twice = |one: &str, other: &str| {
        let second = format!("\n[[port]]\nnetwork = \"web\"\n{other}");
        problems(&(port(one) + &second))
    };
    let a = "kind = \"tap\"\nnetns = \"n\"\naddress = \"10.0.9.2\"\nmac = \"02:00:00:00:00:01\"";
    let found = twice(a, &format!("name = \"p\"\n{a}"));
    let keys: Vec<&str> = found.iter().map(|(_, _, key, _)| &**key).collect();
    // Where there is no `device`, the port itself is shown.
    assert_eq!(keys, ["port[1].device", "port[1].name", "port[1].address", "port[1].mac"]);
    assert!(found.iter().all(|(.., kind)| *kind == Kind::Conflict));
    let again = "[[network]]\nname = \"n\"\ndriver = \"bridge\"\n".repeat(2);
    refused(&again, 5, 8, "network[1].name", Kind::Conflict);
}

#[test]
fn a_network_that_is_not_there_is_guessed() {
    let text = port("kind = \"memory\"").replace("network = \"web\"", "network = \"wed\"");
    let problem = refused(&text, 8, 11, "port[0].network", Kind::Conflict);
    assert_eq!(problem.advice, "did you mean `web`?");
    // Ports of a network that is wrong itself are not blamed.
    let text = port("kind = \"memory\"").replace("[\"10.0.9.0/24\"", "[\"10.0.9.0/33\"");
    assert!(problems(&text).iter().all(|(_, _, key, _)| key.starts_with("network[0]")));
}

#[test]
fn broken_toml_is_placed_too() {
    let found = problems("[host]\nname = \"a\nmemory = 1 1\n[host]\n");
    assert!(found.iter().all(|(.., kind)| *kind == Kind::Syntax), "{found:?}");
    assert!(found.len() >= 2 && found[0].0 == 2, "{found:?}");
    refused("[host]\nname = \"a\"\nname = \"b\"", 3, 1, "", Kind::Syntax);
}

#[test]
fn there_is_an_end_to_everything() {
    let many = "[[network]]\nname = \"n\"\n".repeat(257);
    let report = parse(&many).unwrap_err();
    assert_eq!((report.problems.len(), report.omitted), (50, 207));
    assert!(report.to_string().ends_with("are not shown"));
    let hostile =
        format!("[host]\n{}", (0..100_003).map(|n| format!("k{n}=1\n")).collect::<String>());
    assert!(parse(&hostile).unwrap_err().to_string().ends_with("are not shown"));
    let hostile = format!("[[network]]\nsubnets = [{}]", "1,".repeat(100_003));
    assert!(parse(&hostile).unwrap_err().to_string().contains("at least 1000 errors"));
    let long = " ".repeat(MOST_BYTES + 1);
    assert!(parse(&long).unwrap_err().to_string().contains("16 MiB"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.toml");
    std::fs::write(&path, long).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("16 MiB"));
    std::fs::write(&path, b"# \xff").unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("offset 2"));
}

#[test]
fn objects_are_counted() {
    let body = serde_json::json!({ "name": "n", "driver": "bridge" });
    let template = Network::from_json(body).unwrap();
    let mut census = Census::default();
    for number in 0..MOST_OBJECTS {
        census.add_network(&Network { name: number.to_string(), ..template.clone() }).unwrap();
    }
    let problems = census.add_network(&template).unwrap_err();
    assert!(problems[0].to_string().contains("at most 65000 networks"));
}
