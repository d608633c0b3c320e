//! A host with its containers and a heddle between them.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::ops::Sub;
use std::process::{Command, Output};

use dataplane::device::netlink::{Link, Netlink};
use dataplane::device::netns::Netns;
use dataplane::device::{ethtool, netlink};
use perf::lab::Cancel;
use perf::lab::host::{Container, Lab};
use perf::lab::switch::Switch;
use perf::lab::traffic::ping::ping;
use perf::lab::traffic::{Pair, RoundTrips};
use serde_json::Value;

use crate::{Api, DEVICE, Family, PATIENCE, Plan, Turn, eventually, far_mac, heddle, near_end};

/// Queues of a device that a test makes for heddle to find.
const QUEUES: u32 = 3;
/// Those that it uses at first.
const ONE: ethtool::Queues = ethtool::Queues { receive: 1, send: 1 };

/// A host with its containers and a heddle between them, alive. Everything panics that does not
/// do what the test relies on; dropping it removes all.
#[derive(Debug)]
pub struct World {
    // In the order in which they must go.
    switch: Option<Switch>,
    containers: BTreeMap<String, Container>,
    host: Container,
    lab: Lab,
    plan: Plan,
    /// Of the first world of a test.
    _turn: Option<Turn>,
}

/// How a heddle ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By SIGKILL, as in a crash.
    Killed,
    /// By SIGTERM, in good order.
    Stopped,
}

/// What a container's kernel counted at its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceCounters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received, a super-packet counted once.
    pub rx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent, a super-packet counted once.
    pub tx_packets: u64,
    /// Received packets that were damaged, or that nobody took.
    pub rx_lost: u64,
    /// Packets that were damaged, or found the queue full.
    pub tx_lost: u64,
}

impl Sub for DeviceCounters {
    type Output = Self;

    /// What was counted between two readings.
    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            rx_packets: self.rx_packets - earlier.rx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            rx_lost: self.rx_lost - earlier.rx_lost,
            tx_lost: self.tx_lost - earlier.tx_lost,
        }
    }
}

impl World {
    /// Makes the containers, starts heddle, and waits until all ports let packets through.
    pub fn start(plan: Plan) -> Self {
        let mut world = Self::prepare(plan);
        world.launch();
        world.wait_until_running();
        world
    }

    /// Makes the containers; heddle is started by [`World::launch`].
    pub fn prepare(plan: Plan) -> Self {
        Self::with(plan, Some(Turn::take()))
    }

    /// Makes one more host with its containers, as [`World::prepare`] does.
    pub fn prepare_beside(&self, plan: Plan) -> Self {
        Self::with(plan, None)
    }

    fn with(plan: Plan, turn: Option<Turn>) -> Self {
        let lab = Lab::new(Cancel::new()).unwrap();
        let host = lab.container("host").unwrap();
        let (switch, containers) = (None, BTreeMap::new());
        let mut world = Self { switch, containers, host, lab, plan, _turn: turn };
        world.make_containers();
        world
    }

    /// Its networks and ports.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The lab that it is made of.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The namespace that heddle runs in.
    pub fn host(&self) -> &Container {
        &self.host
    }

    /// The flag that nobody sets.
    pub fn cancel(&self) -> &Cancel {
        self.lab.cancel()
    }

    /// A port's container.
    pub fn container(&self, port: &str) -> &Container {
        self.containers.get(port).unwrap_or_else(|| panic!("no container is called {port}"))
    }

    /// The namespace of a port's container.
    pub fn netns(&self, port: &str) -> &Netns {
        self.container(port).netns()
    }

    /// The running heddle.
    pub fn switch(&mut self) -> &mut Switch {
        self.switch.as_mut().expect("heddle runs")
    }

    /// Two ports that talk.
    pub fn pair(&self, client: &str, server: &str, family: Family) -> Pair<'_> {
        let address = self.plan.address(server, family);
        Pair { client: self.netns(client), server: self.netns(server), address }
    }

    /// Pings one port from another a few times.
    pub fn ping(&self, from: &str, to: &str, family: Family) -> RoundTrips {
        let address = self.plan.address(to, family);
        ping(self.netns(from), address, 3, 56, self.cancel()).unwrap()
    }

    /// Whether one port answers another: one echo request.
    pub fn answers(&self, to: &str, from: &str, family: Family) -> bool {
        let address = self.plan.address(to, family);
        ping(self.netns(from), address, 1, 56, self.cancel()).unwrap().lost() == 0
    }

    /// Ends heddle and starts it again.
    pub fn restart(&mut self, end: End) {
        self.end(end);
        self.launch();
    }

    /// Ends heddle.
    pub fn end(&mut self, end: End) {
        let switch = self.switch.take().expect("heddle runs");
        match end {
            End::Killed => switch.kill().unwrap(),
            End::Stopped => switch.stop().unwrap(),
        }
    }

    /// Starts heddle after [`World::end`], by another plan.
    pub fn launch_with(&mut self, plan: Plan) {
        self.plan = plan;
        self.make_containers();
        self.launch();
    }

    /// Changes the configuration under the running heddle, and waits until ports that are new
    /// let packets through and devices of ports that are gone are gone as well.
    pub fn reload(&mut self, plan: Plan) {
        let before: Vec<String> = self.plan.ports().map(str::to_owned).collect();
        self.plan = plan;
        self.make_containers();
        let text = self.configuration();
        self.switch().configure(&text).unwrap();
        self.switch().reload().unwrap();
        self.wait_until_running();
        for port in before.iter().filter(|old| !self.plan.ports().any(|port| port == **old)) {
            eventually(&format!("{port}'s device goes"), PATIENCE, || {
                self.link(port).is_none().then_some(())
            });
        }
    }

    /// Waits until every port lets packets through.
    pub fn wait_until_running(&mut self) {
        for port in self.plan.ports().map(str::to_owned).collect::<Vec<_>>() {
            let container = self.container(&port);
            let running = container.wait_until_running(DEVICE, PATIENCE, self.cancel());
            if let Err(error) = running {
                panic!("{port}: {error}\n{}", self.switch().log_tail());
            }
        }
    }

    /// Deletes a port's container.
    pub fn remove_container(&mut self, port: &str) {
        let container = self.containers.remove(port).expect("a container");
        Netns::remove(container.netns_name()).unwrap();
    }

    /// Makes the containers of all ports that have none, with their devices where heddle makes
    /// none.
    pub fn make_containers(&mut self) {
        for port in self.plan.ports() {
            if !self.containers.contains_key(port) {
                let container = self.lab.container(port).unwrap();
                if self.plan.kind(port).is_existing() {
                    let addresses = Family::BOTH.map(|family| self.plan.address(port, family));
                    plug(&self.host, port, &container, &addresses);
                }
                self.containers.insert(port.to_owned(), container);
            }
        }
    }

    /// Changes the MTU of a port's device that heddle leaves as it is, at both ends.
    pub fn set_mtu(&self, port: &str, mtu: u32) {
        for (container, device) in
            [(&self.host, near_end(port)), (self.container(port), DEVICE.to_owned())]
        {
            let set = |netlink: &mut Netlink| {
                let index = netlink.link(&device)?.expect("the test's device").index;
                netlink.set_mtu(index, mtu)
            };
            container.netlink(set).unwrap();
        }
    }

    /// A port's device, as its container sees it.
    pub fn link(&self, port: &str) -> Option<Link> {
        self.netlink(port, |netlink| netlink.link(DEVICE))
    }

    /// Talks to a container's rtnetlink.
    pub fn netlink<R: Send>(
        &self,
        port: &str,
        work: impl FnOnce(&mut Netlink) -> Result<R, netlink::Error> + Send,
    ) -> R {
        self.container(port).netlink(work).unwrap()
    }

    /// Turns everything on or off that lets a container's kernel leave work to heddle.
    pub fn set_offloads(&self, port: &str, on: bool) {
        let active = || {
            ethtool::set_offloads(DEVICE, on)?;
            ethtool::features(DEVICE)
        };
        let features = self.netns(port).run(active).unwrap().unwrap();
        for name in ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-udp-segmentation"] {
            let found = features.iter().find(|feature| feature.name == name);
            assert_eq!(found.map(|feature| feature.active), Some(on), "{name} of {port}");
        }
    }

    /// What a container's kernel counted at its device so far.
    pub fn device_counters(&self, port: &str) -> DeviceCounters {
        let read = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let text = self.netns(port).run(read).unwrap();
        let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
        let (_, values) = lines.find(|(name, _)| *name == DEVICE).expect("the device");
        let values: Vec<u64> = values.split_whitespace().map(|v| v.parse().unwrap()).collect();
        // Receiver: bytes, packets, errs, drop, and four more; then the sender the same.
        DeviceCounters {
            rx_bytes: values[0],
            rx_packets: values[1],
            tx_bytes: values[8],
            tx_packets: values[9],
            rx_lost: values[2] + values[3],
            tx_lost: values[10] + values[11],
        }
    }

    /// Runs `heddle` with these arguments against the running one. Answers what it said.
    ///
    /// # Errors
    /// What it said on standard error, if it failed.
    pub fn call(&self, arguments: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let said = |bytes| String::from_utf8(bytes).unwrap();
        if status.success() { Ok(said(stdout)) } else { Err(said(stderr)) }
    }

    /// `heddle` with these arguments, against the running one.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(heddle());
        command.arg("--api").arg(self.api().0).args(arguments);
        command
    }

    /// Waits until every worker, or none, does what `show workers` calls so.
    pub fn wait_until_watched(&self, by: &str, on: bool) {
        eventually(&format!("{by} becomes {on}"), PATIENCE, || {
            let workers = self.show("workers");
            let mut workers = workers["workers"].as_array().unwrap().iter();
            workers.all(|worker| worker[by] == on).then_some(())
        });
    }

    /// The API of the running one.
    pub fn api(&self) -> Api {
        Api(self.lab.directory().join("api.sock"))
    }

    /// What `heddle show` says.
    pub fn show(&self, topic: &str) -> Value {
        let said = self.call(&["show", topic, "--json"]).unwrap();
        serde_json::from_str(&said).unwrap()
    }

    /// Frames that ended for this reason, by its symbol.
    pub fn drops(&self, reason: &str) -> u64 {
        let drops = self.show("drops");
        let found = drops["drops"].as_array().unwrap().iter().find(|d| d["reason"] == reason);
        found.and_then(|drop| drop["count"].as_u64()).unwrap_or_else(|| panic!("{drops:#}"))
    }

    fn configuration(&self) -> String {
        // Also of a container that is not there: the lab's prefix names its directory as well.
        let prefix = self.lab.directory().file_name().expect("a directory").display();
        let own = self.host.own_netns();
        self.plan.text(self.lab.directory(), &own, |port| format!("{prefix}-{port}"))
    }

    /// Starts heddle.
    pub fn launch(&mut self) {
        let text = self.configuration();
        self.switch = Some(Switch::start(&self.lab, &self.host, &heddle(), &text).unwrap());
    }
}

/// Makes a veth from the host into a container, which gets the addresses. The host's kernel is not to
/// speak at its end. As kernels make them by themselves, it has more queues than it uses.
pub fn plug(host: &Container, port: &str, container: &Container, addresses: &[IpAddr]) {
    let near = near_end(port);
    let make = |netlink: &mut Netlink| {
        // The one before may not be gone yet: it goes some time after its container.
        if let Some(before) = netlink.link(&near)? {
            netlink.delete(before.index)?;
        }
        netlink.add_veth(&near, DEVICE, QUEUES, Some(container.netns()))?;
        ethtool::set_queues(&near, ONE).unwrap();
        let quiet = format!("/proc/sys/net/ipv6/conf/{near}/disable_ipv6");
        fs::write(quiet, "1").unwrap();
        let index = netlink.link(&near)?.expect("it was made").index;
        netlink.set_up(index)
    };
    host.netlink(make).unwrap();
    let address = |netlink: &mut Netlink| {
        let index = netlink.link(DEVICE)?.expect("it was made").index;
        netlink.set_mac(index, far_mac(port))?;
        ethtool::set_queues(DEVICE, ONE).unwrap();
        netlink.set_up(index)?;
        addresses.iter().try_for_each(|address| {
            netlink.add_address(index, (*address, if address.is_ipv4() { 24 } else { 64 }))
        })
    };
    container.netlink(address).unwrap();
}
