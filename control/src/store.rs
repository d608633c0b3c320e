//! What must survive a crash: leases, the objects made at run time, and where devices are.
//!
//! One `redb` file in the state directory. A write is one transaction, durable when the call
//! returns, so that whatever was acknowledged is there after a crash at any moment, and of a
//! write that was not acknowledged either all or nothing. Opening verifies every page: a file
//! that something else altered is refused and never half believed.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError, WriteTransaction,
};
use thiserror::Error;

use crate::ipam::{Lease, Record};
use crate::model::Stored;
use crate::plane::Site;

/// The format that this version writes; a higher one is of a later version.
const FORMAT: u64 = 1;
const FILE_NAME: &str = "heddle.redb";

/// Facts about the file itself, by name.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Network and address to the owner's name and, of an address that rests, when that ends, in
/// nanoseconds since the Unix epoch.
const LEASES: TableDefinition<'_, (&str, &str), (&str, Option<u64>)> =
    TableDefinition::new("leases");
/// Names to JSON bodies.
const NETWORKS: TableDefinition<'_, &str, &str> = TableDefinition::new("networks");
/// Names to JSON bodies.
const ENDPOINTS: TableDefinition<'_, &str, &str> = TableDefinition::new("endpoints");
/// Namespace and name of each device that heddle has made, or is about to, to its alias.
const DEVICES: TableDefinition<'_, (&str, &str), &str> = TableDefinition::new("devices");

/// Why the state can't be read or written.
#[derive(Debug, Error)]
pub enum Error {
    /// The directory can't be made or used.
    #[error("{}: {source}", path.display())]
    Directory {
        /// The state directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error("{}: another heddle uses it; give each its own [host] state directory", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A later version of heddle wrote it.
    #[error("{}: written in format {found}, and this version reads up to {FORMAT}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The file is not what heddle wrote.
    #[error("{}: damaged ({detail}); restore it from a backup, or move it away to begin anew", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: Box<redb::Error>,
    },
}

/// All that is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The leases, as [`Ipam::restore`](crate::ipam::Ipam::restore) takes them.
    pub leases: Vec<Record>,
    /// The objects made at run time, networks first.
    pub objects: Vec<Stored>,
    /// Where there may be a device that heddle has made.
    pub sites: Vec<Site>,
}

/// A change of the objects made at run time, or of where devices are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Stores an object, in place of one of the same name.
    Put(Stored),
    /// Removes a network, if it is there.
    RemoveNetwork(String),
    /// Removes an endpoint, if it is there.
    RemoveEndpoint(String),
    /// There is to be a device.
    Occupy(Site),
    /// A device is gone.
    Vacate(Site),
}

/// The open state file. Only one process has it open at a time.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
}

impl Store {
    /// Opens the state in `directory`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`], [`Error::InUse`], [`Error::Newer`], [`Error::Corrupt`] and
    /// [`Error::Storage`].
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Directory { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let path = directory.join(FILE_NAME);
        let mut builder = Database::builder();
        let opened = builder.set_check_integrity_on_open(true).create(&path);
        let database = opened.map_err(|error| cannot_open(&path, error))?;
        // The file's name must be as durable as what is in it.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        let store = Self { database, path };
        store.prepare()?;
        Ok(store)
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if an entry makes no sense, and [`Error::Storage`].
    pub fn load(&self) -> Result<State, Error> {
        let read = self.database.begin_read().map_err(|e| self.failed(e))?;
        let mut state = State::default();
        let leases = read.open_table(LEASES).map_err(|e| self.failed(e))?;
        for entry in leases.iter().map_err(|e| self.failed(e))? {
            let (key, value) = entry.map_err(|e| self.failed(e))?;
            state.leases.push(self.record(key.value(), value.value())?);
        }
        type Wrap = fn(serde_json::Value) -> Stored;
        for (table, wrap) in [(NETWORKS, Stored::Network as Wrap), (ENDPOINTS, Stored::Endpoint)] {
            let table = read.open_table(table).map_err(|e| self.failed(e))?;
            for entry in table.iter().map_err(|e| self.failed(e))? {
                let (name, body) = entry.map_err(|e| self.failed(e))?;
                state.objects.push(wrap(self.body(name.value(), body.value())?));
            }
        }
        let devices = read.open_table(DEVICES).map_err(|e| self.failed(e))?;
        for entry in devices.iter().map_err(|e| self.failed(e))? {
            let (key, alias) = entry.map_err(|e| self.failed(e))?;
            let (netns, name) = key.value();
            let (netns, name, alias) = (netns.into(), name.to_owned(), alias.value().to_owned());
            state.sites.push(Site { netns, name, alias });
        }
        Ok(state)
    }

    /// Writes leases and objects together; when it returns, they are on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]. Then nothing was acknowledged, and whether it was written shows when
    /// the file is opened again.
    pub fn write(&self, records: &[Record], edits: &[Edit]) -> Result<(), Error> {
        self.transaction(|write| {
            let mut leases = write.open_table(LEASES)?;
            for Record { network, address, lease } in records {
                let key = (network.as_str(), &*address.to_string());
                match lease {
                    None => leases.remove(key)?,
                    Some(lease) => {
                        let until = lease.rests_until.map(nanoseconds);
                        leases.insert(key, (lease.owner.as_str(), until))?
                    }
                };
            }
            edits.iter().try_for_each(|edit| apply(write, edit))
        })
    }

    /// Makes the tables of a new file, and refuses one that this version does not know.
    fn prepare(&self) -> Result<(), Error> {
        let found = self.format()?;
        match found {
            Some(FORMAT) => Ok(()),
            Some(found) => Err(Error::Newer { path: self.path.clone(), found }),
            None => self.transaction(|write| {
                write.open_table(META)?.insert("format", FORMAT)?;
                write.open_table(LEASES)?;
                write.open_table(NETWORKS)?;
                write.open_table(ENDPOINTS)?;
                write.open_table(DEVICES)?;
                Ok(())
            }),
        }
    }

    /// The file's format; `None` if it is new.
    fn format(&self) -> Result<Option<u64>, Error> {
        let read = self.database.begin_read().map_err(|e| self.failed(e))?;
        let meta = match read.open_table(META) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table.map_err(|e| self.failed(e))?,
        };
        let format = meta.get("format").map_err(|e| self.failed(e))?;
        Ok(format.map(|format| format.value()))
    }

    fn transaction(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(|e| self.failed(e))?;
        change(&write).map_err(|e| self.failed(e))?;
        // A commit is durable before it returns (`Durability::Immediate`, the default).
        write.commit().map_err(|e| self.failed(e))
    }

    fn record(
        &self,
        (network, address): (&str, &str),
        (owner, rests_until): (&str, Option<u64>),
    ) -> Result<Record, Error> {
        let address: IpAddr = address
            .parse()
            .map_err(|_| self.corrupt(format!("a lease of {address:?}, which is no address")))?;
        let rests_until = rests_until.map(Duration::from_nanos);
        let lease = Some(Lease { owner: owner.to_owned(), rests_until });
        Ok(Record { network: network.to_owned(), address, lease })
    }

    fn body(&self, name: &str, text: &str) -> Result<serde_json::Value, Error> {
        serde_json::from_str(text).map_err(|e| self.corrupt(format!("the object {name:?}: {e}")))
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt { path: self.path.clone(), detail }
    }

    fn failed(&self, error: impl Into<redb::Error>) -> Error {
        match error.into() {
            redb::Error::Corrupted(detail) => self.corrupt(detail),
            error @ redb::Error::TableTypeMismatch { .. } => self.corrupt(error.to_string()),
            source => Error::Storage { path: self.path.clone(), source: Box::new(source) },
        }
    }
}

fn apply(write: &WriteTransaction, edit: &Edit) -> Result<(), redb::Error> {
    let (table, name, body) = match edit {
        Edit::Occupy(site) | Edit::Vacate(site) => return settle(write, edit, site),
        Edit::Put(stored @ Stored::Network(body)) => (NETWORKS, stored.name(), Some(body)),
        Edit::Put(stored @ Stored::Endpoint(body)) => (ENDPOINTS, stored.name(), Some(body)),
        Edit::RemoveNetwork(name) => (NETWORKS, name.as_str(), None),
        Edit::RemoveEndpoint(name) => (ENDPOINTS, name.as_str(), None),
    };
    let mut table = write.open_table(table)?;
    match body {
        Some(body) => table.insert(name, body.to_string().as_str())?,
        None => table.remove(name)?,
    };
    Ok(())
}

/// A device that gave way to another of the same name has nothing to vacate.
fn settle(write: &WriteTransaction, edit: &Edit, site: &Site) -> Result<(), redb::Error> {
    let netns = site.netns.to_string_lossy();
    let key = (&*netns, site.name.as_str());
    let mut table = write.open_table(DEVICES)?;
    if matches!(edit, Edit::Occupy(_)) {
        table.insert(key, site.alias.as_str())?;
    } else if table.get(key)?.is_some_and(|alias| alias.value() == site.alias) {
        table.remove(key)?;
    }
    Ok(())
}

/// Until the year 2554 exactly, and then that year.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn cannot_open(path: &Path, error: DatabaseError) -> Error {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::InUse { path },
        DatabaseError::Storage(StorageError::Corrupted(detail)) => Error::Corrupt { path, detail },
        // What does not begin like a redb file, or ends before it should.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(
                error.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            Error::Corrupt { path, detail: error.to_string() }
        }
        DatabaseError::UpgradeRequired(version) => {
            Error::Corrupt { path, detail: format!("redb's own file format {version}") }
        }
        error => Error::Storage { path, source: Box::new(error.into()) },
    }
}

#[cfg(test)]
mod tests;
