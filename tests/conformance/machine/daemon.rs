//! A runtime of a test's own, for what would end everybody else's containers.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::containerd::Containerd;
use super::docker::Docker;
use super::{Kind, Machine};
use crate::images;
use crate::node::{put, run, unmount_below};

/// How long a daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(40);

/// A `dockerd` with its own `containerd`, or a `containerd` alone, with its own images and no network, whose containers
/// outlive it.
pub struct Daemon {
    dir: TempDir,
    kind: Kind,
    process: Option<Child>,
}

impl Daemon {
    /// Starts one of the kind that the tests run on, and waits until it answers.
    pub async fn new() -> Self {
        let mut daemon = Self { dir: tempfile::tempdir().unwrap(), kind: Kind::chosen(), process: None };
        daemon.start().await;
        daemon
    }

    /// The same as the tests look at it.
    pub fn machine(&self) -> Box<dyn Machine> {
        let socket = self.path("d.sock").display().to_string();
        match self.kind {
            Kind::Docker => Box::new(Docker::at(Some(format!("unix://{socket}")))),
            Kind::Containerd => Box::new(Containerd::at(socket)),
        }
    }

    /// Starts it again after [`Daemon::stop`].
    pub async fn start(&mut self) {
        self.process = Some(self.spawn());
        let client = self.machine().client();
        let begin = Instant::now();
        while client.version().await.is_err() {
            if self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some()) {
                // Its predecessor's containerd may have been in its way.
                self.clear();
                self.process = Some(self.spawn());
            }
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begin.elapsed() < LIMIT, "the runtime does not answer:\n{}", log());
            // It tells nobody that it listens.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it with SIGTERM; containers run on.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        run("kill", &["-TERM", &process.id().to_string()]);
        process.wait().unwrap();
        self.clear();
    }

    fn spawn(&self) -> Child {
        let log = || OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = match self.kind {
            Kind::Docker => self.dockerd(),
            Kind::Containerd => self.containerd(),
        };
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn dockerd(&self) -> Command {
        let paths = [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")];
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
            pause = images::PAUSE
        );
        put(&self.path("config.toml"), config.as_bytes());
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.path("config.toml"));
        command
    }

    /// Ends the containerd that a dockerd left, which its successor would wait for in vain.
    fn clear(&self) {
        let file = self.path("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
        let command = fs::read_to_string(Path::new("/proc").join(&pid).join("cmdline")).unwrap_or_default();
        if !pid.is_empty() && command.contains(&self.dir.path().display().to_string()) {
            let _ = Command::new("kill").args(["-KILL", &pid]).output();
        }
        let _ = (fs::remove_file(file), fs::remove_file(self.path("pid")));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).output();
            let _ = process.wait();
        }
        self.clear();
        unmount_below(self.dir.path());
    }
}
