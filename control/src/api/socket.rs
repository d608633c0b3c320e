//! The API's Unix socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

use super::Group;

/// A socket that is listened at. Dropped, it is removed.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the API can't be served.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Someone answers there.
    #[error(
        "{}: another heddle serves its API there; give each its own [host] api",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{}: there is something that is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot {operation} {}: {source}", path.display())]
    System {
        /// The operation, as a verb.
        operation: &'static str,
        /// The socket or its directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Root and the group may connect, which needs the right to write.
const MODE: u32 = 0o660;
/// Of the directory, if it has to be made.
const DIRECTORY_MODE: u32 = 0o755;

impl Socket {
    /// Listens at `path`, whose directory is made if it is not there. A socket that a dead heddle
    /// has left is replaced. `group` may connect too.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn bind(path: &Path, group: Option<&Group>) -> Result<Self, SocketError> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::System { operation, path, source }
        };
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(DIRECTORY_MODE).create(directory);
            made.map_err(failed("make", directory))?;
        }
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(failed("listen at", path))?;
        let socket = Self { listener, path: path.to_owned() };
        if let Some(group) = group {
            let given = std::os::unix::fs::chown(path, None, Some(group.gid));
            given.map_err(failed("change the group of", path))?;
        }
        let allowed = fs::set_permissions(path, Permissions::from_mode(MODE));
        allowed.map_err(failed("change the mode of", path))?;
        Ok(socket)
    }

    /// The next client.
    ///
    /// # Errors
    ///
    /// When there is no descriptor for it.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Whoever comes next replaces it if it stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the socket of a heddle that is dead: nobody accepts there.
fn clear(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    let system = |operation| {
        let path = path.to_owned();
        move |source| SocketError::System { operation, path, source }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match Probe::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system("remove"))
        }
        // Whatever else it says, somebody is there.
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/heddle.sock");
        let socket = Socket::bind(&path, None).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(matches!(Socket::bind(&path, None), Err(SocketError::InUse(_))));
        drop(socket);
        assert!(!path.exists());
        // As a killed process leaves it: the name stays, nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path, None).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path, None), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
