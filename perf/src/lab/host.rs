//! The guard of everything that a lab makes, and containers as network namespaces.
//!
//! Names say whose they are: `hdl-PID-START-NUMBER-NAME`, with pid and start time of the
//! process that made them. So a lab can remove at its start what a killed one left behind, and
//! never touches what belongs to one that is alive.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dataplane::device::netlink::{self, Link, Netlink};
use dataplane::device::netns::{self, Netns};
use dataplane::device::xdp;
use rustix::process::{Pid, Signal, kill_process};

use super::Error;
use super::cancel::Cancel;
use super::process::Identity;

const PREFIX: &str = "hdl";

/// A lab in the making or in use. Dropping it removes all its namespaces and files, and ends
/// the processes that it recorded.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    directory: PathBuf,
    cancel: Cancel,
}

impl Lab {
    /// An empty lab. First removes what labs of processes that are gone have left behind.
    ///
    /// # Errors
    /// [`Error::File`] if its directory can't be made; [`Error::NeedsRoot`].
    pub fn new(cancel: Cancel) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NeedsRoot);
        }
        remove_leftovers();
        let own = Identity::own().ok_or(Error::NoProc)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}-{}-{}-{number}", own.pid, own.start);
        let directory = std::env::temp_dir().join(&prefix);
        fs::create_dir(&directory).map_err(|e| Error::file("create", &directory, e))?;
        Ok(Self { prefix, directory, cancel })
    }

    /// Makes a container. Its namespace is called by the lab's prefix and `name`.
    ///
    /// # Errors
    /// [`Error::Netns`], for example if the lab has a container of this name.
    pub fn container(&self, name: &str) -> Result<Container, Error> {
        let full = format!("{}-{name}", self.prefix);
        Ok(Container { name: name.to_owned(), netns: Netns::create(&full)?, full })
    }

    /// A directory for files of the lab.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The flag that ends this lab early.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Remembers a process, so that it ends with the lab, or at the next lab's start.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn record(&self, process: Identity) -> Result<(), Error> {
        let path = self.directory.join(format!("{}.pid", process.pid));
        fs::write(&path, process.start.to_string()).map_err(|e| Error::file("write", &path, e))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove(&self.prefix, &self.directory);
    }
}

/// A container: a network namespace with a name.
#[derive(Debug)]
pub struct Container {
    name: String,
    full: String,
    netns: Netns,
}

impl Container {
    /// The name that the lab's author gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its namespace, for `ip netns` and heddle's configuration.
    pub fn netns_name(&self) -> &str {
        &self.full
    }

    /// What is to be the name of the own namespace of a heddle here.
    pub fn own_netns(&self) -> String {
        format!("{}-own", self.full)
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Runs `work` with a connection to rtnetlink inside.
    ///
    /// # Errors
    /// [`Error::Netns`], [`Error::Netlink`].
    pub fn netlink<R: Send>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<R, netlink::Error> + Send,
    ) -> Result<R, Error> {
        Ok(self.netns.run(|| work(&mut Netlink::open()?))??)
    }

    /// Waits until a device inside lets packets through.
    ///
    /// # Errors
    /// [`Error::NotRunning`] after `within`; [`Error::Cancelled`].
    pub fn wait_until_running(
        &self,
        device: &str,
        within: Duration,
        cancel: &Cancel,
    ) -> Result<Link, Error> {
        let deadline = Instant::now() + within;
        loop {
            cancel.check()?;
            let found = self.netlink(|netlink| netlink.link(device))?;
            match found.filter(|link| link.running) {
                Some(link) => return Ok(link),
                None if Instant::now() > deadline => {
                    let (container, device) = (self.name.clone(), device.to_owned());
                    return Err(Error::NotRunning { container, device, within });
                }
                // A state in the kernel without an event that is worth a subscription here.
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// Removes namespaces, files and recorded processes of labs whose process is gone.
pub fn remove_leftovers() {
    let mut gone: Vec<String> = names_in(Path::new(netns::RUN_DIR));
    gone.extend(names_in(&std::env::temp_dir()));
    let mut prefixes: Vec<&str> = gone.iter().filter_map(|name| prefix_of_dead(name)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    for prefix in prefixes {
        remove(prefix, &std::env::temp_dir().join(prefix));
    }
}

/// Removes what one lab made. It goes as far as it can: whatever fails stays for the next lab.
fn remove(prefix: &str, directory: &Path) {
    for name in names_in(directory) {
        end_recorded(directory, &name);
    }
    let start = format!("{prefix}-");
    for name in names_in(Path::new(netns::RUN_DIR)).iter().filter(|name| name.starts_with(&start)) {
        let _ = Netns::remove(name);
    }
    let pinned = Path::new(xdp::MOUNT_POINT).join(xdp::OURS);
    for name in names_in(&pinned).iter().filter(|name| name.starts_with(&start)) {
        let _ = remove_pins(&pinned.join(name));
    }
    let _ = fs::remove_dir_all(directory);
}

/// Removes a heddle's directories on the BPF file system, of which each has files only.
fn remove_pins(directory: &Path) -> std::io::Result<()> {
    for device in fs::read_dir(directory)? {
        let device = device?.path();
        for pin in fs::read_dir(&device)? {
            fs::remove_file(pin?.path())?;
        }
        fs::remove_dir(device)?;
    }
    fs::remove_dir(directory)
}

/// Ends the process recorded in `PID.pid`, if it is still the same.
fn end_recorded(directory: &Path, file: &str) {
    let recorded = file.strip_suffix(".pid").and_then(|pid| pid.parse().ok()).and_then(|pid| {
        let start = fs::read_to_string(directory.join(file)).ok()?.parse().ok()?;
        Some(Identity { pid, start })
    });
    let Some(identity) = recorded.filter(|identity| identity.is_alive()) else { return };
    if let Some(pid) = i32::try_from(identity.pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The lab's prefix in a name, if the name is one of a lab whose process is gone.
fn prefix_of_dead(name: &str) -> Option<&str> {
    let mut dashes = name.match_indices('-').map(|(at, _)| at);
    let prefix = match dashes.nth(3) {
        Some(end) => &name[..end],
        None => name,
    };
    let mut parts = prefix.split('-');
    if parts.next() != Some(PREFIX) {
        return None;
    }
    let pid = parts.next()?.parse().ok()?;
    let start = parts.next()?.parse().ok()?;
    let _number: u32 = parts.next()?.parse().ok()?;
    (!Identity { pid, start }.is_alive()).then_some(prefix)
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_lab_leaves_nothing_behind() {
        let lab = Lab::new(Cancel::new()).unwrap();
        let name = lab.container("one").unwrap().netns_name().to_owned();
        let directory = lab.directory().to_owned();
        fs::write(directory.join("file"), "text").unwrap();
        assert!(netns::identity_of(&name).is_ok() && directory.exists());
        remove_leftovers();
        assert!(netns::identity_of(&name).is_ok() && directory.exists(), "its owner is alive");
        drop(lab);
        assert!(netns::identity_of(&name).is_err() && !directory.exists());
    }

    #[test]
    fn leftovers_of_a_dead_process_go_and_only_those() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let dead = Identity::of(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let prefix = format!("{PREFIX}-{}-{}-0", dead.pid, dead.start);
        let (ours, other) = (format!("{prefix}-web-1"), format!("hdlx-{}", std::process::id()));
        Netns::create(&ours).unwrap();
        Netns::create(&other).unwrap();
        let directory = std::env::temp_dir().join(&prefix);
        fs::create_dir(&directory).unwrap();
        let mut orphan = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let orphan_identity = Identity::of(orphan.id()).unwrap();
        let record = directory.join(format!("{}.pid", orphan.id()));
        fs::write(record, orphan_identity.start.to_string()).unwrap();

        remove_leftovers();
        let ended = orphan.wait().unwrap();
        let kept = netns::identity_of(&other);
        Netns::remove(&other).unwrap();
        assert!(!ended.success() && !directory.exists());
        assert!(netns::identity_of(&ours).is_err() && kept.is_ok());
    }

    #[test]
    fn only_names_of_labs_are_recognised() {
        for name in ["hdl-1-x-0-a", "hdl-999999-1", "web-1", "hdl", "xhdl-999999999-1-0-a"] {
            assert_eq!(prefix_of_dead(name), None, "{name}");
        }
        assert_eq!(prefix_of_dead("hdl-1-1-0-a-b"), Some("hdl-1-1-0"));
        assert_eq!(prefix_of_dead("hdl-1-1-0"), Some("hdl-1-1-0"));
    }
}
