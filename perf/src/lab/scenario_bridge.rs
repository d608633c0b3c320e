//! Scenario `bridge`: two networks on one host, two containers on each, and the same traffic
//! over a Linux bridge beside it, interleaved with heddle's.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::device::netlink;

use super::bridge::{self, Member};
use super::checks::{Checks, FAMILIES, Sample, failed, streams_text};
use super::host::{Container, Lab};
use super::network::{self, DEVICE, Kind, Network};
use super::report::{Figure, Machine, Report, Row, Unit};
use super::spread::Spread;
use super::switch::Switch;
use super::traffic::tcp::{self, Bulk};
use super::traffic::{self, Pair, RoundTrips, ping, udp};
use super::{Error, Standing};

/// Repeats of each measurement, for heddle and for the bridge.
const REPEATS: usize = 3;
const THROUGHPUT_TIME: Duration = Duration::from_millis(600);
const ROUND_TRIP_TIME: Duration = Duration::from_millis(200);
/// How long a connection that must not come about is waited for.
const ISOLATION_TIME: Duration = Duration::from_millis(300);
const PINGS: u16 = 5;
const MTU: u32 = 1500;

const WEB: Network = Network { name: "web", number: 1, kinds: [Kind::Tap; 2] };
const DB: Network = Network { name: "db", number: 2, kinds: [Kind::Tap; 2] };

/// The scenario's namespaces and processes, alive.
struct Topology {
    switch: Switch,
    web: [Container; 2],
    db: [Container; 2],
    bridged: [Container; 2],
}

/// Builds the scenario and makes its checks.
///
/// # Errors
/// If it can't be built, heddle ends, or the lab is cancelled; a check that fails is a row.
pub fn run(lab: &Lab, heddle: &Path) -> Result<(Report, Standing), Error> {
    let machine = Machine::current();
    let started = Instant::now();
    let topology = Topology::start(lab, heddle)?;
    let mut scenario = Bridge { topology, checks: Checks::new(lab.cancel()) };
    scenario.neighbours()?;
    scenario.contents()?;
    scenario.speed()?;
    scenario.isolation()?;
    let seconds = started.elapsed().as_secs_f64();
    let rows = scenario.checks.rows;
    let report = Report { scenario: "bridge", machine, rows, seconds, kept: Vec::new() };
    Ok((report, scenario.topology.standing()))
}

impl Topology {
    fn start(lab: &Lab, heddle: &Path) -> Result<Self, Error> {
        let host = lab.container("host")?;
        let web = [lab.container("web-1")?, lab.container("web-2")?];
        let db = [lab.container("db-1")?, lab.container("db-2")?];
        let bridged = [lab.container("bridged-1")?, lab.container("bridged-2")?];
        let configuration = network::configuration(lab, &host, &[], &[(WEB, &web), (DB, &db)]);
        let switch = Switch::start(lab, &host, heddle, &configuration)?;
        for container in web.iter().chain(&db) {
            container.wait_until_running(DEVICE, netlink::TIMEOUT, lab.cancel())?;
        }
        let addresses = [0, 1].map(|member| WEB.addresses(member));
        let members: Vec<Member<'_>> = bridged
            .iter()
            .zip(&addresses)
            .map(|(container, addresses)| Member { container, device: DEVICE, addresses })
            .collect();
        bridge::connect(lab, "bridge", MTU, &members)?;
        Ok(Self { switch, web, db, bridged })
    }

    fn standing(self) -> Standing {
        let containers = self.web.iter().chain(&self.db).chain(&self.bridged);
        Standing::new(containers, vec![self.switch])
    }
}

/// The scenario while its checks are made.
struct Bridge {
    topology: Topology,
    checks: Checks,
}

impl Bridge {
    /// ARP, ND and echo: neighbours on both networks, and the gateways.
    fn neighbours(&mut self) -> Result<(), Error> {
        for (family, name) in FAMILIES.iter().enumerate() {
            let check = format!("ping {name} to a neighbour");
            self.ping(check, WEB.hosts_of(1)[family], |t| &t.web[0], Some(|t| &t.bridged[0]))?;
            let check = format!("ping {name} to the gateway");
            self.ping(check, WEB.gateways()[family], |t| &t.web[0], None)?;
            let check = format!("ping {name} on the other network");
            self.ping(check, DB.hosts_of(1)[family], |t| &t.db[0], None)?;
        }
        self.arp()
    }

    fn ping(
        &mut self,
        check: String,
        address: IpAddr,
        heddle: fn(&Topology) -> &Container,
        bridge: Option<fn(&Topology) -> &Container>,
    ) -> Result<(), Error> {
        let trips = |of: fn(&Topology) -> &Container| {
            let container = of(&self.topology);
            ping::ping(container.netns(), address, PINGS, 56, &self.checks.cancel)
        };
        self.checks.begin(&check);
        let row = match (trips(heddle), bridge.map(trips).transpose()) {
            (Ok(ours), Ok(theirs)) => {
                let note = lost(&ours);
                let row = Row::plain(check, ours.lost() == 0, note);
                Row { heddle: latency(&ours), peer: theirs.as_ref().and_then(latency), ..row }
            }
            (Err(error), _) | (_, Err(error)) => failed(check, error)?,
        };
        self.note(row)
    }

    /// That the neighbour's MAC address, as ARP found it, is that of its device.
    fn arp(&mut self) -> Result<(), Error> {
        let [near, far] = &self.topology.web;
        let device = far.netlink(|netlink| netlink.link(DEVICE))?;
        let expected = device.map_or(String::new(), |link| link.mac.to_string());
        let address = WEB.hosts_of(1)[0].to_string();
        let table = || std::fs::read_to_string("/proc/thread-self/net/arp").unwrap_or_default();
        let table = near.netns().run(table)?;
        let entry = table.lines().find(|line| line.split(' ').next() == Some(&address));
        let found = entry.and_then(|line| line.split_whitespace().nth(3)).unwrap_or("nothing");
        let note = format!("{address} is at {found}");
        self.note(Row::plain("ARP finds the neighbour", found == expected, note))
    }

    /// That TCP delivers every byte right.
    fn contents(&mut self) -> Result<(), Error> {
        for (family, name) in FAMILIES.iter().enumerate() {
            let check = format!("TCP {name} contents intact, both ways");
            let row = self.checks.contents(check, &pair(&self.topology.web, family))?;
            self.note(row)?;
        }
        Ok(())
    }

    /// Latency, connections and throughput beside the bridge.
    fn speed(&mut self) -> Result<(), Error> {
        let cancel = self.checks.cancel.clone();
        self.compare("UDP round trip, p50", Unit::Microseconds, |pair| {
            let trips = udp::round_trips(pair, 64, ROUND_TRIP_TIME, &cancel)?;
            Ok(Sample { value: trips.p50_us, ..Sample::default() })
        })?;
        self.compare("TCP connections", Unit::PerSecond, |pair| {
            let made = tcp::connections(pair, ROUND_TRIP_TIME, &cancel)?;
            Ok(Sample { value: made.per_second(), ..Sample::default() })
        })?;
        for (family, name) in FAMILIES.iter().enumerate() {
            for streams in [1, 8] {
                let check = format!("TCP {name}, {}", streams_text(streams));
                let plan = Bulk::throughput(streams, THROUGHPUT_TIME);
                let row = self.checks.throughput(&check, REPEATS, &plan, self.sides(family))?;
                self.note(row)?;
            }
        }
        Ok(())
    }

    /// That there is no way from one network into the other.
    fn isolation(&mut self) -> Result<(), Error> {
        for (family, name) in FAMILIES.iter().enumerate() {
            let check = format!("web and db don't see each other, {name}");
            self.checks.begin(&check);
            let (web, db) = (&self.topology.web[0], &self.topology.db[0]);
            let address = DB.hosts_of(0)[family];
            let there = Pair { client: web.netns(), server: db.netns(), address };
            let address = WEB.hosts_of(0)[family];
            let back = Pair { client: db.netns(), server: web.netns(), address };
            let connected = |pair: &Pair<'_>| -> Result<bool, traffic::Error> {
                let answered =
                    ping::ping(pair.client, pair.address, 1, 56, &self.checks.cancel)?.received;
                Ok(tcp::reaches(pair, ISOLATION_TIME)? || answered > 0)
            };
            let row = match connected(&there).and_then(|one| Ok((one, connected(&back)?))) {
                Ok((false, false)) => Row::plain(check, true, "no connection, no echo"),
                Ok(_) => Row::plain(check, false, "a packet got through"),
                Err(error) => failed(check, error)?,
            };
            self.note(row)?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        check: &str,
        unit: Unit,
        measure: impl Fn(&Pair<'_>) -> Result<Sample, Error>,
    ) -> Result<(), Error> {
        let row =
            self.checks.compare(check, REPEATS, unit, &mut self.sides(0), |pair| measure(pair))?;
        self.note(row)
    }

    /// Who talks by heddle, and by the bridge.
    fn sides(&self, family: usize) -> [Pair<'_>; 2] {
        [&self.topology.web, &self.topology.bridged].map(|containers| pair(containers, family))
    }

    fn note(&mut self, row: Row) -> Result<(), Error> {
        self.checks.note(row, &mut self.topology.switch)
    }
}

fn pair(containers: &[Container; 2], family: usize) -> Pair<'_> {
    let [client, server] = [containers[0].netns(), containers[1].netns()];
    Pair { client, server, address: WEB.hosts_of(1)[family] }
}

fn latency(trips: &RoundTrips) -> Option<Figure> {
    let value = Spread::of((trips.received > 0).then_some(trips.p50_us))?;
    let unit = Unit::Microseconds;
    Some(Figure { unit, value, cpu_seconds_per_gigabit: None, retransmissions: None })
}

fn lost(trips: &RoundTrips) -> String {
    match trips.lost() {
        0 => String::new(),
        lost => format!("{lost} of {} lost", trips.sent),
    }
}
