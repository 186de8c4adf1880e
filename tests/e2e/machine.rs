//! The machine under test: commands, files, processes, containers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use kubeboot::testing::real::command::*;
use kubeboot::testing::real::image;
pub use kubeboot::testing::real::image::IMAGE;
use kubeboot::testing::real::wait::{Look, until_or};

/// The Kubernetes version that scripts/test.sh makes images of, and the one to upgrade to.
pub const VERSION: &str = "v1.20.2";
/// See [`VERSION`].
pub const NEXT_VERSION: &str = "v1.20.3";
/// The control plane's pods, without their node.
pub const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// Asks `look` again until it gives something, for `limit` at most.
#[track_caller]
pub fn eventually<L: Look>(what: &str, limit: Duration, look: impl FnMut() -> L) -> L::Found {
    until_or(what, limit, look, state)
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

/// Pids of processes of this machine whose program has this name: one of another network runs on a machine in a container.
pub fn processes(name: &str) -> BTreeSet<i32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network("self");
    pids.filter(|pid| network(&pid.to_string()) == own)
        .filter(|pid| command_line(*pid).first().is_some_and(|a| Path::new(a).file_name().is_some_and(|n| n == name)))
        .collect()
}

/// The command line of a process, empty when it is gone.
pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

/// What `kubeboot status -o json` says.
pub fn status() -> serde_json::Value {
    let ran = kubeboot(&["status", "-o", "json"]);
    serde_json::from_str(&ran.stdout).unwrap_or(serde_json::Value::Null)
}

/// Waits until `kubeboot status` exits 0.
#[track_caller]
pub fn healthy(limit: Duration) {
    eventually("control plane healthy", limit, || kubeboot(&["status"]).succeeded());
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

/// The one that is shared, while there is one.
fn shared() -> MutexGuard<'static, Option<ControlPlane>> {
    static SHARED: Mutex<Option<ControlPlane>> = Mutex::new(None);
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The control plane of those tests that leave it as they found it. What a test that failed leaves is taken away.
pub struct Shared;

impl Shared {
    /// It, made with the test version where there is none.
    #[track_caller]
    pub fn plane() -> Self {
        let is_there = shared().is_some();
        if !is_there {
            let plane = ControlPlane::init();
            *shared() = Some(plane);
        }
        healthy(Duration::from_secs(60));
        Self
    }

    /// Takes it away, if there is one.
    pub fn end() {
        let plane = shared().take();
        drop(plane);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            Self::end();
        }
    }
}

impl ControlPlane {
    /// `kubeboot init` with the test version.
    #[track_caller]
    pub fn init() -> Self {
        Self::init_as(&["--kubernetes-version", VERSION])
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

/// Takes the shared control plane away, and refuses to go on where these tests would hurt or could prove nothing.
#[track_caller]
pub fn ready() {
    Shared::end();
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

/// kubectl with these objects in a file.
pub fn with_objects(verb: &str, text: &str) -> Ran {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file.as_file(), text.as_bytes()).unwrap();
    kubectl(&[verb, "-f", file.path().to_str().unwrap()])
}

/// The Node's name, the suffix of every static pod's.
pub fn node_name() -> String {
    kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).ok()
}

/// Makes an image in which every component is this script.
pub fn image_of_script(reference: &str, script: &str) {
    image::made();
    let text = format!("#!/bin/sh\n{script}\n");
    let files = COMPONENTS.map(|name| format!("usr/local/bin/{name}"));
    let files: Vec<(&str, &[u8])> = files.iter().map(|path| (path.as_str(), text.as_bytes())).collect();
    image::with_files(IMAGE, reference, &files, &[]);
}

/// Reads what is left of a pipe.
pub fn rest(mut reader: impl Read) -> String {
    let mut text = String::new();
    let _ = reader.read_to_string(&mut text);
    text
}
