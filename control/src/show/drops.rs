//! `show drops`: why frames went no further, how often, and where.

use dataplane::drops::Reason;
use serde::{Deserialize, Serialize};

use super::table::{Align, Table};
use crate::plane::sum;
use crate::switch::Switch;

/// The body of `/v1/drops`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Every reason, those that occurred most often first.
    pub drops: Vec<Drop>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Its stable name.
    pub reason: String,
    /// Frames that ended for it, of all ports that there are.
    pub count: u64,
    /// The ports that most of them came in by; a gateway's is that of heddle's own host stack.
    pub ports: Vec<AtPort>,
    /// What happened, and what to look at.
    pub sentence: String,
}

/// A port's part of the drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtPort {
    /// The port's name.
    pub port: String,
    /// Its drops.
    pub count: u64,
}

/// Ports that are named for each reason.
const MOST_PORTS: usize = 3;

impl View {
    /// The drops as they are now.
    pub fn of(switch: &Switch) -> Self {
        let explanations = pipelines::drops::explanations();
        let mut drops: Vec<Drop> = explanations
            .map(|explanation| {
                let (count, ports) = at_ports(switch, explanation.reason);
                let reason = explanation.symbol.to_owned();
                Drop { reason, count, ports, sentence: explanation.sentence.to_owned() }
            })
            .collect();
        // Stable: reasons that never occurred stay in their own order.
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.count));
        Self { drops }
    }

    /// The reasons that occurred, for people.
    pub fn table(&self) -> Table {
        let columns = [
            ("reason", Align::Left),
            ("count", Align::Right),
            ("ports", Align::Left),
            ("what it means", Align::Left),
        ];
        let mut table = Table::new(&columns, "nothing was dropped");
        for drop in self.drops.iter().filter(|drop| drop.count > 0) {
            let ports = drop.ports.iter().map(|at| format!("{} ({})", at.port, at.count));
            table.row([
                drop.reason.clone(),
                drop.count.to_string(),
                ports.collect::<Vec<_>>().join(", "),
                drop.sentence.clone(),
            ]);
        }
        table
    }
}

/// All drops of one reason, and the ports with most of them.
fn at_ports(switch: &Switch, reason: Reason) -> (u64, Vec<AtPort>) {
    let counted = switch.ports.iter().map(|(_, port)| {
        let count = sum(&port.counters, |c| c.drops.of(reason).read());
        (count, port.name().to_owned())
    });
    let gateways = switch.inventory.model().networks.values().map(|network| {
        (switch.plane.gateway_drops(network, reason), format!("gateway of {}", network.spec.name))
    });
    let counted = counted.chain(gateways).filter(|(count, _)| *count > 0);
    let mut ports: Vec<(u64, String)> = counted.collect();
    let total = ports.iter().map(|(count, _)| count).sum();
    ports.sort_by(|a, b| b.cmp(a));
    let most = ports.into_iter().take(MOST_PORTS);
    (total, most.map(|(count, port)| AtPort { port, count }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(reason: &str, count: u64) -> Drop {
        let ports = vec![AtPort { port: "web-1".to_owned(), count }];
        Drop { reason: reason.to_owned(), count, ports, sentence: "It was.".to_owned() }
    }

    #[test]
    fn only_what_occurred_is_shown_to_people() {
        let view = View { drops: vec![drop("spoofed_mac", 67), drop("runt", 0)] };
        let expected = "\
REASON       COUNT  PORTS       WHAT IT MEANS
spoofed_mac     67  web-1 (67)  It was.
";
        assert_eq!(view.table().to_string(), expected);
        let none = View { drops: vec![drop("runt", 0)] };
        assert_eq!(none.table().to_string(), "nothing was dropped\n");
    }
}
