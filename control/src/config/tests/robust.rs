//! Nothing that is read makes the reader panic.

use proptest::prelude::*;

use super::*;

/// One change to a text.
#[derive(Debug, Clone)]
enum Mutation {
    /// Puts a fragment at a place.
    Insert(usize, String),
    /// Removes some characters.
    Remove(usize, usize),
    /// Copies a line to another place.
    Copy(usize, usize),
    /// Replaces the value of a line.
    Value(usize, String),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = || 0..FULL.chars().count();
    let line = || 0..FULL.lines().count();
    let fragment = prop_oneof![
        "[\\[\\]{}=\"',.#\n\u{0}é0-9a-z]{1,8}",
        Just("[[network]]\n".to_owned()),
        Just("[[port]]\n".to_owned()),
        Just("\"\"\"".to_owned()),
    ];
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "\"[ -~]{0,40}\"",
        "\"[0-9a-f:./]{0,24}\"",
        "\"[0-9]{1,20}(s|ms|KiB|pps|h1m)?\"",
        Just("[]".to_owned()),
        Just("[[], {}]".to_owned()),
        Just("{ a.b = 1 }".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("true".to_owned()),
    ];
    prop_oneof![
        (place(), fragment).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (place(), 1_usize..20).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (line(), line()).prop_map(|(from, to)| Mutation::Copy(from, to)),
        (line(), value).prop_map(|(line, value)| Mutation::Value(line, value)),
    ]
}

fn mutate(text: &str, mutation: &Mutation) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match mutation {
        Mutation::Insert(at, fragment) => {
            let (before, after): (String, String) =
                (text.chars().take(*at).collect(), text.chars().skip(*at).collect());
            return before + fragment + &after;
        }
        Mutation::Remove(at, count) => {
            let kept = text.chars().enumerate().filter(|(i, _)| !(*at..at + count).contains(i));
            return kept.map(|(_, c)| c).collect();
        }
        Mutation::Copy(from, to) => {
            let line = lines.get(*from).cloned().unwrap_or_default();
            lines.insert((*to).min(lines.len()), line);
        }
        Mutation::Value(at, value) => {
            let key = lines.get(*at).and_then(|line| line.split_once('='));
            if let Some(key) = key.map(|(key, _)| key.to_owned()) {
                lines[*at] = format!("{key}= {value}");
            }
        }
    }
    lines.join("\n")
}

/// Reads a text and looks at all of what comes of it.
fn explore(text: &str) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(config) => {
            for network in &config.networks {
                prop_assert_eq!(Network::from_json(network.to_json()), Ok(network.clone()));
            }
            for port in &config.ports {
                prop_assert_eq!(Port::from_json(port.to_json()), Ok(port.clone()));
            }
        }
        Err(report) => {
            prop_assert!(!report.problems.is_empty());
            prop_assert!(report.to_string().contains("heddle.toml:"));
            let lines = text.split('\n').count();
            for place in report.problems.iter().filter_map(|problem| problem.place.as_ref()) {
                prop_assert!((1..=lines).contains(&place.line));
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn mutated_configurations(mutations in prop::collection::vec(mutation(), 1..7)) {
        let text = mutations.iter().fold(FULL.to_owned(), |text, mutation| mutate(&text, mutation));
        explore(&text)?;
    }

    #[test]
    fn any_text(text: String) {
        explore(&text)?;
    }

    #[test]
    fn any_json(name: String, number: i64, text: String) {
        let body = serde_json::json!({
            "name": name, "driver": text, "mtu": number, "subnets": [text, number, null],
            "network": name, "kind": text, "reserved": { text: number },
        });
        prop_assert!(Network::from_json(body.clone()).is_err());
        prop_assert!(Port::from_json(body).is_err());
    }
}
