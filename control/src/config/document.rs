//! A document as a tree of values that know where they stand: what TOML and JSON have in common.
//!
//! The configuration file and the API's bodies become the same tree, so that one reader checks
//! both. Only the file has positions; a node from JSON stands nowhere.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of the text that a key or value takes; empty for what has no text.
pub(super) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// A key with its value, in the order of the text.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// `None` is a number that 64 bits don't hold.
    Integer(Option<i64>, String),
    Boolean(bool),
    /// What no key takes: its kind ("float", "datetime", "null") and its text.
    Other(&'static str, String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// One step from a table or list to what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way from the document's root to a value: `network[1].subnets[0]`, counted from zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<Step>);

impl Path {
    /// The way to the member `key` of what is here.
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The way to the `index`-th element of what is here.
    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// This path as seen from `root`.
    pub(super) fn under(self, root: &Self) -> Self {
        Self(root.0.iter().cloned().chain(self.0).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(&plain(key))?,
                Step::Key(key) => write!(f, ".{}", plain(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A key as TOML writes it: quoted if it is not made of letters, digits, `_` and `-`. Long ones
/// are cut, since they are only shown.
fn plain(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let short: String = key.chars().take(60).collect();
    if !key.is_empty() && key.chars().all(bare) { short } else { format!("{short:?}") }
}

impl Node {
    /// The tree of a parsed TOML document.
    pub(super) fn from_toml(root: Spanned<DeTable<'_>>) -> Self {
        let span = root.span();
        Self { span, value: table(root.into_inner()) }
    }

    /// The tree of a JSON value.
    pub(super) fn from_json(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Other("null", "null".to_owned()),
            Json::Bool(on) => Value::Boolean(on),
            Json::Number(number) if number.is_f64() => Value::Other("float", number.to_string()),
            Json::Number(number) => Value::Integer(number.as_i64(), number.to_string()),
            Json::String(text) => Value::Text(text),
            Json::Array(items) => Value::List(items.into_iter().map(Self::from_json).collect()),
            Json::Object(members) => Value::Table(members.into_iter().map(member).collect()),
        };
        Self { span: 0..0, value }
    }

    /// The kind of value, with its article, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "a string",
            Value::Integer(..) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::Other(kind, _) => kind,
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// The value as it would be written, shortened.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Text(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
            Value::Integer(_, text) => text.chars().take(80).collect(),
            Value::Other(kind, text) => format!("{kind} {text}").chars().take(80).collect(),
            Value::Boolean(on) => on.to_string(),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Table(_) => "a table".to_owned(),
        }
    }

    /// Where the value at `path` stands, or the nearest thing around it that exists; with `key`,
    /// where its key stands.
    pub(super) fn locate(&self, path: &Path, key: bool) -> Span {
        let (mut here, mut span) = (self, self.span.clone());
        for step in &path.0 {
            let Some((node, key_span)) = here.child(step) else { break };
            span = if key { key_span } else { node.span.clone() };
            here = node;
        }
        span
    }

    fn child(&self, step: &Step) -> Option<(&Self, Span)> {
        match (step, &self.value) {
            (Step::Key(key), Value::Table(entries)) => {
                let entry = entries.iter().find(|entry| entry.key == *key)?;
                Some((&entry.node, entry.key_span.clone()))
            }
            (Step::Index(index), Value::List(items)) => {
                let node = items.get(*index)?;
                Some((node, node.span.clone()))
            }
            _ => None,
        }
    }
}

fn table(table: DeTable<'_>) -> Value {
    let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| Entry {
        key_span: key.span(),
        key: key.into_inner().into_owned(),
        node: node(value),
    };
    let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Table(entries)
}

fn node(value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
            Value::Integer(value, number.to_string())
        }
        DeValue::Boolean(on) => Value::Boolean(on),
        DeValue::Float(number) => Value::Other("float", number.to_string()),
        DeValue::Datetime(time) => Value::Other("datetime", time.to_string()),
        DeValue::Array(items) => Value::List(items.into_iter().map(node).collect()),
        DeValue::Table(members) => table(members),
    };
    Node { span, value }
}

fn member((key, value): (String, serde_json::Value)) -> Entry {
    Entry { key, key_span: 0..0, node: Node::from_json(value) }
}
