//! Another program's opinion on the same ways.

use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tests::{Family, PATIENCE, Plan, World, eventually};

#[test]
fn tcp_moves_everything() {
    let world = World::start(Plan::pair(""));
    for family in Family::BOTH {
        for further in [&["-P", "1"][..], &["-P", "4", "-R"]] {
            let report = iperf3(&world, family, &[&["-n", "20M"], further].concat());
            let [sent, received] = ["sum_sent", "sum_received"]
                .map(|sum| report["end"][sum]["bytes"].as_u64().unwrap());
            // It ends with the last byte sent, wherever that is at the moment.
            assert!(
                sent >= 20_000_000 && received > sent / 2,
                "{family:?} {further:?}: {received}"
            );
        }
    }
}

#[test]
fn udp_loses_nothing_at_a_modest_rate() {
    let world = World::start(Plan::pair(""));
    for family in Family::BOTH {
        let report = iperf3(&world, family, &["-u", "-b", "20M", "-l", "1400", "-t", "1"]);
        let sum = &report["end"]["sum"];
        let (packets, lost) = (sum["packets"].as_u64().unwrap(), sum["lost_packets"].as_u64());
        assert!(packets > 1000 && lost == Some(0), "{family:?}: {sum}");
    }
}

/// The report of a run from container `a` to a server in `b`.
fn iperf3(world: &World, family: Family, arguments: &[&str]) -> Value {
    let address = world.plan().address("b", family).to_string();
    let mut server = Server(start(world, "b", &["-s", "-1", "-B", &address]));
    let report = eventually("iperf3's server listens", PATIENCE, || {
        let client = start(world, "a", &[&["-c", &address, "-J"], arguments].concat());
        let Output { stdout, .. } = client.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&stdout).unwrap();
        let refused = report["error"].as_str().is_some_and(|e| e.contains("refused"));
        (!refused).then_some(report)
    });
    assert_eq!(report["error"], Value::Null);
    assert!(server.0.wait().unwrap().success());
    report
}

fn start(world: &World, port: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new("iperf3");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let started = world.netns(port).run(|| command.spawn()).unwrap();
    started.unwrap_or_else(|error| panic!("iperf3 is not installed: {error}"))
}

/// Ends with the test, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
