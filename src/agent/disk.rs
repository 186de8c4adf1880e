//! The disk alarm. A kubelet evicts pods when a disk runs full; a control plane's pods are what must not go, so this
//! agent evicts nothing and says what it sees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::board::Board;
use super::control::report::{Problem, Severity};
use super::options::AgentOptions;
use super::options::eviction::{self, Thresholds};

/// How often the disks are looked at. A file system tells no one that it fills up; looking costs one system call each.
const INTERVAL: Duration = Duration::from_secs(10);

/// How much of a file system is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Tells file systems apart.
    pub id: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes an ordinary user may still write.
    pub free: u64,
    /// Files in all; 0 where the file system does not count them.
    pub files: u64,
    /// Files that can still be made.
    pub files_free: u64,
}

/// One signal of `evictionHard`: its name in the kubelet's words, and what is short.
struct Signal {
    name: &'static str,
    what: &'static str,
    measure: fn(&Left) -> (u64, u64),
}

const SIGNALS: &[Signal] = &[
    Signal { name: eviction::DISK, what: "bytes", measure: |left| (left.free, left.bytes) },
    Signal { name: eviction::FILES, what: "files", measure: |left| (left.files_free, left.files) },
];

/// What to say of the file systems at `paths`: one problem a signal and file system.
///
/// `before` are the problems that stand: one ends only when a tenth more than the threshold is free, lest it flicker.
pub fn alarms(found: &[(PathBuf, Left)], thresholds: &Thresholds, before: &[Problem]) -> Vec<Problem> {
    let mut by_system: BTreeMap<u64, (&Path, &Left)> = BTreeMap::new();
    for (path, left) in found {
        by_system.entry(left.id).or_insert((path, left));
    }
    let signals = by_system.values().flat_map(|system| SIGNALS.iter().map(move |signal| (system, signal)));
    signals
        .filter_map(|((path, left), signal)| {
            let (free, all) = (signal.measure)(left);
            let least = thresholds.least(signal.name, all)?;
            let subject = path.display().to_string();
            let message = format!(
                "disk pressure: less than {} of its {} are free ({}); no pod is evicted, make room before writes fail",
                thresholds.shown(signal.name),
                signal.what,
                signal.name
            );
            let problem = Problem { severity: Severity::Warning, ..Problem::error(subject, message) };
            let slack: u128 = if before.contains(&problem) { 110 } else { 100 };
            let short = all > 0 && u128::from(free).saturating_mul(100) < u128::from(least).saturating_mul(slack);
            short.then_some(problem)
        })
        .collect()
}

/// Watches the disks below everything the agent and its pods write, until the agent ends.
pub async fn watch(options: Arc<AgentOptions>, board: Arc<Board>) {
    let paths = [options.root_dir.clone(), options.pod_logs_dir.clone()];
    let mut problems = Vec::new();
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let paths = paths.clone();
        // Off the runtime's threads: a network file system may hang.
        let Ok(found) = tokio::task::spawn_blocking(move || look(&paths)).await else { continue };
        let now = alarms(&found, &options.node.eviction, &problems);
        for problem in now.iter().filter(|problem| !problems.contains(problem)) {
            warn!(path = problem.subject, "{}", problem.message);
        }
        for problem in problems.iter().filter(|problem| !now.contains(problem)) {
            info!(path = problem.subject, "disk pressure is over");
        }
        if now != problems {
            problems = now;
            board.set_problems("disk", problems.clone());
        }
    }
}

fn look(paths: &[PathBuf]) -> Vec<(PathBuf, Left)> {
    paths.iter().filter_map(|path| Some((path.clone(), left(path)?))).collect()
}

/// What is left where `path` is or will be.
fn left(path: &Path) -> Option<Left> {
    use std::os::unix::fs::MetadataExt;
    let there = path.ancestors().find(|dir| dir.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(Left {
        id: there.metadata().ok()?.dev(),
        bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        files: stat.f_files,
        files_free: stat.f_favail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Left = Left { id: 1, bytes: 1000, free: 500, files: 1000, files_free: 500 };

    fn said(found: &[(&str, Left)], before: &[Problem]) -> Vec<Problem> {
        let found: Vec<_> = found.iter().map(|(path, left)| (PathBuf::from(path), *left)).collect();
        alarms(&found, &Thresholds::default(), before)
    }

    #[test]
    fn a_disk_that_runs_full_is_told_once_a_file_system_and_signal() {
        assert_eq!(said(&[("/r", FINE)], &[]), []);
        let full = Left { free: 99, ..FINE };
        let reported = said(&[("/r", full), ("/l", full), ("/other", Left { id: 2, files_free: 49, ..FINE })], &[]);
        let subjects: Vec<_> = reported.iter().map(|problem| (problem.subject.as_str(), problem.severity)).collect();
        assert_eq!(subjects, [("/r", Severity::Warning), ("/other", Severity::Warning)]);
        assert!(reported[0].message.contains("nodefs.available") && reported[1].message.contains("nodefs.inodesFree"));
    }

    #[test]
    fn an_alarm_ends_only_with_room_to_spare_and_a_file_system_that_counts_no_files_has_none() {
        let reported = said(&[("/r", Left { free: 99, ..FINE })], &[]);
        let hardly = [("/r", Left { free: 105, ..FINE })];
        assert_eq!(said(&hardly, &[]), []);
        assert_eq!(said(&hardly, &reported), reported);
        assert_eq!(said(&[("/r", Left { free: 110, ..FINE })], &reported), []);
        assert_eq!(said(&[("/r", Left { files: 0, files_free: 0, ..FINE })], &[]), []);
    }

    #[test]
    fn what_is_little_is_what_the_configuration_says() {
        let said = |least: &str| {
            let written = BTreeMap::from([(eviction::DISK.to_owned(), least.to_owned())]);
            let thresholds = Thresholds::new(&written, false).unwrap();
            alarms(&[(PathBuf::from("/r"), Left { free: 30, ..FINE })], &thresholds, &[])
        };
        assert!(said("5%")[0].message.contains("less than 5% of its bytes"));
        assert_eq!(said("2%"), []);
        assert_eq!(said("0%"), []);
        assert!(said("40")[0].message.contains("less than 40 of its bytes"));
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_measured_where_it_will_be() {
        let there = tempfile::tempdir().unwrap();
        let found = left(&there.path().join("a/b")).unwrap();
        assert_eq!(found.id, left(there.path()).unwrap().id);
        assert!(found.bytes >= found.free && found.bytes > 0);
    }
}
