//! How the agent is configured: a `KubeletConfiguration` file and the kubelet's flags, resolved into [`AgentOptions`].

mod config_files;
mod flag_defaults;
mod flag_shown;
mod flag_value;
mod flags;
mod gates;
mod ignored_flags;
pub mod eviction;
mod kubelet_config;
mod node;
mod server;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::host::paths;
use crate::runtime::endpoint::Endpoint;

pub use config_files::{ConfigFile, drop_ins};
pub use flag_defaults::values as flag_values;
pub use flag_value::{Given, Kind as FlagKind};
pub use flags::{FlagRow, Flags, Role, all as flags};
pub use gates::Gates;
pub use kubelet_config::unknown_fields;
pub use node::{NodeFlags, NodeOptions, NodeTaint};
pub use server::{Authorization, ServerFlags, ServerOptions};

use kubelet_config::KubeletConfiguration;

/// The pause image where none is named.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

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
    /// The container runtime, if somebody has named one.
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
    /// How often the service manager is told that the agent is alive, as it asks for; None: never.
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

/// What the flags and the file come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The options.
    pub options: AgentOptions,
    /// One line each on what was accepted and means nothing to this agent.
    pub notes: Vec<String>,
    /// One line each on what was asked for and is not done.
    pub warnings: Vec<String>,
}

/// Why the agent cannot start with these flags and this file.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The configuration file is not valid. Each problem says file, line and field.
    #[error("{} is no valid KubeletConfiguration:\n{}", file.display(), indented(problems))]
    Config {
        /// The file.
        file: PathBuf,
        /// All problems.
        problems: Vec<String>,
    },
    /// A setting has an impossible value.
    #[error("{setting} is {value:?}: {problem}")]
    Value {
        /// Flag or field.
        setting: String,
        /// As given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting that may hold a secret has an impossible value, which is not shown.
    #[error("{setting}: {problem}")]
    Hidden {
        /// Flag or field.
        setting: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A flag that no kubelet has.
    #[error("--{name}: no kubelet has this flag")]
    UnknownFlag {
        /// As given, without dashes before it.
        name: String,
    },
    /// Nothing says where manifests are.
    #[error(
        "no static pods configured: set staticPodPath or staticPodURL in the file named by --config, or pass \
         --pod-manifest-path DIR or --manifest-url URL"
    )]
    NoSource,
}

fn indented(problems: &[String]) -> String {
    problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n")
}

/// Resolves flags over files over defaults, as the kubelet does. `files` are `--config` and the drop-ins of `--config-dir`,
/// each over those before it; `hostname` is the machine's.
///
/// Without a file the kubelet falls back to older defaults, a read-only port 10255 among them; this agent has the same
/// defaults with and without, and opens no port that was not asked for.
///
/// # Errors
/// Every kind of [`OptionsError`].
pub fn resolve(flags: &Flags, files: &[ConfigFile], hostname: &str) -> Result<Resolved, OptionsError> {
    let kubelet_config::Read { config: file, written, mut notes, warnings } = kubelet_config::read(files)?;
    if !flags.ignored.is_empty() {
        notes.push(format!("these flags mean nothing to this agent: --{}", flags.ignored.join(", --")));
    }
    let mut options = AgentOptions { written, ..AgentOptions::new(&node_name(flags, hostname)?) };
    let closed = gates::follow(&mut options, flags, &file);
    if !closed.is_empty() {
        notes.push(format!("these feature gates mean nothing to this agent: {}", closed.join(", ")));
    }
    options.given_flags = flags.shown();
    follow_file(&mut options, &file);
    follow_flags(&mut options, flags)?;
    follow_sources(&mut options, flags, &file)?;
    follow_limits(&mut options, flags, &file)?;
    node::follow(&mut options, &flags.node, &file)?;
    follow_runtime(&mut options, flags, &file)?;
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let address = checked("--healthz-bind-address", &flags.healthz_bind_address, values::address)?;
    let address = address.or(file.healthz_bind_address).unwrap_or(local);
    options.healthz = listen(address, flags.healthz_port.or(file.healthz_port).unwrap_or(10248));
    let address = checked("--address", &flags.address, values::address)?.or(file.address);
    server::follow(&mut options, &flags.server, address, &file)?;
    options.read_only = listen(address.unwrap_or(local), flags.read_only_port.or(file.read_only_port).unwrap_or(0));
    if options.static_pod_path.is_none() && options.static_pod_url.is_none() {
        return Err(OptionsError::NoSource);
    }
    Ok(Resolved { options, notes, warnings })
}

fn listen(address: IpAddr, port: u16) -> Option<SocketAddr> {
    (port != 0).then(|| SocketAddr::new(address, port))
}

fn follow_file(options: &mut AgentOptions, file: &KubeletConfiguration) {
    let path = |value: &Option<String>| not_empty(value).map(PathBuf::from);
    let set = |option: &mut Duration, value: Option<Duration>| *option = value.unwrap_or(*option);
    options.static_pod_path = path(&file.static_pod_path);
    options.resolv_conf = path(&file.resolv_conf);
    set(&mut options.file_check_frequency, file.file_check_frequency);
    set(&mut options.http_check_frequency, file.http_check_frequency);
    set(&mut options.container_log_monitor_interval, file.container_log_monitor_interval);
    set(&mut options.sync_frequency, file.sync_frequency);
    set(&mut options.cpu_cfs_quota_period, file.cpu_cfs_quota_period);
    let back_off = file.crash_loop_back_off.as_ref();
    set(&mut options.max_restart_backoff, back_off.and_then(|b| b.max_container_restart_period));
    if let Some(directory) = path(&file.pod_logs_dir) {
        options.pod_logs_dir = directory;
    }
    options.cluster_dns = file.cluster_dns.clone().unwrap_or_default();
    options.cluster_domain = not_empty(&file.cluster_domain);
    options.unsafe_sysctls = file.allowed_unsafe_sysctls.clone().unwrap_or_default();
    options.cpu_cfs_quota = file.cpu_cfs_quota.unwrap_or(options.cpu_cfs_quota);
    options.seccomp_default = file.seccomp_default.unwrap_or(options.seccomp_default);
    options.oom_score_adj = file.oom_score_adj.unwrap_or(options.oom_score_adj);
}

fn follow_flags(options: &mut AgentOptions, flags: &Flags) -> Result<(), OptionsError> {
    let set = |option: &mut Duration, flag, value: &Option<String>| {
        *option = checked(flag, value, values::duration)?.unwrap_or(*option);
        Ok::<_, OptionsError>(())
    };
    set(&mut options.file_check_frequency, "--file-check-frequency", &flags.file_check_frequency)?;
    set(&mut options.http_check_frequency, "--http-check-frequency", &flags.http_check_frequency)?;
    set(&mut options.sync_frequency, "--sync-frequency", &flags.sync_frequency)?;
    set(&mut options.cpu_cfs_quota_period, "--cpu-cfs-quota-period", &flags.cpu_cfs_quota_period)?;
    if let Some(path) = flags.pod_manifest_path.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        options.static_pod_path = Some(path.clone());
    }
    if let Some(directory) = &flags.root_dir {
        options.root_dir.clone_from(directory);
        options.control_socket = AgentOptions::default_control_socket(directory);
    }
    if let Some(socket) = &flags.control_socket {
        options.control_socket.clone_from(socket);
    }
    if let Some(image) = not_empty(&flags.pod_infra_container_image) {
        options.pause_image = image;
    }
    if !flags.cluster_dns.is_empty() {
        options.cluster_dns.clone_from(&flags.cluster_dns);
    }
    if !flags.allowed_unsafe_sysctls.is_empty() {
        let one =
            |text: &String| values::sysctl(text).map_err(|problem| wrong("--allowed-unsafe-sysctls", text, problem));
        options.unsafe_sysctls = flags.allowed_unsafe_sysctls.iter().map(one).collect::<Result<_, _>>()?;
    }
    options.cluster_domain = not_empty(&flags.cluster_domain).or(options.cluster_domain.take());
    options.resolv_conf = not_empty(&flags.resolv_conf).map(PathBuf::from).or(options.resolv_conf.take());
    options.oom_score_adj = flags.oom_score_adj.unwrap_or(options.oom_score_adj);
    options.seccomp_default = flags.seccomp_default.unwrap_or(options.seccomp_default);
    options.cpu_cfs_quota = flags.cpu_cfs_quota.unwrap_or(options.cpu_cfs_quota);
    Ok(())
}

/// The URL and its headers. Headers of flags replace those of the file, and add up among themselves.
fn follow_sources(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) -> Result<(), OptionsError> {
    let hidden = |flag: &str, problem: String| OptionsError::Hidden { setting: flag.to_owned(), problem };
    let url = flags.manifest_url.as_deref().map(values::url).transpose();
    let url = url.map_err(|problem| hidden("--manifest-url", problem))?.flatten();
    options.static_pod_url = url.or_else(|| file.static_pod_url.clone());
    let pairs = |(name, values): (&String, &Vec<String>)| {
        let name = name.clone();
        values.clone().into_iter().map(move |value| (name.clone(), value)).collect::<Vec<_>>()
    };
    options.static_pod_url_headers = file.static_pod_url_header.iter().flatten().flat_map(pairs).collect();
    if !flags.manifest_url_headers.is_empty() {
        let given: Result<Vec<_>, _> =
            flags.manifest_url_headers.iter().map(|text| values::header_pairs(text)).collect();
        let given = given.map_err(|problem| hidden("--manifest-url-header", problem))?;
        options.static_pod_url_headers = given.into_iter().flatten().collect();
    }
    Ok(())
}

/// The runtime: `--docker-host`, else `--container-runtime-endpoint`, else `containerRuntimeEndpoint`.
fn follow_runtime(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) -> Result<(), OptionsError> {
    let parse = |text: &str| match Endpoint::parse(text) {
        _ if text.is_empty() => Ok(None),
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(_) => Err("no socket: use unix:///run/containerd/containerd.sock or another like it".to_owned()),
    };
    let flag = checked("--container-runtime-endpoint", &flags.container_runtime_endpoint, parse)?;
    let docker = not_empty(&flags.docker_host).map(|host| Endpoint::Docker(Some(host)));
    let named = docker.or(flag);
    let in_file = checked("containerRuntimeEndpoint", &file.container_runtime_endpoint, parse)?;
    options.runtime_from_file = named.is_none() && in_file.is_some();
    options.runtime = named.or(in_file);
    Ok(())
}

/// Logs, cgroups, processes and pulls.
fn follow_limits(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) -> Result<(), OptionsError> {
    let size = checked("--container-log-max-size", &flags.container_log_max_size, values::log_size)?;
    let files = flags.container_log_max_files.map(|number| {
        let given = number.to_string();
        values::log_files(number).map_err(|problem| wrong("--container-log-max-files", &given, problem))
    });
    let files = files.transpose()?.flatten();
    options.container_log_max_size = size.or(file.container_log_max_size).unwrap_or(options.container_log_max_size);
    options.container_log_max_files = files.or(file.container_log_max_files).unwrap_or(options.container_log_max_files);
    let root = checked("--cgroup-root", &flags.cgroup_root, values::cgroup)?;
    options.cgroup_root = root.or_else(|| file.cgroup_root.clone()).unwrap_or_default();
    options.cgroups_per_qos = flags.cgroups_per_qos.or(file.cgroups_per_qos).unwrap_or(options.cgroups_per_qos);
    options.pod_pids_limit = flags.pod_max_pids.or(file.pod_pids_limit).filter(|limit| *limit > 0);
    options.parallel_image_pulls = pulls(flags.serialize_image_pulls.or(file.serialize_image_pulls), file)?;
    Ok(())
}

/// Pulls at a time. That several are allowed says by itself that they are not serialised.
fn pulls(serialize: Option<bool>, file: &KubeletConfiguration) -> Result<Option<usize>, OptionsError> {
    match (serialize, file.max_parallel_image_pulls) {
        (Some(true), Some(many @ 2..)) => {
            let problem = "more than one pull at a time needs serializeImagePulls: false".to_owned();
            Err(wrong("maxParallelImagePulls", &many.to_string(), problem))
        }
        (Some(true), _) | (None, None) => Ok(Some(1)),
        (_, many) => Ok(many),
    }
}

/// The node's name as kubelet and kubeadm make it: the host's, unless overridden, trimmed and in lower case.
fn node_name(flags: &Flags, hostname: &str) -> Result<String, OptionsError> {
    let overridden = not_empty(&flags.hostname_override);
    let setting = if overridden.is_some() { "--hostname-override" } else { "the machine's host name" };
    let given = overridden.unwrap_or_else(|| hostname.to_owned());
    let name = given.trim().to_lowercase();
    let word = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(word) {
        return Ok(name);
    }
    let problem = "a node name has letters, digits, '-' and '.', and begins and ends with a letter or digit; \
                   choose one with --hostname-override";
    Err(wrong(setting, &given, problem.to_owned()))
}

/// The value of a flag, where it is given and says anything.
fn checked<T>(
    flag: &str,
    given: &Option<String>,
    check: impl Fn(&str) -> Result<Option<T>, String>,
) -> Result<Option<T>, OptionsError> {
    let Some(text) = given else { return Ok(None) };
    check(text).map_err(|problem| wrong(flag, text, problem))
}

fn wrong(setting: &str, value: &str, problem: String) -> OptionsError {
    OptionsError::Value { setting: setting.to_owned(), value: value.to_owned(), problem }
}

fn not_empty(value: &Option<String>) -> Option<String> {
    value.clone().filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests;
