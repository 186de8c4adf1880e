//! What the run has of its own: a dockerd with its containerd and its bridge, an agent, two small file systems, a clock.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kubeboot::host::fs::write_file;
use kubeboot::runtime::docker::Docker;
use kubeboot::testing::real::command::{mounts_below, program, run, signal, unmount_below};
use kubeboot::testing::real::daemon::Process;
use kubeboot::testing::real::image::{self, PAUSE};
use serde_json::Value;

/// Where Debian's package `faketime` has the library.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Where the file systems are that get full: container logs, and everything that the agent writes.
const FILLED: [&str; 2] = ["docker/containers", "agent"];
/// Their size, in MB.
const SMALL: usize = 48;

/// See the module.
pub struct Machine {
    dir: PathBuf,
    exec: PathBuf,
    /// Unique on this machine, short, and a node's name.
    pub tag: String,
    /// The first of the ports that pods may use.
    pub port: u16,
    /// Whether dockerd keeps containers when it ends.
    pub live_restore: bool,
    /// Whether the agent's clock can be made to jump.
    pub clock: bool,
    docker: Process,
    agent: Option<Child>,
}

impl Machine {
    /// Makes directories, mounts and the bridge.
    pub fn new(live_restore: bool) -> Self {
        let tag = format!("c{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("kubeboot-chaos-{tag}"));
        let exec = PathBuf::from(format!("/run/kubeboot-chaos-{tag}"));
        for path in [&dir, &exec] {
            fs::DirBuilder::new().mode(0o755).create(path).unwrap();
        }
        for name in ["manifests", "docker/containers", "agent"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let port = 20_000 + u16::try_from(std::process::id() % 1000).unwrap() * 10;
        let clock = Path::new(FAKETIME).exists();
        let docker = Process::new(exec.join("x"), dir.join("dockerd.log"));
        let machine = Self { dir, exec, tag, port, live_restore, clock, docker, agent: None };
        // Mounted already and shared, or dockerd would bind its directory over itself and hide what is mounted in it.
        let docker = machine.path("docker").display().to_string();
        run("mount", &["--bind", &docker, &docker]).ok();
        run("mount", &["--make-shared", &docker]).ok();
        for name in FILLED {
            let path = machine.path(name);
            run("mount", &["-t", "tmpfs", "-o", &format!("size={SMALL}m"), "tmpfs", path.to_str().unwrap()]).ok();
        }
        let (bridge, net) = (machine.bridge(), std::process::id() % 200 + 20);
        run("ip", &["link", "add", &bridge, "type", "bridge"]).ok();
        run("ip", &["addr", "add", &format!("10.213.{net}.1/24"), "dev", &bridge]).ok();
        run("ip", &["link", "set", &bridge, "up"]).ok();
        machine.set_clock(0);
        machine
    }

    /// A path in the run's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn bridge(&self) -> String {
        format!("kb{}", self.tag)
    }

    /// The agent's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.exec.join("agent.sock")
    }

    fn docker_host(&self) -> String {
        format!("unix://{}", self.exec.join("d.sock").display())
    }

    fn log(&self, name: &str) -> Stdio {
        OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap().into()
    }

    /// Starts dockerd and waits for its answer.
    pub async fn start_docker(&mut self) {
        let client = self.client();
        let command = self.dockerd();
        self.docker.start(command, &client).await;
    }

    fn client(&self) -> Docker {
        Docker::connect(Some(&self.docker_host())).unwrap()
    }

    fn dockerd(&self) -> Command {
        let exec = |name: &str| self.exec.join(name).display().to_string();
        let mut command = Command::new("dockerd");
        command.args(["--data-root", &self.path("docker").display().to_string(), "--exec-root", &exec("x")]);
        command.args(["--pidfile", &exec("d.pid"), "--host", &self.docker_host(), "--bridge", &self.bridge()]);
        command.args(["--iptables=false", "--ip-forward=false", "--userland-proxy=false", "--shutdown-timeout=5"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &format!("/{}", self.tag)]);
        command.args(self.live_restore.then_some("--live-restore"));
        command
    }

    /// Ends dockerd with a signal, and its containerd.
    pub fn end_docker(&mut self, with: &str) {
        self.docker.end(with);
    }

    /// Builds the images out of this machine's busybox.
    pub async fn build_images(&self) {
        image::build(&self.client()).await;
    }

    /// Starts an agent; its configuration file keeps back-off short, or most of the time would be waiting.
    pub fn start_agent(&mut self) {
        let config = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: {}\npodLogsDir: {}\n\
             healthzPort: 0\ncrashLoopBackOff: {{maxContainerRestartPeriod: 2s}}\n",
            self.path("manifests").display(),
            self.path("agent/logs").display(),
        );
        write_file(&self.path("config.yaml"), config.as_bytes(), 0o644).unwrap();
        let path = |name: &str| self.path(name).display().to_string();
        let mut command = Command::new(program());
        command.args(["agent", "--config", &path("config.yaml"), "--root-dir", &path("agent/root")]);
        command.args(["--control-socket", &self.control_socket().display().to_string()]);
        command.args(["--docker-host", &self.docker_host(), "--hostname-override", &self.tag]);
        command.args(["--pod-infra-container-image", PAUSE]);
        if self.clock {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", path("clock"));
            command.envs([("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_CACHE_DURATION", "1")]);
        }
        command.stdin(Stdio::null()).stdout(self.log("agent.log")).stderr(self.log("agent.log"));
        self.agent = Some(command.spawn().unwrap());
    }

    /// Ends the agent with a signal.
    pub fn end_agent(&mut self, with: &str) {
        let Some(mut child) = self.agent.take() else { return };
        signal(child.id(), with);
        let _ = child.wait();
    }

    /// Sends the agent a signal that does not end it.
    pub fn signal_agent(&self, with: &str) {
        if let Some(child) = &self.agent {
            signal(child.id(), with);
        }
    }

    /// How the agent has ended, if it has, though nobody asked it to.
    pub fn agent_ended(&mut self) -> Option<String> {
        let status = self.agent.as_mut()?.try_wait().ok()??;
        Some(format!("the agent ended by itself ({status}); its last words:\n{}", self.tail("agent.log", 15)))
    }

    /// The end of a log.
    pub fn tail(&self, log: &str, lines: usize) -> String {
        let text = fs::read(self.path(log)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A number of /proc/PID/status of the agent, in MB for sizes.
    pub fn agent_figure(&self, field: &str) -> f64 {
        let pid = self.agent.as_ref().map(Child::id).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok());
        number.unwrap_or_default() / if field.starts_with("Vm") { 1024.0 } else { 1.0 }
    }

    /// The agent's wall clock is so many seconds ahead of the machine's.
    pub fn set_clock(&self, seconds: i64) {
        write_file(&self.path("clock"), format!("{seconds:+}\n").as_bytes(), 0o644).unwrap();
    }

    /// Fills the file systems of container logs and of the agent's files, and never another: not more is written than
    /// they hold. Says so where one was not full after that.
    pub fn fill_disk(&self) -> Result<(), String> {
        for name in FILLED {
            let path = self.path(name).join("full");
            let mut file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let pieces = (0..SMALL * 16).find(|_| file.write_all(&[0; 1 << 16]).is_err());
            let rest = (0..1024).find(|_| file.write_all(&[0; 64]).is_err());
            if pieces.and(rest).is_none() {
                return Err(format!("{} is no file system of {SMALL} MB", self.path(name).display()));
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub fn free_disk(&self) {
        for name in FILLED {
            let _ = fs::remove_file(self.path(name).join("full"));
        }
    }

    /// Runs docker's own client against the run's dockerd; empty where it fails.
    pub fn docker(&self, args: &[&str]) -> String {
        run("docker", &[&["-H", &self.docker_host()], args].concat()).stdout.trim().to_owned()
    }

    /// Everything there is, as `docker inspect` shows it. None when dockerd cannot say.
    pub fn containers(&self) -> Option<Vec<Value>> {
        let ids = self.docker(&["ps", "-aq", "--no-trunc"]);
        if ids.is_empty() {
            let answers = !self.docker(&["version", "--format", "{{.Server.Version}}"]).is_empty();
            return answers.then(Vec::new);
        }
        let ids: Vec<&str> = ids.split_whitespace().collect();
        let text = self.docker(&[&["inspect"], ids.as_slice()].concat());
        let all: Vec<Value> = serde_json::from_str(&text).ok()?;
        (all.len() == ids.len()).then_some(all)
    }

    /// Ends what a dockerd and a containerd that were killed while they started something have forgotten.
    fn end_shims(&self) {
        let own = format!("{}/", self.exec.display());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if command.contains("containerd-shim") && command.contains(&own) {
                let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
                children.split_whitespace().chain([pid.as_str()]).for_each(|pid| signal(pid, "KILL"));
            }
        }
    }

    /// Takes everything away. The directory stays when it is needed to understand a failure.
    pub fn clear(&mut self, keep: bool) {
        self.end_agent("KILL");
        self.free_disk();
        for id in self.docker(&["ps", "-aq"]).split_whitespace() {
            self.docker(&["rm", "-fv", id]);
        }
        self.end_docker("TERM");
        self.end_shims();
        if keep {
            let kept = format!("{}.logs", self.dir.display());
            let _ = fs::create_dir_all(&kept);
            for log in ["agent.log", "dockerd.log"] {
                let _ = fs::copy(self.path(log), Path::new(&kept).join(log));
            }
            eprintln!("logs of the agent and of dockerd: {kept}");
        }
        unmount_below(&[&self.dir, &self.exec]);
        run("ip", &["link", "del", &self.bridge()]);
        for path in [&self.dir, &self.exec] {
            let _ = fs::remove_dir_all(path);
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.tag));
        }
    }

    /// Mounts below the agent's directories, but for the file system it has itself.
    pub fn agent_mounts(&self) -> Vec<String> {
        let own = self.path("agent").display().to_string();
        mounts_below(&[&self.path("agent")]).into_iter().filter(|mount| *mount != own).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.docker.is_started() || self.agent.is_some() {
            self.clear(true);
        }
    }
}
