//! Network namespaces: made, opened, entered and removed, with the names that `ip netns` uses.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FlockOperation, flock, fstat, fstatfs, stat};
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use thiserror::Error;

use super::netlink::{self, Netlink};

/// Where named namespaces are bound, as iproute2 has it.
pub const RUN_DIR: &str = "/run/netns";

/// The file system type of namespace files (`linux/magic.h`, `NSFS_MAGIC`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The index of `lo`, which the kernel gives it in every namespace.
const LOOPBACK: u32 = 1;

/// What went wrong with a namespace.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused a step.
    #[error("cannot {operation} network namespace {}: {source}", path.display())]
    Refused {
        /// The step, as a verb.
        operation: &'static str,
        /// The namespace's file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there, but no namespace is bound to it: it was deleted halfway, or is
    /// something else.
    #[error("{} is not a network namespace", .0.display())]
    NotNamespace(PathBuf),
    /// A name for a new namespace that can't be a file's name.
    #[error("`{0}` can't name a network namespace: it must be a plain file name")]
    BadName(String),
    /// The new namespace's loopback device could not be set up.
    #[error("cannot set up lo in network namespace {}: {source}", path.display())]
    Loopback {
        /// The namespace's file.
        path: PathBuf,
        /// What rtnetlink said.
        source: netlink::Error,
    },
}

impl Error {
    /// Whether the namespace's file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What tells a namespace from every other that exists at the same time. The kernel may give
/// the numbers of a namespace that has ended to a new one, so compare while one of them is open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The device number of the kernel's file system of namespaces.
    pub device: u64,
    /// The namespace's inode in it.
    pub inode: u64,
}

/// An open network namespace. It lives at least as long as this value, even if its name goes.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: PathBuf,
}

impl Netns {
    /// Opens a namespace: a bare name means one of [`RUN_DIR`], as with `ip netns`, and
    /// anything with a slash is a path, for example `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`Error::Refused`] if the file can't be opened, [`Error::NotNamespace`] if it is another
    /// kind of file.
    pub fn open(name_or_path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path_of(name_or_path);
        let file = fs::File::open(&path).map_err(refused("open", &path))?;
        let kind = fstatfs(&file).map_err(|e| refused("inspect", &path)(e.into()))?;
        if u64::try_from(kind.f_type) != Ok(NSFS_MAGIC) {
            return Err(Error::NotNamespace(path));
        }
        Ok(Self { fd: file.into(), path })
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Netns::open`].
    pub fn current() -> Result<Self, Error> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes a namespace called `name`, as `ip netns add` does, and sets its `lo` up.
    ///
    /// # Errors
    /// [`Error::BadName`]; [`Error::Refused`], with `AlreadyExists` if the name is taken;
    /// [`Error::Loopback`]. Nothing is left behind.
    pub fn create(name: &str) -> Result<Self, Error> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Error::BadName(name.to_owned()));
        }
        let path = Path::new(RUN_DIR).join(name);
        share_run_dir().map_err(refused("prepare the directory of", &path))?;
        create_file(&path).map_err(refused("create", &path))?;
        let made = bind_new_namespace(&path).and_then(|()| Self::open(&path));
        let made = made.and_then(|namespace| namespace.with_loopback_up());
        if made.is_err() {
            // The first error is what matters; the rest of the way back is a best effort.
            let _ = Self::remove(name);
        }
        made
    }

    /// Removes the name of a namespace, as `ip netns delete` does. The namespace itself ends
    /// when nobody is inside it and nobody holds it open.
    ///
    /// # Errors
    /// [`Error::Refused`], with `NotFound` if there is no such name.
    pub fn remove(name_or_path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path_of(name_or_path);
        // A file without a mount is a namespace whose creation or removal stopped halfway.
        let _ = unmount(&path, UnmountFlags::DETACH);
        fs::remove_file(&path).map_err(refused("remove", &path))
    }

    /// The file by which the namespace was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace's identity, see [`identity_of`].
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel can't say.
    pub fn identity(&self) -> Result<Identity, Error> {
        let found = fstat(&self.fd).map_err(|e| refused("inspect", &self.path)(e.into()))?;
        Ok(Identity { device: found.st_dev, inode: found.st_ino })
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it. Sockets and
    /// devices that `work` opens belong to the namespace also afterwards. A panic of `work`
    /// goes on in the caller.
    ///
    /// # Errors
    /// [`Error::Refused`] if the thread can't be started or can't enter.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
        on_a_thread(&self.path, || {
            self.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread into the namespace, for good: for a thread that stays inside.
    ///
    /// # Errors
    /// [`Error::Refused`] without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> Result<(), Error> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| refused("enter", &self.path)(e.into()))
    }

    fn with_loopback_up(self) -> Result<Self, Error> {
        self.run(|| Netlink::open()?.set_up(LOOPBACK))?
            .map_err(|source| Error::Loopback { path: self.path.clone(), source })?;
        Ok(self)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The identity of the namespace that a name or path leads to now: compared with
/// [`Netns::identity`] of an open one, it shows that a namespace was deleted or made anew.
///
/// # Errors
/// [`Error::Refused`], with `NotFound` if the name is gone.
pub fn identity_of(name_or_path: impl AsRef<Path>) -> Result<Identity, Error> {
    let path = path_of(name_or_path);
    let found = stat(&path).map_err(|e| refused("inspect", &path)(e.into()))?;
    Ok(Identity { device: found.st_dev, inode: found.st_ino })
}

fn path_of(name_or_path: impl AsRef<Path>) -> PathBuf {
    let given = name_or_path.as_ref();
    // Joining an absolute path replaces the directory; a relative one with a slash stays itself.
    if given.components().count() > 1 { given.to_owned() } else { Path::new(RUN_DIR).join(given) }
}

fn refused(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Refused { operation, path: path.to_owned(), source }
}

/// Makes the directory of names a shared mount, so that a name removed here also goes from
/// mount namespaces that were copied from ours; otherwise they would keep the namespace alive.
/// The lock is the one that iproute2 takes.
fn share_run_dir() -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(RUN_DIR)?;
    let directory = fs::File::open(RUN_DIR)?;
    flock(&directory, FlockOperation::LockExclusive)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if mount_change(RUN_DIR, shared).is_err() {
        // Not a mount point yet.
        mount_bind_recursive(RUN_DIR, RUN_DIR)?;
        mount_change(RUN_DIR, shared)?;
    }
    Ok(())
}

fn create_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o444).open(path).map(drop)
}

fn bind_new_namespace(path: &Path) -> Result<(), Error> {
    on_a_thread(path, || {
        // SAFETY: the file table stays shared, only the network namespace of this thread
        // changes, and the thread ends with this closure.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .and_then(|()| mount_bind("/proc/thread-self/ns/net", path))
            .map_err(|e| refused("create", path)(e.into()))
    })
}

/// Runs `work` on a new thread, because a thread that has changed its namespace is of no use
/// to anyone else, and waits for it.
fn on_a_thread<R: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<R, Error> + Send,
) -> Result<R, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        match thread.map_err(refused("start a thread for", path))?.join() {
            Ok(done) => done,
            Err(panic) => panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::process;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A namespace of a test, removed with its guard.
    pub(crate) struct Guard {
        pub(crate) netns: Netns,
    }

    impl Guard {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let netns = Netns::create(&format!("hdltest-{}-{number}", process::id())).unwrap();
            Self { netns }
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = Netns::remove(self.netns.path());
        }
    }

    #[test]
    fn a_namespace_is_made_entered_and_removed() {
        let guard = Guard::new();
        let inside = guard.netns.run(|| Netns::current().unwrap().identity().unwrap()).unwrap();
        assert_eq!(inside, guard.netns.identity().unwrap());
        assert_eq!(inside, identity_of(guard.netns.path()).unwrap());
        assert_ne!(inside, Netns::current().unwrap().identity().unwrap());
        let path = guard.netns.path().to_owned();
        drop(guard);
        assert!(Netns::open(&path).unwrap_err().is_not_found());
        assert!(identity_of(&path).unwrap_err().is_not_found());
    }

    #[test]
    fn a_namespace_made_anew_under_its_name_is_another() {
        let first = Guard::new();
        let name = first.netns.path().file_name().unwrap().to_str().unwrap().to_owned();
        Netns::remove(&name).unwrap();
        Netns::create(&name).unwrap();
        assert_ne!(first.netns.identity().unwrap(), identity_of(&name).unwrap());
    }

    #[test]
    fn loopback_is_up_and_sockets_stay_inside() {
        let guard = Guard::new();
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = guard.netns.run(bind).unwrap();
        let address = listener.local_addr().unwrap();
        guard.netns.run(|| std::net::TcpStream::connect(address).unwrap()).unwrap();
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn names_and_files_that_are_no_namespaces_are_refused() {
        for name in ["", ".", "..", "a/b", "nul\0"] {
            assert!(matches!(Netns::create(name), Err(Error::BadName(_))), "{name:?}");
        }
        assert!(matches!(Netns::open("/proc/self/status"), Err(Error::NotNamespace(_))));
        let guard = Guard::new();
        let name = guard.netns.path().file_name().unwrap().to_str().unwrap();
        let again = Netns::create(name).unwrap_err();
        assert!(matches!(again, Error::Refused { source, .. }
            if source.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(guard.netns.identity().unwrap(), identity_of(name).unwrap());
    }

    #[test]
    fn a_panic_inside_reaches_the_caller() {
        let guard = Guard::new();
        let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let _ = guard.netns.run(|| panic!("inside"));
        }));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
    }
}
