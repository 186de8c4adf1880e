//! What the agent is told: a `KubeletConfiguration` file and the kubelet's flags, resolved into [`AgentOptions`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::paths;

/// The pause image where none is named.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// Everything the agent is told, defaults applied. Make one with [`AgentOptions::new`] and change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// Directory (or single file) of manifests; `staticPodPath`.
    pub static_pod_path: Option<PathBuf>,
    /// How often it is listed whatever the watch says; `fileCheckFrequency`.
    pub file_check_frequency: Duration,
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
    /// The Docker engine's address; None takes DOCKER_HOST, else the default socket.
    pub docker_host: Option<String>,
    /// `clusterDNS`: name servers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<String>,
    /// `clusterDomain`: their search domain.
    pub cluster_domain: Option<String>,
    /// `resolvConf`: the machine's resolver file; None is /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
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
}

impl AgentOptions {
    /// The kubelet's defaults on a node of this name. No manifests are read until `static_pod_path` is set.
    pub fn new(node_name: &str) -> Self {
        Self {
            static_pod_path: None,
            file_check_frequency: Duration::from_secs(20),
            sync_frequency: Duration::from_secs(60),
            node_name: node_name.to_owned(),
            root_dir: PathBuf::from(paths::KUBELET_DIR),
            pod_logs_dir: PathBuf::from(paths::POD_LOGS_DIR),
            container_logs_dir: PathBuf::from(paths::CONTAINER_LOGS_DIR),
            pause_image: PAUSE_IMAGE.to_owned(),
            control_socket: PathBuf::from(paths::CONTROL_SOCKET),
            healthz: Some(SocketAddr::from(([127, 0, 0, 1], 10248))),
            docker_host: None,
            cluster_dns: Vec::new(),
            cluster_domain: None,
            resolv_conf: None,
            max_restart_backoff: Duration::from_secs(300),
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            seccomp_default: false,
            oom_score_adj: -999,
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
