//! What the agent does: every option with its value, defaults applied.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::gates::Gates;
use super::node::NodeOptions;
use super::server::ServerOptions;
use crate::host::paths;
use crate::runtime::endpoint::Endpoint;

/// The pause image where none is named.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// Wakes who carries upgrades out. Every copy wakes the same one.
#[derive(Debug, Clone, Default)]
pub struct UpgradeSignal(Arc<Notify>);

impl UpgradeSignal {
    /// An upgrade may have been ordered.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Returns when that has happened since the last time.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

impl PartialEq for UpgradeSignal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for UpgradeSignal {}

/// Everything the agent is configured with, defaults applied. Make one with [`AgentOptions::new`] and change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// Directory (or single file) of manifests; `staticPodPath`.
    pub static_pod_path: Option<PathBuf>,
    /// How often it is listed whatever the watch says; `fileCheckFrequency`.
    pub file_check_frequency: Duration,
    /// Where manifests are fetched from; `staticPodURL`.
    pub static_pod_url: Option<String>,
    /// Headers of those requests, a repeated name for each further value; `staticPodURLHeader`. Values may be secrets:
    /// they are for those requests alone.
    pub static_pod_url_headers: Vec<(String, String)>,
    /// How often they are fetched; `httpCheckFrequency`.
    pub http_check_frequency: Duration,
    /// How often a pod is looked at whatever its events say; `syncFrequency`.
    pub sync_frequency: Duration,
    /// The node's name, the suffix of its pods' names: lower case.
    pub node_name: String,
    /// `--root-dir`: below it, `pods/UID/volumes`. Also the value of the containers' owner label.
    pub root_dir: PathBuf,
    /// `podLogsDir`.
    pub pod_logs_dir: PathBuf,
    /// Links to the containers' logs.
    pub container_logs_dir: PathBuf,
    /// Image of pause containers.
    pub pause_image: String,
    /// The unix socket that gives the health report.
    pub control_socket: PathBuf,
    /// Where `/healthz` is served; None: nowhere.
    pub healthz: Option<SocketAddr>,
    /// The container runtime, if one is named.
    pub runtime: Option<Endpoint>,
    /// It was named by the configuration file, over which the environment's DOCKER_HOST goes: kubeadm writes a socket there
    /// on every node.
    pub runtime_from_file: bool,
    /// `clusterDNS`: name servers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<String>,
    /// `clusterDomain`: their search domain.
    pub cluster_domain: Option<String>,
    /// `resolvConf`: the machine's resolver file; None is /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
    /// Kernel parameters that pods may set beyond the safe ones, as checked patterns; `allowedUnsafeSysctls`.
    pub unsafe_sysctls: Vec<String>,
    /// The longest back-off of a crashing container; `crashLoopBackOff.maxContainerRestartPeriod`.
    pub max_restart_backoff: Duration,
    /// Whether CPU limits are enforced; `cpuCFSQuota`.
    pub cpu_cfs_quota: bool,
    /// The period of that quota; `cpuCFSQuotaPeriod`.
    pub cpu_cfs_quota_period: Duration,
    /// Whether containers without a seccomp profile get the runtime's; `seccompDefault`.
    pub seccomp_default: bool,
    /// The agent's own OOM score; `oomScoreAdj`.
    pub oom_score_adj: i32,
    /// Bytes at which a container's log is rotated, `u64::MAX` for never; `containerLogMaxSize`.
    pub container_log_max_size: u64,
    /// How many files of a container's log are kept, the live one included; `containerLogMaxFiles`.
    pub container_log_max_files: u32,
    /// Who carries upgrades out beside the agent; None: no one does.
    pub upgrades: Option<UpgradeSignal>,
    /// How often the service manager hears that the agent is alive, as it asks for; None: never.
    pub watchdog: Option<Duration>,
    /// How often logs are looked at where the agent rotates them; `containerLogMonitorInterval`.
    pub container_log_monitor_interval: Duration,
    /// Where the kubelet's read-only paths (`/pods`, `/metrics`, ...) are served: `readOnlyPort` on `address`, which is
    /// the loopback unless it is set (the kubelet would take every address). None: nowhere, the default; a kubelet
    /// without a configuration file would take port 10255.
    pub read_only: Option<SocketAddr>,
    /// Whether pods get cgroups of their own by QoS class; `cgroupsPerQOS`.
    pub cgroups_per_qos: bool,
    /// The cgroup below which they are made, without slashes around it, empty for the top; `cgroupRoot`.
    pub cgroup_root: String,
    /// The most processes of a pod, None for no limit; `podPidsLimit`.
    pub pod_pids_limit: Option<i64>,
    /// Images pulled at a time: 1 with `serializeImagePulls`, else `maxParallelImagePulls`, None for no limit.
    pub parallel_image_pulls: Option<usize>,
    /// The API server and the Node there.
    pub node: NodeOptions,
    /// The agent's own API, the kubelet's.
    pub server: ServerOptions,
    /// What feature gates open; `featureGates`.
    pub gates: Gates,
    /// The flags that were given, as `/flagz` shows them: without what may be a password.
    pub given_flags: BTreeMap<String, String>,
    /// The configuration files as they are written, merged: with the fields that mean nothing to this agent, and without
    /// the headers of requests. What is followed is in the other options; with this `/configz` says what a kubelet's would.
    pub written: Map<String, Value>,
}

impl AgentOptions {
    /// The port that the Node says its kubelet's API has; None where it is not served.
    pub fn api_port(&self) -> Option<i32> {
        self.server.listen.map(|address| i32::from(address.port()))
    }

    /// The kubelet's defaults on a node of this name. No manifests are read until `static_pod_path` is set.
    pub fn new(node_name: &str) -> Self {
        Self {
            static_pod_path: None,
            file_check_frequency: Duration::from_secs(20),
            static_pod_url: None,
            static_pod_url_headers: Vec::new(),
            http_check_frequency: Duration::from_secs(20),
            sync_frequency: Duration::from_secs(60),
            node_name: node_name.to_owned(),
            root_dir: PathBuf::from(paths::KUBELET_DIR),
            pod_logs_dir: PathBuf::from(paths::POD_LOGS_DIR),
            container_logs_dir: PathBuf::from(paths::CONTAINER_LOGS_DIR),
            pause_image: PAUSE_IMAGE.to_owned(),
            control_socket: PathBuf::from(paths::CONTROL_SOCKET),
            healthz: Some(SocketAddr::from(([127, 0, 0, 1], 10248))),
            runtime: None,
            runtime_from_file: false,
            cluster_dns: Vec::new(),
            cluster_domain: None,
            resolv_conf: None,
            unsafe_sysctls: Vec::new(),
            max_restart_backoff: Duration::from_secs(300),
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            seccomp_default: false,
            oom_score_adj: -999,
            upgrades: None,
            watchdog: None,
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            container_log_monitor_interval: Duration::from_secs(10),
            read_only: None,
            cgroups_per_qos: true,
            cgroup_root: String::new(),
            pod_pids_limit: None,
            parallel_image_pulls: Some(1),
            node: NodeOptions::new(Path::new(paths::KUBELET_DIR)),
            server: ServerOptions::default(),
            gates: Gates::default(),
            given_flags: BTreeMap::new(),
            written: Map::new(),
        }
    }

    /// Value of the owner label ([`crate::runtime::labels::OWNER`]) of everything this agent makes.
    pub fn owner(&self) -> String {
        self.root_dir.display().to_string()
    }

    /// The control socket of an agent with this root directory, unless another is named.
    pub fn default_control_socket(root_dir: &Path) -> PathBuf {
        if root_dir == Path::new(paths::KUBELET_DIR) {
            PathBuf::from(paths::CONTROL_SOCKET)
        } else {
            root_dir.join("agent.sock")
        }
    }
}
