//! Where tools look for a container's log: `/var/log/pods/NS_POD_UID/CONTAINER/N.log` and `/var/log/containers`.
//!
//! Both are links: the first to the file the runtime writes, the second to the first. They are made when a container
//! starts and go with it.

pub mod rotate;
pub mod find;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::options::AgentOptions;
use crate::host::fs::{FsError, make_dirs};
use crate::runtime::ContainerName;

/// The longest file name Linux has.
const NAME_MAX: usize = 255;

/// How many lines are read of a container that ended badly; more than are kept, for [`log_tail`].
pub const READ_LINES: usize = 500;
/// Log lines kept of a container that ended badly.
const LAST_LINES: usize = 20;
/// What a log is cut to where it stands for a termination message (the kubelet's `MaxContainerTerminationMessageLogLines`
/// and `MaxContainerTerminationMessageLogLength`).
pub const TAIL_LINES: u64 = 80;
const TAIL_BYTES: usize = 2048;

/// The last lines that say something, oldest first.
///
/// Kubernetes' components answer a wrong flag with one line of error and behind it the list of all their flags: that
/// list is left out, or the error would not be seen.
pub fn log_tail(mut lines: Vec<String>) -> Vec<String> {
    let is_error = |line: &String| line.to_ascii_lowercase().starts_with("error:");
    if let Some(usage) = lines.iter().rposition(|line| line.trim_end() == "Usage:")
        && lines[..usage].iter().rev().take(2).any(is_error)
    {
        // What follows the list (a line of klog's) is no flag, no heading and not blank.
        let is_list = |line: &String| line.is_empty() || line.starts_with(' ') || line.trim_end().ends_with(':');
        let length = lines[usage..].iter().take_while(|line| is_list(line)).count();
        lines.drain(usage..usage.saturating_add(length));
    }
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    let surplus = lines.len().saturating_sub(LAST_LINES);
    lines.split_off(surplus)
}

/// The end of a log as a termination message (`FallbackToLogsOnError`): of its last [`TAIL_LINES`], 2048 bytes at most.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Takes in what the log goes on with.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.drain(..self.0.len().saturating_sub(TAIL_BYTES));
    }

    /// The message. A character that was cut in two is left out.
    pub fn into_text(self) -> String {
        let is_rest = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
        let torn = if self.0.len() < TAIL_BYTES { 0 } else { self.0.iter().take_while(is_rest).count() };
        String::from_utf8_lossy(&self.0[torn..]).into_owned()
    }
}

/// `podLogsDir/NS_POD_UID`.
pub fn pod_dir(options: &AgentOptions, name: &ContainerName) -> PathBuf {
    options.pod_logs_dir.join(format!("{}_{}_{}", name.namespace, name.pod, name.uid))
}

/// `podLogsDir/NS_POD_UID/CONTAINER/N.log`.
pub fn file(options: &AgentOptions, name: &ContainerName) -> PathBuf {
    pod_dir(options, name).join(&name.container).join(format!("{}.log", name.attempt))
}

/// `/var/log/containers/POD_NS_CONTAINER-ID.log`, what comes before the id cut to fit a file name.
fn legacy(options: &AgentOptions, name: &ContainerName, id: &str) -> PathBuf {
    let tail = format!("-{id}.log");
    let mut head = format!("{}_{}_{}", name.pod, name.namespace, name.container);
    head.truncate(NAME_MAX.saturating_sub(tail.len()));
    options.container_logs_dir.join(head + &tail)
}

/// Makes both links; those that are right already stay.
pub fn link(options: &AgentOptions, name: &ContainerName, id: &str, target: &Path) -> Result<(), FsError> {
    let file = file(options, name);
    for (link, target) in [(&file, target), (&legacy(options, name, id), file.as_path())] {
        // Some runtimes write the log where the link would be.
        if link == target || fs::read_link(link).is_ok_and(|old| old == target) {
            continue;
        }
        if let Some(dir) = link.parent() {
            make_dirs(dir, 0o755)?;
        }
        match fs::remove_file(link) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(FsError::new("remove", link, e)),
        }
        symlink(target, link).map_err(|e| FsError::new("link", link, e))?;
    }
    Ok(())
}

/// Removes the links of a container and the directories that are empty then. What is gone already is fine, what cannot
/// be removed is left: a log link is no reason to keep a container.
pub fn unlink(options: &AgentOptions, name: &ContainerName, id: &str) {
    let file = file(options, name);
    let _ = fs::remove_file(legacy(options, name, id));
    let _ = fs::remove_file(&file);
    for dir in file.ancestors().skip(1).take(2) {
        let _ = fs::remove_dir(dir);
    }
}

/// The highest restart count a log of this container was made for: it survives the container.
pub fn last_attempt(options: &AgentOptions, name: &ContainerName) -> Option<u32> {
    let dir = pod_dir(options, name).join(&name.container);
    let entries = fs::read_dir(dir).ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_behind_which_a_component_lists_its_flags_is_its_last_word() {
        let mut said: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
        assert_eq!(log_tail(said.clone()), said[10..]);
        said.push("Error: unknown flag: --no-such-flag".into());
        let list = ["Usage:", "  kube-scheduler [flags]", "", "Misc flags:", "", "      --config string  The path", ""];
        said.extend(list.map(str::to_owned));
        assert_eq!(log_tail(said.clone()).last().unwrap(), "Error: unknown flag: --no-such-flag");
        said.push("F1123 20:00:00 main.go:1] failed".into());
        let words = log_tail(said);
        assert_eq!(words.len(), 20);
        assert_eq!(words[18..], ["Error: unknown flag: --no-such-flag", "F1123 20:00:00 main.go:1] failed"]);
    }

    #[test]
    fn a_log_that_stands_for_a_termination_message_is_cut_at_its_beginning() {
        let message = |parts: &[&str]| {
            let mut tail = Tail::default();
            parts.iter().for_each(|part| tail.push(part.as_bytes()));
            tail.into_text()
        };
        assert_eq!(message(&["one\n", "two"]), "one\ntwo", "no newline that the log has not");
        assert_eq!(message(&[&format!("{}x", "é".repeat(2000))]).len(), 2047);
        assert_eq!(message(&["a", &"é".repeat(1024)]), "é".repeat(1024));
        assert_eq!(message(&[]), "");
    }

    #[test]
    fn links_are_made_at_the_start_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new("n");
        options.pod_logs_dir = dir.path().join("pods");
        options.container_logs_dir = dir.path().join("containers");
        let name = |attempt| ContainerName {
            pod: "p-n".into(),
            namespace: "default".into(),
            uid: "u".into(),
            container: "c".into(),
            attempt,
        };
        let target = dir.path().join("id-json.log");
        fs::File::create(&target).unwrap();
        for attempt in [0, 1] {
            link(&options, &name(attempt), &format!("id{attempt}"), &target).unwrap();
            link(&options, &name(attempt), &format!("id{attempt}"), &target).unwrap();
        }
        let through = options.container_logs_dir.join("p-n_default_c-id1.log");
        assert_eq!(fs::read_link(&through).unwrap(), options.pod_logs_dir.join("default_p-n_u/c/1.log"));
        assert_eq!(fs::canonicalize(&through).unwrap(), target.canonicalize().unwrap());
        assert_eq!(last_attempt(&options, &name(0)), Some(1));
        unlink(&options, &name(0), "id0");
        assert_eq!(last_attempt(&options, &name(0)), Some(1), "the other log keeps the directory");
        unlink(&options, &name(1), "id1");
        assert_eq!(fs::read_dir(&options.pod_logs_dir).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&options.container_logs_dir).unwrap().count(), 0);
    }

    #[test]
    fn a_long_name_is_cut_before_the_id() {
        let options = AgentOptions::new("n");
        let name = ContainerName {
            pod: "p".repeat(253),
            namespace: "default".into(),
            uid: "u".into(),
            container: "c".into(),
            attempt: 0,
        };
        let link = legacy(&options, &name, &"f".repeat(64));
        let file = link.file_name().unwrap().to_str().unwrap();
        assert_eq!(file.len(), NAME_MAX);
        assert!(file.ends_with(&format!("-{}.log", "f".repeat(64))));
    }
}
