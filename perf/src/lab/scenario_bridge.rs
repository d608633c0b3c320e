//! Scenario `bridge`: two networks on one host, two containers on each, and the same traffic
//! over a Linux bridge beside it, interleaved with heddle's.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::device::netlink;
use dataplane::device::netns::Netns;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use ipnet::IpNet;

use super::Error;
use super::bridge::{self, Member};
use super::cancel::Cancel;
use super::cpu::{self, Meter};
use super::host::{Container, Lab};
use super::report::{Figure, Machine, Report, Row, Unit};
use super::spread::Spread;
use super::switch::Switch;
use super::traffic::tcp::{self, Amount, Bulk, Direction};
use super::traffic::{self, Pair, RoundTrips, ping, udp};

/// Repeats of each measurement, for heddle and for the bridge.
const REPEATS: usize = 3;
const THROUGHPUT_TIME: Duration = Duration::from_millis(600);
const ROUND_TRIP_TIME: Duration = Duration::from_millis(200);
/// How long a connection that must not come about is waited for.
const ISOLATION_TIME: Duration = Duration::from_millis(300);
const INTACT_BYTES: u64 = (16 << 20) + 67;
const PINGS: u16 = 5;
const DEVICE: &str = "eth0";
const MTU: u32 = 1500;

const WEB: Network = Network { name: "web", number: 1 };
const DB: Network = Network { name: "db", number: 2 };

/// The scenario's namespaces and processes, alive.
#[derive(Debug)]
pub struct Topology {
    switch: Switch,
    web: [Container; 2],
    db: [Container; 2],
    bridged: [Container; 2],
}

/// Builds the scenario and makes its checks.
///
/// # Errors
/// If it can't be built, heddle ends, or the lab is cancelled; a check that fails is a row.
pub fn run(lab: &Lab, heddle: &Path) -> Result<(Report, Topology), Error> {
    let machine = Machine::current();
    let started = Instant::now();
    let topology = Topology::start(lab, heddle)?;
    let mut checks = Checks::new(topology, lab.cancel());
    checks.neighbours()?;
    checks.contents()?;
    checks.speed()?;
    checks.isolation()?;
    let seconds = started.elapsed().as_secs_f64();
    let rows = checks.rows;
    let report = Report { scenario: "bridge", machine, rows, seconds, kept: Vec::new() };
    Ok((report, checks.topology))
}

impl Topology {
    fn start(lab: &Lab, heddle: &Path) -> Result<Self, Error> {
        let host = lab.container("host")?;
        let web = [lab.container("web-1")?, lab.container("web-2")?];
        let db = [lab.container("db-1")?, lab.container("db-2")?];
        let bridged = [lab.container("bridged-1")?, lab.container("bridged-2")?];
        let configuration = configuration(lab, &host, &[(&WEB, &web), (&DB, &db)]);
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

    /// The containers, with the names of their namespaces.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.web.iter().chain(&self.db).chain(&self.bridged)
    }

    /// Stops heddle in good order.
    ///
    /// # Errors
    /// [`Error::Ended`] if it does not stop well.
    pub fn stop(self) -> Result<(), Error> {
        self.switch.stop()
    }
}

/// A network of the scenario: 10.200.N.0/24 and fd00:200:N::/64.
struct Network {
    name: &'static str,
    number: u8,
}

impl Network {
    fn gateways(&self) -> [IpAddr; 2] {
        self.host(1)
    }

    fn addresses(&self, member: usize) -> [IpNet; 2] {
        let [four, six] = self.hosts_of(member);
        // Both lengths are in range.
        [(four, 24), (six, 64)].map(|(address, length)| IpNet::new_assert(address, length))
    }

    fn hosts_of(&self, member: usize) -> [IpAddr; 2] {
        self.host(if member == 0 { 2 } else { 3 })
    }

    fn host(&self, host: u8) -> [IpAddr; 2] {
        let six = [0xfd00, 0x200, self.number.into(), 0, 0, 0, 0, u16::from(host)];
        [IpAddr::from([10, 200, self.number, host]), IpAddr::from(six)]
    }
}

/// The configuration file: what a user would write.
fn configuration(lab: &Lab, host: &Container, networks: &[(&Network, &[Container; 2])]) -> String {
    let (directory, netns) = (lab.directory().display(), host.own_netns());
    let mut text = format!(
        "[host]\nname = \"lab\"\nstate = \"{directory}/state\"\napi = \"{directory}/heddle.sock\"\n\
         netns = \"{netns}\"\n"
    );
    for (network, containers) in networks {
        let Network { name, number } = network;
        let subnets = format!("[\"10.200.{number}.0/24\", \"fd00:200:{number}::/64\"]");
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "\n[[network]]\nname = \"{name}\"\ndriver = \"bridge\"\nsubnets = {subnets}\n"
        );
        for (member, container) in containers.iter().enumerate() {
            let [four, six] = network.addresses(member);
            let (port, netns) = (container.name(), container.netns_name());
            let _ = write!(
                text,
                "\n[[port]]\nnetwork = \"{name}\"\nname = \"{port}\"\nkind = \"tap\"\n\
                 netns = \"{netns}\"\ndevice = \"{DEVICE}\"\naddress = [\"{four}\", \"{six}\"]\n"
            );
        }
    }
    text
}

/// The checks in the making.
struct Checks {
    topology: Topology,
    cancel: Cancel,
    rows: Vec<Row>,
    bar: ProgressBar,
}

/// One repeat of a measurement.
#[derive(Clone, Copy)]
struct Sample {
    value: f64,
    bytes: u64,
    retransmissions: u64,
}

const FAMILIES: [&str; 2] = ["v4", "v6"];

impl Checks {
    fn new(topology: Topology, cancel: &Cancel) -> Self {
        // Draws nothing unless standard error is a terminal.
        let bar = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
        let style = ProgressStyle::with_template("{spinner} {elapsed} {pos} checks done: {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { topology, cancel: cancel.clone(), rows: Vec::new(), bar }
    }

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
            ping::ping(container.netns(), address, PINGS, 56, &self.cancel)
        };
        self.bar.set_message(check.clone());
        let row = match (trips(heddle), bridge.map(trips).transpose()) {
            (Ok(ours), Ok(theirs)) => {
                let note = lost(&ours);
                let row = Row::plain(check, ours.lost() == 0, note);
                Row { heddle: latency(&ours), bridge: theirs.as_ref().and_then(latency), ..row }
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

    /// That TCP delivers every byte right: the classic failure is a wrong checksum.
    fn contents(&mut self) -> Result<(), Error> {
        for (family, name) in FAMILIES.iter().enumerate() {
            let check = format!("TCP {name} contents intact, both ways");
            self.bar.set_message(check.clone());
            let both = [Direction::ClientSends, Direction::ServerSends].map(|direction| {
                let amount = Amount::BytesPerStream(INTACT_BYTES);
                let plan = Bulk { streams: 3, amount, direction, verify: Some(7) };
                let pair = pair(&self.topology.web, family);
                let done = tcp::bulk(&pair, &plan, &self.cancel)?;
                Ok(done.checksum_errors())
            });
            let row = match both.into_iter().sum::<Result<u64, traffic::Error>>() {
                Ok(errors) => Row::plain(check, errors == 0, checksum_note(errors)),
                Err(error) => failed(check, error)?,
            };
            self.note(row)?;
        }
        Ok(())
    }

    /// Latency, connections and throughput beside the bridge.
    fn speed(&mut self) -> Result<(), Error> {
        self.compare("UDP round trip, p50", 0, Unit::Microseconds, |pair, cancel| {
            let trips = udp::round_trips(pair, 64, ROUND_TRIP_TIME, cancel)?;
            Ok(Sample { value: trips.p50_us, bytes: 0, retransmissions: 0 })
        })?;
        self.compare("TCP connections", 0, Unit::PerSecond, |pair, cancel| {
            let made = tcp::connections(pair, ROUND_TRIP_TIME, cancel)?;
            Ok(Sample { value: made.per_second(), bytes: 0, retransmissions: 0 })
        })?;
        for (family, name) in FAMILIES.iter().enumerate() {
            for streams in [1, 8] {
                let check = format!("TCP {name}, {}", streams_text(streams));
                let plan = Bulk::throughput(streams, THROUGHPUT_TIME);
                self.compare(&check, family, Unit::GigabitsPerSecond, |pair, cancel| {
                    let done = tcp::bulk(pair, &plan, cancel)?;
                    let retransmissions = done.retransmissions();
                    let value = done.bits_per_second() / 1e9;
                    Ok(Sample { value, bytes: done.bytes, retransmissions })
                })?;
            }
        }
        Ok(())
    }

    /// That there is no way from one network into the other.
    fn isolation(&mut self) -> Result<(), Error> {
        for (family, name) in FAMILIES.iter().enumerate() {
            let check = format!("web and db don't see each other, {name}");
            self.bar.set_message(check.clone());
            let (web, db) = (&self.topology.web[0], &self.topology.db[0]);
            let address = DB.hosts_of(0)[family];
            let there = Pair { client: web.netns(), server: db.netns(), address };
            let address = WEB.hosts_of(0)[family];
            let back = Pair { client: db.netns(), server: web.netns(), address };
            let connected = |pair: &Pair<'_>| -> Result<bool, traffic::Error> {
                let answered = ping::ping(pair.client, pair.address, 1, 56, &self.cancel)?.received;
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

    /// Measures heddle and the bridge by turns, so that a disturbance meets both.
    fn compare(
        &mut self,
        check: &str,
        family: usize,
        unit: Unit,
        measure: impl Fn(&Pair<'_>, &Cancel) -> Result<Sample, traffic::Error>,
    ) -> Result<(), Error> {
        self.bar.set_message(check.to_owned());
        let row = match self.by_turns(family, measure) {
            Ok([heddle, bridge]) => {
                let pairs = heddle.samples.iter().zip(&bridge.samples);
                Row {
                    ratio: Spread::of(pairs.map(|(ours, theirs)| ours.value / theirs.value)),
                    heddle: heddle.figure(unit),
                    bridge: bridge.figure(unit),
                    ..Row::plain(check, true, heddle.note(&bridge))
                }
            }
            Err(error) => failed(check.to_owned(), error)?,
        };
        self.note(row)
    }

    fn by_turns(
        &self,
        family: usize,
        measure: impl Fn(&Pair<'_>, &Cancel) -> Result<Sample, traffic::Error>,
    ) -> Result<[Series; 2], traffic::Error> {
        let sides = [&self.topology.web, &self.topology.bridged];
        let mut all = [Series::default(), Series::default()];
        for _ in 0..REPEATS {
            for (series, containers) in all.iter_mut().zip(sides) {
                let meter = Meter::start(None);
                let sample = measure(&pair(containers, family), &self.cancel)?;
                series.add(sample, meter.read().busy_seconds);
            }
        }
        Ok(all)
    }

    /// Keeps a row; heddle must still be there, or all further rows would say the same.
    fn note(&mut self, row: Row) -> Result<(), Error> {
        self.cancel.check()?;
        self.topology.switch.check()?;
        self.rows.push(row);
        self.bar.inc(1);
        Ok(())
    }
}

/// The repeats of one side.
#[derive(Default)]
struct Series {
    samples: Vec<Sample>,
    busy_seconds: f64,
}

impl Series {
    fn add(&mut self, sample: Sample, busy_seconds: f64) {
        self.samples.push(sample);
        self.busy_seconds += busy_seconds;
    }

    fn retransmissions(&self) -> u64 {
        self.samples.iter().map(|sample| sample.retransmissions).sum()
    }

    fn figure(&self, unit: Unit) -> Option<Figure> {
        let bytes: u64 = self.samples.iter().map(|sample| sample.bytes).sum();
        let moves = unit == Unit::GigabitsPerSecond && bytes > 0;
        Some(Figure {
            unit,
            value: Spread::of(self.samples.iter().map(|sample| sample.value))?,
            cpu_seconds_per_gigabit: moves.then(|| cpu::per_gigabit(self.busy_seconds, bytes)),
            retransmissions: moves.then(|| self.retransmissions()),
        })
    }

    fn note(&self, bridge: &Self) -> String {
        match (self.retransmissions(), bridge.retransmissions()) {
            (0, 0) => String::new(),
            (ours, theirs) => format!("{ours} / {theirs} segments sent again"),
        }
    }
}

fn pair(containers: &[Container; 2], family: usize) -> Pair<'_> {
    let [client, server]: [&Netns; 2] = [containers[0].netns(), containers[1].netns()];
    Pair { client, server, address: WEB.hosts_of(1)[family] }
}

/// The row of a check whose traffic failed; only a cancelled lab goes no further.
fn failed(check: String, error: traffic::Error) -> Result<Row, Error> {
    match Error::from(error) {
        Error::Cancelled => Err(Error::Cancelled),
        error => Ok(Row::plain(check, false, error.to_string())),
    }
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

fn checksum_note(errors: u64) -> String {
    if errors == 0 { String::new() } else { format!("{errors} wrong checksums") }
}

fn streams_text(streams: usize) -> String {
    if streams == 1 { "1 stream".to_owned() } else { format!("{streams} streams") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_what_a_user_would_write() {
        let lab = Lab::new(Cancel::new()).unwrap();
        let host = lab.container("host").unwrap();
        let db = [lab.container("db-1").unwrap(), lab.container("db-2").unwrap()];
        let text = configuration(&lab, &host, &[(&DB, &db)]);
        let network = "\n[[network]]\nname = \"db\"\ndriver = \"bridge\"\n\
                       subnets = [\"10.200.2.0/24\", \"fd00:200:2::/64\"]\n";
        assert!(text.contains(network), "{text}");
        let port = format!(
            "\n[[port]]\nnetwork = \"db\"\nname = \"db-2\"\nkind = \"tap\"\nnetns = \"{}\"\n\
             device = \"eth0\"\naddress = [\"10.200.2.3/24\", \"fd00:200:2::3/64\"]\n",
            db[1].netns_name()
        );
        assert!(text.ends_with(&port), "{text}");
    }

    #[test]
    fn repeats_are_summed_up() {
        let mut series = Series::default();
        for (value, bytes, retransmissions) in [(2.0, 100_000_000, 3), (4.0, 25_000_000, 0)] {
            series.add(Sample { value, bytes, retransmissions }, 0.5);
        }
        let figure = series.figure(Unit::GigabitsPerSecond).unwrap();
        assert_eq!((figure.value.low, figure.value.high), (2.0, 4.0));
        assert!((figure.cpu_seconds_per_gigabit.unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(figure.retransmissions, Some(3));
        assert_eq!(series.figure(Unit::PerSecond).unwrap().retransmissions, None);
        assert_eq!(Series::default().figure(Unit::PerSecond), None);
    }
}
