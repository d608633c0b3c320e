//! `heddle trace`: what traced walks tell, as lines for people and as JSON for programs.
//!
//! A walk knows numbers; here they get the names that the model has for them.

mod filter;
mod head;

use std::collections::HashMap;
use std::fmt;

use dataplane::drops::Reason;
use dataplane::ids::{PortId, SegmentId};
use dataplane::memory::Kind;
use dataplane::pipeline::Verdict;
use dataplane::time::Nanos;
use pipelines::drops;
use pipelines::fdb::Learned;
use pipelines::trace::Told;
use pipelines::trunk::Tagging;
use serde_json::{Value, json};

use crate::model::Model;

pub use filter::{FilterError, parse_filter};
pub(crate) use head::Head;

/// The names of ports and networks, by number, as they are at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    ports: HashMap<PortId, String>,
    networks: HashMap<SegmentId, String>,
    /// The segment of each endpoint.
    places: HashMap<PortId, SegmentId>,
}

impl Names {
    /// Those of `model`.
    pub fn of(model: &Model) -> Self {
        Self {
            ports: model.ports().map(|(id, name)| (id, name.to_owned())).collect(),
            networks: model.segments(),
            places: model.endpoints.values().map(|e| (e.id, e.segment)).collect(),
        }
    }

    /// A port's name; `port 7` if it has none any more.
    pub fn port(&self, port: PortId) -> String {
        self.ports.get(&port).cloned().unwrap_or_else(|| format!("port {port}"))
    }

    /// A network's name; `network 7` if it has none any more.
    pub fn network(&self, segment: SegmentId) -> String {
        self.networks.get(&segment).cloned().unwrap_or_else(|| format!("network {segment}"))
    }

    /// The name of the network that a port is in, if it is in one.
    fn network_of(&self, port: PortId) -> Option<String> {
        let place = self.places.get(&port).filter(|segment| **segment != SegmentId::NONE);
        place.map(|&segment| self.network(segment))
    }
}

/// One thing that a walk has told, with names. Its `Display` is one line: a frame that enters stands
/// at the left, what happened to it is indented below.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// What was told.
    pub told: &'a Told,
    /// The names to use.
    pub names: &'a Names,
}

impl Line<'_> {
    /// The same as an object with a `step` and what belongs to it.
    pub fn to_json(&self) -> Value {
        let names = self.names;
        match *self.told {
            Told::Entered { at, port, len, layers, ref head } => json!({
                "step": "entered",
                "time": at.0,
                "port": names.port(port),
                "network": names.network_of(port),
                "length": len,
                "frame": Head { layers, bytes: head }.to_string(),
            }),
            Told::Vlan { vid, segment } => json!({
                "step": "vlan",
                "vlan": (vid != 0).then_some(vid),
                "network": names.network(segment),
            }),
            Told::Admitted => json!({ "step": "admitted" }),
            Told::Learned(learned) => json!({
                "step": "learned",
                "outcome": outcome(learned).0,
                "from": outcome(learned).1.map(|port| names.port(port)),
            }),
            Told::Station(port) => json!({ "step": "station", "port": names.port(port) }),
            Told::Heard(port) => json!({ "step": "heard", "port": names.port(port) }),
            Told::Unknown(mac) => json!({ "step": "unknown", "mac": mac.to_string() }),
            Told::Answered(kind) => json!({ "step": "answered", "kind": word(kind) }),
            Told::Decided(verdict) => self.decided("decided", verdict),
            Told::Tagged(tagging) => json!({ "step": "tagged", "vlan": tag(tagging) }),
            Told::Emitted(way) => json!({ "step": "emitted", "port": names.port(way.port) }),
            Told::Refused(way, verdict) => {
                let mut json = self.decided("refused", verdict);
                json["port"] = names.port(way.port).into();
                json
            }
        }
    }

    fn decided(&self, step: &str, verdict: Verdict) -> Value {
        let mut json = json!({ "step": step, "verdict": verdict_word(verdict) });
        match verdict {
            Verdict::Forward(way) | Verdict::Reply(way) => {
                json["port"] = self.names.port(way.port).into();
            }
            Verdict::Flood(segment) => json["network"] = self.names.network(segment).into(),
            Verdict::Handoff(worker) => json["worker"] = worker.0.into(),
            Verdict::Drop(reason) => json["reason"] = explain(reason).0.into(),
            Verdict::Punt(_) => {}
        }
        json
    }

    fn show_verdict(&self, f: &mut fmt::Formatter<'_>, verdict: Verdict) -> fmt::Result {
        let names = self.names;
        match verdict {
            Verdict::Forward(way) => write!(f, "forward to {}", names.port(way.port)),
            Verdict::Reply(way) => write!(f, "reply to {}", names.port(way.port)),
            Verdict::Flood(segment) => write!(f, "flood {}", names.network(segment)),
            Verdict::Punt(_) => write!(f, "punt to heddle's own host stack"),
            Verdict::Handoff(worker) => write!(f, "hand off to worker {worker}"),
            Verdict::Drop(reason) => {
                let (symbol, sentence) = explain(reason);
                write!(f, "drop, {symbol}: {sentence}")
            }
        }
    }

    fn show_learned(&self, f: &mut fmt::Formatter<'_>, learned: Learned) -> fmt::Result {
        let (outcome, from) = outcome(learned);
        write!(f, "  learn    source {}", outcome.replace('_', " "))?;
        from.map_or(Ok(()), |port| write!(f, " from {}", self.names.port(port)))
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names;
        match *self.told {
            Told::Entered { at, port, len, layers, ref head } => {
                let (seconds, nanos) = (at.0 / Nanos::SECOND.0, at.0 % Nanos::SECOND.0);
                write!(f, "{seconds}.{nanos:09} {}", names.port(port))?;
                if let Some(network) = names.network_of(port) {
                    write!(f, " in {network}")?;
                }
                write!(f, ", {len} bytes: {}", Head { layers, bytes: head })
            }
            Told::Vlan { vid: 0, segment } => {
                write!(f, "  vlan     none: {}", names.network(segment))
            }
            Told::Vlan { vid, segment } => {
                write!(f, "  vlan     {vid}: {}", names.network(segment))
            }
            Told::Admitted => write!(f, "  admit    the sender may send this"),
            Told::Learned(learned) => self.show_learned(f, learned),
            Told::Station(port) => write!(f, "  locate   configured at {}", names.port(port)),
            Told::Heard(port) => write!(f, "  locate   heard behind {}", names.port(port)),
            Told::Unknown(mac) => write!(f, "  locate   nobody knows {mac}"),
            Told::Answered(kind) => write!(f, "  answer   the gateway answers in {}", word(kind)),
            Told::Decided(verdict) => {
                write!(f, "  verdict  ")?;
                self.show_verdict(f, verdict)
            }
            Told::Tagged(tagging) => match tag(tagging) {
                Some(vid) => write!(f, "  tag      vlan {vid}"),
                None => write!(f, "  tag      none, the vlan is native"),
            },
            Told::Emitted(way) => write!(f, "  emit     by {}", names.port(way.port)),
            Told::Refused(way, verdict) => {
                write!(f, "  emit     not by {}: ", names.port(way.port))?;
                self.show_verdict(f, verdict)
            }
        }
    }
}

/// The VLAN that a frame is tagged with.
fn tag(tagging: Tagging) -> Option<u16> {
    match tagging {
        Tagging::Tagged(vid) => Some(vid.number()),
        Tagging::Native(_) => None,
    }
}

/// The word for what learning came to, and the port that lost something by it.
fn outcome(learned: Learned) -> (&'static str, Option<PortId>) {
    match learned {
        Learned::Known => ("known", None),
        Learned::Refreshed => ("refreshed", None),
        Learned::New => ("new", None),
        Learned::Moved { from } => ("moved", Some(from)),
        Learned::Evicted { from } => ("made_room_by_taking", Some(from)),
        Learned::Busy => ("busy", None),
        Learned::Refused => ("refused", None),
        Learned::Full => ("full", None),
    }
}

/// The word for a verdict, as in `--json` and in filters.
pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward(_) => "forward",
        Verdict::Flood(_) => "flood",
        Verdict::Reply(_) => "reply",
        Verdict::Punt(_) => "punt",
        Verdict::Handoff(_) => "handoff",
        Verdict::Drop(_) => "drop",
    }
}

/// Symbol and sentence of a reason. Every reason that is counted is explained; were one not, it
/// would show as unknown.
pub(crate) fn explain(reason: Reason) -> (&'static str, &'static str) {
    let known = drops::explanations().find(|known| known.reason == reason);
    known.map_or(("unknown", "Not explained."), |known| (known.symbol, known.sentence))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Arp => "arp",
        Kind::Ipv4 => "ip",
        Kind::Ipv6 => "ip6",
        Kind::Other => "other",
        Kind::Malformed => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use dataplane::ids::MacAddr;
    use dataplane::memory::Layers;
    use dataplane::pipeline::Egress;
    use dataplane::wire::vlan::Vid;
    use etherparse::PacketBuilder;
    use pipelines::trace::HEAD;

    use super::*;

    const WAY: Egress = Egress { port: PortId(2), segment: SegmentId(1) };

    fn names() -> Names {
        Names {
            ports: HashMap::from([(PortId(1), "web-1".into()), (PortId(2), "web-2".into())]),
            networks: HashMap::from([(SegmentId(1), "web".into())]),
            places: HashMap::from([(PortId(1), SegmentId(1))]),
        }
    }

    fn entered() -> Told {
        let mut frame = Vec::new();
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 9, 65], [10, 0, 9, 66], 64);
        ip.tcp(49_152, 443, 1, 2).write(&mut frame, &[7; 67]).unwrap();
        let mut head = [0; HEAD];
        head.copy_from_slice(&frame[..HEAD]);
        let layers = Layers { kind: Kind::Ipv4, l3: 14, l4: 34, protocol: 6, ..Layers::default() };
        Told::Entered { at: Nanos(67_000_000_257), port: PortId(1), len: 121, layers, head }
    }

    #[test]
    fn a_walk_reads_like_a_story() {
        let names = names();
        let mac = MacAddr([2, 0, 0, 0, 7, 7]);
        let story = [
            (
                entered(),
                "67.000000257 web-1 in web, 121 bytes: 02:02:02:02:02:02 > \
                04:04:04:04:04:04 ip 10.0.9.65 > 10.0.9.66 tcp 49152 > 443",
            ),
            (Told::Vlan { vid: 67, segment: SegmentId(1) }, "  vlan     67: web"),
            (Told::Vlan { vid: 0, segment: SegmentId(1) }, "  vlan     none: web"),
            (Told::Admitted, "  admit    the sender may send this"),
            (Told::Tagged(Tagging::Tagged(Vid::new(67).unwrap())), "  tag      vlan 67"),
            (Told::Tagged(Tagging::Native(None)), "  tag      none, the vlan is native"),
            (
                Told::Learned(Learned::Moved { from: PortId(9) }),
                "  learn    source moved from port 9",
            ),
            (Told::Learned(Learned::New), "  learn    source new"),
            (Told::Station(PortId(2)), "  locate   configured at web-2"),
            (Told::Heard(PortId(2)), "  locate   heard behind web-2"),
            (Told::Unknown(mac), "  locate   nobody knows 02:00:00:00:07:07"),
            (Told::Answered(Kind::Arp), "  answer   the gateway answers in arp"),
            (Told::Decided(Verdict::Forward(WAY)), "  verdict  forward to web-2"),
            (Told::Decided(Verdict::Flood(SegmentId(1))), "  verdict  flood web"),
            (Told::Decided(Verdict::Punt(PortId(3))), "  verdict  punt to heddle's own host stack"),
            (Told::Emitted(WAY), "  emit     by web-2"),
            (
                Told::Refused(WAY, Verdict::Drop(drops::TOO_BIG)),
                "  emit     not by web-2: drop, \
                too_big: The packet exceeds the MTU of the port that it was to leave by.",
            ),
        ];
        for (told, line) in story {
            assert_eq!(Line { told: &told, names: &names }.to_string(), line);
        }
    }

    #[test]
    fn programs_get_the_same() {
        let names = names();
        let mac = MacAddr([2, 0, 0, 0, 7, 7]);
        let refused = Told::Refused(WAY, Verdict::Drop(drops::STALE_EGRESS));
        let told = [
            (
                Told::Learned(Learned::Evicted { from: PortId(1) }),
                json!({ "step": "learned", "outcome": "made_room_by_taking", "from": "web-1" }),
            ),
            (
                Told::Vlan { vid: 67, segment: SegmentId(1) },
                json!({ "step": "vlan", "vlan": 67, "network": "web" }),
            ),
            (
                Told::Tagged(Tagging::Native(None)),
                json!({ "step": "tagged", "vlan": serde_json::Value::Null }),
            ),
            (Told::Unknown(mac), json!({ "step": "unknown", "mac": "02:00:00:00:07:07" })),
            (
                Told::Decided(Verdict::Reply(WAY)),
                json!({ "step": "decided", "verdict": "reply", "port": "web-2" }),
            ),
            (
                Told::Decided(Verdict::Flood(SegmentId(7))),
                json!({ "step": "decided", "verdict": "flood", "network": "network 7" }),
            ),
            (
                refused,
                json!({ "step": "refused", "verdict": "drop", "reason": "stale_egress",
                "port": "web-2" }),
            ),
        ];
        for (told, object) in told {
            assert_eq!(Line { told: &told, names: &names }.to_json(), object);
        }
        let told = entered();
        let json = Line { told: &told, names: &names }.to_json();
        assert_eq!((&json["time"], &json["port"]), (&json!(67_000_000_257_u64), &json!("web-1")));
        assert_eq!((&json["network"], &json["length"]), (&json!("web"), &json!(121)));
    }

    #[test]
    fn names_come_from_the_model() {
        let config = crate::config::Config::parse(
            "[[network]]\nname = \"web\"\ndriver = \"bridge\"\n\
             [[port]]\nnetwork = \"web\"\nname = \"web-1\"\nkind = \"memory\"\n",
            "heddle.toml",
        );
        let (desired, _) = crate::model::Desired::new(&config.unwrap(), &[]);
        let plan = crate::model::Inventory::default().plan(&desired, std::time::Duration::ZERO);
        let plan = plan.unwrap();
        let names = Names::of(plan.next.model());
        let endpoint = &plan.next.model().endpoints["web-1"];
        assert_eq!(names.port(endpoint.id), "web-1");
        assert_eq!(names.network(endpoint.segment), "web");
        assert_eq!(names.network_of(endpoint.id).as_deref(), Some("web"));
        assert_eq!(names.port(PortId(77)), "port 77");
    }
}
