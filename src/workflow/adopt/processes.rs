//! The processes of the kubelet's static pods, known by their command lines: the manifests spell them out, and the
//! kubelet's own interfaces ask the API server for leave, which is one of those that end. Any user can start
//! a process with such a command line, but not in the cgroup of a container.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::LOOK;
use crate::host::ports;
use crate::host::process::{self, Handle, ProcessError};
use crate::manifests::API_SERVER;

/// Finds processes and waits for their end.
#[async_trait]
pub trait Processes: Send + Sync {
    /// The processes of containers that were started with one of these command lines.
    fn find(&self, commands: &[Vec<String>]) -> Vec<u32>;

    /// Waits until a process has ended.
    async fn ended(&self, pid: u32) -> Result<(), ProcessError>;

    /// Whether a process listens on a TCP port.
    fn listens(&self, pid: u32) -> bool;

    /// Kills a process.
    fn kill(&self, pid: u32) -> Result<(), ProcessError>;
}

/// Those of this machine.
pub struct Running {
    proc: PathBuf,
}

impl Default for Running {
    fn default() -> Self {
        Self { proc: PathBuf::from(process::PROC) }
    }
}

impl Running {
    /// Whether a process is in the cgroup of a container that the machine's runtime has made. One whose cgroup is unknown counts:
    /// two of a component are worse than one that is waited for in vain.
    fn is_in_container(&self, pid: u32) -> bool {
        process::cgroups_in(&self.proc, pid).is_none_or(|cgroups| cgroups.iter().any(|path| is_of_container(path)))
    }
}

/// A container's cgroup has the container's id in it, or is one of the kubelet's. Those that a user may make for himself,
/// without root, are below the user's own.
fn is_of_container(cgroup: &Path) -> bool {
    const ID: usize = 64;
    let names = || cgroup.components().filter_map(|name| name.as_os_str().to_str());
    let has_id = |name: &str| name.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() == ID);
    !names().any(|name| name == "user.slice") && names().any(|name| name.starts_with("kubepods") || has_id(name))
}

#[async_trait]
impl Processes for Running {
    fn find(&self, commands: &[Vec<String>]) -> Vec<u32> {
        let entries = std::fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_one =
            |pid: &u32| commands.contains(&process::arguments_in(&self.proc, *pid)) && self.is_in_container(*pid);
        pids.filter(is_one).collect()
    }

    async fn ended(&self, pid: u32) -> Result<(), ProcessError> {
        match Handle::open(pid)? {
            Some(process) => process.ended().await,
            None => Ok(()),
        }
    }

    fn listens(&self, pid: u32) -> bool {
        ports::listens(&self.proc, pid)
    }

    fn kill(&self, pid: u32) -> Result<(), ProcessError> {
        Handle::open(pid)?.map_or(Ok(()), |process| process.kill())
    }
}

/// How long an API server that listens no more may take for the requests that it has.
const DRAIN: Duration = Duration::from_secs(1);

/// API servers that are being stopped and listen no more. One of 1.36 waits for its watches all the same, and those of the
/// kubelet that stops it do not end: the kubelet kills it after 30 s, in which nothing is served.
struct Draining {
    commands: Vec<Vec<String>>,
    since: Option<Instant>,
}

impl Draining {
    fn among(commands: &[Vec<String>]) -> Self {
        let is_one = |line: &&Vec<String>| line.first().is_some_and(|word| Path::new(word).ends_with(API_SERVER));
        Self { commands: commands.iter().filter(is_one).cloned().collect(), since: None }
    }

    /// Looks at them, and kills those that have had their time.
    fn look(&mut self, processes: &dyn Processes) -> Result<(), ProcessError> {
        let mut deaf = processes.find(&self.commands);
        deaf.retain(|pid| !processes.listens(*pid));
        match self.since.filter(|_| !deaf.is_empty()) {
            None => self.since = (!deaf.is_empty()).then(Instant::now),
            Some(since) if since.elapsed() < DRAIN => {}
            Some(_) => {
                deaf.into_iter().try_for_each(|pid| processes.kill(pid))?;
                self.since = None;
            }
        }
        Ok(())
    }
}

/// Waits until none of the processes is left; returns the pids that are at the end of `limit`.
///
/// # Errors
/// A process that cannot be waited for.
pub async fn all_ended(
    processes: &dyn Processes,
    commands: &[Vec<String>],
    limit: Duration,
) -> Result<Vec<u32>, ProcessError> {
    let deadline = Instant::now() + limit;
    let mut draining = Draining::among(commands);
    loop {
        // Looked for again each time: the kubelet may just have started one again.
        let left = processes.find(commands);
        let Some(first) = left.first() else { return Ok(left) };
        let mut ended = processes.ended(*first);
        loop {
            // No event tells of a port that is closed.
            let look = (Instant::now() + LOOK).min(deadline);
            match tokio::time::timeout_at(look, &mut ended).await {
                Ok(ended) => break ended?,
                Err(_) if Instant::now() >= deadline => return Ok(processes.find(commands)),
                Err(_) => draining.look(processes)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;

    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A process as the kernel would tell of it.
    fn tell(proc: &Path, pid: u32, line: &[&str], cgroup: &str) {
        let dir = proc.join(pid.to_string());
        make_dirs(&dir, 0o755).unwrap();
        write_file(&dir.join("cmdline"), (line.join("\0") + "\0").as_bytes(), 0o644).unwrap();
        write_file(&dir.join("cgroup"), cgroup.as_bytes(), 0o644).unwrap();
    }

    #[test]
    fn only_processes_of_containers_count_and_no_others_with_their_command_line() {
        let proc = tempfile::tempdir().unwrap();
        let etcd = ["etcd", "--name=cp1"];
        let docker = format!("0::/system.slice/docker-{ID}.scope\n");
        let of_v1 = format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        let kubelet =
            format!("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-{ID}.scope\n");
        let containers = [docker.as_str(), &of_v1, &kubelet, "0::/kubepods/burstable/pod1/c\n"];
        let rootless = format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n");
        let others = [
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "0::/system.slice/etcd.service\n",
            "0::/\n",
            &rootless,
        ];
        for (pid, cgroup) in (1..).zip(containers.into_iter().chain(others)) {
            tell(proc.path(), pid, &etcd, cgroup);
        }
        tell(proc.path(), 99, &["etcd", "--name=other"], &docker);
        let running = Running { proc: proc.path().to_owned() };
        let mut found = running.find(&[etcd.map(str::to_owned).to_vec()]);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4]);
    }

    /// An API server (7) and another process (8) that listen until a moment and end a while after it, or when they are
    /// killed.
    struct Stopping {
        deaf: Instant,
        gone: Instant,
        killed: Mutex<Vec<(u32, Duration)>>,
    }

    #[async_trait]
    impl Processes for Stopping {
        fn find(&self, commands: &[Vec<String>]) -> Vec<u32> {
            let killed = self.killed.lock().unwrap();
            let is_there = |pid: &u32| Instant::now() < self.gone && !killed.iter().any(|(killed, _)| killed == pid);
            let pid = |line: &Vec<String>| if line[0].ends_with("kube-apiserver") { 7 } else { 8 };
            commands.iter().map(pid).filter(is_there).collect()
        }

        async fn ended(&self, pid: u32) -> Result<(), ProcessError> {
            while self.find(&[vec![if pid == 7 { "kube-apiserver" } else { "x" }.to_owned()]]).contains(&pid) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        }

        fn listens(&self, _: u32) -> bool {
            Instant::now() < self.deaf
        }

        fn kill(&self, pid: u32) -> Result<(), ProcessError> {
            self.killed.lock().unwrap().push((pid, self.deaf.elapsed()));
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_listens_no_more_has_a_second_and_every_other_process_all_the_time() {
        let in_seconds = |n| Instant::now() + Duration::from_secs(n);
        for (server, seconds) in [(true, 4), (false, 30)] {
            let line = if server { "/usr/local/bin/kube-apiserver" } else { "etcd" };
            let stopping = Stopping { deaf: in_seconds(3), gone: in_seconds(30), killed: Mutex::default() };
            let begun = Instant::now();
            let left = all_ended(&stopping, &[vec![line.to_owned()]], Duration::from_secs(60)).await.unwrap();
            assert_eq!((left, begun.elapsed().as_secs()), (vec![], seconds));
            let killed = stopping.killed.into_inner().unwrap();
            assert_eq!(killed.len(), usize::from(server));
            assert!(killed.iter().all(|(pid, after)| *pid == 7 && *after >= DRAIN), "{killed:?}");
        }
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_command_line_and_its_end_is_noticed() {
        let argument = format!("for-test-{}", std::process::id());
        let script = ["sh", "-c", "read -r line", argument.as_str()];
        let commands = [script.map(str::to_owned).to_vec()];
        let mut child =
            std::process::Command::new("sh").args(&script[1..]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        // The kernel's own word of it, in a container.
        let proc = tempfile::tempdir().unwrap();
        tell(proc.path(), child.id(), &[], &format!("0::/docker/{ID}\n"));
        let cmdline = proc.path().join(child.id().to_string()).join("cmdline");
        std::fs::remove_file(&cmdline).unwrap();
        symlink(format!("/proc/{}/cmdline", child.id()), &cmdline).unwrap();
        let running = Running { proc: proc.path().to_owned() };
        // Between fork and exec it is this program still.
        while running.find(&commands).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(running.find(&commands), [child.id()]);
        assert_eq!(all_ended(&running, &commands, Duration::ZERO).await.unwrap(), [child.id()]);
        drop(child.stdin.take());
        let reaped = tokio::task::spawn_blocking(move || child.wait());
        assert!(all_ended(&running, &commands, Duration::from_secs(30)).await.unwrap().is_empty());
        reaped.await.unwrap().unwrap();
    }
}
