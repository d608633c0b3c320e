//! The grammar of the command line. Its help texts are the documentation of every command and
//! flag.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use perf::lab::Scenario;

use crate::config::units::Size;
use crate::replay::Input;
use crate::show::Topic;

/// A virtual switch for containers: one process per host that carries their frames.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "heddle", version, max_term_width = 100)]
pub(super) struct Arguments {
    /// The socket of the heddle to talk to: `api` in its configuration.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/heddle/heddle.sock")]
    pub(super) api: PathBuf,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the configuration is when no `--config` says otherwise.
const CONFIG: &str = "/etc/heddle/heddle.toml";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the switch in the foreground.
    ///
    /// Tells systemd when it is ready. SIGHUP reloads the configuration. SIGTERM stops and leaves
    /// containers their devices, so that the next heddle goes on where this one ended; `heddle
    /// stop --detach` removes them. HEDDLE_LOG says what is logged: error, warn, info (the
    /// default), debug or trace.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Read a configuration and say in words what it comes to.
    ///
    /// Everything that is wrong is shown with its line, what was found and what was expected.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Build a small world of namespaces, send real traffic through heddle, and show how it did.
    ///
    /// Containers are network namespaces of this machine, traffic comes from their own kernels,
    /// and the kernel's bridge runs beside heddle to compare. Nothing is left behind. Needs root.
    Lab(Lab),
    /// Walk captured frames offline, and write what would have left by each port.
    ///
    /// No device is opened: every port of the configuration is a capture. The captures' times are
    /// the clock, so that the same captures give the same bytes again.
    Replay(Replay),
    /// Show what the running heddle does.
    Show(Show),
    /// Follow packets of the running heddle step by step: which step, which table row, which
    /// verdict.
    Trace(Trace),
    /// Capture frames of a port, or of all: as they come in, as they leave, and those that are
    /// dropped, with the reason as a comment.
    ///
    /// With -w as pcapng, which Wireshark reads; without it, one line per frame. Ctrl-C ends it
    /// in good order. A frame that the walk drops is one record with its reason; one that, or of
    /// which a copy, is dropped later, on its way out, has a second record with the reason. What
    /// heddle's own host stack sends comes in by the port `gateway of NETWORK`. Frames are copied
    /// without delaying traffic: those that the buffer has no room for are counted, and the count
    /// is in the file's statistics. One capture can go on at a time.
    Capture(Capture),
    /// Take up the changed configuration file, without losing a packet of what stays.
    ///
    /// A file that is wrong is shown as `heddle check` shows it, and changes nothing.
    Reload {
        /// Print what changed as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop the running heddle, and wait until it has ended.
    ///
    /// Containers keep their devices for the next heddle.
    Stop {
        /// Remove all devices, so that nothing of heddle is left.
        #[arg(long)]
        detach: bool,
    },
    /// Make, change, remove and list networks at run time.
    ///
    /// They persist until they are removed. What the configuration file names belongs to it and
    /// is only listed here.
    #[command(subcommand)]
    Network(Object<NetworkKeys>),
    /// Make, change, remove and list endpoints at run time.
    ///
    /// They persist until they are removed. What the configuration file names belongs to it and
    /// is only listed here.
    #[command(subcommand)]
    Endpoint(Object<EndpointKeys>),
    /// Measure heddle.
    #[command(subcommand)]
    Perf(Perf),
}

#[derive(Debug, Subcommand)]
pub(super) enum Perf {
    /// Measure what the walk costs, per packet: clocks, allocations and instructions.
    ///
    /// Ports are in memory and one core is pinned, so that nothing but heddle's own work is
    /// measured. The walk is the one that `heddle run` uses.
    Pipeline(Pipeline),
}

#[derive(Debug, Args)]
pub(super) struct Pipeline {
    /// Names of workloads; all by default.
    pub(super) workloads: Vec<String>,
    /// Packets in a batch, from 1 to 256; may be given several times. 1, 4, 16, 64 and 256 by
    /// default.
    #[arg(long, value_name = "N")]
    pub(super) batch: Vec<usize>,
    /// Repeats of each row, of which the median counts; 11 by default.
    #[arg(long, value_name = "N")]
    pub(super) repeats: Option<usize>,
    /// Packets of a repeat; 32768 by default.
    #[arg(long, value_name = "N")]
    pub(super) packets: Option<usize>,
    /// Batches of a repeat with cold caches; 4 by default.
    #[arg(long, value_name = "N")]
    pub(super) sweeps: Option<usize>,
    /// The core to pin to; 1 by default.
    #[arg(long, value_name = "CORE")]
    pub(super) core: Option<usize>,
    /// Measure no clocks.
    #[arg(long)]
    pub(super) no_clocks: bool,
    /// Count instructions by valgrind's callgrind, and compare them with the counts in this file:
    /// a regression of more than 3 % is a failure.
    #[arg(long, value_name = "FILE")]
    pub(super) instructions: Option<PathBuf>,
    /// Write the new counts into the file of --instructions.
    #[arg(long, requires = "instructions")]
    pub(super) bless: bool,
    /// Measure how cost grows with ports and learned addresses.
    #[arg(long)]
    pub(super) curves: bool,
    /// Measure two workers against one; the second is pinned to the next core.
    #[arg(long)]
    pub(super) scaling: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Do the fixed work of one workload, for callgrind around this process.
    #[arg(long, hide = true, value_name = "WORKLOAD", exclusive = true)]
    pub(super) under_callgrind: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Lab {
    /// What is built and tried: bridge, networks on one host; or ports, every kind of port beside
    /// what it competes with.
    #[arg(default_value = "bridge")]
    pub(super) scenario: Scenario,
    /// Leave everything as it is at the end, until Ctrl-C, to look around in it.
    #[arg(long)]
    pub(super) keep: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The configuration, whose ports the captures are for.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub(super) config: PathBuf,
    /// A port and the capture (pcap or pcapng) of what comes in by it; may be given several
    /// times. Frames of equal time are taken in the order of these arguments.
    #[arg(long = "in", value_name = "PORT=FILE", required = true)]
    pub(super) input: Vec<Input>,
    /// The directory that PORT.pcap is written to for each port.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Print one line of JSON per frame that comes in: time, port, index, verdict, reason, and
    /// where its copies went.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Trace {
    /// Conditions that must all hold: port NAME, mac MAC, host ADDRESS, l4 port NUMBER, arp, ip,
    /// ip6, tcp, udp, icmp, icmp6. Every packet by default.
    pub(super) filter: Vec<String>,
    /// End after so many packets, rather than at Ctrl-C.
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// Print one line of JSON per packet.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Capture {
    /// The name of an endpoint's port or of a parent device, or all.
    pub(super) port: String,
    /// Conditions that must all hold, as of `heddle trace`: port NAME, by which the frame came in,
    /// mac MAC, host ADDRESS, l4 port NUMBER, arp, ip, ip6, tcp, udp, icmp, icmp6.
    pub(super) filter: Vec<String>,
    /// Write pcapng to this file, or to standard output if it is `-`.
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: Option<PathBuf>,
    /// End after so many frames, rather than at Ctrl-C.
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// Keep so many bytes of each frame at most; whole frames by default.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) snaplen: Option<u32>,
    /// How much may wait on its way from each worker, such as 64MiB; 8MiB by default.
    #[arg(long, value_name = "SIZE")]
    pub(super) buffer: Option<Size>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// What to show.
    pub(super) topic: TopicName,
    /// Print the API's body, whose keys are stable; with --watch, one line per second.
    #[arg(long)]
    pub(super) json: bool,
    /// Show it again every second, until Ctrl-C.
    #[arg(long)]
    pub(super) watch: bool,
    /// Stations of `fdb` to show at most; 10000 by default.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TopicName {
    /// Every endpoint's port: device, addresses, state, packets and drops.
    Ports,
    /// Every network: subnets, gateways and where it comes from.
    Networks,
    /// Which station is behind which port, configured or learned.
    Fdb,
    /// Why frames went no further, how often, and where.
    Drops,
    /// Everything that is counted.
    Counters,
    /// How the workers' time goes.
    Workers,
}

impl From<TopicName> for Topic {
    fn from(name: TopicName) -> Self {
        match name {
            TopicName::Ports => Self::Ports,
            TopicName::Networks => Self::Networks,
            TopicName::Fdb => Self::Fdb,
            TopicName::Drops => Self::Drops,
            TopicName::Counters => Self::Counters,
            TopicName::Workers => Self::Workers,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Object<K: Args> {
    /// Make one, and print it with all its defaults.
    Create {
        /// Its name, which stays.
        name: String,
        #[command(flatten)]
        keys: K,
    },
    /// Change the keys that are given, and print the result.
    Update {
        /// Whose keys.
        name: String,
        /// A key of the configuration that gets its default again, such as `mtu`.
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
        #[command(flatten)]
        keys: K,
    },
    /// Remove some that were made at run time.
    Rm {
        /// Which.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// List all, with where they come from.
    Ls {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print everything about one as JSON.
    Inspect {
        /// Which.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct NetworkKeys {
    /// What carries its frames: bridge, which is the default, or vlan.
    #[arg(long)]
    pub(super) driver: Option<String>,
    /// The device that it is plugged into: a bridge takes its untagged frames, a vlan its VLANs.
    #[arg(long, value_name = "DEVICE")]
    pub(super) parent: Option<String>,
    /// How the parent is driven: auto, which is the default, af_xdp or af_packet.
    #[arg(long)]
    pub(super) io: Option<String>,
    /// The VLAN of the parent that it is; endpoints get it untagged.
    #[arg(long, value_name = "ID")]
    pub(super) vlan: Option<u32>,
    /// A VLAN of the parent that endpoints get tagged; may be given several times.
    #[arg(long, value_name = "ID")]
    pub(super) trunk: Vec<u32>,
    /// The VLAN that is untagged on the parent and at endpoints of the trunk.
    #[arg(long, value_name = "ID")]
    pub(super) native: Option<u32>,
    /// A subnet such as 10.0.9.0/24 or fd00:9::/64; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    pub(super) subnet: Vec<String>,
    /// heddle's own address in the IPv4 subnets; the first address by default, with a parent none.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) gateway: Vec<String>,
    /// The same in the IPv6 subnets.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) gateway6: Vec<String>,
    /// Where automatic addresses come from; the whole subnet by default.
    #[arg(long, value_name = "PREFIX")]
    pub(super) ip_range: Vec<String>,
    /// An address that nobody is given, and what it is for; may be given several times.
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = pair)]
    pub(super) reserved: Vec<(String, String)>,
    /// No way out: endpoints get no default route.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) internal: Option<bool>,
    /// Endpoints reach the gateway, not each other.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) isolated: Option<bool>,
    /// Whether endpoints may send only from their own addresses; true by default.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) anti_spoof: Option<bool>,
    /// The largest layer 3 packet, in bytes; 1500 by default.
    #[arg(long, value_name = "BYTES")]
    pub(super) mtu: Option<u32>,
    /// How long a learned address that is not heard is kept; 300s by default.
    #[arg(long, value_name = "DURATION")]
    pub(super) ageing: Option<String>,
    /// Learned addresses that one port may have; 1024 by default.
    #[arg(long, value_name = "N")]
    pub(super) mac_limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct EndpointKeys {
    /// The name of its network.
    #[arg(long)]
    pub(super) network: Option<String>,
    /// What its device is: tap, which is the default, veth, device or memory.
    #[arg(long)]
    pub(super) kind: Option<String>,
    /// How a veth or device is driven: auto, which is the default, af_xdp or af_packet.
    #[arg(long)]
    pub(super) io: Option<String>,
    /// The container's network namespace, by name or path; a tap or veth is moved there.
    #[arg(long)]
    pub(super) netns: Option<String>,
    /// The device's name in the namespace; eth0 by default for a tap or veth.
    #[arg(long)]
    pub(super) device: Option<String>,
    /// An address such as 10.0.9.65/24, instead of an automatic one; may be given several times.
    #[arg(long)]
    pub(super) address: Vec<String>,
    /// Its station's address; made from its IP address by default.
    #[arg(long)]
    pub(super) mac: Option<String>,
    /// A further name; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(super) alias: Vec<String>,
    /// Broadcasts, multicasts and unknown unicasts that it may send, such as 1000pps.
    #[arg(long, value_name = "RATE")]
    pub(super) storm: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=ADDRESS")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound_and_everything_in_it_is_explained() {
        let mut root = Arguments::command();
        root.build();
        root.clone().debug_assert();
        let mut commands = vec![root];
        while let Some(command) = commands.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {argument}", command.get_name());
            }
            let further = command.get_subcommands().filter(|c| c.get_name() != "help");
            commands.extend(further.cloned());
        }
    }

    #[test]
    fn flags_become_keys() {
        let words = "heddle network create db --subnet 10.1.0.0/24 --internal --anti-spoof=false";
        let Command::Network(Object::Create { name, keys }) =
            Arguments::parse_from(words.split(' ')).command
        else {
            panic!("another command");
        };
        assert_eq!((&*name, &*keys.subnet), ("db", &["10.1.0.0/24".to_owned()][..]));
        assert_eq!((keys.internal, keys.anti_spoof), (Some(true), Some(false)));
        assert_eq!(keys.isolated, None);
        let words = "heddle network create all --driver vlan --parent eth1 --trunk 10 --trunk 20";
        let Command::Network(Object::Create { keys, .. }) =
            Arguments::parse_from(words.split(' ')).command
        else {
            panic!("another command");
        };
        assert_eq!((keys.parent.as_deref(), &*keys.trunk), (Some("eth1"), &[10, 20][..]));
    }
}
