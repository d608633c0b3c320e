//! `heddle show`.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::args::Show;
use super::client::Client;
use super::{Failure, print};
use crate::show::Topic;

/// How often a watched table is drawn again.
const WATCH: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its first place.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows a topic once, or again and again.
pub(super) fn run(client: &Client, arguments: &Show) -> Result<(), Failure> {
    let topic = Topic::from(arguments.topic);
    let mut path = format!("/v1/{}", topic.name());
    if let Some(limit) = arguments.limit {
        path.push_str(&format!("?limit={limit}"));
    }
    let clears = arguments.watch && !arguments.json && std::io::stdout().is_terminal();
    loop {
        let body = client.fetch(&path)?;
        let text = match (arguments.json, arguments.watch) {
            (true, true) => body.to_string(),
            (true, false) => pretty(&body)?,
            (false, _) => text(topic, body)?,
        };
        print(if clears { format!("{CLEAR}{text}") } else { text })?;
        if !arguments.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH);
    }
}

/// A body of the API as a table.
pub(super) fn text(topic: Topic, body: Value) -> Result<String, Failure> {
    topic.text(body).map_err(|error| {
        Failure::failed(format!("heddle is of another version than this command: {error}"))
    })
}

/// JSON for people who read JSON.
pub(super) fn pretty(body: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(body).map_err(|error| Failure::failed(error.to_string()))
}
