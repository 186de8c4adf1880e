//! What all workers of an agent share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Refusal, Site};
use super::apiserver::certificates::Serving;
use super::apiserver::certificates::server;
use super::apiserver::registered::NodeState;
use super::apiserver::{self, ApiServer};
use super::attempts::Attempts;
use super::board::Board;
use super::cgroups::Cgroups;
use super::cluster;
use super::cluster::mirror::Uids;
use super::container::env::Facts;
use super::container::security;
use super::control::log::{LogError, LogRequest};
use super::control::{AgentView, PodList, PodView};
use super::counters::Metrics;
use super::crash::{self, Crash};
use super::devices::Devices;
use super::events::Recorder;
use super::hooks::Runner;
use super::logs::find;
use super::messages::{Message, Routes};
use super::objects::store::Store;
use super::operations::{Counted, Operations};
use super::options::{AgentOptions, UpgradeSignal};
use super::probe::{Checker, KernelPorts, Manager, Memory, SharedPorts};
use super::pull;
use super::runs::Runs;
use super::volumes::refresh;
use crate::host::memory::MemInfo;
use crate::runtime::{self, ContainerRuntime};

/// What all workers of an agent share.
pub struct Context {
    /// What the agent was started with.
    pub options: Arc<AgentOptions>,
    /// The container runtime.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// The API server, where the agent has one: not without a kubeconfig.
    pub api: Option<Arc<ApiServer>>,
    /// The Node of this machine there, once it is registered.
    pub node: Arc<NodeState>,
    /// What the agent's API serves with, where the cluster signs it.
    pub serving: Arc<Serving>,
    /// What bound pods were given to read.
    pub objects: Arc<Store>,
    /// What is reported.
    pub board: Arc<Board>,
    /// UIDs of the mirrors of the pods.
    pub mirrors: Uids,
    /// What happened.
    pub events: Arc<Recorder>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is asked of the runtime.
    pub operations: Arc<Operations>,
    /// The prober.
    pub probes: Manager,
    /// Chooses between processes that share a port.
    pub shared_ports: Arc<dyn SharedPorts>,
    /// Restart counts of pods that are gone.
    pub attempts: Attempts,
    /// Runs of containers that have ended and left a leader lease.
    pub runs: Arc<Runs>,
    /// Runs lifecycle hooks.
    pub hooks: Runner,
    /// Which worker has which UID.
    pub routes: Routes,
    /// As many pulls at a time as the options allow: one by default, as by the kubelet.
    pub pulls: Semaphore,
    /// Somebody found the runtime unreachable: look at once.
    pub relink: Notify,
    /// UIDs of pods that have gone, and not all they had: what is left is to be looked for with each list.
    pub left: Mutex<BTreeSet<String>>,
    /// cgroups of the pods.
    pub cgroups: Cgroups,
    /// Whether the machine has AppArmor.
    pub apparmor: bool,
    /// What the downward API says of the node.
    pub facts: Facts,
    /// Labels of the Node while the API server has reported none.
    pub initial_labels: BTreeMap<String, String>,
    /// What pods may use of the machine ([`cluster::node::allocatable`]).
    pub allocatable: BTreeMap<String, i64>,
    /// Memory of the machine in bytes, which OOM scores are shares of.
    pub memory_capacity: i64,
    /// Its processors, in thousandths.
    pub cpu_capacity: i64,
    /// UIDs of pods bound to the node that have to go for a static one.
    pub preempted: watch::Sender<BTreeSet<String>>,
    /// Why pods bound to the node are not run that its devices were not enough for, by UID.
    pub without_devices: watch::Sender<BTreeMap<String, Refusal>>,
    /// Device plugins.
    pub devices: Arc<Devices>,
    /// The agent ends.
    pub shutdown: CancellationToken,
    /// Everything that runs.
    pub tasks: TaskTracker,
    /// The crash that the agent ends for.
    pub crash: OnceLock<(&'static str, Crash)>,
}

impl Context {
    /// Puts everything together.
    pub fn new(
        options: AgentOptions,
        runtime: Arc<dyn ContainerRuntime>,
        checker: Arc<dyn Checker>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let (routes, mut facts) = (Routes::default(), node_facts(&options));
        let (memory_capacity, cpu_capacity) = (facts.node_memory, facts.node_cpu_millis);
        let operations: Arc<Operations> = Arc::default();
        // Commands of probes go past it: they are counted as probes.
        let runtime: Arc<dyn ContainerRuntime> = Arc::new(Counted::new(runtime, Arc::clone(&operations)));
        let pulls = options.parallel_image_pulls.unwrap_or(Semaphore::MAX_PERMITS);
        let allocatable = cluster::node::allocatable(&options);
        let of_pods = |resource: &str, all: i64| allocatable.get(resource).copied().unwrap_or(all);
        facts.node_memory = of_pods("memory", facts.node_memory);
        facts.node_cpu_millis = of_pods("cpu", facts.node_cpu_millis);
        facts.node_storage = of_pods("ephemeral-storage", facts.node_storage);
        let initial_labels = cluster::node::initial_labels(&options);
        let wake = routes.clone();
        let wake = Arc::new(move |uid: &str| wake.tell(uid, Message::Probed));
        let tasks = TaskTracker::new();
        let devices = Devices::new(&options.root_dir, shutdown.clone(), tasks.clone());
        let (events, memory) = (Arc::new(Recorder::default()), Memory::new(&options.root_dir));
        Arc::new(Self {
            api: options.node.kubeconfig.is_some().then(Arc::default),
            node: Arc::default(),
            serving: Arc::default(),
            objects: Arc::default(),
            board: Arc::new(Board::new(&options)),
            cgroups: Cgroups::new(&options),
            apparmor: security::has_apparmor(),
            mirrors: Uids::default(),
            metrics: Arc::default(),
            operations,
            probes: Manager::new(checker, wake, Arc::clone(&events), memory),
            shared_ports: Arc::new(KernelPorts),
            attempts: Attempts::default(),
            runs: Arc::default(),
            hooks: Runner::new(Arc::clone(&runtime)),
            events,
            options: Arc::new(options),
            runtime,
            routes,
            pulls: Semaphore::new(pulls),
            relink: Notify::new(),
            left: Mutex::default(),
            facts,
            allocatable,
            initial_labels,
            memory_capacity,
            cpu_capacity,
            preempted: watch::Sender::new(BTreeSet::new()),
            without_devices: watch::Sender::new(BTreeMap::new()),
            devices: Arc::new(devices),
            shutdown,
            tasks,
            crash: OnceLock::new(),
        })
    }
}

impl Context {
    /// Runs a task that begins again when it crashes, until the agent ends. It must know what it has to do from the
    /// context alone.
    pub fn kept<F>(self: &Arc<Self>, what: &'static str, begin: impl Fn(Arc<Self>) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (context, until) = (Arc::clone(self), self.shutdown.clone());
        self.tasks.spawn(async move {
            until.run_until_cancelled(crash::restarted(what, || begin(Arc::clone(&context)))).await;
        });
    }

    /// Runs a task without which the agent is none: where it crashes the agent ends, and its service manager starts
    /// another.
    pub fn vital(self: &Arc<Self>, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let context = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(crash) = crash::caught(task).await {
                context.end_for(what, crash);
            }
        });
    }

    /// Ends the agent for a crash.
    pub fn end_for(&self, what: &'static str, crash: Crash) {
        let _ = self.crash.set((what, crash));
        self.shutdown.cancel();
    }

    /// The node as pods are admitted to it, with these labels.
    pub fn site(&self, labels: Option<BTreeMap<String, String>>) -> Site {
        Site {
            name: self.options.node_name.clone(),
            labels,
            allocatable: self.allocatable.clone(),
            unsafe_sysctls: self.options.unsafe_sysctls.clone(),
            apparmor: self.apparmor,
        }
    }

    /// The address of pods on the machine's network, as with the kubelet: the node's where there is a cluster that it is a
    /// node of; None without one, and such pods are asked at the loopback address.
    pub fn host_network_ip(&self) -> Option<&str> {
        self.facts.host_ip.as_deref().filter(|_| self.api.is_some())
    }

    /// What the client of the API server takes.
    pub fn for_client(&self) -> apiserver::Parts {
        apiserver::Parts {
            options: Arc::clone(&self.options),
            api: self.api.clone(),
            board: Arc::clone(&self.board),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// What the serving certificate takes.
    pub fn for_serving(&self) -> server::Parts {
        server::Parts {
            options: Arc::clone(&self.options),
            api: self.api.clone(),
            addresses: cluster::node::addresses(&self.options, self.facts.host_ip.as_deref()),
            node: Arc::clone(&self.node),
            serving: Arc::clone(&self.serving),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// What following the files of volumes takes.
    pub fn for_files(&self) -> Arc<refresh::Parts> {
        Arc::new(refresh::Parts {
            options: Arc::clone(&self.options),
            api: self.api.clone(),
            board: Arc::clone(&self.board),
            objects: Arc::clone(&self.objects),
            facts: self.facts.clone(),
            events: Arc::clone(&self.events),
        })
    }

    /// What the cluster's side takes; None without an API server.
    pub fn for_cluster(&self) -> Option<cluster::Parts> {
        Some(cluster::Parts {
            options: Arc::clone(&self.options),
            api: self.api.clone()?,
            runtime: Arc::clone(&self.runtime),
            board: Arc::clone(&self.board),
            events: Arc::clone(&self.events),
            metrics: Arc::clone(&self.metrics),
            node: Arc::clone(&self.node),
            mirrors: self.mirrors.clone(),
            devices: Arc::clone(&self.devices),
            address: self.facts.host_ip.clone(),
            site: self.site(None),
            preempted: self.preempted.subscribe(),
            without_devices: self.without_devices.subscribe(),
        })
    }

    /// What giving leader leases free takes.
    pub fn for_leases(&self) -> cluster::leader_lease::Parts {
        cluster::leader_lease::Parts {
            runs: Arc::clone(&self.runs),
            board: Arc::clone(&self.board),
            events: Arc::clone(&self.events),
        }
    }

    /// What a pull takes.
    pub fn for_pull(&self) -> pull::Parts<'_> {
        pull::Parts {
            runtime: &*self.runtime,
            root_dir: &self.options.root_dir,
            objects: &self.objects,
            api: self.api.as_deref(),
            events: &self.events,
        }
    }
}

fn node_facts(options: &AgentOptions) -> Facts {
    let memory = MemInfo::read().bytes("MemTotal").unwrap_or(0);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let storage = rustix::fs::statvfs("/").map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
    let chosen = options.node.ips.iter().find(|ip| !ip.is_unspecified()).map(ToString::to_string);
    let address = chosen.or_else(node_address);
    Facts {
        host_ip: address.clone(),
        pod_ip: address,
        node_memory: i64::try_from(memory).unwrap_or(i64::MAX),
        node_cpu_millis: i64::try_from(cpus).unwrap_or(1).saturating_mul(1000),
        node_storage: i64::try_from(storage).unwrap_or(i64::MAX),
    }
}

/// The address the machine would use towards others. Connecting a datagram socket sends nothing.
fn node_address() -> Option<String> {
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")].into_iter().find_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip().to_string())
    })
}

#[async_trait]
impl AgentView for Context {
    fn pods(&self) -> PodList {
        let entries = self.board.pods().into_iter();
        PodList { pods: entries.map(|entry| PodView { pod: entry.to_pod(), report: entry.report }).collect() }
    }

    fn events(&self) -> &Recorder {
        &self.events
    }

    async fn logs(&self, wanted: &LogRequest) -> Result<BoxStream<'static, runtime::Result<Bytes>>, LogError> {
        find::open(&*self.runtime, &self.board.pods(), wanted).await
    }

    fn look_for_upgrade(&self) -> bool {
        self.options.upgrades.as_ref().map(UpgradeSignal::wake).is_some()
    }

    fn restart(&self, uid: &str) -> bool {
        // `kubectl get` shows the mirror's.
        let uid = &self.mirrors.local(uid);
        let pods = self.board.pods();
        let mut all = pods.iter().flat_map(|pod| pod.report.generations());
        let known = all.any(|pod| pod.uid == *uid && !pod.terminating);
        if known {
            self.routes.tell(uid, Message::Restart(uid.to_owned()));
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::probe::Prober;
    use crate::testing::runtime::FakeRuntime;

    #[test]
    fn an_unset_limit_reads_as_what_pods_may_use_of_the_machine_and_scores_are_shares_of_all_of_it() {
        let root = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new("n");
        options.root_dir = root.path().join("root");
        options.node.reserved = [("memory".to_owned(), 1 << 28), ("cpu".to_owned(), 250)].into();
        let runtime = Arc::new(FakeRuntime::new()) as Arc<dyn ContainerRuntime>;
        let checker = Arc::new(Prober::new(Arc::clone(&runtime)));
        let context = Context::new(options, runtime, checker, CancellationToken::new());
        let (facts, all) = (&context.facts, &context.allocatable);
        assert_eq!((facts.node_memory, facts.node_cpu_millis), (all["memory"], all["cpu"]));
        assert_eq!(facts.node_cpu_millis, context.cpu_capacity - 250);
        assert!(facts.node_memory <= context.memory_capacity - (1 << 28), "{facts:?}");
    }
}
