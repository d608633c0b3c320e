//! Reads the members of one table, and notes everything that is wrong with them.

use super::document::{Entry, Node, Path, Value};
use super::report::{Kind, MOST_PROBLEMS, Problem};
use super::schema::Schema;
use super::values::Mismatch;

/// A table that is being read. What is missing or wrong becomes a problem, and reading goes on.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: Path,
    schema: &'static Schema,
    entries: &'a [Entry],
    problems: &'a mut Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// The members of `node`, of which keys outside `schema` are problems. `None` if it is no
    /// table, which is one too.
    pub(super) fn open(
        node: &'a Node,
        path: Path,
        schema: &'static Schema,
        problems: &'a mut Vec<Problem>,
    ) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            problems.push(not_a_table(node, path, schema));
            return None;
        };
        let mut fields = Self { path, schema, entries, problems };
        fields.refuse_unknown();
        Some(fields)
    }

    fn refuse_unknown(&mut self) {
        let strangers = self.entries.iter().filter(|e| !self.schema.keys.contains(&&*e.key));
        for entry in strangers {
            let path = self.path.key(&entry.key);
            self.problem(stranger(self.schema, path, &entry.key));
        }
    }

    /// The member `key`, where `read` understands it.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, Mismatch>,
    ) -> Option<T> {
        let path = self.path.key(key);
        match read(self.node(key)?) {
            Ok(value) => Some(value),
            Err(mismatch) => {
                let node = self.node(key)?;
                self.problem(mismatch.at(path, node));
                None
            }
        }
    }

    /// The member `key`, whose absence is a problem too.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        read: impl Fn(&Node) -> Result<T, Mismatch>,
    ) -> Option<T> {
        if self.node(key).is_none() {
            self.missing(key, expected);
        }
        self.optional(key, read)
    }

    /// The member `key`, one value or a list of them. Elements that `read` does not understand
    /// are problems and left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, Mismatch>,
    ) -> Vec<(Path, T)> {
        let path = self.path.key(key);
        let Some(node) = self.node(key) else { return Vec::new() };
        let items: Vec<(Path, &Node)> = match &node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(i, n)| (path.index(i), n)).collect()
            }
            _ => vec![(path, node)],
        };
        self.each(items, read)
    }

    /// The members of the table `key`, whose keys are free. Those whose value `read` does not
    /// understand are problems and left out.
    pub(super) fn members<T>(
        &mut self,
        key: &'static str,
        example: &'static str,
        read: impl Fn(&Node) -> Result<T, Mismatch>,
    ) -> Vec<(Path, T, &'a str)> {
        let path = self.path.key(key);
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Table(entries) = &node.value else {
            let mismatch = Mismatch::kind(format!("a table such as {example}"));
            self.problem(mismatch.at(path, node));
            return Vec::new();
        };
        let mut values = Vec::new();
        for entry in entries {
            let items = vec![(path.key(&entry.key), &entry.node)];
            let read = self.each(items, &read);
            values.extend(read.into_iter().map(|(path, value)| (path, value, &*entry.key)));
        }
        values
    }

    fn each<T>(
        &mut self,
        items: Vec<(Path, &Node)>,
        read: impl Fn(&Node) -> Result<T, Mismatch>,
    ) -> Vec<(Path, T)> {
        let mut values = Vec::with_capacity(items.len());
        for (path, node) in items {
            match read(node) {
                Ok(value) => values.push((path, value)),
                Err(mismatch) => self.problem(mismatch.at(path, node)),
            }
        }
        values
    }

    /// The table `key` of its own schema.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        schema: &'static Schema,
    ) -> Option<Fields<'_>> {
        let path = self.path.key(key);
        let node = self.node(key)?;
        Fields::open(node, path, schema, self.problems)
    }

    /// Whether the member is there at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// The way to the member `key`.
    pub(super) fn path(&self, key: &str) -> Path {
        self.path.key(key)
    }

    /// Notes that `key` is not there.
    pub(super) fn missing(&mut self, key: &'static str, expected: &'static str) {
        let advice = format!("add `{key}` to {}", self.schema.title);
        let path = self.path.key(key);
        self.problem(Problem::new(Kind::MissingKey, path, "nothing", expected, advice));
    }

    /// Notes that `key` is there, `beside` something with which it makes no sense, since it is
    /// only `whereto`.
    pub(super) fn refuse(&mut self, key: &'static str, beside: &str, whereto: &str) {
        let found = format!("`{key}` {beside}");
        let (expected, advice) = (format!("`{key}` only {whereto}"), format!("remove `{key}`"));
        let path = self.path.key(key);
        self.problem(Problem::new(Kind::Conflict, path, found, expected, advice).of_key());
    }

    /// Notes a problem found while the values were put together.
    pub(super) fn problem(&mut self, problem: Problem) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// How many problems there are so far, of this and earlier tables.
    pub(super) fn problems(&self) -> usize {
        self.problems.len()
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }
}

fn not_a_table(node: &Node, path: Path, schema: &Schema) -> Problem {
    let expected = format!("a table with the keys {}", schema.keys.join(", "));
    Problem::new(Kind::WrongType, path, node.kind(), expected, "")
}

/// The problem with a key that is not one of this version's.
fn stranger(schema: &'static Schema, path: Path, key: &str) -> Problem {
    let title = schema.title;
    let found: String = key.chars().take(60).collect();
    if schema.later.contains(&key) {
        let advice = format!("remove `{found}`, or use a version of heddle that knows it");
        let expected = format!("only keys that this version knows in {title}");
        return Problem::new(Kind::NotSupported, path, format!("`{found}`"), expected, advice)
            .of_key();
    }
    let advice = match schema.nearest(key) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the keys of {title} are {}", schema.keys.join(", ")),
    };
    let expected = format!("a key of {title}");
    Problem::new(Kind::UnknownKey, path, format!("{found:?}"), expected, advice)
}
