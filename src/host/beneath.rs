//! Directories by descriptors: what is below one that is open is never reached by a path that a process could exchange
//! for a link meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// How directories are opened: as such, never through a link, without waiting.
pub const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Opens the directory `name` in `dir`: never what a link points to, nor what is mounted there.
///
/// # Errors
/// [`Errno::LOOP`] or [`Errno::NOTDIR`] for what is no directory, [`Errno::XDEV`] for a mount point.
pub fn open_dir(dir: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(dir, name, OFlags::RDONLY | DIRECTORY, Mode::empty(), how) {
        // A kernel before 5.6.
        Err(Errno::NOSYS) => {
            let opened = rustix::fs::openat(dir, name, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
            let device = |fd| rustix::fs::fstat(fd).map(|stat| stat.st_dev);
            if device(opened.as_fd())? == device(dir)? { Ok(opened) } else { Err(Errno::XDEV) }
        }
        other => other,
    }
}

/// Makes the directory `name` in `dir` with just this mode, whatever the umask is, and opens it.
///
/// # Errors
/// [`Errno::EXIST`] where there is something already; those of [`open_dir`] where it was exchanged meanwhile.
pub fn make_dir(dir: BorrowedFd<'_>, name: impl Arg + Copy, mode: Mode) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(dir, name, mode)?;
    let made = open_dir(dir, name)?;
    rustix::fs::fchmod(&made, mode)?;
    Ok(made)
}
