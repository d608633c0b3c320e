//! The `[host]` table: what concerns the process as a whole.

use std::path::PathBuf;

use super::document::{Node, Path, Value};
use super::fields::Fields;
use super::report::Problem;
use super::schema;
use super::units::Size;
use super::values::{self, Mismatch};

/// Less memory than this does not hold the smallest arena and its tables.
pub const MEMORY_FLOOR: Size = Size(64 << 20);
/// A [`WorkerId`](dataplane::ids::WorkerId) has eight bits.
const MOST_WORKERS: usize = 255;

/// The process's own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What other hosts call this one; `None` is the kernel's host name.
    pub name: Option<String>,
    /// How many workers there are, and where.
    pub workers: Workers,
    /// The directory of what must survive a restart.
    pub state: PathBuf,
    /// The API's Unix socket.
    pub api: PathBuf,
    /// The budget for packet arenas and tables.
    pub memory: Size,
    /// The name of heddle's own namespace, where it keeps its ends of veths.
    pub netns: String,
}

/// The cores that workers are pinned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workers {
    /// heddle chooses, from the cores that it may use.
    Auto,
    /// One worker on each of these.
    Cores(Vec<usize>),
}

impl Default for Host {
    fn default() -> Self {
        Self {
            name: None,
            workers: Workers::Auto,
            state: PathBuf::from("/var/lib/heddle"),
            api: PathBuf::from("/run/heddle/heddle.sock"),
            memory: Size(512 << 20),
            netns: "heddle".to_owned(),
        }
    }
}

impl Host {
    /// Reads the table; what is not there or wrong keeps its default.
    pub(super) fn read(node: &Node, path: Path, problems: &mut Vec<Problem>) -> Self {
        let default = Self::default();
        let Some(mut fields) = Fields::open(node, path, &schema::HOST, problems) else {
            return default;
        };
        Self {
            name: fields.optional("name", values::name),
            workers: fields.optional("workers", workers).unwrap_or(default.workers),
            state: fields.optional("state", values::path).unwrap_or(default.state),
            api: fields.optional("api", values::path).unwrap_or(default.api),
            memory: fields.optional("memory", memory).unwrap_or(default.memory),
            netns: fields.optional("netns", values::name).unwrap_or(default.netns),
        }
    }
}

fn memory(node: &Node) -> Result<Size, Mismatch> {
    let size: Size = values::parsed("a size such as \"512MiB\"")(node)?;
    if size < MEMORY_FLOOR {
        return Err(Mismatch::value(format!("at least {MEMORY_FLOOR}"), "give heddle more memory"));
    }
    Ok(size)
}

fn workers(node: &Node) -> Result<Workers, Mismatch> {
    let expected = "\"auto\" or a list of different cores such as [2, 3]";
    let bad = |advice: &str| Mismatch::value(expected, advice);
    match &node.value {
        Value::Text(text) if text == "auto" => Ok(Workers::Auto),
        Value::Text(_) => Err(bad("")),
        Value::List(items) if items.is_empty() => Err(bad("name at least one core")),
        Value::List(items) if items.len() > MOST_WORKERS => Err(bad("255 workers are the most")),
        Value::List(items) => {
            let mut cores = Vec::with_capacity(items.len());
            for item in items {
                let core = core(item).ok_or_else(|| bad("a core is a number from 0 to 65535"))?;
                if cores.contains(&core) {
                    return Err(bad(&format!("name core {core} once")));
                }
                cores.push(core);
            }
            Ok(Workers::Cores(cores))
        }
        _ => Err(Mismatch::kind(expected)),
    }
}

fn core(node: &Node) -> Option<usize> {
    match node.value {
        Value::Integer(Some(value), _) => u16::try_from(value).ok().map(usize::from),
        _ => None,
    }
}
