//! The machine under test: commands, files, processes, containers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The Kubernetes version that scripts/test.sh makes images of, and the one to upgrade to.
pub const VERSION: &str = "v1.20.2";
/// See [`VERSION`].
pub const NEXT_VERSION: &str = "v1.20.3";
/// What kubectl uses.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code, -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Asserts success and returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "exit {}\nstdout:\n{}\nstderr:\n{}", self.code, self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts an exit code and returns both outputs.
    #[track_caller]
    pub fn code(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout + &self.stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program under test: `KUBEBOOT_BIN` (the release build), else the one cargo built with these tests.
pub fn program() -> PathBuf {
    std::env::var_os("KUBEBOOT_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_kubeboot")), PathBuf::from)
}

/// Runs any command.
pub fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Ran {
    let name = program.as_ref().to_owned();
    Command::new(&name)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{} cannot be run: {e}", name.display()))
        .into()
}

/// Runs kubeboot.
pub fn kubeboot(args: &[&str]) -> Ran {
    run(program(), args)
}

/// Runs kubectl as the administrator.
pub fn kubectl(args: &[&str]) -> Ran {
    let mut all = vec!["--kubeconfig", ADMIN_CONF, "--request-timeout=20s"];
    all.extend(args);
    run("kubectl", &all)
}

/// Asks `test` again until it gives something, for `limit` at most.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut test: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = test() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {} s\n{}", limit.as_secs(), state());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a failed test is explained by: pods, what has happened to them, and what the agent says.
fn state() -> String {
    let asked: [&[&str]; 3] = [
        &["get", "nodes,pods", "-A", "-o", "wide"],
        &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
        &["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "yaml"],
    ];
    let mut told: Vec<Ran> = asked.iter().map(|args| kubectl(args)).collect();
    told.push(kubeboot(&["status"]));
    told.iter().map(|ran| format!("{}{}\n", ran.stdout, ran.stderr)).collect()
}

/// Pids of processes whose program has this name.
pub fn processes(name: &str) -> BTreeSet<i32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| command_line(*pid).first().is_some_and(|a| Path::new(a).file_name().is_some_and(|n| n == name)))
        .collect()
}

/// The command line of a process, empty when it is gone.
pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

/// Sends a signal.
pub fn signal(pid: i32, name: &str) {
    run("kill", &[&format!("-{name}"), &pid.to_string()]);
}

/// What `kubeboot status -o json` says.
pub fn status() -> serde_json::Value {
    let ran = kubeboot(&["status", "-o", "json"]);
    serde_json::from_str(&ran.stdout).unwrap_or(serde_json::Value::Null)
}

/// Waits until `kubeboot status` exits 0.
#[track_caller]
pub fn healthy(limit: Duration) {
    eventually("control plane healthy", limit, || (kubeboot(&["status"]).code == 0).then_some(()));
}

/// Ids of the running containers of the control plane, by component.
pub fn containers() -> BTreeMap<String, String> {
    let format = "{{.Label \"io.kubernetes.container.name\"}} {{.ID}}";
    let out = run("docker", &["ps", "--no-trunc", "--filter", "label=dev.kubeboot.agent", "--format", format]).ok();
    out.lines().filter_map(|l| l.split_once(' ')).map(|(n, i)| (n.to_owned(), i.to_owned())).collect()
}

/// Everything that a control plane may leave on a machine: files with their modes and sizes, and Docker's objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing(BTreeSet<String>);

/// Trees that change by themselves or belong to the build and to Docker's own storage (Docker is listed by its API).
const NOT_LISTED: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    "/var/tmp",
    "/run/docker",
    "/var/run/docker",
    "/var/lib/docker",
    "/run/containerd",
    "/var/lib/containerd",
    "/var/cache",
    "/var/log/journal",
];

impl Listing {
    /// The machine now.
    pub fn take() -> Self {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
        let mut skip: Vec<PathBuf> = NOT_LISTED.iter().map(PathBuf::from).collect();
        skip.push(PathBuf::from(&home));
        skip.push(std::env::current_dir().unwrap());
        let mut lines = BTreeSet::new();
        for top in ["/etc", "/var", "/run", "/usr/local", "/usr/bin", "/opt", "/srv", "/root"] {
            walk(Path::new(top), &skip, &mut lines);
        }
        for args in [
            ["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}"].as_slice(),
            &["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"],
            &["volume", "ls", "--format", "{{.Name}}"],
            &["network", "ls", "--format", "{{.Name}}"],
        ] {
            lines.extend(run("docker", args).ok().lines().map(|l| format!("docker {}: {l}", args[0])));
        }
        let cgroups =
            ["/sys/fs/cgroup", "-type", "d", "-path", "*kubepods*", "-name", "*pod?*", "-not", "-name", "kubepods"];
        // Others' may go while they are listed: find then says so with its exit code.
        lines.extend(run("find", &cgroups).stdout.lines().map(|l| format!("cgroup {l}")));
        Self(lines)
    }

    /// Lines that only one of both has, `-` gone and `+` new.
    pub fn diff(&self, after: &Self) -> Vec<String> {
        let gone = self.0.difference(&after.0).map(|l| format!("- {l}"));
        gone.chain(after.0.difference(&self.0).map(|l| format!("+ {l}"))).collect()
    }
}

fn walk(path: &Path, skip: &[PathBuf], lines: &mut BTreeSet<String>) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    if skip.iter().any(|s| s == path) {
        return;
    }
    // Directories change their size as they please; logs of the machine grow.
    let size = if meta.is_file() && !path.starts_with("/var/log") { meta.size() } else { 0 };
    lines.insert(format!("{} {:o} {size}", path.display(), meta.mode()));
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), skip, lines);
        }
    }
}

/// A control plane that is taken away again whatever happens.
pub struct ControlPlane;

impl ControlPlane {
    /// `kubeboot init` with the test version.
    #[track_caller]
    pub fn init() -> Self {
        Self::init_with(&[])
    }

    /// The same with further flags.
    #[track_caller]
    pub fn init_with(flags: &[&str]) -> Self {
        Self::init_as(&[&["--kubernetes-version", VERSION], flags].concat())
    }

    /// The same with these flags alone.
    #[track_caller]
    pub fn init_as(flags: &[&str]) -> Self {
        ready();
        let guard = Self;
        kubeboot(&[&["init"], flags].concat()).ok();
        guard
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let ran = kubeboot(&["reset", "--force"]);
        if !std::thread::panicking() {
            ran.ok();
        }
    }
}

/// Refuses to go on where these tests would hurt or could prove nothing.
#[track_caller]
pub fn ready() {
    assert_eq!(run("id", &["-u"]).ok().trim(), "0", "the end-to-end tests need root");
    assert_eq!(run("docker", &["version"]).code, 0, "dockerd is not reachable: start it (scripts/test.sh does)");
    assert!(
        !Path::new("/etc/kubernetes/manifests").exists(),
        "this machine has a control plane already (/etc/kubernetes/manifests): the tests would take it away"
    );
    let left: Vec<String> = std::fs::read_dir("/run/kubeboot")
        .map(|dir| dir.flatten().map(|entry| entry.path().display().to_string()).collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "an earlier test, or an agent that did not end cleanly, has left {}", left.join(", "));
    let missing = kubeboot(&["images", "list", "--kubernetes-version", VERSION, "--missing"]);
    assert_eq!(missing.code, 0, "images are missing, scripts/test.sh builds them:\n{}", missing.stdout);
}

/// How a kubeboot that was to be killed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By SIGKILL: its exit status says so.
    Killed,
    /// By itself, before the signal came.
    Finished,
    /// By itself, and the mark never came.
    Unmarked,
}

/// Starts kubeboot and kills it (SIGKILL) as soon as a line of its standard output contains `mark`.
pub fn kill_at(args: &[&str], mark: &str) -> Ended {
    let mut child = Command::new(program())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = lines.by_ref().map_while(Result::ok).any(|line| line.contains(mark));
    let _ = child.kill();
    let status = child.wait().unwrap();
    let _ = lines.into_inner_rest();
    match (seen, std::os::unix::process::ExitStatusExt::signal(&status)) {
        (true, Some(9)) => Ended::Killed,
        (true, _) => Ended::Finished,
        (false, _) => Ended::Unmarked,
    }
}

trait Rest {
    fn into_inner_rest(self) -> usize;
}

impl<B: BufRead> Rest for std::io::Lines<B> {
    /// Drains what is left, so that the writer's pipe closes in order.
    fn into_inner_rest(self) -> usize {
        self.map_while(Result::ok).count()
    }
}

/// Makes an image with nothing but a busybox whose entry point is `command`.
pub fn busybox_image(tag: &str, command: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("bin")).unwrap();
    std::fs::copy("/bin/busybox", dir.path().join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", dir.path().join("bin/sh")).unwrap();
    // The manifest's command names the component: whatever it is called with, the script runs.
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let script = dir.path().join("bin").join(name);
        let text = format!("#!/bin/sh\n{command}\n");
        std::fs::File::create(&script).and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes())).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let tar = Command::new("tar").arg("-C").arg(dir.path()).args(["-c", "."]).output().unwrap();
    let mut import = Command::new("docker")
        .args(["import", "--change", "ENV PATH=/bin", "-", tag])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &tar.stdout).unwrap();
    assert!(import.wait().unwrap().success());
}

/// Reads what is left of a pipe.
pub fn rest(mut reader: impl Read) -> String {
    let mut text = String::new();
    let _ = reader.read_to_string(&mut text);
    text
}
