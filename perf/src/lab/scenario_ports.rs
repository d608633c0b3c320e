//! Scenario `ports`: a network for every kind of port, TCP between its two containers by heddle
//! and, from the same namespaces, by a Linux bridge; and small packets from one AF_XDP port to
//! another, beside a forwarder without a pipeline.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::device::netlink;
use serde_json::Value;

use super::bridge::{self, Member};
use super::checks::{Checks, FAMILIES, streams_text};
use super::host::{Container, Lab};
use super::network::Kind::{Tap, VethByAfXdp, VethByPacketSockets};
use super::network::{self, DEVICE, Kind, Network};
use super::report::{Machine, Report, Row};
use super::switch::Switch;
use super::traffic::Pair;
use super::traffic::tcp::Bulk;
use super::{Error, Standing, forwarding};

const REPEATS: usize = 3;
const THROUGHPUT_TIME: Duration = Duration::from_millis(400);
const MTU: u32 = 1500;

const NETWORKS: [Network; 4] = [
    Network { name: "tap", number: 1, kinds: [Tap; 2] },
    Network { name: "af-packet", number: 2, kinds: [VethByPacketSockets; 2] },
    Network { name: "af-xdp", number: 3, kinds: [VethByAfXdp; 2] },
    Network { name: "tap-to-veth", number: 4, kinds: [Tap, VethByPacketSockets] },
];

/// The network that is measured in both families.
const BOTH_FAMILIES: &str = "af-packet";

/// By which the same containers reach the bridge.
const BRIDGED: &str = "eth1";

/// The addresses there.
const BRIDGE: Network = Network { name: "bridge", number: 5, kinds: [Tap; 2] };

/// Builds the scenario and makes its checks.
///
/// # Errors
/// If it can't be built, heddle ends, or the lab is cancelled; a check that fails is a row.
pub fn run(lab: &Lab, heddle: &Path) -> Result<(Report, Standing), Error> {
    let machine = Machine::current();
    let started = Instant::now();
    let mut checks = Checks::new(lab.cancel());
    let fast = forwarding::compare(lab, heddle, &mut checks)?;
    let topology = Topology::start(lab, heddle)?;
    let mut scenario = Ports { topology, checks };
    scenario.modes(heddle)?;
    for (index, network) in NETWORKS.iter().enumerate() {
        scenario.contents(index, network)?;
        scenario.speed(index, network)?;
    }
    let Ports { topology, checks } = scenario;
    let (seconds, rows) = (started.elapsed().as_secs_f64(), checks.rows);
    let report = Report { scenario: "ports", machine, rows, seconds, kept: Vec::new() };
    Ok((report, fast.and(topology.standing())))
}

/// The scenario's namespaces and processes, alive.
struct Topology {
    switch: Switch,
    api: PathBuf,
    containers: [[Container; 2]; 4],
}

impl Topology {
    fn start(lab: &Lab, heddle: &Path) -> Result<Self, Error> {
        let host = lab.container("host")?;
        let containers = containers(lab)?;
        let networks: Vec<_> = NETWORKS.into_iter().zip(&containers).collect();
        let configuration = network::configuration(lab, &host, &[], &networks);
        let switch = Switch::start(lab, &host, heddle, &configuration)?;
        for container in containers.iter().flatten() {
            container.wait_until_running(DEVICE, netlink::TIMEOUT, lab.cancel())?;
        }
        let all = containers.iter().flatten();
        let placed: Vec<_> =
            all.zip(0..).map(|(one, member)| (one, BRIDGE.addresses(member))).collect();
        let member = |(container, addresses)| Member { container, device: BRIDGED, addresses };
        let members: Vec<_> =
            placed.iter().map(|(one, at)| member((*one, at.as_slice()))).collect();
        bridge::connect(lab, "bridge", MTU, &members)?;
        Ok(Self { switch, api: network::api(lab, &host), containers })
    }

    /// Two containers of a network, by heddle and by the bridge.
    fn sides(&self, index: usize, family: usize) -> [Pair<'_>; 2] {
        let [client, server] = self.containers[index].each_ref().map(Container::netns);
        let member = u8::try_from(2 * index + 1).unwrap_or(u8::MAX);
        [NETWORKS[index].hosts_of(1), BRIDGE.hosts_of(member)].map(|addresses| Pair {
            client,
            server,
            address: addresses[family],
        })
    }

    fn standing(self) -> Standing {
        Standing::new(self.containers.iter().flatten(), vec![self.switch])
    }
}

fn containers(lab: &Lab) -> Result<[[Container; 2]; 4], Error> {
    let pair = |network: &Network| -> Result<_, Error> {
        let container = |number| lab.container(&format!("{}-{number}", network.name));
        Ok([container(1)?, container(2)?])
    };
    let [one, two, three, four] = &NETWORKS;
    Ok([pair(one)?, pair(two)?, pair(three)?, pair(four)?])
}

/// The scenario while its checks are made.
struct Ports {
    topology: Topology,
    checks: Checks,
}

impl Ports {
    /// That every port is driven as it is to be, by heddle's own account.
    fn modes(&mut self, heddle: &Path) -> Result<(), Error> {
        let shown = show_ports(heddle, &self.topology.api)?;
        for (network, containers) in NETWORKS.iter().zip(&self.topology.containers) {
            let [one, other] = containers.each_ref().map(|port| mode(&shown, port.name()));
            let is = |kind: Kind, mode: &str| mode.starts_with(kind.mode());
            let passed = is(network.kinds[0], &one) && is(network.kinds[1], &other);
            let note = if one == other { one } else { format!("{one}; {other}") };
            let row = Row::plain(format!("{}: the mode in use", network.name), passed, note);
            self.checks.note(row, &mut self.topology.switch)?;
        }
        Ok(())
    }

    fn contents(&mut self, index: usize, network: &Network) -> Result<(), Error> {
        let check = format!("{}: TCP v4 contents intact, both ways", network.name);
        let [heddle, _] = self.topology.sides(index, 0);
        let row = self.checks.contents(check, &heddle)?;
        self.checks.note(row, &mut self.topology.switch)
    }

    fn speed(&mut self, index: usize, network: &Network) -> Result<(), Error> {
        let families = if network.name == BOTH_FAMILIES { 2 } else { 1 };
        for (family, name) in FAMILIES.iter().enumerate().take(families) {
            for streams in [1, 8] {
                let check = format!("{}: TCP {name}, {}", network.name, streams_text(streams));
                let plan = Bulk::throughput(streams, THROUGHPUT_TIME);
                let sides = self.topology.sides(index, family);
                let row = self.checks.throughput(&check, REPEATS, &plan, sides)?;
                self.checks.note(row, &mut self.topology.switch)?;
            }
        }
        Ok(())
    }
}

/// What `heddle show ports` says.
fn show_ports(heddle: &Path, api: &Path) -> Result<Value, Error> {
    let mut command = Command::new(heddle);
    command.arg("--api").arg(api).args(["show", "ports", "--json"]);
    let output = command.output().map_err(|e| Error::file("run", heddle, e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let unreadable = || Error::Shown(format!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(&text).map_err(|_| unreadable())
}

/// How a port is driven, or why it is not.
fn mode(shown: &Value, port: &str) -> String {
    let ports = shown["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(port) = ports.iter().find(|found| found["name"] == port) else {
        return "no such port".to_owned();
    };
    let said = ["reason", "io", "kind"].iter().find_map(|&key| port[key].as_str());
    said.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_from_what_heddle_shows() {
        let shown = serde_json::json!({ "ports": [
            { "name": "a", "kind": "tap", "io": null, "reason": null },
            { "name": "b", "kind": "veth", "io": "af_packet", "reason": null },
            { "name": "c", "kind": "veth", "io": "af_xdp", "reason": "no memory" },
        ]});
        let modes = ["a", "b", "c", "d"].map(|port| mode(&shown, port));
        assert_eq!(modes, ["tap", "af_packet", "no memory", "no such port"]);
    }
}
