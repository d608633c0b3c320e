//! `heddle trace` of a running heddle.

use std::process::Stdio;

use serde_json::{Value, json};
use tests::{Family, Plan, World};

#[test]
fn the_walk_of_a_frame_is_told_step_by_step() {
    let world = World::start(Plan::pair(""));
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let packets = trace(&world, &["icmp", "--json", "--count", "2"]);
    let packets: Vec<Value> =
        packets.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(packets.len(), 2, "{packets:#?}");
    for (packet, from, to) in [(&packets[0], "a", "b"), (&packets[1], "b", "a")] {
        let steps = packet["steps"].as_array().unwrap();
        assert_eq!(steps[0]["step"], "entered");
        assert_eq!((&steps[0]["port"], &steps[0]["length"]), (&json!(from), &json!(98)));
        let rest = [
            json!({ "step": "admitted" }),
            json!({ "step": "station", "port": to }),
            json!({ "step": "decided", "verdict": "forward", "port": to }),
            json!({ "step": "emitted", "port": to }),
        ];
        assert_eq!(steps[1..], rest);
    }
    let text = trace(&world, &["icmp", "port", "b", "--count", "1"]);
    let last = text.lines().last().unwrap();
    assert_eq!(last, "  emit     by a", "{text}");
}

#[test]
fn a_client_that_is_killed_ends_its_trace() {
    let world = World::start(Plan::pair(""));
    let mut child = world.command(&["trace"]).stdout(Stdio::null()).spawn().unwrap();
    world.wait_until_watched("tracing", true);
    child.kill().unwrap();
    child.wait().unwrap();
    // A worker notices with its next batch.
    while world.show("workers")["workers"][0]["tracing"] == true {
        assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    }
}

/// Follows what is asked for while one port pings another; answers what was told.
fn trace(world: &World, arguments: &[&str]) -> String {
    let mut command = world.command(&["trace"]);
    let child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    world.wait_until_watched("tracing", true);
    assert_eq!(world.ping("a", "b", Family::V4).lost(), 0);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}
