//! Ends processes of a container from the host. A process is only touched while its control group says that it belongs
//! to the container, so that neither a reused number nor another process namespace can hit a stranger.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often the processes are looked for: one may make another while it is being ended.
const ROUNDS: u32 = 5;

/// What `/proc/PID/stat` says of kinship.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kin {
    pid: i32,
    parent: i32,
    session: i32,
}

/// Kills the process `pid` of a container with all its children and the rest of its session. Does nothing where the
/// process cannot be seen, or is not the container's.
pub fn end(pid: i32, container: &str) {
    // What has been killed keeps its place until its parent has heard of it.
    let mut done = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found: Vec<i32> = family(pid, &processes()).into_iter().filter(|one| !done.contains(one)).collect();
        if found.is_empty() {
            return;
        }
        for one in found {
            if kill(one, container) {
                tracing::debug!(pid = one, container, "ended what a command had left");
            }
            done.insert(one);
        }
    }
}

/// The descriptor is opened before the control group is read: from then on the number cannot become another's.
fn kill(pid: i32, container: &str) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap_or_default();
    belongs(&groups, container) && pidfd_send_signal(process, Signal::KILL).is_ok()
}

/// Whether control groups (`/proc/PID/cgroup`) are those of a container: every driver names the last part of the path
/// after it (`/docker/ID`, `/kubepods/.../docker-ID.scope`). A short id would be found in too many.
fn belongs(groups: &str, container: &str) -> bool {
    let names = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    container.len() >= 64 && names.flat_map(|path| path.split('/')).any(|part| part.contains(container))
}

fn processes() -> Vec<Kin> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| kin(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// Reads `/proc/PID/stat`. The name in parentheses may hold anything, parentheses too.
fn kin(pid: i32, stat: &str) -> Option<Kin> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Kin { pid, parent, session })
}

/// A process, its descendants, and its session (a command is started as the leader of one).
fn family(pid: i32, all: &[Kin]) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> =
        all.iter().filter(|one| one.pid == pid || one.session == pid).map(|one| one.pid).collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|one| found.contains(&one.parent) && !found.contains(&one.pid))
            .map(|one| one.pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_a_process_is_its_session_and_its_descendants_and_nobody_else() {
        let all = [(1, 0, 1), (10, 1, 10), (11, 10, 10), (12, 11, 12), (13, 1, 10), (14, 13, 14), (20, 1, 20)]
            .map(|(pid, parent, session)| Kin { pid, parent, session });
        assert_eq!(family(10, &all), BTreeSet::from([10, 11, 12, 13, 14]));
        assert_eq!(family(12, &all), BTreeSet::from([12]));
        assert_eq!(family(99, &all), BTreeSet::new());
    }

    #[test]
    fn kinship_is_read_behind_any_name() {
        let stat = "77 (a) b) S 5 77 66 0 -1 4194560 0 0";
        assert_eq!(kin(77, stat), Some(Kin { pid: 77, parent: 5, session: 66 }));
        assert_eq!(kin(77, "77 (x"), None);
    }

    #[test]
    fn control_groups_belong_to_the_container_that_they_are_named_after() {
        let id = "ab".repeat(32);
        for path in [format!("/docker/{id}"), format!("/kubepods/burstable/pod1/{id}"), format!("/a/docker-{id}.scope")]
        {
            assert!(belongs(&format!("12:pids:{path}\n0::/x\n"), &id), "{path}");
        }
        assert!(!belongs("0::/user.slice\n1:name=systemd:/init\n", &id));
        assert!(!belongs(&format!("0::/docker/{}\n", "cd".repeat(32)), &id));
        assert!(!belongs("0::/docker/ab\n", "ab"), "an id that is cut short proves nothing");
    }

    #[test]
    fn a_stranger_is_not_touched() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        end(i32::try_from(child.id()).unwrap(), &"ab".repeat(32));
        assert_eq!(child.try_wait().unwrap(), None, "it belongs to no container");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
