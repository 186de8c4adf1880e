//! A machine made of fakes in a temporary directory. Its agent "runs" whatever manifests are there and leaves the
//! traces of one; services and the cluster record their calls and fail the n-th.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::report::{pod, report};
use super::runtime::{FakeRuntime, container_config};
use super::tree::FaultyTree;
use crate::agent::control::expect::HealthSource;
use crate::agent::control::report::HealthReport;
use crate::cluster::apply::{Applied, Outcome};
use crate::cluster::joining::ClusterFacts;
use crate::cluster::object::{Key, Object, WriteMode};
use crate::config::spec::JoinSpec;
use crate::event::{Event, Reporter};
use crate::host::Paths;
use crate::host::digest::sha256;
use crate::host::facts::{Cgroup, Facts, Interest};
use crate::host::fs::{make_dirs, write_file};
use crate::host::paths::KUBELET_DIR;
use crate::host::tree::{HostTree, NoRecord};
use crate::kubelet::service::{ServiceError, ServiceManager};
use crate::manifests::COMPONENTS;
use crate::runtime::cri::{Sandbox, Sandboxes};
use crate::runtime::{ContainerRuntime, Result, RuntimeError};
use crate::workflow::machine::cluster::{Cluster, Site};
use crate::workflow::machine::joining::{Access, Credentials, Joining};
use crate::workflow::machine::{Cause, FactSource, Machine, Runtimes};

/// What the agent, the components and the service manager make on a real machine.
const TRACES: &[&str] = &[
    "/var/lib/etcd/member/snap/db",
    "/var/lib/kubelet/pods/uid/volumes/x",
    "/var/log/pods/kube-system_etcd-cp1_uid/etcd/0.log",
    "/var/log/containers/etcd-cp1_kube-system_etcd-1.log",
    "/run/kubeboot/agent.sock",
    "/var/log/kubeboot/agent.log",
];
/// What a kubelet makes that bootstraps itself; its kubeconfig comes last.
const WORKER_TRACES: &[&str] = &[
    "/var/lib/kubelet/pki/kubelet-client-current.pem",
    "/var/lib/kubelet/pods/uid/volumes/x",
    "/var/lib/kubelet/device-plugins/kubelet.sock",
    "/var/log/pods/default_web_uid/web/0.log",
    "/var/log/containers/web_default_web-1.log",
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
];
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/kubelet.service";

/// What a kubelet writes once it has its certificate.
const KUBELET_CONF: &str = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
    clusters: [{name: c, cluster: {server: 'https://10.0.0.5:6443', certificate-authority-data: Q0E=}}]\n\
    contexts: [{name: c, context: {cluster: c, user: u}}]\n\
    users: [{name: u, user: {client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem}}]\n";

/// The fakes, and what they saw.
pub struct Bench {
    /// The root directory; removed in the end.
    pub root: tempfile::TempDir,
    /// Files; fails the n-th change.
    pub tree: FaultyTree<HostTree<NoRecord>>,
    /// Containers.
    pub runtime: FakeRuntime,
    /// The agent, the service manager and the cluster.
    pub world: Arc<World>,
}

/// What agent, service manager and cluster share.
pub struct World {
    this: Weak<World>,
    paths: Paths,
    runtime: FakeRuntime,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: Vec<&'static str>,
    fail_at: Option<usize>,
    running: bool,
    sick: Vec<&'static str>,
    events: Vec<Event>,
    objects: BTreeMap<Key, Value>,
    sandboxes: Vec<Sandbox>,
    ready_nodes: Vec<String>,
    no_kubelet: bool,
    nodes: Vec<Value>,
    metrics: String,
}

impl Bench {
    /// A fresh machine with what every Debian has.
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let paths = Paths::new(root.path());
        for dir in ["/etc/systemd/system", "/var/lib", "/var/log", "/run", "/usr"] {
            make_dirs(&paths.on_host(dir), 0o755).expect("a directory");
        }
        let tree = FaultyTree::new(HostTree::new(paths.clone(), NoRecord));
        let runtime = FakeRuntime::new();
        for image in crate::manifests::images(&super::spec()) {
            runtime.registry_has(&image.reference, Duration::from_millis(1));
        }
        let world = Arc::new_cyclic(|this| World {
            this: this.clone(),
            paths,
            runtime: runtime.clone(),
            state: Mutex::default(),
        });
        Self { root, tree, runtime, world }
    }

    /// A machine to run a command on: the same one each time.
    pub fn machine(&self) -> Machine {
        Machine {
            paths: self.world.paths.clone(),
            live: true,
            tree: Box::new(self.tree.clone()),
            reporter: self.world.clone(),
            service: Box::new(Shared(self.world.clone())),
            facts: self.world.clone(),
            runtimes: self.world.clone(),
            health: self.world.clone(),
            cluster: self.world.clone(),
            joining: self.world.clone(),
            program: PathBuf::from("/usr/local/bin/kubeboot"),
            proxy_env: vec![],
            stop: CancellationToken::new(),
        }
    }

    /// Every path of the machine.
    pub fn listing(&self) -> Vec<String> {
        super::listing(self.root.path())
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails the `n`-th call of service and cluster from now on (1 is the next one), once.
    pub fn fail_at(&self, n: usize) {
        let mut state = self.state();
        state.fail_at = Some(state.calls.len() + n);
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<&'static str> {
        self.state().calls.clone()
    }

    /// Whether the agent runs.
    pub fn is_running(&self) -> bool {
        self.state().running
    }

    /// Gives the cluster these nodes.
    pub fn has_nodes(&self, nodes: Vec<Value>) {
        self.state().nodes = nodes;
    }

    /// Lets the API server's metrics be these.
    pub fn has_metrics(&self, text: &str) {
        self.state().metrics = text.to_owned();
    }

    /// Makes a component never become healthy.
    pub fn make_sick(&self, component: &'static str) {
        self.state().sick.push(component);
    }

    /// The objects that the cluster has.
    pub fn objects(&self) -> BTreeMap<Key, Value> {
        self.state().objects.clone()
    }

    /// A pod of somebody's in the kubelet's runtime.
    pub fn has_sandbox(&self, id: &str) {
        self.state().sandboxes.push(Sandbox { id: id.into(), pod: format!("default/{id}") });
    }

    /// The ids of the pods in the kubelet's runtime.
    pub fn sandbox_ids(&self) -> Vec<String> {
        self.state().sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect()
    }

    /// A node of the cluster that is Ready.
    pub fn has_ready_node(&self, name: &str) {
        self.state().ready_nodes.push(name.into());
    }

    /// Takes the kubelet off the PATH.
    pub fn lose_kubelet(&self) {
        self.state().no_kubelet = true;
    }

    /// A kubelet starts: it gets its certificate if it has credentials to ask with, and runs a pod.
    fn run_kubelet(&self) {
        for path in WORKER_TRACES {
            match path.strip_suffix('/') {
                Some(dir) => drop(make_dirs(&self.paths.on_host(dir), 0o755).expect("a directory")),
                None => self.touch(path),
            }
        }
        let conf = self.paths.on_host("/etc/kubernetes/kubelet.conf");
        write_file(&conf, KUBELET_CONF.as_bytes(), 0o600).expect("a file");
        if !self.sandbox_ids().contains(&"web".to_owned()) {
            self.has_sandbox("web");
        }
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    fn call(&self, name: &'static str) -> std::result::Result<(), Cause> {
        let mut state = self.state();
        state.calls.push(name);
        let due = state.fail_at == Some(state.calls.len());
        if due { Err(format!("{name} fails as the test asked").into()) } else { Ok(()) }
    }

    fn touch(&self, path: &str) {
        let path = self.paths.on_host(path);
        make_dirs(path.parent().unwrap_or(Path::new("/")), 0o755).expect("a directory");
        write_file(&path, b"x", 0o600).expect("a file");
    }

    async fn run_pods(&self) {
        let there = self.runtime.containers();
        for component in COMPONENTS.into_iter().filter(|c| !there.iter().any(|one| one.name.container == **c)) {
            let image = crate::manifests::images(&super::spec()).remove(0).reference;
            let config = container_config(KUBELET_DIR, &format!("{component}-cp1"), component, 0, &image);
            let id = self.runtime.create_container(&config).await.expect("a container");
            self.runtime.start(&id).await.expect("a start");
        }
    }
}

struct Shared(Arc<World>);

#[async_trait]
impl ServiceManager for Shared {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn is_enabled(&self) -> std::result::Result<bool, ServiceError> {
        self.0.call("is_enabled").map_err(service_error)?;
        Ok(self.0.paths.on_host(ENABLED).exists())
    }

    fn is_running(&self) -> std::result::Result<bool, ServiceError> {
        self.0.call("is_running").map_err(service_error)?;
        Ok(self.0.is_running())
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn start(&self) -> std::result::Result<String, ServiceError> {
        self.0.call("start").map_err(service_error)?;
        self.0.touch(ENABLED);
        let conf = |name: &str| self.0.paths.kubeconfig(name).exists();
        if conf("bootstrap-kubelet.conf") || (conf("kubelet.conf") && !conf("admin.conf")) {
            self.0.run_kubelet();
            self.0.state().running = true;
            return Ok("started".into());
        }
        TRACES.iter().for_each(|path| self.0.touch(path));
        self.0.state().running = true;
        Ok("started".into())
    }

    fn stop(&self) -> std::result::Result<bool, ServiceError> {
        self.0.call("stop").map_err(service_error)?;
        Ok(std::mem::replace(&mut self.0.state().running, false))
    }

    fn disable(&self) -> std::result::Result<(), ServiceError> {
        self.0.call("disable").map_err(service_error)?;
        let _ = std::fs::remove_file(self.0.paths.on_host(ENABLED));
        Ok(())
    }

    fn reload(&self) -> std::result::Result<(), ServiceError> {
        self.0.call("reload").map_err(service_error)
    }

    fn log_tail(&self) -> Vec<String> {
        vec!["kubelet: told to fail".to_owned()]
    }

    async fn ended(&self) -> Vec<String> {
        std::future::pending().await
    }
}

fn service_error(cause: Cause) -> ServiceError {
    ServiceError::Command { command: "fake".into(), status: "1".into(), said: cause.to_string(), log: vec![] }
}

#[async_trait]
impl HealthSource for World {
    async fn watch(&self) -> std::result::Result<BoxStream<'static, HealthReport>, Cause> {
        if !self.is_running() {
            return Err("no agent".into());
        }
        self.run_pods().await;
        let mut pods = Vec::new();
        for component in COMPONENTS {
            let Ok(content) = std::fs::read(self.paths.manifest(component)) else { continue };
            let mut one = pod(component, &sha256(&content));
            one.healthy = !self.state().sick.contains(&component);
            pods.push(one);
        }
        Ok(stream::once(async move { report(pods) }).chain(stream::pending()).boxed())
    }
}

#[async_trait]
impl Cluster for World {
    async fn ensure_admins(&self, _: Site<'_>, _: Duration) -> std::result::Result<bool, Cause> {
        self.call("ensure_admins").map(|()| true)
    }

    async fn apply(&self, _: Site<'_>, objects: &[Object]) -> std::result::Result<Vec<Applied>, Cause> {
        let mut all = Vec::new();
        for object in objects {
            self.call("apply")?;
            let (key, mut state) = (object.key(), self.state());
            let outcome = match (state.objects.get(&key), object.mode) {
                (None, WriteMode::Amend(_)) => Outcome::Absent,
                (None, _) => Outcome::Created,
                (Some(there), _) if *there == object.value => Outcome::Unchanged,
                (Some(_), _) => Outcome::Updated,
            };
            if outcome != Outcome::Absent {
                state.objects.insert(key, object.value.clone());
            }
            all.push(Applied { outcome, uid: format!("uid of {}", object.name()) });
        }
        Ok(all)
    }

    async fn get(&self, _: Site<'_>, object: &Object) -> std::result::Result<Option<Value>, Cause> {
        self.call("get")?;
        if object.resource.kind == "Lease" {
            // Whoever elects a leader has one.
            let holder = format!("{}_0", crate::host::facts::hostname());
            let spec = serde_json::json!({"holderIdentity": holder, "renewTime": jiff::Timestamp::now().to_string()});
            return Ok(Some(serde_json::json!({"metadata": {"name": object.name()}, "spec": spec})));
        }
        Ok(self.state().objects.get(&object.key()).cloned())
    }

    async fn remove(&self, _: Site<'_>, object: &Object) -> std::result::Result<(), Cause> {
        self.call("remove")?;
        self.state().objects.remove(&object.key());
        Ok(())
    }

    async fn would_make(&self, _: Site<'_>, _: &Object) -> std::result::Result<(), Cause> {
        self.call("would_make")
    }

    async fn list_nodes(&self, _: Site<'_>, label: &str) -> std::result::Result<Vec<Value>, Cause> {
        self.call("list_nodes")?;
        let has = |node: &&Value| label.is_empty() || !node["metadata"]["labels"][label].is_null();
        Ok(self.state().nodes.iter().filter(has).cloned().collect())
    }

    async fn metrics(&self, _: Site<'_>) -> std::result::Result<String, Cause> {
        self.call("metrics").map(|()| self.state().metrics.clone())
    }

    async fn version(&self, _: Site<'_>, metrics: Option<&str>) -> std::result::Result<String, Cause> {
        self.call("version")?;
        let component = match metrics {
            None => "kube-apiserver",
            Some(address) if address.ends_with("57") => "kube-controller-manager",
            Some(_) => "kube-scheduler",
        };
        let manifest = std::fs::read_to_string(self.paths.manifest(component))?;
        let image = manifest.lines().find_map(|line| line.trim().strip_prefix("image: "));
        Ok(image.and_then(|image| image.rsplit_once(':')).ok_or("no image")?.1.to_owned())
    }
}

#[async_trait]
impl Joining for World {
    async fn discover(&self, _: &JoinSpec, _: &dyn Reporter) -> std::result::Result<Access, Cause> {
        self.call("discover")?;
        Ok(Access { kubeconfig: Credentials::new("token: abcdef.0123456789abcdef\n"), ca: b"CA".to_vec() })
    }

    async fn read(&self, _: &Credentials, _: Duration) -> std::result::Result<ClusterFacts, Cause> {
        self.call("read")?;
        let version = super::spec().kubernetes_version;
        Ok(ClusterFacts { version, kubelet_config: serde_json::json!({"kind": "KubeletConfiguration", "maxPods": 7}) })
    }

    async fn has_ready_node(&self, _: &Credentials, name: &str, _: Duration) -> std::result::Result<bool, Cause> {
        self.call("has_ready_node")?;
        Ok(self.state().ready_nodes.iter().any(|node| node == name))
    }

    async fn kubelet_health(&self, _: &str) -> std::result::Result<(), Cause> {
        if self.is_running() { Ok(()) } else { Err("connection refused".into()) }
    }
}

#[async_trait]
impl Sandboxes for World {
    async fn version(&self) -> Result<String> {
        Ok("containerd 2.1.0".into())
    }

    async fn has_runtime_config(&self) -> Result<bool> {
        Ok(true)
    }

    async fn list(&self) -> Result<Vec<Sandbox>> {
        Ok(self.state().sandboxes.clone())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let refused = |cause: Cause| RuntimeError::Refused { call: "remove".into(), message: cause.to_string() };
        self.call("remove_sandbox").map_err(refused)?;
        self.state().sandboxes.retain(|sandbox| sandbox.id != id);
        Ok(())
    }
}

impl FactSource for World {
    fn gather(&self, paths: &Paths, interest: &Interest) -> Facts {
        let mut facts = crate::host::facts::gather(paths, &Interest { ports: vec![], ..interest.clone() });
        // The machine the tests run on is none of their business.
        (facts.live, facts.uid, facts.cpus, facts.memory) = (true, 0, 2, Some(4096));
        facts.space.clear();
        facts.swap.clear();
        facts.proxy.clear();
        facts.kernel = "6.1.0".into();
        facts.cgroup = Cgroup {
            version: Some(2),
            controllers: ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].map(str::to_owned).into(),
        };
        facts.forwards_v4 = Some(true);
        let kubelet = (!self.state().no_kubelet).then(|| PathBuf::from("/usr/bin/kubelet"));
        facts.programs = interest.programs.iter().map(|name| ((*name).to_owned(), kubelet.clone())).collect();
        facts.kubelet_version = kubelet.map(|_| "v1.36.2".to_owned());
        facts
    }
}

#[async_trait]
impl Runtimes for World {
    fn connect(&self, _: Option<&str>) -> Result<Arc<dyn ContainerRuntime>> {
        Ok(Arc::new(self.runtime.clone()))
    }

    async fn sandboxes(&self, _: &str) -> Result<Arc<dyn Sandboxes>> {
        Ok(self.this.upgrade().expect("the world is there while it is asked"))
    }
}

impl Reporter for World {
    fn event(&self, event: Event) {
        self.state().events.push(event);
    }
}
