#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "test support")]

//! Threads with mounts, a umask or rights of their own, so that tests need not share the process's.

use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{CapabilitySet, UnshareFlags};

/// Runs `test` in a mount namespace of its own, which goes with it and with all that it has mounted. Without the right
/// to make one (CAP_SYS_ADMIN) it is not run, and that is said.
///
/// # Panics
/// `test` does.
pub fn apart(test: impl FnOnce() + Send) {
    alone(UnshareFlags::NEWNS, || {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        test();
    });
}

/// Runs `test` with this umask. As [`apart`], where the machine allows no such thing.
///
/// # Panics
/// `test` does.
pub fn with_umask(umask: u32, test: impl FnOnce() + Send) {
    alone(UnshareFlags::FS, || {
        rustix::process::umask(Mode::from_raw_mode(umask));
        test();
    });
}

/// Mounts an empty file system of memory.
///
/// # Panics
/// Without the right to.
pub fn tmpfs(at: impl AsRef<std::path::Path>) {
    rustix::mount::mount("tmpfs", at.as_ref(), "tmpfs", MountFlags::empty(), None).unwrap();
}

/// Mounts an empty file system of memory that has room for so many bytes.
///
/// # Panics
/// Without the right to.
pub fn small_disk(at: impl AsRef<std::path::Path>, size: u64) {
    let options = std::ffi::CString::new(format!("size={size}")).unwrap();
    rustix::mount::mount("tmpfs", at.as_ref(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
}

/// Runs `test` without the right to give files to others (CAP_CHOWN), as a file system that refuses does.
///
/// # Panics
/// `test` does.
pub fn without_chown(test: impl FnOnce() + Send) {
    alone(UnshareFlags::empty(), || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::CHOWN);
        rustix::thread::set_capabilities(None, sets).unwrap();
        test();
    });
}

fn alone(what: UnshareFlags, test: impl FnOnce() + Send) {
    let run = || {
        // Its replacement is `unsafe` for the sake of flags that are not used here.
        #[allow(deprecated)]
        let made = rustix::thread::unshare(what);
        match made {
            Ok(()) => test(),
            Err(error) => eprintln!("not tested: no thread with its own mounts or umask ({error})"),
        }
    };
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}
