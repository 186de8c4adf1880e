//! Rotation of the logs that a CRI runtime writes and no other program rotates (the kubelet's `containerLogManager`):
//! what has grown to `containerLogMaxSize` is renamed, and the runtime goes on in a new file. What was renamed stays
//! uncompressed, as with Docker, so that any tool reads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::{CWD, RenameFlags};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::agent::options::AgentOptions;
use crate::error::chain;
use crate::runtime::{ContainerRuntime, labels};

/// Looks at the logs of running containers until the agent ends; returns at once where the runtime rotates them.
pub async fn watch(runtime: Arc<dyn ContainerRuntime>, options: Arc<AgentOptions>) {
    if !runtime.needs_sandbox() {
        return;
    }
    let mut ticks = tokio::time::interval(options.container_log_monitor_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(all) = runtime.list(&options.owner()).await else { continue };
        for one in all.into_iter().filter(|one| one.state.is_running() && !one.is_sandbox) {
            if let Some(path) = one.labels.get(labels::LOG_PATH) {
                look_at(&*runtime, &options, &one.id, Path::new(path)).await;
            }
        }
    }
}

/// A log that is not there was renamed by an agent that was killed before it had notified the runtime, which writes on into
/// the renamed file (`rotateLogs` of the kubelet). Otherwise its size decides.
async fn look_at(runtime: &dyn ContainerRuntime, options: &AgentOptions, id: &str, path: &Path) {
    match tokio::fs::metadata(path).await {
        Ok(file) if file.len() >= options.container_log_max_size => rotate(runtime, options, id, path).await,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match runtime.reopen_log(id).await {
            Ok(_) => info!(path = %path.display(), "the log goes on whose rotation was cut off"),
            Err(error) => warn!(path = %path.display(), error = chain(&error), "the runtime writes no log there"),
        },
        _ => {}
    }
}

async fn rotate(runtime: &dyn ContainerRuntime, options: &AgentOptions, id: &str, path: &Path) {
    let old = aside(path, Timestamp::now());
    if let Err(error) = rename_only(path, &old) {
        warn!(path = %path.display(), %error, "cannot rotate the log");
        return;
    }
    if let Err(error) = runtime.reopen_log(id).await {
        // The runtime writes on into the old file, which has to have its name for that to be seen; unless it has begun
        // a new one all the same.
        let _ = rename_only(&old, path);
        warn!(path = %path.display(), error = chain(&error), "the runtime does not go on in another log");
        return;
    }
    debug!(path = %path.display(), "rotated the log");
    for surplus in surplus(path, options.container_log_max_files) {
        let _ = tokio::fs::remove_file(surplus).await;
    }
}

/// Renames and replaces nothing.
fn rename_only(from: &Path, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

/// `0.log.20260102-030405`.
fn aside(path: &Path, now: Timestamp) -> PathBuf {
    let stamp = now.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S");
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{stamp}"));
    path.with_file_name(name)
}

/// The oldest rotated files, those beyond `files` in all with the one that is written.
fn surplus(path: &Path, files: u32) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return vec![];
    };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let rotated = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)));
    let mut rotated: Vec<PathBuf> = rotated.map(|entry| entry.path()).collect();
    // Their names are their times.
    rotated.sort();
    let keep = usize::try_from(files.saturating_sub(1)).unwrap_or(usize::MAX);
    rotated.truncate(rotated.len().saturating_sub(keep));
    rotated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_the_rotated_files_are_kept_with_the_one_that_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let at = |second: i64| aside(&log, Timestamp::from_second(1_000_000_000 + second).unwrap());
        assert_eq!(at(0).file_name().unwrap(), "0.log.20010909-014640");
        for path in [log.clone(), at(0), at(1), at(2), dir.path().join("10.log")] {
            crate::host::fs::write_file(&path, b"x", 0o600).unwrap();
        }
        assert_eq!(surplus(&log, 3), [at(0)]);
        assert_eq!(surplus(&log, 1), [at(0), at(1), at(2)]);
        assert!(surplus(&log, 9).is_empty());
    }
}
