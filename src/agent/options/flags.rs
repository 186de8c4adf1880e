//! The kubelet's flags: those the agent follows, and those it takes and lets be.

use std::path::PathBuf;

use super::{NodeFlags, ServerFlags};

/// Flags the agent follows, as given; None where not given. Values are checked by [`super::resolve`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--pod-manifest-path`.
    pub pod_manifest_path: Option<PathBuf>,
    /// `--manifest-url`.
    pub manifest_url: Option<String>,
    /// `--manifest-url-header`, each as given: `name:value,name2:value2`.
    pub manifest_url_headers: Vec<String>,
    /// `--hostname-override`.
    pub hostname_override: Option<String>,
    /// `--root-dir`.
    pub root_dir: Option<PathBuf>,
    /// `--file-check-frequency`, in Go's form.
    pub file_check_frequency: Option<String>,
    /// `--http-check-frequency`, in Go's form.
    pub http_check_frequency: Option<String>,
    /// `--sync-frequency`, in Go's form.
    pub sync_frequency: Option<String>,
    /// `--healthz-port`; 0 for none.
    pub healthz_port: Option<u16>,
    /// `--healthz-bind-address`.
    pub healthz_bind_address: Option<String>,
    /// `--address`.
    pub address: Option<String>,
    /// `--read-only-port`; 0 for none.
    pub read_only_port: Option<u16>,
    /// `--container-log-max-size`, a quantity.
    pub container_log_max_size: Option<String>,
    /// `--container-log-max-files`.
    pub container_log_max_files: Option<i64>,
    /// `--cgroups-per-qos`.
    pub cgroups_per_qos: Option<bool>,
    /// `--cgroup-root`.
    pub cgroup_root: Option<String>,
    /// `--pod-max-pids`; 0 and less for no limit.
    pub pod_max_pids: Option<i64>,
    /// `--serialize-image-pulls`.
    pub serialize_image_pulls: Option<bool>,
    /// `--pod-infra-container-image`.
    pub pod_infra_container_image: Option<String>,
    /// `--cluster-dns`.
    pub cluster_dns: Vec<String>,
    /// `--cluster-domain`.
    pub cluster_domain: Option<String>,
    /// `--resolv-conf`.
    pub resolv_conf: Option<String>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--seccomp-default`.
    pub seccomp_default: Option<bool>,
    /// `--cpu-cfs-quota`.
    pub cpu_cfs_quota: Option<bool>,
    /// `--cpu-cfs-quota-period`, in Go's form.
    pub cpu_cfs_quota_period: Option<String>,
    /// `--control-socket`, ours.
    pub control_socket: Option<PathBuf>,
    /// `--docker-host`, ours.
    pub docker_host: Option<String>,
    /// Those about the API server and the Node.
    pub node: NodeFlags,
    /// Those about the agent's own API.
    pub server: ServerFlags,
    /// `--container-runtime-endpoint`.
    pub container_runtime_endpoint: Option<String>,
    /// Names of given flags that are in [`LET_BE`].
    pub let_be: Vec<String>,
}

/// Whether a flag has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `--x` or `--x=false`.
    Switch,
    /// `--x value` or `--x=value`.
    Value,
}

use Takes::{Switch, Value};

/// Flags of the kubelet, of today and of 1.20, that mean nothing to this agent. They are taken, because a unit or
/// `KUBELET_KUBEADM_ARGS` may carry any of them, and named in one log line.
pub const LET_BE: &[(&str, Takes)] = &[
    ("add-dir-header", Switch),
    ("allowed-unsafe-sysctls", Value),
    ("alsologtostderr", Switch),
    ("cgroup-driver", Value),
    ("chaos-chance", Value),
    ("cloud-config", Value),
    ("cloud-provider", Value),
    ("cni-bin-dir", Value),
    ("cni-cache-dir", Value),
    ("cni-conf-dir", Value),
    ("container-runtime", Value),
    ("contention-profiling", Switch),
    ("cpu-manager-policy", Value),
    ("cpu-manager-policy-options", Value),
    ("cpu-manager-reconcile-period", Value),
    ("docker-endpoint", Value),
    ("dynamic-config-dir", Value),
    ("enable-cadvisor-json-endpoints", Switch),
    ("enable-controller-attach-detach", Switch),
    ("enforce-node-allocatable", Value),
    ("event-burst", Value),
    ("event-qps", Value),
    ("eviction-hard", Value),
    ("eviction-max-pod-grace-period", Value),
    ("eviction-minimum-reclaim", Value),
    ("eviction-pressure-transition-period", Value),
    ("eviction-soft", Value),
    ("eviction-soft-grace-period", Value),
    ("exit-on-lock-contention", Switch),
    ("experimental-allocatable-ignore-eviction", Switch),
    ("experimental-bootstrap-kubeconfig", Value),
    ("experimental-check-node-capabilities-before-mount", Switch),
    ("experimental-dockershim-root-directory", Value),
    ("experimental-kernel-memcg-notification", Switch),
    ("experimental-logging-sanitization", Switch),
    ("experimental-mounter-path", Value),
    ("fail-cgroupv1", Switch),
    ("fail-swap-on", Switch),
    ("feature-gates", Value),
    ("hairpin-mode", Value),
    ("image-credential-provider-bin-dir", Value),
    ("image-credential-provider-config", Value),
    ("image-gc-high-threshold", Value),
    ("image-gc-low-threshold", Value),
    ("image-pull-progress-deadline", Value),
    ("image-service-endpoint", Value),
    ("iptables-drop-bit", Value),
    ("iptables-masquerade-bit", Value),
    ("keep-terminated-pod-volumes", Switch),
    ("kernel-memcg-notification", Switch),
    ("kube-api-burst", Value),
    ("kube-api-content-type", Value),
    ("kube-api-qps", Value),
    ("kube-reserved-cgroup", Value),
    ("kubelet-cgroups", Value),
    ("local-storage-capacity-isolation", Switch),
    ("lock-file", Value),
    ("log-backtrace-at", Value),
    ("log-cadvisor-usage", Switch),
    ("log-dir", Value),
    ("log-file", Value),
    ("log-file-max-size", Value),
    ("log-flush-frequency", Value),
    ("log-json-info-buffer-size", Value),
    ("log-json-split-stream", Switch),
    ("log-text-info-buffer-size", Value),
    ("log-text-split-stream", Switch),
    ("logging-format", Value),
    ("logtostderr", Switch),
    ("make-iptables-util-chains", Switch),
    ("master-service-namespace", Value),
    ("max-open-files", Value),
    ("maximum-dead-containers", Value),
    ("maximum-dead-containers-per-container", Value),
    ("memory-manager-policy", Value),
    ("minimum-container-ttl-duration", Value),
    ("minimum-image-ttl-duration", Value),
    ("network-plugin", Value),
    ("network-plugin-mtu", Value),
    ("non-masquerade-cidr", Value),
    ("one-output", Switch),
    ("pod-cidr", Value),
    ("pods-per-core", Value),
    ("protect-kernel-defaults", Switch),
    ("qos-reserved", Value),
    ("really-crash-for-testing", Switch),
    ("register-schedulable", Switch),
    ("registry-burst", Value),
    ("registry-qps", Value),
    ("reserved-cpus", Value),
    ("reserved-memory", Value),
    ("runonce", Switch),
    ("runtime-cgroups", Value),
    ("runtime-request-timeout", Value),
    ("seccomp-profile-root", Value),
    ("skip-headers", Switch),
    ("skip-log-headers", Switch),
    ("stderrthreshold", Value),
    ("storage-driver-buffer-duration", Value),
    ("system-cgroups", Value),
    ("system-reserved-cgroup", Value),
    ("topology-manager-policy", Value),
    ("topology-manager-policy-options", Value),
    ("topology-manager-scope", Value),
    ("volume-plugin-dir", Value),
    ("volume-stats-agg-period", Value),
];
