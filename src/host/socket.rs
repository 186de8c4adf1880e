//! A unix socket to listen on: one that is never there with another mode than its own, and that goes with its listener.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::fs::make_dirs;

/// A socket that is listened on. Dropping it removes the socket file, if it is still this one.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    inode: Option<u64>,
}

impl Listener {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client.
    ///
    /// # Errors
    /// As the system says, out of file descriptors as a rule.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|m| m.ino())
}

/// Listens at `path` with mode 0600, making its directory with `directory_mode`. The file of a process that is gone is
/// replaced.
///
/// # Errors
/// `AddrInUse` when a process answers there, `AlreadyExists` when something else than a socket is in its place, and
/// whatever the system says.
pub async fn bind(path: &Path, directory_mode: u32) -> io::Result<Listener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket")),
        Err(_) => {}
    }
    if let Some(directory) = path.parent() {
        make_dirs(directory, directory_mode).map_err(|error| error.source)?;
    }
    // Under another name until its mode is right, then put in place of whatever is left there in one step.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(name);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = placed {
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    Ok(Listener { listener, path: path.to_owned(), inode: inode(path) })
}
