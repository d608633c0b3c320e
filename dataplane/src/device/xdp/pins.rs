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
use std::sync::{Arc, Mutex};

use aya::EbpfLoader;
use rustix::fs::{FlockOperation, flock, fstat, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::Error;
use super::device::Device;

/// Where the BPF file system is by custom.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// The directory of all heddles below the mount point.
pub const OURS: &str = "heddle";

/// The file of a device's link, beside those of its maps.
pub(super) const LINK: &str = "link";

/// The file system type of a BPF file system (`linux/magic.h`, `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pins of all devices.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    /// It reads the kernel's types when it is made, which takes longer than all else in loading.
    loader: Arc<Mutex<EbpfLoader<'static>>>,
}

impl Pins {
    /// Opens the directory of one heddle, called by its `owner`, on the BPF file system at
    /// `mount_point`, usually [`MOUNT_POINT`], and makes what is missing: if none is mounted
    /// there, one is.
    ///
    /// # Errors
    /// [`Error::Pins`] without `CAP_SYS_ADMIN`, or if the mount point isn't a directory.
    pub fn open(mount_point: impl AsRef<Path>, owner: &str) -> Result<Self, Error> {
        let mount_point = mount_point.as_ref();
        create_directory(mount_point).map_err(refused("create", mount_point))?;
        mount_if_missing(mount_point)
            .map_err(refused("mount a BPF file system at", mount_point))?;
        let ours = mount_point.join(OURS);
        create_directory(&ours).map_err(refused("create", &ours))?;
        let root = ours.join(owner);
        create_directory(&root).map_err(refused("create", &root))?;
        Ok(Self { root, loader: Arc::new(Mutex::new(EbpfLoader::new())) })
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
            match Held::try_lock(entry.path()) {
                Ok(None) => {}
                // Somebody else was faster.
                Err(error) if error.is_not_found() => {}
                held => {
                    held?.map(|mut held| held.remove()).transpose()?;
                    swept.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        Ok(swept)
    }

    /// Removes the directory, if no device has pins any more.
    ///
    /// # Errors
    /// [`Error::Pins`].
    pub fn close(self) -> Result<(), Error> {
        match fs::remove_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.map_err(refused("remove", &self.root)),
        }
    }

    /// Takes the directory of a device, which is made if it isn't there.
    pub(super) fn hold(&self, device: &Device) -> Result<Held, Error> {
        let path = self.root.join(format!("{}@{}", device.index, device.netns_inode));
        let in_use = || Error::InUse { device: device.name.clone(), path: path.clone() };
        Held::create(path.clone())?.ok_or_else(in_use)
    }

    pub(super) fn loader(&self) -> &Mutex<EbpfLoader<'static>> {
        &self.loader
    }
}

/// The directory of one device, locked.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    _lock: fs::File,
    removed: bool,
}

impl Held {
    fn create(path: PathBuf) -> Result<Option<Self>, Error> {
        loop {
            create_directory(&path).map_err(refused("create", &path))?;
            match Self::try_lock(path.clone()) {
                // Somebody's sweep came between the two steps.
                Err(error) if error.is_not_found() => {}
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
        Ok(Some(Self { path, _lock: lock, removed: false }))
    }

    /// The file of a map or of the link.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes a pin, if it is there.
    pub(super) fn unpin(&self, name: &str) -> Result<(), Error> {
        let file = self.file(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(refused("remove", &file)),
        }
    }

    /// Removes the pins of all maps but those that are named.
    pub(super) fn keep<'a>(&self, maps: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let kept: Vec<_> = maps.chain([LINK]).collect();
        for entry in fs::read_dir(&self.path).map_err(refused("list", &self.path))? {
            let name = entry.map_err(refused("list", &self.path))?.file_name();
            if !kept.iter().any(|kept| name == *kept) {
                let file = self.path.join(name);
                fs::remove_file(&file).map_err(refused("remove", &file))?;
            }
        }
        Ok(())
    }

    /// Removes all pins and the directory: what nobody else holds ends.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        self.keep([].into_iter())?;
        self.unpin(LINK)?;
        fs::remove_dir(&self.path).map_err(refused("remove", &self.path))?;
        self.removed = true;
        Ok(())
    }
}

/// Without a link the rest is of no use to the next start.
impl Drop for Held {
    fn drop(&mut self) {
        if !self.removed && !self.file(LINK).exists() {
            // What can't be removed now is swept later.
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
