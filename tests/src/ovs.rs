//! Open vSwitch with its own database, in a namespace, as a peer that is not heddle's.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use dataplane::device::netns::Netns;
use perf::lab::host::{Container, Lab};
use perf::lab::process::Identity;

use crate::{PATIENCE, eventually};

/// What the Debian package `openvswitch-switch` brings.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A bridge of Open vSwitch's, in its userspace datapath. It takes super-packets whole. It ends with
/// this value.
#[derive(Debug)]
pub struct Ovs {
    directory: PathBuf,
    daemons: Vec<Child>,
}

impl Ovs {
    /// Starts it in a namespace.
    ///
    /// # Panics
    /// If it can't be had.
    pub fn start(lab: &Lab, container: &Container) -> Self {
        let directory = lab.directory().join("ovs");
        std::fs::create_dir(&directory).unwrap();
        let mut this = Self { directory, daemons: Vec::new() };
        this.run("ovsdb-tool", &["create", &this.file("conf.db"), SCHEMA]);
        let (remote, control) = (format!("--remote=p{}", this.database()), this.control("db"));
        this.spawn(
            lab,
            container.netns(),
            "ovsdb-server",
            &[&this.file("conf.db"), &remote, &control],
        );
        eventually("the database is there", PATIENCE, || {
            this.directory.join("db.sock").exists().then_some(())
        });
        this.configure(&["--no-wait", "init"]);
        let whole = "other_config:userspace-tso-enable=true";
        this.configure(&["--no-wait", "set", "Open_vSwitch", ".", whole]);
        let (database, control) = (this.database(), this.control("switch"));
        this.spawn(
            lab,
            container.netns(),
            "ovs-vswitchd",
            &[&database, &control, "--disable-system"],
        );
        this.configure(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
        this
    }

    /// Makes a device of the namespace a port, with these columns of the port's (`tag=10`).
    ///
    /// # Panics
    /// If Open vSwitch refuses.
    pub fn plug(&self, device: &str, columns: &[&str]) {
        let add = ["add-port", "br0", device].into_iter();
        self.configure(&add.chain(columns.iter().copied()).collect::<Vec<_>>());
    }

    fn configure(&self, arguments: &[&str]) {
        let database = format!("--db={}", self.database());
        self.run("ovs-vsctl", &[&["--timeout=10", &database], arguments].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program, arguments).output().expect(program);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn spawn(&mut self, lab: &Lab, netns: &Netns, program: &str, arguments: &[&str]) {
        let mut command = self.command(program, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = netns.run(|| command.spawn()).unwrap().expect(program);
        if let Some(identity) = Identity::of(child.id()) {
            lab.record(identity).unwrap();
        }
        self.daemons.push(child);
    }

    /// A program with everything of its own in the directory.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, &self.directory);
        }
        command.args(arguments);
        command
    }

    fn database(&self) -> String {
        format!("unix:{}", self.file("db.sock"))
    }

    fn control(&self, of: &str) -> String {
        format!("--unixctl={}", self.file(&format!("{of}.ctl")))
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for mut daemon in self.daemons.drain(..).rev() {
            // One that has ended already can't be ended.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
