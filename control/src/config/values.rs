//! Readers of single values: what a key may hold, and how a wrong value is described.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use dataplane::ids::MacAddr;
use ipnet::IpNet;

use super::document::{Node, Path, Value};
use super::report::{Kind, Problem};
use super::schema;

/// Why a value is not what its key takes.
#[derive(Debug)]
pub(super) struct Mismatch {
    kind: Kind,
    expected: String,
    advice: String,
}

impl Mismatch {
    /// A value of another type than `expected`.
    pub(super) fn kind(expected: impl Into<String>) -> Self {
        Self { kind: Kind::WrongType, expected: expected.into(), advice: String::new() }
    }

    /// A value of the right type that is not `expected`.
    pub(super) fn value(expected: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { kind: Kind::BadValue, expected: expected.into(), advice: advice.into() }
    }

    /// The problem with `node`, which stands at `path`.
    pub(super) fn at(self, path: Path, node: &Node) -> Problem {
        let found = match self.kind {
            Kind::WrongType => format!("{} ({})", node.shown(), node.kind()),
            _ => node.shown(),
        };
        Problem::new(self.kind, path, found, self.expected, self.advice)
    }
}

/// A string as it is.
fn string<'n>(node: &'n Node, expected: &str) -> Result<&'n str, Mismatch> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(Mismatch::kind(expected)),
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, Mismatch> {
    match node.value {
        Value::Boolean(on) => Ok(on),
        _ => Err(Mismatch::kind("true or false, without quotes")),
    }
}

/// An integer within `range`.
pub(super) fn integer(range: RangeInclusive<u32>) -> impl Fn(&Node) -> Result<u32, Mismatch> {
    move |node| {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let Value::Integer(value, _) = node.value else { return Err(Mismatch::kind(expected)) };
        let value = value.and_then(|value| u32::try_from(value).ok());
        value.filter(|value| range.contains(value)).ok_or_else(|| Mismatch::value(expected, ""))
    }
}

/// `"auto"`, which is `None`, or what `read` understands.
pub(super) fn auto<T>(
    read: impl Fn(&Node) -> Result<T, Mismatch>,
) -> impl Fn(&Node) -> Result<Option<T>, Mismatch> {
    move |node| match &node.value {
        Value::Text(text) if text == "auto" => Ok(None),
        _ => read(node).map(Some).map_err(|mismatch| Mismatch {
            expected: format!("\"auto\" or {}", mismatch.expected),
            ..mismatch
        }),
    }
}

/// A string that `T` can be read from; the parser's words become the advice.
pub(super) fn parsed<T>(expected: &'static str) -> impl Fn(&Node) -> Result<T, Mismatch>
where
    T: FromStr<Err: Display>,
{
    move |node| {
        let text = string(node, expected)?;
        text.parse().map_err(|error: T::Err| Mismatch::value(expected, error.to_string()))
    }
}

/// A name: letters, digits, `_`, `.` and `-`, at most 63, the first a letter or digit. It is
/// used in file names, DNS labels and messages.
pub(super) fn name(node: &Node) -> Result<String, Mismatch> {
    let expected = "a name of at most 63 letters, digits, `_`, `.` or `-`, \
                    of which the first is a letter or digit";
    let text = string(node, expected)?;
    is_name(text).then(|| text.to_owned()).ok_or_else(|| Mismatch::value(expected, ""))
}

pub(super) fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && text.len() <= 63 && text.bytes().all(good)
}

/// The name of a network device: what the kernel's `dev_valid_name` allows, without the `%` that
/// its templates use.
pub(super) fn device(node: &Node) -> Result<String, Mismatch> {
    let expected = "a device name of 1 to 15 bytes without spaces, `/`, `:` and `%`";
    let text = string(node, expected)?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c);
    let good = matches!(text.len(), 1..=15) && text != "." && text != ".." && !text.contains(bad);
    good.then(|| text.to_owned()).ok_or_else(|| Mismatch::value(expected, ""))
}

/// An absolute path.
pub(super) fn path(node: &Node) -> Result<PathBuf, Mismatch> {
    let expected = "an absolute path";
    let text = string(node, expected)?;
    let good = text.starts_with('/') && !text.contains('\0');
    good.then(|| PathBuf::from(text)).ok_or_else(|| Mismatch::value(expected, "start it with `/`"))
}

/// A subnet or range: a prefix whose host bits are zero.
pub(super) fn prefix(node: &Node) -> Result<IpNet, Mismatch> {
    let expected = "a prefix such as \"10.0.9.0/24\" or \"fd00:9::/64\"";
    let prefix: IpNet = parsed(expected)(node)?;
    if prefix == prefix.trunc() {
        return Ok(prefix);
    }
    Err(Mismatch::value("a prefix without host bits", format!("write \"{}\"", prefix.trunc())))
}

pub(super) fn address(node: &Node) -> Result<IpAddr, Mismatch> {
    parsed("an address such as \"10.0.9.1\" or \"fd00:9::1\"")(node)
}

/// The address of one station.
pub(super) fn mac(node: &Node) -> Result<MacAddr, Mismatch> {
    let mac: MacAddr = parsed("a MAC address such as \"02:42:0a:00:09:41\"")(node)?;
    if mac.is_group() || mac.is_zero() {
        let advice = "group addresses (an odd first octet) and zero name no station";
        return Err(Mismatch::value("a unicast MAC address", advice));
    }
    Ok(mac)
}

/// One of several words; those in `later` belong to a later version.
pub(super) fn choice<T: Copy>(
    choices: &'static [(&'static str, T)],
    later: &'static [&'static str],
) -> impl Fn(&Node) -> Result<T, Mismatch> {
    move |node| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = format!("one of {}", words.join(", "));
        let text = string(node, &expected)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        if later.contains(&text) {
            let advice = "use a version of heddle that knows it".to_owned();
            return Err(Mismatch { kind: Kind::NotSupported, expected, advice });
        }
        let nearest = schema::nearest(text, words.into_iter());
        Err(Mismatch::value(expected, nearest.map_or(String::new(), did_you_mean)))
    }
}

fn did_you_mean(word: &str) -> String {
    format!("did you mean \"{word}\"?")
}
