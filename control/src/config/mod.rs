//! The configuration: a TOML file, checked as a whole, with all its defaults filled in.
//!
//! Reading goes from low to high. The text becomes a tree that knows where each value stands;
//! the tree becomes typed objects, each checked for itself; a [`Census`] checks them beside each
//! other. What is wrong is collected on the way, so that one run reports all of it. The API's
//! JSON bodies take the same way.

mod census;
mod check;
mod device;
mod document;
mod fields;
mod host;
mod network;
mod parent;
mod parents;
mod port;
mod report;
mod schema;
mod subnet;
#[cfg(test)]
mod tests;
pub mod units;
mod values;

use std::io::{Error, ErrorKind, Read};
use std::path::Path as FilePath;

use toml::de::DeTable;

pub use census::{Census, MOST_OBJECTS};
pub use check::{Summary, check};
pub use device::{Device, Io, Netns};
pub use document::Path;
pub use host::{Host, MEMORY_FLOOR, Workers};
pub use network::{Driver, Network, Reserved};
pub use parent::{Lan, Parent, Trunk};
pub use port::{Address, BadAddress, Limits, Port};
pub use report::{Kind, Place, Problem, Report};
pub use subnet::Subnet;

use document::{Node, Value};
use fields::Fields;
use report::MOST_PROBLEMS;

/// A larger file is not read.
pub const MOST_BYTES: usize = 16 << 20;

/// A checked configuration: every reference resolves and every default is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The process's own settings.
    pub host: Host,
    /// In the order of the file.
    pub networks: Vec<Network>,
    /// In the order of the file.
    pub ports: Vec<Port>,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, or why it can't be read.
    pub fn load(path: &FilePath) -> Result<Self, Report> {
        let name = path.display().to_string();
        let text = read_text(path).map_err(|error| {
            let advice = "name a readable file with --config";
            let found = error.to_string();
            Report::whole(&name, Kind::Unreadable, found, "a TOML file in UTF-8", advice)
        })?;
        Self::parse(&text, &name)
    }

    /// Reads a configuration from its text; `file_name` is what messages call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Report> {
        if text.len() > MOST_BYTES {
            let (found, expected) = (format!("{} bytes", text.len()), "at most 16 MiB");
            return Err(Report::whole(file_name, Kind::BadValue, found, expected, ""));
        }
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let problems = errors.iter().map(syntax_problem).collect();
            return Err(Report::at(file_name, text, problems));
        }
        let root = Node::from_toml(root);
        let mut problems = Vec::new();
        let config = read(&root, &mut problems);
        if problems.is_empty() {
            return Ok(config);
        }
        Err(Report::new(file_name, text, &root, problems))
    }
}

impl Network {
    /// Reads a network as the API is given it: JSON with the keys of `[[network]]`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it alone; a [`Census`] says whether it fits the others.
    pub fn from_json(json: serde_json::Value) -> Result<Self, Vec<Problem>> {
        object(json, Self::read)
    }
}

impl Port {
    /// Reads an endpoint as the API is given it: JSON with the keys of `[[port]]`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it alone; a [`Census`] says whether it fits the others.
    pub fn from_json(json: serde_json::Value) -> Result<Self, Vec<Problem>> {
        object(json, Self::read)
    }
}

fn object<T>(
    json: serde_json::Value,
    read: impl Fn(&Node, Path, &mut Vec<Problem>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let mut problems = Vec::new();
    let object = read(&Node::from_json(json), Path::default(), &mut problems);
    object.ok_or(problems)
}

fn read_text(path: &FilePath) -> std::io::Result<String> {
    // One byte more than is allowed, to see that it is too long.
    let limit = u64::try_from(MOST_BYTES + 1).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > MOST_BYTES {
        return Err(Error::new(ErrorKind::FileTooLarge, "the file has more than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::new(ErrorKind::InvalidData, format!("a byte that is not UTF-8 at offset {at}"))
    })
}

fn syntax_problem(error: &toml::de::Error) -> (std::ops::Range<usize>, Problem) {
    let found = error.message().to_owned();
    let problem = Problem::new(Kind::Syntax, Path::default(), found, "valid TOML", "");
    (error.span().unwrap_or(0..0), problem)
}

/// Reads the whole tree; the result counts only if there is no problem.
fn read(root: &Node, problems: &mut Vec<Problem>) -> Config {
    // Checks the root's keys; what they hold is read below.
    Fields::open(root, Path::default(), &schema::ROOT, problems);
    let mut config = Config::default();
    if let Some(host) = member(root, "host") {
        config.host = Host::read(host, Path::default().key("host"), problems);
    }
    let mut census = Census::default();
    for (path, node) in objects(root, "network", problems) {
        if problems.len() >= MOST_PROBLEMS {
            return config;
        }
        match Network::read(node, path.clone(), problems) {
            Some(network) => {
                let fits = census.add_network(&network);
                extend(problems, &path, fits);
                config.networks.push(network);
            }
            None => census.refuse_network(name_of(node)),
        }
    }
    for (path, node) in objects(root, "port", problems) {
        if problems.len() >= MOST_PROBLEMS {
            return config;
        }
        if let Some(port) = Port::read(node, path.clone(), problems) {
            let fits = census.add_port(&port);
            extend(problems, &path, fits);
            config.ports.push(port);
        }
    }
    config
}

fn extend(problems: &mut Vec<Problem>, path: &Path, fits: Result<(), Vec<Problem>>) {
    let more = fits.err().unwrap_or_default();
    problems.extend(more.into_iter().map(|problem| problem.under(path)));
}

fn member<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Table(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

/// What a table calls itself, even if it is wrong.
fn name_of(node: &Node) -> &str {
    match member(node, "name").map(|node| &node.value) {
        Some(Value::Text(name)) => name,
        _ => "",
    }
}

/// The tables under `[[key]]`.
fn objects<'n>(root: &'n Node, key: &str, problems: &mut Vec<Problem>) -> Vec<(Path, &'n Node)> {
    let path = Path::default().key(key);
    let Some(node) = member(root, key) else { return Vec::new() };
    match &node.value {
        Value::List(items) => items.iter().enumerate().map(|(i, n)| (path.index(i), n)).collect(),
        _ => {
            let (expected, advice) = ("a list of tables", format!("write [[{key}]]"));
            problems.push(Problem::new(Kind::WrongType, path, node.kind(), expected, advice));
            Vec::new()
        }
    }
}
