//! The `KubeletConfiguration` file: which of its fields the agent follows, which it takes and lets be, and which are
//! none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::server::{Authentication, AuthorizationField};
use super::{ConfigFile, NodeTaint, OptionsError, values};
use crate::yaml::{self, DecodeError, Entry, Kind, Node, Problem, Repeated, YamlError};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
/// The field whose values may be passwords.
const HEADERS: &str = "staticPodURLHeader";

/// The fields the agent follows. Every other field of the type is in [`LET_BE`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct KubeletConfiguration {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    #[serde(rename = "staticPodPath")]
    pub static_pod_path: Option<String>,
    #[serde(rename = "staticPodURL", deserialize_with = "values::url_field")]
    pub static_pod_url: Option<String>,
    #[serde(rename = "staticPodURLHeader", deserialize_with = "values::headers_field")]
    pub static_pod_url_header: Option<BTreeMap<String, Vec<String>>>,
    #[serde(deserialize_with = "values::duration_field")]
    pub file_check_frequency: Option<Duration>,
    #[serde(deserialize_with = "values::duration_field")]
    pub http_check_frequency: Option<Duration>,
    #[serde(deserialize_with = "values::duration_field")]
    pub sync_frequency: Option<Duration>,
    pub healthz_port: Option<u16>,
    #[serde(deserialize_with = "values::address_field")]
    pub healthz_bind_address: Option<IpAddr>,
    #[serde(deserialize_with = "values::address_field")]
    pub address: Option<IpAddr>,
    pub read_only_port: Option<u16>,
    #[serde(deserialize_with = "values::log_size_field")]
    pub container_log_max_size: Option<u64>,
    #[serde(deserialize_with = "values::log_files_field")]
    pub container_log_max_files: Option<u32>,
    #[serde(deserialize_with = "values::log_interval_field")]
    pub container_log_monitor_interval: Option<Duration>,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: Option<bool>,
    #[serde(deserialize_with = "values::cgroup_field")]
    pub cgroup_root: Option<String>,
    pub pod_pids_limit: Option<i64>,
    pub serialize_image_pulls: Option<bool>,
    #[serde(deserialize_with = "values::pulls_field")]
    pub max_parallel_image_pulls: Option<usize>,
    pub pod_logs_dir: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<String>>,
    pub cluster_domain: Option<String>,
    #[serde(rename = "resolvConf")]
    pub resolv_conf: Option<String>,
    #[serde(deserialize_with = "values::sysctls_field")]
    pub allowed_unsafe_sysctls: Option<Vec<String>>,
    pub crash_loop_back_off: Option<CrashLoopBackOff>,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    #[serde(rename = "cpuCFSQuotaPeriod", deserialize_with = "values::duration_field")]
    pub cpu_cfs_quota_period: Option<Duration>,
    pub seccomp_default: Option<bool>,
    pub oom_score_adj: Option<i32>,
    pub register_node: Option<bool>,
    #[serde(deserialize_with = "values::taints_field")]
    pub register_with_taints: Option<Vec<NodeTaint>>,
    #[serde(deserialize_with = "values::duration_field")]
    pub node_status_update_frequency: Option<Duration>,
    #[serde(deserialize_with = "values::duration_field")]
    pub node_status_report_frequency: Option<Duration>,
    #[serde(deserialize_with = "values::seconds_field")]
    pub node_lease_duration_seconds: Option<i32>,
    #[serde(deserialize_with = "values::natural_field")]
    pub max_pods: Option<i64>,
    #[serde(deserialize_with = "values::at_least_minus_one_field")]
    pub node_status_max_images: Option<i64>,
    pub system_reserved: Option<BTreeMap<String, String>>,
    pub kube_reserved: Option<BTreeMap<String, String>>,
    pub eviction_hard: Option<BTreeMap<String, String>>,
    pub merge_default_eviction_settings: Option<bool>,
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    pub rotate_certificates: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: Option<bool>,
    pub enable_server: Option<bool>,
    pub port: Option<u16>,
    pub tls_cert_file: Option<String>,
    pub tls_private_key_file: Option<String>,
    pub tls_min_version: Option<String>,
    pub tls_cipher_suites: Option<Vec<String>>,
    pub authentication: Option<Authentication>,
    pub authorization: Option<AuthorizationField>,
    pub enable_debugging_handlers: Option<bool>,
    pub enable_system_log_handler: Option<bool>,
    #[serde(deserialize_with = "values::duration_field")]
    pub streaming_connection_idle_timeout: Option<Duration>,
    pub container_runtime_endpoint: Option<String>,
    pub feature_gates: Option<BTreeMap<String, bool>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct CrashLoopBackOff {
    #[serde(deserialize_with = "values::duration_field")]
    pub max_container_restart_period: Option<Duration>,
}

/// Fields of the type that mean nothing to an agent without evictions and managers of CPUs and memory.
pub(super) const LET_BE: &[&str] = &[
    "cgroupDriver",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "contentType",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "draManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "failCgroupV1",
    "failSwapOn",
    "hairpinMode",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "memoryManagerPolicy",
    "memoryReservationPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "podCIDR",
    "podsPerCore",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "runOnce",
    "runtimeRequestTimeout",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "systemCgroups",
    "systemReservedCgroup",
    "tlsCurvePreferences",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

/// Fields that are paths: a relative one is relative to the file it is written in.
const PATHS: &[&str] = &[
    "authentication.x509.clientCAFile",
    "podLogsDir",
    "resolvConf",
    "staticPodPath",
    "tlsCertFile",
    "tlsPrivateKeyFile",
];

/// What the files come to.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// All of them merged.
    pub config: KubeletConfiguration,
    /// The same as it is written, with the fields that mean nothing to this agent, and without what may be a password.
    pub written: Map<String, Value>,
    /// The fields that mean nothing to this agent, a line a file.
    pub notes: Vec<String>,
    /// What a kubelet takes only as a second try, a line a file.
    pub warnings: Vec<String>,
}

/// Reads the configuration file and its drop-ins, each over those before it.
pub(super) fn read(files: &[ConfigFile]) -> Result<Read, OptionsError> {
    let mut read = Read::default();
    let mut merged: Option<Node> = None;
    for file in files {
        let parsed = parse(file)?;
        let name = file.path.display();
        if !parsed.ignored_flags.is_empty() {
            read.notes
                .push(format!("{name}: these fields mean nothing to this agent: {}", parsed.ignored_flags.join(", ")));
        }
        if !parsed.doubts.is_empty() {
            let doubts: Vec<String> = parsed.doubts.iter().map(|doubt| place(&file.path, doubt)).collect();
            read.warnings.push(format!("{name} is read leniently, as a kubelet reads it: {}", doubts.join("; ")));
        }
        match &mut merged {
            None => merged = Some(parsed.node),
            Some(below) => lay_over(below, parsed.node),
        }
    }
    let Some((mut merged, file)) = merged.zip(files.last()) else { return Ok(read) };
    let mut written = match merged.to_value() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    written.remove(HEADERS);
    drop_ignored_flags(&mut merged);
    let (config, faults) = merged.decode_all::<KubeletConfiguration>();
    match faults.into_iter().find(|fault| !is_unknown(fault)) {
        Some(fault) => Err(invalid(&file.path, &[YamlError::from(fault)])),
        None => Ok(Read { config, written, ..read }),
    }
}

/// Takes out the fields that mean nothing to this agent, and returns their names.
fn drop_ignored_flags(node: &mut Node) -> Vec<String> {
    let Kind::Map(entries) = &mut node.kind else { return Vec::new() };
    let is_let_be = |entry: &Entry| LET_BE.contains(&entry.key.as_str());
    let names = entries.iter().filter(|entry| is_let_be(entry)).map(|entry| entry.key.clone()).collect();
    entries.retain(|entry| !is_let_be(entry));
    names
}

/// A field that the type has not is no reason for a node to stay down: `init` and `config validate` look for it before.
fn is_unknown(fault: &DecodeError) -> bool {
    matches!(fault.problem, Problem::UnknownField(..))
}

/// Fields of a KubeletConfiguration that the type has not, by their paths: a slip of the pen, as a rule.
pub fn unknown_fields(config: &serde_json::Value) -> Vec<String> {
    let Ok(mut node) = yaml::to_string(config).map_err(drop).and_then(|text| {
        let documents = yaml::documents(&text).map_err(drop)?;
        documents.first().ok_or(()).and_then(|document| Node::parse(document).map_err(drop))
    }) else {
        return vec![];
    };
    drop_ignored_flags(&mut node);
    let (_, faults) = node.decode_all::<KubeletConfiguration>();
    faults.into_iter().filter(is_unknown).map(|fault| YamlError::from(fault).path).collect()
}

/// One file.
struct Parsed {
    /// Its fields.
    node: Node,
    /// Those that mean nothing, by name, in the order of the file.
    ignored_flags: Vec<String>,
    /// What is wrong with it and does not matter.
    doubts: Vec<YamlError>,
}

fn parse(file: &ConfigFile) -> Result<Parsed, OptionsError> {
    let fault = |problem: YamlError| invalid(&file.path, &[problem]);
    let documents = yaml::documents(&file.text).map_err(fault)?;
    let Some((document, more)) = documents.split_first() else {
        return Err(fault(whole("must hold a document, found none".to_owned())));
    };
    let (mut node, repeated) = Node::parse_lenient(document).map_err(fault)?;
    let mut doubts: Vec<YamlError> = repeated.iter().map(twice).collect();
    if more.iter().any(|document| !Node::parse(document).is_ok_and(|node| node.kind == Kind::Null)) {
        doubts.push(whole("only the first document is used".to_owned()));
    }
    let mut followed = node.clone();
    let ignored_flags = drop_ignored_flags(&mut followed);
    let (config, faults) = followed.decode_all::<KubeletConfiguration>();
    let (unknown, faults): (Vec<_>, Vec<_>) = faults.into_iter().partition(is_unknown);
    let mut problems: Vec<YamlError> = faults.into_iter().map(YamlError::from).collect();
    for (field, found, wanted) in [("apiVersion", &config.api_version, API_VERSION), ("kind", &config.kind, KIND)] {
        let told = problems.iter().any(|p| p.path == field);
        if !told && found.as_deref() != Some(wanted) {
            let found = found.as_deref().unwrap_or("nothing");
            problems.push(whole(format!("{field} must be {wanted}, found {found}")));
        }
    }
    if !problems.is_empty() {
        return Err(invalid(&file.path, &problems));
    }
    doubts.extend(unknown.into_iter().map(YamlError::from));
    anchor(&mut node, &file.base);
    Ok(Parsed { node, ignored_flags, doubts })
}

/// Of a key that stands twice the last one counts, as for a kubelet that reads the document the second, lenient time.
fn twice(repeated: &Repeated) -> YamlError {
    let Repeated { path, at, before } = repeated;
    let problem = format!("is written twice: line {} counts, line {} does not", at.line, before.line);
    YamlError { line: at.line, column: at.column, path: yaml::path_to_string(path), problem }
}

/// Makes the paths of a file absolute.
fn anchor(node: &mut Node, base: &Path) {
    for path in PATHS {
        if let Some(Kind::String(path)) = find(node, path)
            && !path.is_empty()
        {
            *path = base.join(&*path).display().to_string();
        }
    }
}

/// What stands at a path of fields.
fn find<'n>(node: &'n mut Node, path: &str) -> Option<&'n mut Kind> {
    path.split('.').try_fold(&mut node.kind, |kind, field| match kind {
        Kind::Map(entries) => entries.iter_mut().find(|entry| entry.key == field).map(|entry| &mut entry.node.kind),
        _ => None,
    })
}

/// Merges as the kubelet does its drop-ins, which is a JSON merge patch: maps key by key, anything else whole, and a
/// null takes back what was set below.
fn lay_over(below: &mut Node, above: Node) {
    match (&mut below.kind, above) {
        (Kind::Map(into), Node { kind: Kind::Map(from), .. }) => {
            from.into_iter().for_each(|entry| lay_entry(into, entry))
        }
        (_, above) => *below = above,
    }
}

fn lay_entry(into: &mut Vec<Entry>, entry: Entry) {
    let found = into.iter().position(|one| one.key == entry.key);
    match (found, &entry.node.kind) {
        (Some(index), Kind::Null) => drop(into.remove(index)),
        (None, Kind::Null) => {}
        (Some(index), _) => lay_over(&mut into[index].node, entry.node),
        (None, _) => into.push(entry),
    }
}

fn invalid(file: &Path, problems: &[YamlError]) -> OptionsError {
    OptionsError::Config { file: file.to_owned(), problems: problems.iter().map(|p| place(file, p)).collect() }
}

fn whole(problem: String) -> YamlError {
    YamlError { line: 1, column: 1, path: String::new(), problem }
}

fn place(file: &Path, problem: &YamlError) -> String {
    let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
    format!("{}:{}:{}: {path}{}", file.display(), problem.line, problem.column, problem.problem)
}
