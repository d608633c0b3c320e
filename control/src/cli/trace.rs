//! `heddle trace`.

use serde_json::Value;

use super::args::Trace;
use super::client::Client;
use super::{Failure, print};
use crate::api::query;

/// Prints what the walks of packets tell, as they are walked.
pub(super) fn run(client: &Client, arguments: &Trace) -> Result<(), Failure> {
    let mut path = format!("/v1/trace?filter={}", query::encode(&arguments.filter.join(" ")));
    if let Some(count) = arguments.count {
        path.push_str(&format!("&count={count}"));
    }
    client.lines(&path, |line| {
        if arguments.json {
            return print(line);
        }
        let packet: Value = serde_json::from_str(line).unwrap_or_default();
        print(packet.get("text").and_then(Value::as_str).unwrap_or(line))
    })
}
