//! Runtimes of a test's own, for what would end everybody else's containers.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::time::Instant;

use super::command::{put, signal, unmount_below};
use super::engine::{Containerd, Docker, Engine, Kind};
use super::image;
use super::wait::{LIMIT, POLL};
use crate::runtime::ContainerRuntime;

/// The process of a runtime, which may be killed and started again.
pub struct Process {
    /// Where a dockerd keeps what is its own while it runs.
    exec: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// None yet. `exec` is what a dockerd gets as `--exec-root`, `log` where output goes.
    pub fn new(exec: PathBuf, log: PathBuf) -> Self {
        Self { exec, log, child: None }
    }

    /// Starts it, and waits until it answers `client`.
    ///
    /// # Panics
    /// It does not answer.
    pub async fn start(&mut self, mut command: Command, client: &dyn ContainerRuntime) {
        self.child = Some(self.spawn(&mut command));
        let begin = Instant::now();
        while client.version().await.is_err() {
            if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                // Its predecessor's containerd may have been in its way.
                self.clear();
                self.child = Some(self.spawn(&mut command));
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(begin.elapsed() < LIMIT, "the runtime does not answer:\n{}", log());
            // It tells nobody that it listens.
            tokio::time::sleep(POLL).await;
        }
    }

    fn spawn(&self, command: &mut Command) -> Child {
        let log = || OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Whether it has been started and not been ended.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Ends it with a signal, which it may take its time to follow.
    pub fn end(&mut self, with: &str) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), with);
        let _ = child.wait();
        self.clear();
    }

    /// Ends the containerd that a dockerd left, which its successor would wait for in vain.
    fn clear(&self) {
        let file = self.exec.join("containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
        let command = fs::read_to_string(Path::new("/proc").join(&pid).join("cmdline")).unwrap_or_default();
        if !pid.is_empty() && command.contains(&self.exec.display().to_string()) {
            signal(&pid, "KILL");
        }
        let _ = (fs::remove_file(file), fs::remove_file(self.exec.with_file_name("d.pid")));
    }
}

/// A `dockerd` with its own `containerd`, or a `containerd` alone, with its own images and no network, whose containers
/// outlive it.
pub struct Daemon {
    dir: TempDir,
    kind: Kind,
    process: Process,
}

impl Daemon {
    /// Starts one of the kind that the tests run on, and waits until it answers.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::new(dir.path().join("exec"), dir.path().join("log"));
        let mut daemon = Self { dir, kind: Kind::chosen(), process };
        daemon.start().await;
        daemon
    }

    /// The same as the tests look at it.
    pub fn engine(&self) -> Box<dyn Engine> {
        let socket = self.path("d.sock").display().to_string();
        match self.kind {
            Kind::Docker => Box::new(Docker::at(Some(format!("unix://{socket}")))),
            Kind::Containerd => Box::new(Containerd::at(socket)),
        }
    }

    /// Starts it again after [`Daemon::stop`].
    pub async fn start(&mut self) {
        let command = match self.kind {
            Kind::Docker => self.dockerd(),
            Kind::Containerd => self.containerd(),
        };
        let client = self.engine().client();
        self.process.start(command, client.as_ref()).await;
    }

    /// Ends it with SIGTERM; containers run on.
    pub fn stop(&mut self) {
        self.process.end("TERM");
    }

    fn dockerd(&self) -> Command {
        let paths = [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "d.pid")];
        // In a network of its own: a daemon without a bridge takes away the bridge of the machine's own daemon.
        let mut command = Command::new("unshare");
        command.args(["--net", "dockerd"]);
        for (flag, name) in paths {
            command.arg(flag).arg(self.path(name));
        }
        command.arg("--host").arg(format!("unix://{}", self.path("d.sock").display()));
        command.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
        command.args(["--live-restore", "--shutdown-timeout=5", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command
    }

    fn containerd(&self) -> Command {
        let runtime = ["runc", "crun"].into_iter().find(|name| which::which(name).is_ok()).unwrap();
        let dir = self.dir.path().display();
        let config = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/d.sock"
[ttrpc]
  address = "{dir}/d.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runtime}"
"#,
            pause = image::PAUSE
        );
        put(&self.path("config.toml"), config);
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.path("config.toml"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.end("TERM");
        unmount_below(&[self.dir.path()]);
    }
}
