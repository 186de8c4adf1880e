//! Processes that outlive this one: started detached, found again by a pid file, stopped with a deadline.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use super::fs::{FsError, make_dirs, read_if_exists, remove_file, write_file};

/// What can go wrong with processes.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program did not start.
    #[error("cannot start {}", program.display())]
    Start {
        /// Which program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its log or pid file failed.
    #[error(transparent)]
    File(#[from] FsError),
    /// The process cannot be queried or signalled.
    #[error("cannot {action} process {pid}")]
    Signal {
        /// What was tried.
        action: &'static str,
        /// On which process.
        pid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It runs still, though it was killed: it hangs in the kernel.
    #[error("process {pid} still runs {} s after it was killed: it hangs in the kernel", limit.as_secs())]
    Immortal {
        /// Which process.
        pid: u32,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// A program to be started detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables it gets besides this process's own.
    pub env: Vec<(String, String)>,
    /// Takes its stdout and stderr, appended; its directory is made where it is missing.
    pub log: PathBuf,
    /// Gets its pid; its directory is made where it is missing.
    pub pid_file: PathBuf,
}

impl Daemon {
    /// Starts the program in a process group of its own, without stdin, and writes its pid file. Returns its pid.
    ///
    /// The group of its own is what keeps it alive when the terminal is closed or Ctrl-C is pressed: both signal the
    /// foreground group only. It is not waited for; a caller that lives on must expect a zombie when it ends, and
    /// [`Handle::open`] takes those for the dead they are.
    pub fn start(&self) -> Result<u32, ProcessError> {
        for file in [&self.log, &self.pid_file] {
            make_dirs(file.parent().unwrap_or(Path::new("/")), 0o755)?;
        }
        let log = self.open_log().map_err(|e| FsError::new("open", &self.log, e))?;
        let errors = log.try_clone().map_err(|e| FsError::new("open", &self.log, e))?;
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|source| ProcessError::Start { program: self.program.clone(), source })?;
        if let Err(error) = write_file(&self.pid_file, format!("{}\n", child.id()).as_bytes(), 0o644) {
            // It could not be found again. What the two calls say matters less than why they are made.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(error.into());
        }
        Ok(child.id())
    }

    /// The running process of the pid file, None when none runs.
    ///
    /// A pid may have been given to another process since: the process counts only if it was started as this program (by
    /// its file name) with this first argument.
    pub fn running(&self) -> Result<Option<Handle>, ProcessError> {
        let Some(text) = read_if_exists(&self.pid_file)? else { return Ok(None) };
        let pid = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        let Some(handle) = pid.map(Handle::open).transpose()?.flatten() else { return Ok(None) };
        let args = arguments(handle.pid);
        // A program that is a script has its interpreter in front.
        let is_ours = (0..2).any(|at| {
            let is_program = args.get(at).is_some_and(|arg| Path::new(arg).file_name() == self.program.file_name());
            is_program && args.get(at + 1) == self.args.first()
        });
        Ok(is_ours.then_some(handle))
    }

    /// Takes the pid file away, and its directory where nothing else is in it. Only for a process that has ended.
    pub fn forget(&self) -> Result<(), ProcessError> {
        remove_file(&self.pid_file)?;
        let Some(dir) = self.pid_file.parent() else { return Ok(()) };
        match fs::remove_dir(dir) {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
            Err(e) => Err(FsError::new("remove", dir, e).into()),
        }
    }

    fn open_log(&self) -> io::Result<File> {
        let log = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.log)?;
        if log.metadata()?.len() == 0 {
            // The umask may have taken bits away.
            log.set_permissions(fs::Permissions::from_mode(0o640))?;
        }
        Ok(log)
    }
}

/// The arguments a process was started with, empty when they cannot be read.
pub fn arguments(pid: u32) -> Vec<String> {
    arguments_in(Path::new(PROC), pid)
}

/// Where the kernel tells of processes.
pub const PROC: &str = "/proc";

/// The same from another directory than [`PROC`].
pub fn arguments_in(proc: &Path, pid: u32) -> Vec<String> {
    let text = fs::read(proc.join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.strip_suffix('\0').unwrap_or(&text).split('\0').filter(|_| !text.is_empty()).map(str::to_owned).collect()
}

/// The cgroups a process is in, one path a hierarchy; None where they cannot be read, as of one that has ended.
pub fn cgroups_in(proc: &Path, pid: u32) -> Option<Vec<PathBuf>> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    Some(text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(PathBuf::from).collect())
}

/// A process, held by a pidfd: its pid cannot come to mean another one meanwhile.
#[derive(Debug)]
pub struct Handle {
    /// Its id.
    pub pid: u32,
    fd: OwnedFd,
}

impl Handle {
    /// The process `pid`, None when it has ended.
    pub fn open(pid: u32) -> Result<Option<Self>, ProcessError> {
        let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(id, PidfdFlags::empty()) {
            Ok(fd) => {
                let handle = Self { pid, fd };
                Ok(if handle.ended_within(Duration::ZERO)? { None } else { Some(handle) })
            }
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(ProcessError::Signal { action: "look at", pid, source: e.into() }),
        }
    }

    /// Waits until the process has ended, for `limit` at most. Returns whether it has.
    pub fn ended_within(&self, limit: Duration) -> Result<bool, ProcessError> {
        let fail = |e: io::Error| ProcessError::Signal { action: "wait for", pid: self.pid, source: e };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|e| fail(io::Error::other(e)))?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(fail(e.into())),
            }
        }
    }

    /// Waits until the process has ended, without a deadline.
    ///
    /// A thread does the waiting, and goes on when the future is dropped: tokio's own way of watching a descriptor is
    /// unsafe to call, and its pool of threads would keep the runtime from shutting down.
    pub async fn ended(self) -> Result<(), ProcessError> {
        const ROUND: Duration = Duration::from_secs(3600);
        let pid = self.pid;
        let fail = |source| ProcessError::Signal { action: "wait for", pid, source };
        let (sender, ended) = oneshot::channel();
        let wait = move || {
            let outcome = loop {
                match self.ended_within(ROUND) {
                    Ok(false) => {}
                    outcome => break outcome.map(drop),
                }
            };
            // The receiver may be gone.
            let _ = sender.send(outcome);
        };
        thread::Builder::new().name(format!("wait-{pid}")).spawn(wait).map_err(fail)?;
        ended.await.map_err(|e| fail(io::Error::other(e)))?
    }

    /// Asks the process to end (SIGTERM), kills it after `grace`, and returns when it has ended.
    pub fn terminate(&self, grace: Duration) -> Result<(), ProcessError> {
        const AFTER_KILL: Duration = Duration::from_secs(10);
        self.signal("stop", Signal::TERM)?;
        if self.ended_within(grace)? {
            return Ok(());
        }
        self.signal("kill", Signal::KILL)?;
        match self.ended_within(AFTER_KILL)? {
            true => Ok(()),
            false => Err(ProcessError::Immortal { pid: self.pid, limit: AFTER_KILL }),
        }
    }

    /// Kills the process, and does not wait for its end.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(&self) -> Result<(), ProcessError> {
        self.signal("kill", Signal::KILL)
    }

    fn signal(&self, action: &'static str, signal: Signal) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(ProcessError::Signal { action, pid: self.pid, source: e.into() }),
        }
    }
}

/// Runs a command without input and output, for `limit` at most: then it is killed, and None is returned.
///
/// # Errors
/// It cannot be started or waited for.
pub fn run_within(command: &mut Command, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let ended = Handle::open(child.id()).and_then(|handle| handle.map_or(Ok(true), |one| one.ended_within(limit)));
    if !matches!(ended, Ok(true)) {
        // What they say matters less than that it has taken too long.
        let _ = child.kill().and_then(|()| child.wait());
    }
    match ended {
        Ok(true) => child.wait().map(Some),
        Ok(false) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_killed() {
        let run = |script: &str, limit: Duration| run_within(Command::new("/bin/sh").args(["-c", script]), limit);
        let (started, long) = (Instant::now(), Duration::from_secs(60));
        assert_eq!(run("exit 3", long).unwrap().unwrap().code(), Some(3));
        assert!(run("sleep 60", Duration::from_millis(100)).unwrap().is_none());
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(run_within(&mut Command::new("/nonexistent"), long).is_err());
    }

    fn daemon(dir: &Path, script: &str) -> Daemon {
        Daemon {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![],
            log: dir.join("log/x.log"),
            pid_file: dir.join("run/x.pid"),
        }
    }

    #[test]
    fn a_daemon_is_found_by_its_pid_file_and_ends_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let sleeper = Daemon { program: "/bin/sleep".into(), args: vec!["60".into()], ..daemon(dir.path(), "") };
        assert!(sleeper.running().unwrap().is_none(), "no pid file, no process");
        let pid = sleeper.start().unwrap();
        let handle = sleeper.running().unwrap().unwrap();
        assert_eq!(handle.pid, pid);
        assert!(!handle.ended_within(Duration::ZERO).unwrap());
        handle.terminate(Duration::from_secs(10)).unwrap();
        assert!(sleeper.running().unwrap().is_none(), "a zombie does not run");
        write_file(&dir.path().join("run/theirs"), b"", 0o644).unwrap();
        sleeper.forget().unwrap();
        assert!(!sleeper.pid_file.exists() && dir.path().join("run/theirs").exists());
        fs::remove_file(dir.path().join("run/theirs")).unwrap();
        sleeper.forget().unwrap();
        assert!(!dir.path().join("run").exists());
    }

    #[test]
    fn one_that_does_not_listen_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(dir.path(), "trap '' TERM; echo ready; while :; do sleep 60; done");
        daemon.start().unwrap();
        let handle = daemon.running().unwrap().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read(&daemon.log).unwrap() != b"ready\n" {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        handle.terminate(Duration::from_millis(50)).unwrap();
        assert!(Handle::open(handle.pid).unwrap().is_none());
    }

    #[test]
    fn a_pid_that_is_somebody_else_s_now_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(dir.path(), "true");
        fs::create_dir_all(daemon.pid_file.parent().unwrap()).unwrap();
        write_file(&daemon.pid_file, format!("{}\n", std::process::id()).as_bytes(), 0o644).unwrap();
        assert!(daemon.running().unwrap().is_none(), "this test is no shell");
        write_file(&daemon.pid_file, b"nonsense", 0o644).unwrap();
        assert!(daemon.running().unwrap().is_none());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon { program: "/nonexistent".into(), ..daemon(dir.path(), "") };
        assert_eq!(daemon.start().unwrap_err().to_string(), "cannot start /nonexistent");
        assert!(!daemon.pid_file.exists());
    }
}
