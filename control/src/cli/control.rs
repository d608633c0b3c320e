//! `heddle reload` and `heddle stop`.

use hyper::Method;
use serde_json::json;

use super::client::Client;
use super::show::pretty;
use super::{Failure, print};
use crate::daemon::Reloaded;

/// Has the changed configuration taken up, and says what came of it.
pub(super) fn reload(client: &Client, json: bool) -> Result<(), Failure> {
    let body = client.call(Method::POST, "/v1/reload", None)?;
    if json {
        return print(pretty(&body)?);
    }
    let reloaded: Reloaded = serde_json::from_value(body)
        .map_err(|error| Failure::failed(format!("heddle is of another version: {error}")))?;
    print(text(&reloaded))
}

/// Has heddle stop, and waits for its end.
pub(super) fn stop(client: &Client, detach: bool) -> Result<(), Failure> {
    client.call(Method::POST, "/v1/stop", Some(&json!({ "detach": detach })))?;
    client.wait_until_gone()
}

fn text(reloaded: &Reloaded) -> String {
    let Reloaded { added, changed, removed, left_out, needs_restart } = reloaded;
    let mut lines = vec![format!("reloaded: {added} added, {changed} changed, {removed} removed")];
    lines.extend(left_out.iter().map(|sentence| format!("note: {sentence}")));
    let restart = needs_restart.iter();
    lines.extend(restart.map(|key| format!("note: `{key}` counts from the next start of heddle")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_what_changed_and_what_did_not() {
        let reloaded = Reloaded {
            added: 2,
            removed: 1,
            needs_restart: vec!["host.memory".to_owned()],
            ..Reloaded::default()
        };
        let expected = "reloaded: 2 added, 0 changed, 1 removed\n\
                        note: `host.memory` counts from the next start of heddle";
        assert_eq!(text(&reloaded), expected);
    }
}
