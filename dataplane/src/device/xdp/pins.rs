//! Where programs outlive the process: a directory per device on a BPF file system, with the
//! link and the maps pinned in it.
//!
//! A directory is called by the device's index and its namespace's inode, which a new name of
//! the device doesn't change. Whoever holds its lock is the one heddle of the device; the kernel
//! drops the lock with the process.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, fstat, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::Error;

/// Where the BPF file system is by custom.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// heddle's directory below the mount point.
const OURS: &str = "heddle";

/// The file system type of a BPF file system (`linux/magic.h`, `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pins of all devices.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Opens heddle's directory on the BPF file system at `mount_point`, usually
    /// [`MOUNT_POINT`], and makes what is missing: if none is mounted there, one is.
    ///
    /// # Errors
    /// [`Error::Pins`] without `CAP_SYS_ADMIN`, or if the mount point isn't a directory.
    pub fn open(mount_point: impl AsRef<Path>) -> Result<Self, Error> {
        let mount_point = mount_point.as_ref();
        create_directory(mount_point).map_err(refused("create", mount_point))?;
        mount_if_missing(mount_point)
            .map_err(refused("mount a BPF file system at", mount_point))?;
        let root = mount_point.join(OURS);
        create_directory(&root).map_err(refused("create", &root))?;
        Ok(Self { root })
    }

    /// Removes what nobody holds: the pins of devices that are gone, and, once a starting heddle
    /// has adopted what it wants, of devices that it doesn't want any more. Their programs end.
    /// Answers the names of the directories.
    ///
    /// # Errors
    /// [`Error::Pins`].
    pub fn sweep(&self) -> Result<Vec<String>, Error> {
        let mut swept = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(refused("list", &self.root))? {
            let entry = entry.map_err(refused("list", &self.root))?;
            if let Some(mut held) = Held::try_lock(entry.path())? {
                held.remove()?;
                swept.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(swept)
    }

    /// Takes the directory of a device, which is made if it isn't there, or `None` if another
    /// process has it.
    pub(super) fn hold(&self, index: u32, netns_inode: u64) -> Result<Option<Held>, Error> {
        Held::create(self.path(index, netns_inode))
    }

    pub(super) fn path(&self, index: u32, netns_inode: u64) -> PathBuf {
        self.root.join(format!("{index}@{netns_inode}"))
    }
}

/// The directory of one device, locked.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    _lock: fs::File,
}

impl Held {
    fn create(path: PathBuf) -> Result<Option<Self>, Error> {
        loop {
            create_directory(&path).map_err(refused("create", &path))?;
            match Self::try_lock(path.clone()) {
                // Somebody's sweep came between the two steps.
                Err(Error::Pins { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                held => return held,
            }
        }
    }

    fn try_lock(path: PathBuf) -> Result<Option<Self>, Error> {
        let lock = fs::File::open(&path).map_err(refused("open", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked.map_err(|e| refused("lock", &path)(e.into()))?,
        }
        // What was locked may have been removed meanwhile.
        let inode = fstat(&lock).map_err(|e| refused("inspect", &path)(e.into()))?.st_ino;
        let found = fs::metadata(&path).map_err(refused("inspect", &path))?;
        if found.ino() != inode {
            return Err(refused("lock", &path)(io::ErrorKind::NotFound.into()));
        }
        Ok(Some(Self { path, _lock: lock }))
    }

    /// The file of the link.
    pub(super) fn link(&self) -> PathBuf {
        self.path.join("link")
    }

    /// The file of a map.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes all pins and the directory: what nobody else holds ends.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        let path = &self.path;
        // The link first: until it is gone, its program needs the maps.
        self.unpin("link")?;
        for entry in fs::read_dir(path).map_err(refused("list", path))? {
            let file = entry.map_err(refused("list", path))?.path();
            fs::remove_file(&file).map_err(refused("remove", &file))?;
        }
        fs::remove_dir(path).map_err(refused("remove", path))
    }

    /// Removes a pin, if it is there.
    pub(super) fn unpin(&self, name: &str) -> Result<(), Error> {
        let file = self.path.join(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(refused("remove", &file)),
        }
    }
}

/// A directory without a link is of no use to the next start.
impl Drop for Held {
    fn drop(&mut self) {
        if !self.link().exists() {
            // It may have been removed already; what can't be is swept later.
            let _ = self.remove();
        }
    }
}

fn mount_if_missing(mount_point: &Path) -> io::Result<()> {
    let found = statfs(mount_point)?;
    if u64::try_from(found.f_type) == Ok(BPF_FS_MAGIC) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("bpf", mount_point, "bpf", flags, c"mode=0700")?)
}

fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn refused(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Pins { operation, path: path.to_owned(), source }
}
