//! The `KubeletConfiguration` file: which of its fields the agent follows, which it takes and lets be, and which are
//! none.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::OptionsError;
use crate::config::GoDuration;
use crate::yaml::{self, Kind, Node, YamlError};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// The fields the agent follows. Every other field of the type is in [`LET_BE`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct KubeletConfiguration {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    #[serde(rename = "staticPodPath")]
    pub static_pod_path: Option<String>,
    #[serde(rename = "staticPodURL")]
    pub static_pod_url: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub file_check_frequency: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub sync_frequency: Option<Duration>,
    pub healthz_port: Option<u16>,
    pub healthz_bind_address: Option<String>,
    pub pod_logs_dir: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<String>>,
    pub cluster_domain: Option<String>,
    #[serde(rename = "resolvConf")]
    pub resolv_conf: Option<String>,
    pub crash_loop_back_off: Option<CrashLoopBackOff>,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    #[serde(rename = "cpuCFSQuotaPeriod", deserialize_with = "duration")]
    pub cpu_cfs_quota_period: Option<Duration>,
    pub seccomp_default: Option<bool>,
    pub oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct CrashLoopBackOff {
    #[serde(deserialize_with = "duration")]
    pub max_container_restart_period: Option<Duration>,
}

/// A duration as Go writes it; 0 stands for the default, as it does throughout this type.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let Some(duration) = Option::<GoDuration>::deserialize(from)? else { return Ok(None) };
    let duration = duration.to_std().ok_or_else(|| D::Error::custom("must not be negative"))?;
    Ok(Some(duration).filter(|d| !d.is_zero()))
}

/// Fields of the type that mean nothing to an agent without an API server, a kubelet API, evictions and cgroup
/// managers.
pub(super) const LET_BE: &[&str] = &[
    "address",
    "allowedUnsafeSysctls",
    "authentication",
    "authorization",
    "cgroupDriver",
    "cgroupRoot",
    "cgroupsPerQOS",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "contentType",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "draManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableServer",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "hairpinMode",
    "httpCheckFrequency",
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
    "kubeReserved",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "maxPods",
    "memoryManagerPolicy",
    "memoryReservationPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeLeaseDurationSeconds",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "podCIDR",
    "podPidsLimit",
    "podsPerCore",
    "port",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "providerID",
    "qosReserved",
    "readOnlyPort",
    "registerNode",
    "registerWithTaints",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "rotateCertificates",
    "runOnce",
    "runtimeRequestTimeout",
    "serializeImagePulls",
    "serverTLSBootstrap",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodURLHeader",
    "streamingConnectionIdleTimeout",
    "systemCgroups",
    "systemReserved",
    "systemReservedCgroup",
    "tlsCertFile",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "tlsPrivateKeyFile",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

/// Reads `text`, the content of `file`. The second value names the fields that were let be, in the order of the file.
pub(super) fn parse(file: &Path, text: &str) -> Result<(KubeletConfiguration, Vec<String>), OptionsError> {
    let invalid = |problems: Vec<YamlError>| OptionsError::Config {
        file: file.to_owned(),
        problems: problems.iter().map(|p| place(file, p)).collect(),
    };
    let documents = yaml::documents(text).map_err(|e| invalid(vec![e]))?;
    let [document] = documents.as_slice() else {
        return Err(invalid(vec![whole(format!("must hold one document, found {}", documents.len()))]));
    };
    let mut node = Node::parse(document).map_err(|e| invalid(vec![e]))?;
    let mut let_be = Vec::new();
    if let Kind::Map(entries) = &mut node.kind {
        entries.retain(|entry| {
            let ours = !LET_BE.contains(&entry.key.as_str());
            if !ours {
                let_be.push(entry.key.clone());
            }
            ours
        });
    }
    let (config, faults) = node.decode_all::<KubeletConfiguration>();
    let mut problems: Vec<YamlError> = faults.into_iter().map(YamlError::from).collect();
    for (field, found, wanted) in [("apiVersion", &config.api_version, API_VERSION), ("kind", &config.kind, KIND)] {
        let told = problems.iter().any(|p| p.path == field);
        if !told && found.as_deref() != Some(wanted) {
            let found = found.as_deref().unwrap_or("nothing");
            problems.push(whole(format!("{field} must be {wanted}, found {found}")));
        }
    }
    if problems.is_empty() { Ok((config, let_be)) } else { Err(invalid(problems)) }
}

fn whole(problem: String) -> YamlError {
    YamlError { line: 1, column: 1, path: String::new(), problem }
}

fn place(file: &Path, problem: &YamlError) -> String {
    let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
    format!("{}:{}:{}: {path}{}", file.display(), problem.line, problem.column, problem.problem)
}
