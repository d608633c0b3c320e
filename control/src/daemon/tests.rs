use std::fs;

use dataplane::ids::SegmentId;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A heddle with memory ports only, in a directory of its own.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) directory: TempDir,
}

const WEB: &str = "[[network]]\nname = \"web\"\ndriver = \"bridge\"\nsubnets = [\"10.0.9.0/24\"]\n";

impl World {
    pub(crate) fn new(objects: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::start(directory, objects).unwrap()
    }

    fn start(directory: TempDir, objects: &str) -> Result<Self, Error> {
        configure(&directory, objects);
        let daemon = Daemon::start(&directory.path().join("heddle.toml"))?;
        Ok(Self { daemon, directory })
    }

    fn configure(&self, objects: &str) {
        configure(&self.directory, objects);
    }

    /// A heddle that finds what a crash of this one at this moment would leave on the disk.
    fn after_crash(&self, objects: &str) -> Result<Self, Error> {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        for entry in fs::read_dir(self.directory.path().join("state")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), state.join(entry.file_name())).unwrap();
        }
        Self::start(directory, objects)
    }

    /// All objects in force.
    fn objects(&self) -> Vec<Value> {
        let model = self.daemon.switch().inventory.model();
        let of = |kind, name: &String| self.daemon.inspect(kind, name).unwrap();
        let networks = model.networks.keys().map(|name| of(Kind::Network, name));
        networks.chain(model.endpoints.keys().map(|name| of(Kind::Endpoint, name))).collect()
    }

    fn endpoint(&self, name: &str) -> Value {
        self.daemon.inspect(Kind::Endpoint, name).unwrap()
    }
}

fn configure(directory: &TempDir, objects: &str) {
    let path = directory.path().display();
    let host = format!(
        "[host]\nstate = \"{path}/state\"\napi = \"{path}/heddle.sock\"\nmemory = \"64MiB\"\n"
    );
    fs::write(directory.path().join("heddle.toml"), format!("{host}{objects}")).unwrap();
}

fn port(name: &str) -> String {
    format!("[[port]]\nnetwork = \"web\"\nname = \"{name}\"\nkind = \"memory\"\n")
}

fn endpoint(name: &str) -> Value {
    json!({ "network": "web", "name": name, "kind": "memory" })
}

#[test]
fn what_was_made_is_there_after_a_crash() {
    let mut world = World::new(WEB);
    let network = json!({ "name": "db", "driver": "bridge", "subnets": ["10.1.0.0/24"] });
    world.daemon.create(Kind::Network, network).unwrap();
    let on_db = json!({ "name": "x", "network": "db", "kind": "memory" });
    assert_eq!(world.daemon.create(Kind::Endpoint, on_db).unwrap(), "x");
    world.daemon.create(Kind::Endpoint, endpoint("gone")).unwrap();
    let rests = world.endpoint("gone")["address"][0].clone();
    world.daemon.remove(Kind::Endpoint, "gone").unwrap();

    let mut next = world.after_crash(WEB).unwrap();
    assert_eq!(next.objects(), world.objects());
    assert_eq!(next.endpoint("x")["origin"], "api");
    assert_eq!(next.endpoint("x")["address"], json!(["10.1.0.2/24"]));
    next.daemon.create(Kind::Endpoint, endpoint("new")).unwrap();
    assert_ne!(next.endpoint("new")["address"][0], rests, "it did not rest");
}

#[test]
fn networks_are_plugged_in_at_run_time() {
    // A device that no machine has.
    let parent = "heddle-none0";
    let mut world = World::new(WEB);
    let vlan = json!({ "name": "ten", "driver": "vlan", "parent": parent, "vlan": 10 });
    world.daemon.create(Kind::Network, vlan).unwrap();
    let trunk = json!({ "name": "all", "driver": "vlan", "parent": parent, "trunk": [10, 20], "native": 1 });
    world.daemon.create(Kind::Network, trunk).unwrap();
    let behind = json!({ "name": "vm", "network": "all", "kind": "memory" });
    world.daemon.create(Kind::Endpoint, behind).unwrap();
    let again = json!({ "name": "again", "driver": "vlan", "parent": parent, "vlan": 10 });
    let refused = world.daemon.create(Kind::Network, again).unwrap_err().to_string();
    assert!(refused.contains("that is not network `ten`'s"), "{refused}");

    world.daemon.update(Kind::Network, "ten", json!({ "vlan": 11 })).unwrap();
    world.daemon.update(Kind::Network, "all", json!({ "native": null, "io": "af_xdp" })).unwrap();
    let all = world.daemon.inspect(Kind::Network, "all").unwrap();
    assert_eq!(
        (&all["trunk"], &all["native"], &all["io"]),
        (&json!([10, 20]), &json!(null), &json!("af_xdp"))
    );
    let model = world.daemon.switch().inventory.model();
    let uplink = &model.uplinks[parent];
    let vlans: Vec<bool> =
        [0, 1, 10, 11, 20].map(|vid| uplink.trunk.segment(vid) == SegmentId::NONE).to_vec();
    assert_eq!(vlans, [true, true, false, false, false]);
    assert_eq!(world.after_crash(WEB).unwrap().objects(), world.objects());

    world.daemon.remove(Kind::Endpoint, "vm").unwrap();
    world.daemon.remove(Kind::Network, "all").unwrap();
    world.daemon.remove(Kind::Network, "ten").unwrap();
    assert!(world.daemon.switch().inventory.model().uplinks.is_empty());
}

#[test]
fn the_file_owns_what_it_names() {
    let mut world = World::new(&format!("{WEB}{}", port("a")));
    let daemon = &mut world.daemon;
    let patch = json!({ "mtu": 9000 });
    let refused = daemon.update(Kind::Network, "web", patch).unwrap_err();
    assert!(matches!(refused, Error::OwnedByFile { kind: Kind::Network, .. }));
    let refused = daemon.remove(Kind::Endpoint, "a").unwrap_err();
    assert!(matches!(refused, Error::OwnedByFile { kind: Kind::Endpoint, .. }));
    let refused = daemon.create(Kind::Endpoint, endpoint("a")).unwrap_err();
    assert!(matches!(refused, Error::Exists { origin: Origin::File, .. }));

    world.daemon.create(Kind::Endpoint, endpoint("b")).unwrap();
    world.configure(&format!("{WEB}{}{}", port("a"), port("b")));
    let reloaded = world.daemon.reload().unwrap();
    assert_eq!(reloaded.left_out.len(), 1, "{reloaded:?}");
    assert_eq!(world.endpoint("b")["origin"], "file");
    world.configure(WEB);
    assert_eq!(world.daemon.reload().unwrap().removed, 1);
    assert_eq!(world.endpoint("b")["origin"], "api");
    assert!(world.daemon.inspect(Kind::Endpoint, "a").is_err());
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut world = World::new(WEB);
    let network = json!({ "name": "db", "driver": "bridge", "subnets": ["10.1.0.0/24"] });
    world.daemon.create(Kind::Network, network).unwrap();
    let fixed = json!({ "name": "x", "network": "db", "kind": "memory", "address": "10.1.0.9" });
    world.daemon.create(Kind::Endpoint, fixed).unwrap();
    let before = world.objects();

    let daemon = &mut world.daemon;
    let in_use = daemon.remove(Kind::Network, "db").unwrap_err();
    assert!(matches!(in_use, Error::InUse { endpoints, .. } if endpoints == ["x"]));
    let elsewhere = json!({ "subnets": ["10.2.0.0/24"] });
    let clash = daemon.update(Kind::Network, "db", elsewhere).unwrap_err();
    assert!(matches!(clash, Error::Clash { name, .. } if name == "x"));
    let renamed = daemon.update(Kind::Endpoint, "x", json!({ "name": "y" })).unwrap_err();
    assert!(matches!(renamed, Error::Renamed { .. }));
    let invalid = daemon.create(Kind::Endpoint, json!({ "colour": "red" })).unwrap_err();
    assert!(matches!(invalid, Error::Invalid { problems, .. } if problems.len() > 2));
    let taken = json!({ "name": "y", "network": "db", "kind": "memory", "address": "10.1.0.9" });
    assert!(daemon.create(Kind::Endpoint, taken).is_err());
    let unknown = daemon.update(Kind::Endpoint, "nobody", json!({})).unwrap_err();
    assert!(matches!(unknown, Error::NotFound { .. }));

    assert_eq!(world.objects(), before);
    assert_eq!(world.after_crash(WEB).unwrap().objects(), before);
}

#[test]
fn a_wrong_file_is_not_taken_up() {
    let mut world = World::new(&format!("{WEB}{}", port("a")));
    let before = world.objects();
    world.configure("[[network]]\nnane = \"web\"\n");
    let Err(Error::Config(report)) = world.daemon.reload() else { panic!("it was taken up") };
    assert!(report.to_string().contains("did you mean `name`?"), "{report}");
    assert_eq!(world.objects(), before);

    world.configure(&format!("{WEB}{}{}", port("a"), port("b")).replace("64MiB", "65MiB"));
    let reloaded = world.daemon.reload().unwrap();
    assert_eq!((reloaded.added, reloaded.changed, reloaded.removed), (1, 0, 0));
    assert_eq!(reloaded.needs_restart, [""; 0]);
    let path = world.directory.path().join("heddle.toml");
    let text = fs::read_to_string(&path).unwrap().replace("64MiB", "65MiB");
    fs::write(&path, text).unwrap();
    assert_eq!(world.daemon.reload().unwrap().needs_restart, ["host.memory"]);
}

#[test]
fn the_file_is_served_whatever_was_made_at_run_time() {
    let mut world = World::new(WEB);
    world.daemon.create(Kind::Endpoint, endpoint("x")).unwrap();
    let address = world.endpoint("x")["address"][0].as_str().unwrap().to_owned();
    // While heddle is down, the file comes to want the address.
    let wants = format!("{WEB}{}address = \"{address}\"\n", port("a"));
    let next = world.after_crash(&wants).unwrap();
    assert_eq!(next.endpoint("a")["address"], json!([address]));
    assert_ne!(next.endpoint("x")["address"], json!([address]));
    // Nor does one that rests keep the file from having it.
    world.daemon.remove(Kind::Endpoint, "x").unwrap();
    let next = world.after_crash(&wants).unwrap();
    assert_eq!(next.endpoint("a")["address"], json!([address]));
}

#[test]
fn what_finds_no_place_waits_and_keeps_nobody_from_changes() {
    let web = |prefix: u8| WEB.replace("/24", &format!("/{prefix}"));
    let mut world = World::new(&web(30));
    world.daemon.create(Kind::Endpoint, endpoint("x")).unwrap();
    let file = format!("{}{}address = \"10.0.9.2\"\n", web(30), port("a"));
    let mut next = world.after_crash(&file).unwrap();
    assert!(next.daemon.inspect(Kind::Endpoint, "x").is_err(), "two have one address");

    let network = json!({ "name": "db", "driver": "bridge", "subnets": ["10.1.0.0/24"] });
    next.daemon.create(Kind::Network, network).unwrap();
    let left_out = next.daemon.reload().unwrap().left_out;
    assert!(matches!(&left_out[..], [why] if why.contains("`x`") && why.contains("address")));
    let again = next.daemon.update(Kind::Endpoint, "x", json!({ "aliases": ["y"] })).unwrap_err();
    assert!(matches!(again, Error::Plan(_)), "{again}");

    next.configure(&format!("{}{}address = \"10.0.9.2\"\n", web(28), port("a")));
    assert!(next.daemon.reload().unwrap().left_out.is_empty());
    assert_eq!(next.endpoint("x")["origin"], "api");
}

#[test]
fn two_of_one_state_directory_are_refused() {
    let world = World::new(WEB);
    let second = Daemon::start(&world.directory.path().join("heddle.toml"));
    assert!(matches!(second.err(), Some(Error::Store(store::Error::InUse { .. }))));
}

#[derive(Debug, Clone)]
enum Step {
    Create(Kind, u8, u8),
    Update(Kind, u8, u8),
    Remove(Kind, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop_oneof![Just(Kind::Network), Just(Kind::Endpoint)];
    let (name, number) = (|| 0..4_u8, || 0..4_u8);
    prop_oneof![
        3 => (kind(), name(), number()).prop_map(|(k, n, x)| Step::Create(k, n, x)),
        1 => (kind(), name(), number()).prop_map(|(k, n, x)| Step::Update(k, n, x)),
        1 => (kind(), name()).prop_map(|(k, n)| Step::Remove(k, n)),
    ]
}

fn take(daemon: &mut Daemon, step: &Step) {
    let subnets = |x: u8| json!([format!("10.{x}.0.0/29"), format!("fd00:{x}::/64")]);
    // Much of it is refused, which must not show either.
    let _ = match step.clone() {
        Step::Create(Kind::Network, n, x) => {
            let body =
                json!({ "name": format!("n{n}"), "driver": "bridge", "subnets": subnets(x) });
            daemon.create(Kind::Network, body).map(drop)
        }
        Step::Create(Kind::Endpoint, n, x) => {
            let (name, network) = (format!("e{n}"), format!("n{x}"));
            let body = json!({ "name": name, "network": network, "kind": "memory" });
            daemon.create(Kind::Endpoint, body).map(drop)
        }
        Step::Update(Kind::Network, n, x) => {
            daemon.update(Kind::Network, &format!("n{n}"), json!({ "subnets": subnets(x) }))
        }
        Step::Update(Kind::Endpoint, n, x) => {
            let patch = json!({ "network": format!("n{x}") });
            daemon.update(Kind::Endpoint, &format!("e{n}"), patch)
        }
        Step::Remove(kind, n) => {
            let letter = if kind == Kind::Network { "n" } else { "e" };
            daemon.remove(kind, &format!("{letter}{n}"))
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_crash_at_any_moment_loses_nothing(steps in prop::collection::vec(step(), 1..17)) {
        let mut world = World::new("");
        for step in &steps {
            take(&mut world.daemon, step);
        }
        let next = world.after_crash("").unwrap();
        prop_assert_eq!(next.objects(), world.objects());
    }
}
