//! `heddle check`: reads a configuration and says in words what it comes to.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use dataplane::ids::SegmentId;
use ipnet::IpNet;
use pipelines::trunk::Tagging;

use super::{Config, Host, Io, Kind, Lan, Network, Parent, Report, Trunk, Workers};
use crate::model::{Desired, Endpoint, Inventory, Model, Uplink};

/// What a configuration comes to on a host that has nothing yet. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The file's name as it was given.
    pub file: String,
    /// What was read, defaults included.
    pub config: Config,
    /// The networks and endpoints with the addresses that they would get.
    pub model: Model,
}

/// Reads the configuration at `path` and plans it as if nothing existed yet.
///
/// # Errors
///
/// Everything that is wrong with the file, or else everything that can't be had from it, such as
/// more addresses than there are.
pub fn check(path: &Path) -> Result<Summary, Report> {
    let file = path.display().to_string();
    let config = Config::load(path)?;
    let (desired, _) = Desired::new(&config, &[]);
    let plan = Inventory::default().plan(&desired, Duration::ZERO).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected = "networks with room for their ports";
        let advice = "give the network a larger subnet or ip_range, or other addresses";
        Report::whole(&file, Kind::Conflict, lines.join("; "), expected, advice)
    })?;
    Ok(Summary { file, config, model: plan.next.model().clone() })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, config, model } = self;
        let (networks, ports) = (config.networks.len(), config.ports.len());
        let (networks, ports) = (counted(networks, "network"), counted(ports, "port"));
        writeln!(f, "{file} is good: {networks}, {ports}")?;
        show_host(f, &config.host)?;
        let networks = model.networks.values().map(|network| (network.id, &*network.spec.name));
        let networks = networks.collect();
        model.uplinks.values().try_for_each(|uplink| show_parent(f, uplink, &networks))?;
        let mut endpoints: HashMap<&str, Vec<&Endpoint>> = HashMap::new();
        for endpoint in config.ports.iter().filter_map(|port| model.endpoints.get(&port.name)) {
            endpoints.entry(&endpoint.spec.network).or_default().push(endpoint);
        }
        for network in &config.networks {
            writeln!(f)?;
            show_network(f, network)?;
            let endpoints = endpoints.get(&*network.name).into_iter().flatten();
            endpoints.into_iter().try_for_each(|endpoint| show_endpoint(f, endpoint))?;
        }
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn show_host(f: &mut fmt::Formatter<'_>, host: &Host) -> fmt::Result {
    let name = host.name.as_deref().unwrap_or("(the kernel's host name)");
    let workers = match &host.workers {
        Workers::Auto => "as many as there are cores for them".to_owned(),
        Workers::Cores(cores) => format!("on cores {}", joined(cores)),
    };
    writeln!(f, "host {name}")?;
    writeln!(f, "  workers  {workers}")?;
    writeln!(f, "  memory   {}", host.memory)?;
    writeln!(f, "  state    {}", host.state.display())?;
    writeln!(f, "  api      {}", host.api.display())
}

/// What is on the wire, and whose it is.
fn show_parent(
    f: &mut fmt::Formatter<'_>,
    uplink: &Uplink,
    networks: &HashMap<SegmentId, &str>,
) -> fmt::Result {
    writeln!(f, "\nparent {}, mtu {}, driven by {}", uplink.device, uplink.mtu, uplink.io)?;
    let mut tagged = Vec::new();
    for (segment, tagging) in uplink.trunk.segments() {
        let name = networks.get(&segment).copied().unwrap_or("trunk only");
        match tagging {
            Tagging::Native(None) => writeln!(f, "  untagged {name}")?,
            Tagging::Native(Some(vid)) => writeln!(f, "  untagged vlan {vid}, {name}")?,
            Tagging::Tagged(vid) => tagged.push((vid, name)),
        }
    }
    tagged.sort_unstable();
    tagged.iter().try_for_each(|(vid, name)| writeln!(f, "  tagged   vlan {vid}, {name}"))
}

fn show_network(f: &mut fmt::Formatter<'_>, network: &Network) -> fmt::Result {
    let mut traits = vec![format!("mtu {}", network.mtu)];
    let flags = [
        (network.internal, "internal: no way out"),
        (network.isolated, "isolated: endpoints reach only the gateway"),
        (!network.anti_spoof, "endpoints may send from any address"),
    ];
    traits.extend(flags.iter().filter(|(on, _)| *on).map(|(_, words)| (*words).to_owned()));
    writeln!(f, "network {} ({}), {}", network.name, place(network), traits.join("; "))?;
    if network.subnets.is_empty() {
        writeln!(f, "  no subnets: a segment without addresses")?;
    }
    for subnet in &network.subnets {
        let gateway = subnet.gateway.map_or("no gateway".to_owned(), |a| format!("gateway {a}"));
        write!(f, "  subnet   {}, {gateway}", subnet.prefix)?;
        if subnet.range != subnet.prefix {
            write!(f, ", automatic addresses from {}", subnet.range)?;
        }
        writeln!(f)?;
    }
    for reserved in &network.reserved {
        let routes = network.next_hops().any(|next_hop| next_hop == reserved.address);
        let routes = if routes { ", where default routes go" } else { "" };
        writeln!(f, "  reserved {} for {}{routes}", reserved.address, reserved.name)?;
    }
    let (ageing, limit) = (network.ageing, network.mac_limit);
    writeln!(f, "  learns   up to {limit} addresses per port, kept for {ageing}")
}

/// What carries a network's frames, and how they look there.
fn place(network: &Network) -> String {
    let Some(Parent { device, io, lan }) = &network.parent else {
        return network.driver.to_string();
    };
    let driven = if *io == Io::Auto { String::new() } else { format!(" by {io}") };
    match lan {
        Lan::Untagged => format!("{}, untagged on {device}{driven}", network.driver),
        Lan::Vlan(vid) => format!("vlan {vid} of {device}{driven}"),
        Lan::Trunk(Trunk { tagged, native }) => {
            let native = native.map_or(String::new(), |vid| format!(", native {vid}"));
            format!("trunk of {device}{driven}: vlans {}{native}", joined(tagged))
        }
    }
}

fn show_endpoint(f: &mut fmt::Formatter<'_>, endpoint: &Endpoint) -> fmt::Result {
    let spec = &endpoint.spec;
    write!(f, "  port     {}, {}", spec.name, spec.device.kind())?;
    spec.device.name().map_or(Ok(()), |name| write!(f, " {name}"))?;
    spec.device.netns().map_or(Ok(()), |netns| write!(f, " in {netns}"))?;
    let io = spec.device.io().filter(|io| *io != Io::Auto);
    io.map_or(Ok(()), |io| write!(f, " by {io}"))?;
    write!(f, ", mac {}", endpoint.mac)?;
    for net in &endpoint.addresses {
        let automatic = !spec.addresses.iter().any(|asked| asked.ip == IpNet::addr(net));
        write!(f, ", {net}{}", if automatic { " (automatic)" } else { "" })?;
    }
    if !spec.aliases.is_empty() {
        write!(f, ", also called {}", joined(&spec.aliases))?;
    }
    if let Some(storm) = spec.limits.storm {
        write!(f, ", storms limited to {storm}")?;
    }
    writeln!(f)
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
