//! Logs: `tracing`, to stderr, one line an entry.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use super::terminal::suspended;

/// Starts logging at kubeadm's `-v` level. A second call changes nothing.
pub fn init(verbosity: u8) {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter(verbosity)))
        .with_writer(|| BesideLiveLines)
        .with_ansi(io::stderr().is_terminal())
        .with_target(verbosity >= 4)
        .try_init();
}

/// Our own entries by the level asked for; those of libraries only when everything is wanted. Never bollard's, which are
/// whole requests with the environments of containers, nor kube's, which are each refused connection and whole answers
/// that it could not read, secrets among them: the caller reports what comes of either.
fn filter(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "warn,kube_client=off",
        1..4 => "warn,kube_client=off,kubeboot=info",
        4..8 => "warn,kube_client=off,kubeboot=debug",
        8.. => "debug,bollard=info,kube_client=off,kubeboot=trace",
    }
}

/// stderr, with the live lines of a running command out of the way while an entry is written.
struct BesideLiveLines;

/// What reads the log may end before this process does: an entry that cannot be written is lost, and nothing else. (The
/// subscriber would tell of it on stderr, and the standard library panics where that fails.)
impl Write for BesideLiveLines {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let _ = suspended(|| io::stderr().lock().write_all(entry));
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().lock().flush();
        Ok(())
    }
}
