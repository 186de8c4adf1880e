//! A node of a test's own: a directory of manifests, a real agent process that is started, killed and started again,
//! and the real runtime behind it. Nothing here is shared with another test but the daemon and the images.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kubeboot::agent::control;
use kubeboot::agent::control::report::{HealthReport, PodReport};
use kubeboot::agent::events::Event;
use kubeboot::runtime::{ContainerRecord, ContainerRuntime};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::history::{Events, History};
use crate::images;
use crate::machine::{self, Daemon, Look, Machine};
use crate::pod::Pod;
use crate::ports;

/// Longer than anything takes on a busy machine, grace periods aside.
pub const LIMIT: Duration = Duration::from_secs(60);
/// After this long an event that has not come is lost.
const LOST: Duration = Duration::from_secs(15);

/// One machine with one agent.
pub struct Node {
    dir: TempDir,
    machine: Box<dyn Machine>,
    client: Arc<dyn ContainerRuntime>,
    agent: Option<Child>,
    history: Option<History>,
    /// Directory of manifests, or the one manifest; changed before [`Node::start`].
    pub manifests: PathBuf,
    /// `--hostname-override`.
    pub name: String,
    /// Lines of the KubeletConfiguration beside those every agent here has.
    pub config: Vec<String>,
    /// Flags beside those every agent here has.
    pub flags: Vec<String>,
    /// Goes after the containers have.
    daemon: Option<Daemon>,
    read_only_port: Option<u16>,
}

impl Node {
    /// A node on the runtime that all share, whose agent has not been started.
    pub fn new() -> Self {
        Self::with(machine::shared(), None)
    }

    /// The same on a runtime of its own.
    pub fn on(daemon: Daemon) -> Self {
        Self::with(daemon.machine(), Some(daemon))
    }

    fn with(machine: Box<dyn Machine>, daemon: Option<Daemon>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manifests = dir.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        Self {
            client: machine.client(),
            machine,
            dir,
            agent: None,
            history: None,
            manifests,
            name: "node1".to_owned(),
            config: Vec::new(),
            flags: Vec::new(),
            daemon,
            read_only_port: None,
        }
    }

    /// The node's own runtime.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    /// A path in this test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A manifest's path.
    pub fn manifest(&self, file: &str) -> PathBuf {
        self.manifests.join(file)
    }

    /// Starts the agent as a user does.
    pub fn start(&mut self) {
        assert!(self.agent.is_none(), "an agent runs already");
        let config = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\npodLogsDir: {}\n{}\n",
            self.path("pods").display(),
            self.config.join("\n")
        );
        put(&self.path("config.yaml"), config.as_bytes());
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("agent.log")).unwrap();
        // As from a shell that keeps its user's files closed: the agent's are not.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(kubeboot());
        command.args(["agent", "--healthz-port=0", "--pod-infra-container-image", images::PAUSE]);
        command.args(["--hostname-override", &self.name]);
        for (flag, path) in [
            ("--config", self.path("config.yaml")),
            ("--root-dir", self.root()),
            ("--control-socket", self.socket()),
            ("--pod-manifest-path", self.manifests.clone()),
        ] {
            command.arg(flag).arg(path);
        }
        command
            .args(self.machine.flags())
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.agent = Some(command.spawn().unwrap());
    }

    /// Ends the agent with SIGKILL, as a crash does.
    pub fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Asks the agent to end, as a service manager does, and expects that it ends well.
    pub fn stop(&mut self) {
        let mut agent = self.agent.take().unwrap();
        run("kill", &["-TERM", &agent.id().to_string()]);
        let status = agent.wait().unwrap();
        assert!(status.success(), "the agent ended with {status}");
    }

    /// Whether the agent's process lives.
    pub fn is_up(&mut self) -> bool {
        self.agent.as_mut().is_some_and(|agent| agent.try_wait().unwrap().is_none())
    }

    /// Writes a manifest in one rename, as every careful writer does.
    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        put(&self.manifest(file), text.as_ref());
    }

    /// Writes a pod's manifest to `NAME.yaml`.
    pub fn run(&self, pod: &Pod) {
        self.write(&format!("{}.yaml", pod.name()), pod.yaml());
    }

    /// Removes a manifest.
    pub fn delete(&self, file: &str) {
        fs::remove_file(self.manifest(file)).unwrap();
    }

    /// Waits for a report of which `condition` holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&HealthReport) -> bool) -> HealthReport {
        self.until_within(LIMIT, what, condition).await
    }

    /// The same, for what takes long by design.
    pub async fn until_within(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&HealthReport) -> bool,
    ) -> HealthReport {
        let mut last = None;
        let wait = async {
            loop {
                // Until the agent listens there is nothing to wait for.
                let Ok(mut reports) = control::watch(&self.socket()).await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                while let Some(Ok(report)) = reports.next().await {
                    if condition(&report) {
                        return report;
                    }
                    last = Some(report);
                }
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(report) => report,
            Err(_) => panic!("{what}: not within {} s; last report: {last:#?}", limit.as_secs()),
        }
    }

    /// Checks that `condition` holds in every report of the next `time`.
    pub async fn all_along(&self, time: Duration, what: &str, condition: impl Fn(&HealthReport) -> bool) {
        let end = Instant::now() + time;
        let mut reports = control::watch(&self.socket()).await.unwrap();
        while let Ok(report) = tokio::time::timeout_at(end, reports.next()).await {
            let report = report.unwrap_or_else(|| panic!("{what}: the agent is gone")).unwrap();
            assert!(condition(&report), "{what}: {report:#?}");
        }
    }

    /// Waits until a pod satisfies `condition`, and returns it. `name` is without the node's suffix.
    pub async fn pod(&self, name: &str, what: &str, condition: impl Fn(&PodReport) -> bool) -> PodReport {
        let name = format!("{name}-{}", self.name.to_lowercase());
        // Between its manifest and its first look at it the agent has nothing to say of its containers.
        let known = |pod: &&PodReport| pod.name == name && !pod.containers.is_empty() && condition(pod);
        let found = |r: &HealthReport| r.pods.iter().find(known).cloned();
        let report = self.until(&format!("{name}: {what}"), |r| found(r).is_some()).await;
        found(&report).unwrap()
    }

    /// Waits until a pod runs and every container of it is ready.
    pub async fn ready(&self, name: &str) -> PodReport {
        self.pod(name, "is ready", |pod| pod.ready && !pod.terminating).await
    }

    /// Writes a manifest and waits until its pod is ready.
    pub async fn up(&self, pod: &Pod) -> PodReport {
        self.run(pod);
        self.ready(pod.name()).await
    }

    /// Waits until no pod is left, in the report and in the runtime.
    pub async fn empty(&self) {
        self.until("every pod is gone", |r| r.agent.synced && r.pods.is_empty()).await;
        self.has_nothing();
    }

    /// The runtime has no container of this node, and no sandbox.
    pub fn has_nothing(&self) {
        let left = self.machine.running(&self.owner());
        assert!(left.is_empty(), "{left:#?}");
    }

    /// Every container of this node but sandboxes, as the runtime has them now.
    pub async fn containers(&self) -> Vec<ContainerRecord> {
        self.all().await.into_iter().filter(|one| !one.is_sandbox).collect()
    }

    /// Every container of this node, sandboxes included.
    pub async fn all(&self) -> Vec<ContainerRecord> {
        self.client.list(&self.owner()).await.unwrap()
    }

    /// The sandbox in which a pod runs, which there is one of. `name` is without the node's suffix.
    pub async fn sandbox(&self, name: &str) -> ContainerRecord {
        let name = format!("{name}-{}", self.name.to_lowercase());
        let its = |one: &ContainerRecord| one.is_sandbox && one.state.is_running() && one.name.pod == name;
        let mut found: Vec<_> = self.all().await.into_iter().filter(its).collect();
        assert_eq!(found.len(), 1, "sandboxes of {name}: {found:#?}");
        found.remove(0)
    }

    /// Waits until something that is no report's matter holds: a file a container writes, a moment of the runtime's.
    pub async fn eventually<T, F: Future<Output = Option<T>>>(&self, what: &str, look: impl FnMut() -> F) -> T {
        self.within(look).await.unwrap_or_else(|limit| panic!("{what}: not within {limit} s"))
    }

    /// The same, with the seconds that were waited in vain.
    async fn within<T, F: Future<Output = Option<T>>>(&self, mut look: impl FnMut() -> F) -> Result<T, u64> {
        let wait = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.map_err(|_| LIMIT.as_secs())
    }

    /// Waits until a file below this test's directory has a text in it.
    pub async fn file_says(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        let look = || std::future::ready(fs::read_to_string(&path).ok().filter(|content| content.contains(text)));
        self.eventually(&format!("{name} says {text:?}"), look).await
    }

    /// What the runtime has noted of a container.
    pub fn look(&self, id: &str) -> Look {
        self.machine.look(id)
    }

    /// The names of what runs, sandboxes included, in order.
    pub fn running_names(&self) -> Vec<String> {
        let running = self.machine.running(&self.owner()).into_iter().filter(|(_, runs)| *runs);
        let mut names: Vec<String> = running.map(|(id, _)| self.look(&id).name).collect();
        names.sort_unstable();
        names
    }

    /// Kills a container behind the agent's back.
    pub fn kill_container(&self, id: &str) {
        self.machine.kill(id);
    }

    /// Removes a container behind the agent's back, running or not.
    pub fn remove_container(&self, id: &str) {
        self.machine.remove(id);
    }

    /// Runs a command in a container, and returns what it printed.
    pub fn exec(&self, id: &str, command: &[&str]) -> String {
        self.machine.exec(id, command)
    }

    /// A container as the API names it.
    pub fn reference(&self, id: &str) -> String {
        format!("{}://{id}", self.machine.scheme())
    }

    /// What `kubeboot ARGS` says of this node's agent, which must succeed.
    pub fn kubeboot(&self, args: &[&str]) -> String {
        let socket = self.socket().display().to_string();
        run(&kubeboot(), &[args, &["--control-socket", &socket]].concat())
    }

    /// Records from now on what happens to this node's containers; called before the agent is started.
    pub async fn record(&mut self) {
        self.history = Some(History::start(self.machine.events(&self.owner())));
        // Nothing says that the recording has begun but something recorded.
        let look = || {
            let mark = self.machine.mark(&self.owner());
            std::future::ready(self.recorder().has_told(&mark).then_some(()))
        };
        self.eventually("the recording began", look).await;
        self.settled(&self.machine.mark(&self.owner())).await;
    }

    /// What was recorded until now: a runtime tells late of what has happened.
    pub async fn history(&self) -> Events {
        self.settled(&self.machine.mark(&self.owner())).await
    }

    /// What is recorded, as soon as it has come to a mark and is what led to now.
    async fn settled(&self, mark: &str) -> Events {
        let (missing, begun) = (RefCell::new(vec![]), Instant::now());
        let look = || {
            let recorder = self.recorder();
            assert!(recorder.goes_on(), "what tells of the containers has ended");
            let (marked, events) = (recorder.has_told(mark), recorder.events());
            let untold = marked && begun.elapsed() > LOST;
            missing.replace(events.missing(&self.machine.running(&self.owner()), untold));
            std::future::ready((marked && missing.borrow().is_empty()).then_some(events))
        };
        let wait = self.within(look);
        wait.await.unwrap_or_else(|limit| {
            let (marked, missing) = (self.recorder().has_told(mark), missing.borrow());
            panic!("all that happened is recorded: not within {limit} s; come to the mark: {marked}; {missing:#?}")
        })
    }

    fn recorder(&self) -> &History {
        self.history.as_ref().unwrap()
    }

    /// Serves the kubelet's read-only paths from the next start on.
    pub fn serve(&mut self) {
        let port = ports::free();
        self.read_only_port = Some(port);
        self.flags.extend(["--read-only-port".to_owned(), port.to_string()]);
    }

    /// Where they are served.
    pub fn read_only_port(&self) -> u16 {
        self.read_only_port.unwrap()
    }

    /// The agent's events so far; none while it does not answer.
    pub async fn events(&self) -> Vec<Event> {
        let Ok(events) = control::events(&self.socket(), false).await else { return Vec::new() };
        events.filter_map(|event| std::future::ready(event.ok())).collect().await
    }

    /// `/pods`, by name, as the API's objects; called after [`Node::serve`].
    pub async fn pods(&self) -> BTreeMap<String, Value> {
        let port = self.read_only_port.unwrap();
        let (status, body) = self.eventually("/pods is served", || std::future::ready(ports::get(port, "/pods"))).await;
        assert_eq!(status, 200, "{body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
        let items = list["items"].as_array().unwrap().iter();
        items.map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), pod.clone())).collect()
    }

    /// What the agent logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// The agent's root directory.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// The agent's control socket.
    pub fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    fn owner(&self) -> String {
        self.root().display().to_string()
    }
}

impl Drop for Node {
    /// Whatever a test left goes, also when it has failed: first its agent, which would bring everything back. Only
    /// what carries this test's own label is touched.
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = (agent.kill(), agent.wait());
        }
        self.history = None;
        self.machine.clear(&self.owner());
        remove_links(Path::new("/var/log/containers"), self.dir.path());
        for pod in fs::read_dir(self.root().join("pods")).into_iter().flatten().flatten() {
            let name = format!("pod{}", pod.file_name().to_string_lossy());
            let args = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*kubepods*/{name}*")];
            let _ = Command::new("find").args(args).args(["-exec", "rmdir", "{}", ";"]).output();
        }
        unmount_below(self.dir.path());
    }
}

/// Unmounts what a test, or a pod that was killed with its agent, left mounted.
pub fn unmount_below(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(mount).starts_with(directory) {
            let _ = Command::new("umount").args(["-l", mount]).output();
        }
    }
}

/// The links that the agent made machine-wide and that point into a test's directory.
fn remove_links(directory: &Path, below: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(below)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The binary under test.
fn kubeboot() -> String {
    std::env::var("KUBEBOOT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kubeboot").to_owned())
}

/// Writes a file beside and renames it, under a name that no source reads.
pub fn put(path: &Path, content: &[u8]) {
    let aside = path.with_file_name(format!(".{}.new", path.file_name().unwrap().to_string_lossy()));
    fs::File::create(&aside).and_then(|mut file| file.write_all(content)).unwrap();
    fs::rename(aside, path).unwrap();
}

/// Runs a program that must succeed, and returns what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
