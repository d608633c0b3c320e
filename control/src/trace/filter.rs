//! The words of `heddle trace [FILTER]`, and of `heddle capture PORT [FILTER]`.
//!
//! ```text
//! FILTER     = CONDITION { ["and"] CONDITION }
//! CONDITION  = "port" NAME | "mac" MAC | "host" ADDRESS | "l4" "port" NUMBER
//!            | "arp" | "ip" | "ip6" | "tcp" | "udp" | "icmp" | "icmp6"
//! ```

use std::fmt::Display;
use std::str::FromStr;

use dataplane::memory::Kind;
use dataplane::wire::protocol;
use pipelines::filter::Filter;
use thiserror::Error;

use crate::model::Model;

/// Why words are no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// A word that begins no condition.
    #[error("`{0}` begins no condition: expected {ALLOWED}")]
    Unknown(String),
    /// A condition without its value.
    #[error("`{word}` is followed by nothing: expected {expected}")]
    Missing {
        /// The condition.
        word: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A value that is not what its condition takes.
    #[error("`{word} {found}`: expected {expected}")]
    Value {
        /// The condition.
        word: String,
        /// The value.
        found: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A port that there is not.
    #[error("there is no port `{0}`: `heddle show ports` lists them")]
    NoPort(String),
    /// Two conditions that no packet meets, or one that says what another one has said.
    #[error("`{0}` can't hold beside the conditions before it: all of them must hold at once")]
    Contradiction(String),
}

const ALLOWED: &str = "`port NAME`, `mac MAC`, `host ADDRESS`, `l4 port NUMBER`, `arp`, `ip`, \
                       `ip6`, `tcp`, `udp`, `icmp` or `icmp6`";

/// Reads a filter: all its conditions must hold. No words let everything through.
///
/// # Errors
///
/// [`FilterError`] for the first word that is wrong.
pub fn parse_filter<S: AsRef<str>>(words: &[S], model: &Model) -> Result<Filter, FilterError> {
    let words: Vec<&str> = words.iter().flat_map(|part| part.as_ref().split_whitespace()).collect();
    let mut reader = Reader { words: words.into_iter(), model, filter: Filter::default() };
    let mut first = true;
    while let Some(word) = reader.words.next() {
        match word {
            "and" if !first => {
                let missing = || FilterError::Missing { word: word.into(), expected: ALLOWED };
                let next = reader.words.next().ok_or_else(missing)?;
                reader.condition(next)?;
            }
            _ => reader.condition(word)?,
        }
        first = false;
    }
    Ok(reader.filter)
}

struct Reader<'a> {
    words: std::vec::IntoIter<&'a str>,
    model: &'a Model,
    filter: Filter,
}

impl<'a> Reader<'a> {
    fn condition(&mut self, word: &'a str) -> Result<(), FilterError> {
        match word {
            "port" => {
                let name = self.text(word, "the name of a port")?;
                let port = self.model.port(name);
                let port = port.ok_or_else(|| FilterError::NoPort(name.to_owned()))?;
                set(&mut self.filter.port, port, word)
            }
            "mac" => {
                let mac = self.value(word, "a MAC address like 02:42:0a:00:09:41")?;
                set(&mut self.filter.mac, mac, word)
            }
            "host" => {
                let host = self.value(word, "an IPv4 or IPv6 address")?;
                set(&mut self.filter.host, host, word)
            }
            "l4" => self.l4_port(),
            "arp" => self.kind(Kind::Arp, word),
            "ip" => self.kind(Kind::Ipv4, word),
            "ip6" => self.kind(Kind::Ipv6, word),
            "tcp" => self.protocol(protocol::TCP, word),
            "udp" => self.protocol(protocol::UDP, word),
            "icmp" => self.protocol(protocol::ICMP, word),
            "icmp6" => self.protocol(protocol::ICMPV6, word),
            other => Err(FilterError::Unknown(other.to_owned())),
        }
    }

    fn l4_port(&mut self) -> Result<(), FilterError> {
        const EXPECTED: &str = "`l4 port NUMBER`, from 0 to 65535";
        match self.text("l4", EXPECTED)? {
            "port" => {
                let port = self.value("l4 port", EXPECTED)?;
                set(&mut self.filter.l4_port, port, "l4 port")
            }
            found => Err(wrong("l4", found, EXPECTED)),
        }
    }

    fn kind(&mut self, kind: Kind, word: &str) -> Result<(), FilterError> {
        set(&mut self.filter.kind, kind, word)?;
        self.agree(word)
    }

    fn protocol(&mut self, protocol: u8, word: &str) -> Result<(), FilterError> {
        set(&mut self.filter.protocol, protocol, word)?;
        self.agree(word)
    }

    /// ARP carries no IP protocol, and each ICMP belongs to one IP.
    fn agree(&self, word: &str) -> Result<(), FilterError> {
        match (self.filter.kind, self.filter.protocol) {
            (Some(Kind::Arp), Some(_))
            | (Some(Kind::Ipv4), Some(protocol::ICMPV6))
            | (Some(Kind::Ipv6), Some(protocol::ICMP)) => {
                Err(FilterError::Contradiction(word.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn text(&mut self, word: &str, expected: &'static str) -> Result<&'a str, FilterError> {
        self.words.next().ok_or_else(|| FilterError::Missing { word: word.to_owned(), expected })
    }

    fn value<T: FromStr>(&mut self, word: &str, expected: &'static str) -> Result<T, FilterError> {
        let found = self.text(word, expected)?;
        found.parse().map_err(|_| wrong(word, found, expected))
    }
}

/// Sets a condition, once.
fn set<T>(condition: &mut Option<T>, value: T, word: impl Display) -> Result<(), FilterError> {
    match condition.replace(value) {
        None => Ok(()),
        Some(_) => Err(FilterError::Contradiction(word.to_string())),
    }
}

fn wrong(word: &str, found: &str, expected: &'static str) -> FilterError {
    FilterError::Value { word: word.to_owned(), found: found.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::ids::MacAddr;

    use super::*;
    use crate::config::Config;
    use crate::model::{Desired, Inventory};

    fn model() -> Model {
        let text = "[[network]]\nname = \"web\"\ndriver = \"bridge\"\n\
                    [[port]]\nnetwork = \"web\"\nname = \"web-1\"\nkind = \"memory\"\n";
        let (desired, _) = Desired::new(&Config::parse(text, "heddle.toml").unwrap(), &[]);
        let plan = Inventory::default().plan(&desired, Duration::ZERO).unwrap();
        plan.next.model().clone()
    }

    fn parse(text: &str) -> Result<Filter, FilterError> {
        parse_filter(&[text], &model())
    }

    #[test]
    fn conditions_are_read() {
        let any = Filter::default();
        let port = model().endpoints["web-1"].id;
        for (text, filter) in [
            ("", any),
            ("port web-1", Filter { port: Some(port), ..any }),
            (
                "mac 02:42:0a:00:09:41",
                Filter { mac: Some(MacAddr([2, 0x42, 10, 0, 9, 65])), ..any },
            ),
            ("host 10.0.9.65", Filter { host: Some([10, 0, 9, 65].into()), ..any }),
            ("host fd00::1", Filter { host: Some("fd00::1".parse().unwrap()), ..any }),
            ("arp", Filter { kind: Some(Kind::Arp), ..any }),
            ("ip and udp", Filter { kind: Some(Kind::Ipv4), protocol: Some(17), ..any }),
            ("tcp l4 port 443", Filter { protocol: Some(6), l4_port: Some(443), ..any }),
            ("icmp6 ip6", Filter { kind: Some(Kind::Ipv6), protocol: Some(58), ..any }),
            ("icmp", Filter { protocol: Some(1), ..any }),
        ] {
            assert_eq!(parse(text), Ok(filter), "{text}");
        }
        assert_eq!(parse_filter(&["port", "web-1"], &model()), parse("port web-1"));
    }

    #[test]
    fn mistakes_say_what_is_allowed() {
        for (text, message) in [
            ("web-1", "`web-1` begins no condition: expected `port NAME`, `mac MAC`,"),
            ("and tcp", "`and` begins no condition: expected `port NAME`"),
            ("tcp and", "`and` is followed by nothing: expected `port NAME`"),
            ("port", "`port` is followed by nothing: expected the name of a port"),
            ("port web-9", "there is no port `web-9`: `heddle show ports` lists them"),
            ("mac 02:42", "`mac 02:42`: expected a MAC address like"),
            ("host 10.0.9", "`host 10.0.9`: expected an IPv4 or IPv6 address"),
            ("l4 443", "`l4 443`: expected `l4 port NUMBER`"),
            ("l4 port 65536", "`l4 port 65536`: expected `l4 port NUMBER`, from 0 to 65535"),
            ("tcp udp", "`udp` can't hold beside the conditions before it"),
            ("arp tcp", "`tcp` can't hold beside the conditions before it"),
            ("icmp6 ip", "`ip` can't hold beside"),
            ("arp arp", "`arp` can't hold beside"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
