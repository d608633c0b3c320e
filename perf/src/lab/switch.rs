//! heddle as a process of the lab: started in a host's namespace, awaited, stopped.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::Error;
use super::cancel::LOOK;
use super::host::{Container, Lab};
use super::process::Identity;

/// How long heddle may take until it is ready, with hundreds of ports.
const READY: Duration = Duration::from_secs(60);

/// How long heddle may take to stop after SIGTERM.
const STOP: Duration = Duration::from_secs(5);

/// How much of the log an error shows.
const TAIL_LINES: usize = 20;

/// A running heddle. Dropping it kills it at once.
#[derive(Debug)]
pub struct Switch {
    child: Child,
    log: PathBuf,
}

impl Switch {
    /// Starts `heddle run` in a host's namespace with this configuration (TOML), and waits
    /// until it says that it is ready (sd_notify(3)). Configuration, log and socket are files
    /// in the lab's directory, called by the host's name; the log of an earlier run of the
    /// same host is continued.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be started, [`Error::Ended`] or [`Error::NotReady`] with
    /// the end of its log, [`Error::Cancelled`]. It is not left running.
    pub fn start(
        lab: &Lab,
        host: &Container,
        heddle: &Path,
        configuration: &str,
    ) -> Result<Self, Error> {
        let file = |kind: &str| lab.directory().join(format!("{}.{kind}", host.name()));
        let (config, log, socket) = (file("toml"), file("log"), file("notify"));
        fs::write(&config, configuration).map_err(|e| Error::file("write", &config, e))?;
        let notify = listen(&socket).map_err(|e| Error::file("listen at", &socket, e))?;
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(|e| Error::file("open", &log, e))?;
        let mut command = Command::new(heddle);
        command.arg("run").arg("--config").arg(&config).env("NOTIFY_SOCKET", &socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        // Ctrl-C on the terminal is for the lab, which stops heddle in its turn.
        command.process_group(0);
        // A child is born into the namespace of the thread that makes it.
        let child = host.netns().run(|| command.spawn())?;
        let child = child.map_err(|e| Error::file("start", heddle, e))?;
        let mut switch = Self { child, log };
        if let Some(identity) = Identity::of(switch.pid()) {
            lab.record(identity)?;
        }
        switch.wait_until_ready(lab, &notify)?;
        Ok(switch)
    }

    /// Its process id, for accounting and signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Error::Ended { status, log: self.log_tail() }),
            _ => Ok(()),
        }
    }

    /// Makes it read its configuration again (SIGHUP), which may have been changed by
    /// [`Switch::configure`].
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn reload(&mut self) -> Result<(), Error> {
        self.check()?;
        self.signal(Signal::HUP);
        Ok(())
    }

    /// Writes another configuration for [`Switch::reload`].
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn configure(&self, configuration: &str) -> Result<(), Error> {
        let path = self.log.with_extension("toml");
        fs::write(&path, configuration).map_err(|e| Error::file("write", &path, e))
    }

    /// Ends it without a chance to clean up (SIGKILL), as a crash would.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be waited for.
    pub fn kill(mut self) -> Result<(), Error> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map(drop).map_err(|e| Error::file("wait for the writer of", &self.log, e))
    }

    /// Asks it to stop (SIGTERM) and waits; after five seconds, kills it.
    ///
    /// # Errors
    /// [`Error::Ended`] if it ended before, did not stop in time, or not with success.
    pub fn stop(mut self) -> Result<(), Error> {
        self.check()?;
        self.signal(Signal::TERM);
        let ended = self.wait(STOP).and_then(|in_time| {
            if !in_time {
                self.child.kill()?;
            }
            self.child.wait()
        });
        let status = ended.map_err(|e| Error::file("wait for the writer of", &self.log, e))?;
        if status.success() { Ok(()) } else { Err(Error::Ended { status, log: self.log_tail() }) }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn wait_until_ready(&mut self, lab: &Lab, notify: &UnixDatagram) -> Result<(), Error> {
        let deadline = Instant::now() + READY;
        let mut message = [0; 4096];
        while Instant::now() < deadline {
            lab.cancel().check()?;
            let length = notify.recv(&mut message).unwrap_or(0);
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
            self.check()?;
        }
        Err(Error::NotReady { within: READY, log: self.log_tail() })
    }

    /// Only after [`Switch::check`]: a process that ends after it is not reaped yet, so its pid
    /// can't be another's.
    fn signal(&self, signal: Signal) {
        let _ = self.process().map(|pid| kill_process(pid, signal));
    }

    /// Waits for its end without reaping it; false if `time` passed.
    fn wait(&self, time: Duration) -> io::Result<bool> {
        let process = self.process().ok_or(io::ErrorKind::NotFound)?;
        let fd = pidfd_open(process, PidfdFlags::empty())?;
        let timeout = Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout))?;
        Ok(ready > 0)
    }

    fn process(&self) -> Option<Pid> {
        i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Both do nothing if it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket for sd_notify(3), which looks around often.
fn listen(path: &Path) -> io::Result<UnixDatagram> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixDatagram::bind(path)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::lab::cancel::Cancel;

    /// A script that behaves as the first line of its configuration says. It is not written by
    /// the tests: a file that was just written can't be run while another thread forks.
    pub(in crate::lab) fn stand_in() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lab/testdata/stand-in.sh")
    }

    #[test]
    fn it_starts_inside_its_host_and_stops_when_asked() {
        let lab = Lab::new(Cancel::new()).unwrap();
        let host = lab.container("host").unwrap();
        let mut switch = Switch::start(&lab, &host, &stand_in(), "works").unwrap();
        let inode = host.netns().identity().unwrap().inode;
        assert_eq!(switch.log_tail(), format!("net:[{inode}]"));
        switch.configure("second = 2").unwrap();
        switch.reload().unwrap();
        let deadline = Instant::now() + STOP;
        while !switch.log_tail().contains("second = 2") {
            assert!(Instant::now() < deadline, "{}", switch.log_tail());
        }
        switch.stop().unwrap();
    }

    #[test]
    fn a_killed_one_is_gone_and_another_takes_its_place() {
        let lab = Lab::new(Cancel::new()).unwrap();
        let host = lab.container("host").unwrap();
        let first = Switch::start(&lab, &host, &stand_in(), "works").unwrap();
        let process = Identity::of(first.pid()).unwrap();
        first.kill().unwrap();
        assert!(!process.is_alive());
        Switch::start(&lab, &host, &stand_in(), "works").unwrap().stop().unwrap();
    }

    #[test]
    fn an_early_end_shows_the_log() {
        let lab = Lab::new(Cancel::new()).unwrap();
        let host = lab.container("host").unwrap();
        let failed = Switch::start(&lab, &host, &stand_in(), "fails").unwrap_err();
        assert!(
            matches!(&failed, Error::Ended { status, log }
            if status.code() == Some(2) && log == "no such key"),
            "{failed}"
        );
        let missing = Switch::start(&lab, &host, Path::new("/nonexistent"), "").unwrap_err();
        assert!(matches!(missing, Error::File { operation: "start", .. }));
    }
}
