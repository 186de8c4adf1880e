//! A machine of a test's own: a directory of manifests, a real agent that is started, killed and started again, and the real
//! runtime behind it. Nothing here is shared with another test but the daemon and the images.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::command::{kubeboot, program, put, signal, unmount_below};
use super::daemon::Daemon;
use super::engine::{self, Engine, Look};
use super::pod::Pod;
use super::wait::{self, LIMIT};
use super::{image, reports};
use crate::agent::control::report::{HealthReport, PodReport};
use crate::agent::{self, AgentError, AgentOptions, control};
use crate::runtime::{ContainerRecord, ContainerRuntime};

/// One machine with one agent.
pub struct Machine {
    dir: TempDir,
    /// The runtime as the tests look at it.
    pub engine: Box<dyn Engine>,
    /// The runtime's own API.
    pub client: Arc<dyn ContainerRuntime>,
    process: Option<Child>,
    /// Ends every agent that runs in this process.
    end: CancellationToken,
    /// Directory of manifests, or the one manifest; changed before [`Machine::start`].
    pub manifests: PathBuf,
    /// `--hostname-override`.
    pub name: String,
    /// Lines of the KubeletConfiguration beside those every agent here has.
    pub config: Vec<String>,
    /// Flags beside those every agent here has.
    pub flags: Vec<String>,
    /// Goes after the containers have.
    daemon: Option<Daemon>,
}

/// An agent in the test's own process, as an embedder runs it.
pub struct Agent {
    task: JoinHandle<Result<(), AgentError>>,
    shutdown: CancellationToken,
}

impl Agent {
    /// Asks it to end, and expects that it ends well.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// How it ends by itself.
    ///
    /// # Errors
    /// The agent's own.
    pub async fn ended(self) -> Result<(), AgentError> {
        self.task.await.unwrap()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// One on the runtime that all share, whose agent has not been started. Called in a runtime of several threads.
    pub fn new() -> Self {
        static IMAGES: OnceLock<()> = OnceLock::new();
        let engine = engine::shared();
        IMAGES.get_or_init(|| engine.take_images());
        Self::with(engine, None)
    }

    /// The same on a runtime of its own, which has no images yet.
    pub fn on(daemon: Daemon) -> Self {
        Self::with(daemon.engine(), Some(daemon))
    }

    fn with(engine: Box<dyn Engine>, daemon: Option<Daemon>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manifests = dir.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        Self {
            client: engine.client(),
            engine,
            dir,
            process: None,
            end: CancellationToken::new(),
            manifests,
            name: "node1".to_owned(),
            config: Vec::new(),
            flags: Vec::new(),
            daemon,
        }
    }

    /// The machine's own runtime.
    ///
    /// # Panics
    /// It has none.
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

    /// The agent's root directory.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// The agent's control socket.
    pub fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// The label of everything that its agent makes.
    pub fn owner(&self) -> String {
        self.root().display().to_string()
    }

    /// Starts the agent as a user does.
    ///
    /// # Panics
    /// One runs already, or it cannot be run.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "an agent runs already");
        let config = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\npodLogsDir: {}\n{}\n",
            self.path("pods").display(),
            self.config.join("\n")
        );
        put(&self.path("config.yaml"), config);
        let log = OpenOptions::new().create(true).append(true).open(self.path("agent.log")).unwrap();
        // As from a shell that keeps its user's files closed: the agent's are not.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(program());
        command.args(["agent", "--healthz-port=0", "--pod-infra-container-image", image::PAUSE]);
        command.args(["--hostname-override", &self.name]);
        for (flag, path) in [
            ("--config", self.path("config.yaml")),
            ("--root-dir", self.root()),
            ("--control-socket", self.socket()),
            ("--pod-manifest-path", self.manifests.clone()),
        ] {
            command.arg(flag).arg(path);
        }
        command.args(self.engine.flags()).args(&self.flags);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// Ends the agent with SIGKILL, as a crash does.
    ///
    /// # Panics
    /// None runs.
    pub fn kill(&mut self) {
        let mut agent = self.process.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Asks the agent to end, as a service manager does, and expects that it ends well.
    ///
    /// # Panics
    /// None runs, or it ends otherwise.
    pub fn stop(&mut self) {
        let mut agent = self.process.take().unwrap();
        signal(agent.id(), "TERM");
        let status = agent.wait().unwrap();
        assert!(status.success(), "the agent ended with {status}");
    }

    /// Whether the agent's process lives.
    pub fn is_up(&mut self) -> bool {
        self.process.as_mut().is_some_and(|agent| agent.try_wait().unwrap().is_none())
    }

    /// The options of an agent in the test's process: everything is in the test's directory.
    pub fn options(&self) -> AgentOptions {
        let mut options = AgentOptions::new(&self.name);
        options.static_pod_path = Some(self.manifests.clone());
        options.root_dir = self.root();
        options.pod_logs_dir = self.path("pods");
        options.container_logs_dir = self.path("containers");
        options.pause_image = image::PAUSE.to_owned();
        options.control_socket = self.socket();
        options.healthz = None;
        options.node.cert_dir = self.path("pki");
        options
    }

    /// Starts an agent in the test's process.
    pub fn embed(&self, options: AgentOptions) -> Agent {
        let shutdown = self.end.child_token();
        let task = tokio::spawn(agent::run(options, self.client.clone(), shutdown.clone()));
        Agent { task, shutdown }
    }

    /// Writes a manifest in one rename, as every careful writer does.
    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        put(&self.manifest(file), text);
    }

    /// Writes a pod's manifest to `NAME.yaml`.
    pub fn run(&self, pod: &Pod) {
        self.write(&format!("{}.yaml", pod.name()), pod.yaml());
    }

    /// Removes a manifest.
    ///
    /// # Panics
    /// It is not there.
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
        reports::until(&self.socket(), limit, what, condition).await
    }

    /// Checks that `condition` holds in every report of the next `time`.
    pub async fn all_along(&self, time: Duration, what: &str, condition: impl Fn(&HealthReport) -> bool) {
        reports::all_along(&self.socket(), time, what, condition).await;
    }

    fn full_name(&self, pod: &str) -> String {
        format!("{pod}-{}", self.name.to_lowercase())
    }

    /// Waits until a pod satisfies `condition`, and returns it. `name` is without the node's suffix.
    ///
    /// # Panics
    /// It does not.
    pub async fn pod(&self, name: &str, what: &str, condition: impl Fn(&PodReport) -> bool) -> PodReport {
        let name = self.full_name(name);
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

    /// Waits until a pod is healthy, which comes before it is ready.
    pub async fn healthy(&self, name: &str) -> PodReport {
        self.pod(name, "is healthy", |pod| pod.healthy).await
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

    /// The runtime has no container of this machine, and no sandbox.
    ///
    /// # Panics
    /// It has one.
    pub fn has_nothing(&self) {
        let left = self.engine.running(&self.owner());
        assert!(left.is_empty(), "{left:#?}");
    }

    /// Every container of this machine but sandboxes, as the runtime has them now.
    pub async fn containers(&self) -> Vec<ContainerRecord> {
        self.all().await.into_iter().filter(|one| !one.is_sandbox).collect()
    }

    /// Every container of this machine, sandboxes included.
    ///
    /// # Panics
    /// The runtime does not tell.
    pub async fn all(&self) -> Vec<ContainerRecord> {
        self.client.list(&self.owner()).await.unwrap()
    }

    /// The sandbox in which a pod runs, which there is one of. `name` is without the node's suffix.
    ///
    /// # Panics
    /// There is none, or another one.
    pub async fn sandbox(&self, name: &str) -> ContainerRecord {
        let name = self.full_name(name);
        let its = |one: &ContainerRecord| one.is_sandbox && one.state.is_running() && one.name.pod == name;
        let mut found: Vec<_> = self.all().await.into_iter().filter(its).collect();
        assert_eq!(found.len(), 1, "sandboxes of {name}: {found:#?}");
        found.remove(0)
    }

    /// Waits until something that is no report's matter holds: a file a container writes, a moment of the runtime's.
    pub async fn eventually<L: wait::Look, F: Future<Output = L>>(
        &self,
        what: &str,
        look: impl FnMut() -> F,
    ) -> L::Found {
        wait::eventually(what, LIMIT, look).await
    }

    /// Waits until a file below this test's directory has a text in it.
    pub async fn file_says(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        let look = || {
            let content = fs::read_to_string(&path).map_err(|error| error.to_string());
            std::future::ready(content.and_then(|all| if all.contains(text) { Ok(all) } else { Err(all) }))
        };
        self.eventually(&format!("{name} says {text:?}"), look).await
    }

    /// What the runtime has noted of a container.
    pub fn look(&self, id: &str) -> Look {
        self.engine.look(id)
    }

    /// The names of what runs, sandboxes included, in order.
    pub fn running_names(&self) -> Vec<String> {
        let running = self.engine.running(&self.owner()).into_iter().filter(|(_, runs)| *runs);
        let mut names: Vec<String> = running.map(|(id, _)| self.look(&id).name).collect();
        names.sort_unstable();
        names
    }

    /// Kills a container behind the agent's back.
    pub fn kill_container(&self, id: &str) {
        self.engine.kill(id);
    }

    /// Removes a container behind the agent's back, running or not.
    pub fn remove_container(&self, id: &str) {
        self.engine.remove(id);
    }

    /// Runs a command in a container, and returns what it printed.
    pub fn exec(&self, id: &str, command: &[&str]) -> String {
        self.engine.exec(id, command)
    }

    /// A container as the API names it.
    pub fn reference(&self, id: &str) -> String {
        format!("{}://{id}", self.engine.scheme())
    }

    /// What `kubeboot ARGS` says of this machine's agent, which must succeed.
    pub fn kubeboot(&self, args: &[&str]) -> String {
        let socket = self.socket().display().to_string();
        kubeboot(&[args, &["--control-socket", &socket]].concat()).ok()
    }

    /// The agent's events so far; none while it does not answer.
    pub async fn events(&self) -> Vec<agent::events::Event> {
        let Ok(events) = control::events(&self.socket(), false).await else { return Vec::new() };
        events.filter_map(|event| std::future::ready(event.ok())).collect().await
    }

    /// What the agent logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    /// Whatever a test left goes, also when it has failed: first its agents, which would bring everything back. Only what
    /// carries this test's own label is touched.
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(mut agent) = self.process.take() {
            let _ = (agent.kill(), agent.wait());
        }
        self.engine.clear(&self.owner());
        remove_links(Path::new("/var/log/containers"), self.dir.path());
        for pod in fs::read_dir(self.root().join("pods")).into_iter().flatten().flatten() {
            let name = format!("pod{}", pod.file_name().to_string_lossy());
            let args = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*kubepods*/{name}*")];
            let _ = Command::new("find").args(args).args(["-exec", "rmdir", "{}", ";"]).output();
        }
        unmount_below(&[self.dir.path()]);
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
