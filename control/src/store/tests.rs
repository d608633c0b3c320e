//! Durability is tried with a process that is killed while it writes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use super::*;

/// Set for the process that is to be killed: the directory that it writes to.
const WRITER: &str = "HEDDLE_TEST_STORE_WRITER";

fn lease(network: &str, address: &str, owner: &str, rests: Option<u64>) -> Record {
    let rests_until = rests.map(Duration::from_secs);
    let lease = Some(Lease { owner: owner.to_owned(), rests_until });
    Record { network: network.to_owned(), address: address.parse().unwrap(), lease }
}

#[test]
fn what_is_written_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/of/heddle");
    let leases = vec![
        lease("lan", "10.0.9.2", "a", None),
        lease("lan", "10.0.9.3", "b", Some(1_800_000_000)),
        lease("web", "fd00:9::2", "a", None),
    ];
    let network = Stored::Network(json!({ "name": "web", "driver": "bridge" }));
    let endpoint = Stored::Endpoint(json!({ "name": "web", "network": "web" }));
    let edits = [Edit::Put(network.clone()), Edit::Put(endpoint.clone())];
    Store::open(&path).unwrap().write(&leases, &edits).unwrap();
    let store = Store::open(&path).unwrap();
    let objects = vec![network, endpoint.clone()];
    assert_eq!(store.load().unwrap(), State { leases: leases.clone(), objects, sites: Vec::new() });

    let gone = Record { lease: None, ..leases[1].clone() };
    store.write(&[gone], &[Edit::RemoveNetwork("web".into())]).unwrap();
    let state = store.load().unwrap();
    assert_eq!(state.leases, [leases[0].clone(), leases[2].clone()]);
    assert_eq!(state.objects, [endpoint]);
}

#[test]
fn a_device_is_known_until_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let site = |name: &str, alias: &str| {
        let (netns, name, alias) = ("web-1".into(), name.to_owned(), alias.to_owned());
        Site { netns, name, alias }
    };
    let (first, other, next) = (site("eth0", "a"), site("eth1", "a"), site("eth0", "b"));
    store.write(&[], &[Edit::Occupy(first.clone()), Edit::Occupy(other.clone())]).unwrap();
    assert_eq!(store.load().unwrap().sites, [first.clone(), other.clone()]);
    store.write(&[], &[Edit::Occupy(next.clone())]).unwrap();
    store.write(&[], &[Edit::Vacate(first), Edit::Vacate(other)]).unwrap();
    assert_eq!(store.load().unwrap().sites, [next]);
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Store::open(directory.path()).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(Error::InUse { .. })));
}

#[test]
fn a_later_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.transaction(|write| Ok(write.open_table(META)?.insert("format", 7).map(drop)?)).unwrap();
    drop(store);
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 7, .. }));
    assert!(error.to_string().contains(FILE_NAME));
}

#[test]
fn what_is_no_database_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    for content in [&b"not a database"[..], &[0; 4_096], &[0xff; 65_537]] {
        fs::write(directory.path().join(FILE_NAME), content).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(FILE_NAME));
    }
}

/// A flipped bit anywhere is either refused, or in a place that holds nothing.
#[test]
fn a_damaged_file_is_never_half_believed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let leases: Vec<Record> =
        (2..69).map(|host| lease("lan", &format!("10.0.9.{host}"), "owner", None)).collect();
    store.write(&leases, &[]).unwrap();
    drop(store);
    let path = directory.path().join(FILE_NAME);
    let good = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|&at| good[at] != 0).collect();
    let mut refused = 0;
    for &at in used.iter().step_by(used.len().div_ceil(67)) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&path, &bad).unwrap();
        match Store::open(directory.path()).and_then(|store| store.load()) {
            Ok(state) => assert_eq!(state.leases.len(), leases.len(), "byte {at}"),
            Err(error) => {
                assert!(error.to_string().contains(FILE_NAME), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// In the child, writes until it is killed. In the parent, kills children at different moments
/// and finds everything that they had acknowledged.
#[test]
fn a_killed_writer_loses_nothing_acknowledged() {
    if let Some(directory) = std::env::var_os(WRITER) {
        return write_for_ever(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 1..=5 {
        acknowledged.extend(kill_after(directory.path(), round * 7));
        let state = Store::open(directory.path()).unwrap().load().unwrap();
        let leases: BTreeSet<u64> =
            state.leases.iter().map(|r| r.lease.as_ref().unwrap().owner.parse().unwrap()).collect();
        let objects: BTreeSet<u64> =
            state.objects.iter().map(|stored| stored.name().parse().unwrap()).collect();
        assert!(acknowledged.is_subset(&leases), "round {round}");
        // Each write holds one of both: all or nothing.
        assert_eq!(leases, objects);
    }
    assert!(acknowledged.len() >= 7 + 14 + 21 + 28 + 35);
}

/// Runs a writer, kills it after `count` acknowledgements, and returns those that it gave.
fn kill_after(directory: &Path, count: usize) -> Vec<u64> {
    let name = "store::tests::a_killed_writer_loses_nothing_acknowledged";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(WRITER, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        || lines.find_map(|line| Some(line.ok()?.rsplit_once("stored ")?.1.parse().ok()));
    let mut acknowledged: Vec<u64> = (0..count).filter_map(|_| next().flatten()).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(std::iter::from_fn(|| next().flatten()));
    acknowledged
}

fn write_for_ever(directory: &Path) {
    let store = Store::open(directory).unwrap();
    let first = u64::try_from(store.load().unwrap().leases.len()).unwrap();
    // Bounded, in case that nobody kills it.
    for number in first..first + 100_000 {
        let owner = number.to_string();
        let address = std::net::Ipv6Addr::from_bits((0xfd << 120) | u128::from(number));
        let object = Stored::Network(json!({ "name": owner }));
        let record = lease("lan", &address.to_string(), &owner, None);
        store.write(&[record], &[Edit::Put(object)]).unwrap();
        let mut out = std::io::stdout().lock();
        if writeln!(out, "stored {number}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
