//! Options that are accepted and mean nothing to this agent, below the reason why. Flags of 1.36 are read as the kubelet reads
//! them, so that a slip of the pen is found before a node has one; those of older kubelets, down to 1.20, may have any value.

use super::row::{Meaning, OptionRow};
use crate::agent::options::flag_value::Kind;

const fn row(kind: Kind, why: &'static str) -> OptionRow {
    OptionRow { kind, flag: None, field: None, meaning: Meaning::Ignored(why), about: "" }
}

/// All of them.
pub(super) fn rows() -> impl Iterator<Item = &'static OptionRow> {
    GROUPS.iter().copied().flatten()
}

static GROUPS: &[&[OptionRow]] =
    &[CADVISOR, MANAGERS, EVICTIONS, COLLECTION, LOGS, NETWORK, MACHINE, RATES, OLD, OTHER];

const WHY_CADVISOR: &str = "cAdvisor is not part of it";
const CADVISOR: &[OptionRow] = &[
    row(Kind::Int64, WHY_CADVISOR).flag("application-metrics-count-limit", "100"),
    row(Kind::Text, WHY_CADVISOR).flag("boot-id-file", "/proc/sys/kernel/random/boot_id"),
    row(Kind::Text, WHY_CADVISOR).flag("container-hints", "/etc/cadvisor/container_hints.json"),
    row(Kind::Text, WHY_CADVISOR).flag("containerd", "/run/containerd/containerd.sock"),
    row(Kind::Text, WHY_CADVISOR).old_flag("containerd-env-metadata-whitelist"),
    row(Kind::Text, WHY_CADVISOR).flag("containerd-namespace", "k8s.io"),
    row(Kind::Bool, WHY_CADVISOR).old_flag("disable-root-cgroup-stats"),
    row(Kind::Text, WHY_CADVISOR).old_flag("docker"),
    row(Kind::Text, WHY_CADVISOR).old_flag("docker-env-metadata-whitelist"),
    row(Kind::Bool, WHY_CADVISOR).old_flag("docker-only"),
    row(Kind::Text, WHY_CADVISOR).old_flag("docker-root"),
    row(Kind::Bool, WHY_CADVISOR).old_flag("docker-tls"),
    row(Kind::Text, WHY_CADVISOR).old_flag("docker-tls-ca"),
    row(Kind::Text, WHY_CADVISOR).old_flag("docker-tls-cert"),
    row(Kind::Text, WHY_CADVISOR).old_flag("docker-tls-key"),
    row(Kind::Bool, WHY_CADVISOR).old_flag("enable-cadvisor-json-endpoints"),
    row(Kind::Bool, WHY_CADVISOR).flag("enable-load-reader", "false"),
    row(Kind::Text, WHY_CADVISOR).flag("event-storage-age-limit", "default=0"),
    row(Kind::Text, WHY_CADVISOR).flag("event-storage-event-limit", "default=0"),
    row(Kind::Duration, WHY_CADVISOR).flag("global-housekeeping-interval", "1m0s"),
    row(Kind::Duration, WHY_CADVISOR).flag("housekeeping-interval", "10s"),
    row(Kind::Bool, WHY_CADVISOR).flag("log-cadvisor-usage", "false"),
    row(Kind::Text, WHY_CADVISOR).flag("machine-id-file", "/etc/machine-id,/var/lib/dbus/machine-id"),
    row(Kind::Duration, WHY_CADVISOR).flag("max-housekeeping-interval", "15s"),
    row(Kind::Text, WHY_CADVISOR).old_flag("perf-events-config"),
    row(Kind::Text, WHY_CADVISOR).old_flag("raw-cgroup-prefix-whitelist"),
    row(Kind::Duration, WHY_CADVISOR).flag("storage-driver-buffer-duration", "1m0s"),
    row(Kind::Text, WHY_CADVISOR).flag("storage-driver-db", "cadvisor"),
    row(Kind::Text, WHY_CADVISOR).flag("storage-driver-host", "localhost:8086"),
    row(Kind::Secret, WHY_CADVISOR).flag("storage-driver-password", "root"),
    row(Kind::Bool, WHY_CADVISOR).flag("storage-driver-secure", "false"),
    row(Kind::Text, WHY_CADVISOR).flag("storage-driver-table", "stats"),
    row(Kind::Text, WHY_CADVISOR).flag("storage-driver-user", "root"),
];

const WHY_MANAGERS: &str = "there are no managers of CPUs, memory and topology";
const MANAGERS: &[OptionRow] = &[
    row(Kind::Text, WHY_MANAGERS).flag("cpu-manager-policy", "none").field("cpuManagerPolicy", r#""none""#),
    row(Kind::Pair, WHY_MANAGERS).flag("cpu-manager-policy-options", "").field("cpuManagerPolicyOptions", "null"),
    row(Kind::Duration, WHY_MANAGERS)
        .flag("cpu-manager-reconcile-period", "10s")
        .field("cpuManagerReconcilePeriod", r#""10s""#),
    row(Kind::Text, WHY_MANAGERS).flag("memory-manager-policy", "None").field("memoryManagerPolicy", r#""None""#),
    row(Kind::Map, WHY_MANAGERS).flag("qos-reserved", "").field("qosReserved", "null"),
    row(Kind::Text, WHY_MANAGERS).flag("reserved-cpus", "").field("reservedSystemCPUs", "null"),
    row(Kind::Memory, WHY_MANAGERS).flag("reserved-memory", "").field("reservedMemory", "null"),
    row(Kind::Text, WHY_MANAGERS).flag("topology-manager-policy", "none").field("topologyManagerPolicy", r#""none""#),
    row(Kind::Map, WHY_MANAGERS)
        .flag("topology-manager-policy-options", "")
        .field("topologyManagerPolicyOptions", "null"),
    row(Kind::Text, WHY_MANAGERS)
        .flag("topology-manager-scope", "container")
        .field("topologyManagerScope", r#""container""#),
    row(Kind::Duration, WHY_MANAGERS).field("draManagerReconcilePeriod", "null"),
    row(Kind::Text, WHY_MANAGERS).field("memoryReservationPolicy", r#""None""#),
    row(Kind::Object, WHY_MANAGERS).field("memorySwap", "{}"),
    row(Kind::Quantity, WHY_MANAGERS).field("memoryThrottlingFactor", "0.9"),
];

const WHY_EVICTIONS: &str = "nothing is evicted";
const EVICTIONS: &[OptionRow] = &[
    row(Kind::Int, WHY_EVICTIONS).flag("eviction-max-pod-grace-period", "0").field("evictionMaxPodGracePeriod", "null"),
    row(Kind::Map, WHY_EVICTIONS).flag("eviction-minimum-reclaim", "").field("evictionMinimumReclaim", "null"),
    row(Kind::Duration, WHY_EVICTIONS)
        .flag("eviction-pressure-transition-period", "5m0s")
        .field("evictionPressureTransitionPeriod", r#""5m0s""#),
    row(Kind::Thresholds, WHY_EVICTIONS).flag("eviction-soft", "").field("evictionSoft", "null"),
    row(Kind::Map, WHY_EVICTIONS).flag("eviction-soft-grace-period", "").field("evictionSoftGracePeriod", "null"),
    row(Kind::Bool, WHY_EVICTIONS).flag("experimental-allocatable-ignore-eviction", "false"),
    row(Kind::Bool, WHY_EVICTIONS).old_flag("experimental-kernel-memcg-notification"),
    row(Kind::Bool, WHY_EVICTIONS).flag("kernel-memcg-notification", "false").field("kernelMemcgNotification", "null"),
    row(Kind::Bool, WHY_EVICTIONS)
        .flag("local-storage-capacity-isolation", "true")
        .field("localStorageCapacityIsolation", "true"),
];

const WHY_COLLECTION: &str = "the collection of images and containers has no settings";
const COLLECTION: &[OptionRow] = &[
    row(Kind::Int, WHY_COLLECTION).flag("image-gc-high-threshold", "85").field("imageGCHighThresholdPercent", "85"),
    row(Kind::Int, WHY_COLLECTION).flag("image-gc-low-threshold", "80").field("imageGCLowThresholdPercent", "80"),
    row(Kind::Bool, WHY_COLLECTION).old_flag("keep-terminated-pod-volumes"),
    row(Kind::Int, WHY_COLLECTION).flag("maximum-dead-containers", "-1"),
    row(Kind::Int, WHY_COLLECTION).flag("maximum-dead-containers-per-container", "1"),
    row(Kind::Duration, WHY_COLLECTION).flag("minimum-container-ttl-duration", "0s"),
    row(Kind::Duration, WHY_COLLECTION)
        .flag("minimum-image-ttl-duration", "2m0s")
        .field("imageMinimumGCAge", r#""2m0s""#),
    row(Kind::Duration, WHY_COLLECTION).field("imageMaximumGCAge", r#""0s""#),
];

const WHY_LOGS: &str = "the agent has a log of its own, whose level `-v` sets";
const LOGS: &[OptionRow] = &[
    row(Kind::Bool, WHY_LOGS).old_flag("add-dir-header"),
    row(Kind::Bool, WHY_LOGS).old_flag("alsologtostderr"),
    row(Kind::Bool, WHY_LOGS).old_flag("experimental-logging-sanitization"),
    row(Kind::Text, WHY_LOGS).old_flag("log-backtrace-at"),
    row(Kind::Text, WHY_LOGS).old_flag("log-dir"),
    row(Kind::Text, WHY_LOGS).old_flag("log-file"),
    row(Kind::Text, WHY_LOGS).old_flag("log-file-max-size"),
    row(Kind::Duration, WHY_LOGS).flag("log-flush-frequency", "5s"),
    row(Kind::Quantity, WHY_LOGS).flag("log-json-info-buffer-size", "0"),
    row(Kind::Bool, WHY_LOGS).flag("log-json-split-stream", "false"),
    row(Kind::Quantity, WHY_LOGS).flag("log-text-info-buffer-size", "0"),
    row(Kind::Bool, WHY_LOGS).flag("log-text-split-stream", "false"),
    row(Kind::Text, WHY_LOGS).flag("logging-format", "text"),
    row(Kind::Bool, WHY_LOGS).old_flag("logtostderr"),
    row(Kind::Bool, WHY_LOGS).old_flag("one-output"),
    row(Kind::Bool, WHY_LOGS).old_flag("skip-headers"),
    row(Kind::Bool, WHY_LOGS).old_flag("skip-log-headers"),
    row(Kind::Text, WHY_LOGS).old_flag("stderrthreshold"),
    row(Kind::Object, WHY_LOGS).field("logging", r#"{"format": "text", "flushFrequency": "5s", "verbosity": 0, "options": {"text": {"infoBufferSize": "0"}, "json": {"infoBufferSize": "0"}}}"#),
];

const WHY_NETWORK: &str = "networks of pods are the runtime's";
const NETWORK: &[OptionRow] = &[
    row(Kind::Text, WHY_NETWORK).old_flag("cni-bin-dir"),
    row(Kind::Text, WHY_NETWORK).old_flag("cni-cache-dir"),
    row(Kind::Text, WHY_NETWORK).old_flag("cni-conf-dir"),
    row(Kind::Text, WHY_NETWORK)
        .flag("hairpin-mode", "promiscuous-bridge")
        .field("hairpinMode", r#""promiscuous-bridge""#),
    row(Kind::Text, WHY_NETWORK).old_flag("iptables-drop-bit").field("iptablesDropBit", "15"),
    row(Kind::Text, WHY_NETWORK).old_flag("iptables-masquerade-bit").field("iptablesMasqueradeBit", "14"),
    row(Kind::Bool, WHY_NETWORK).flag("make-iptables-util-chains", "true").field("makeIPTablesUtilChains", "true"),
    row(Kind::Text, WHY_NETWORK).old_flag("network-plugin"),
    row(Kind::Text, WHY_NETWORK).old_flag("network-plugin-mtu"),
    row(Kind::Text, WHY_NETWORK).old_flag("non-masquerade-cidr"),
    row(Kind::Text, WHY_NETWORK).flag("pod-cidr", "").field("podCIDR", "null"),
];

const WHY_MACHINE: &str = "the machine and its other cgroups are left as they are";
const MACHINE: &[OptionRow] = &[
    row(Kind::Text, WHY_MACHINE).flag("cgroup-driver", "cgroupfs").field("cgroupDriver", r#""cgroupfs""#),
    row(Kind::List, WHY_MACHINE)
        .flag("enforce-node-allocatable", "[pods]")
        .field("enforceNodeAllocatable", r#"["pods"]"#),
    row(Kind::Bool, WHY_MACHINE).old_flag("experimental-check-node-capabilities-before-mount"),
    row(Kind::Bool, WHY_MACHINE).flag("fail-cgroupv1", "true").field("failCgroupV1", "true"),
    row(Kind::Bool, WHY_MACHINE).flag("fail-swap-on", "true").field("failSwapOn", "true"),
    row(Kind::Text, WHY_MACHINE).flag("kube-reserved-cgroup", "").field("kubeReservedCgroup", "null"),
    row(Kind::Text, WHY_MACHINE).flag("kubelet-cgroups", "").field("kubeletCgroups", "null"),
    row(Kind::Int64, WHY_MACHINE).flag("max-open-files", "1000000").field("maxOpenFiles", "1000000").zero_is_default(),
    row(Kind::Bool, WHY_MACHINE).flag("protect-kernel-defaults", "false").field("protectKernelDefaults", "null"),
    row(Kind::Text, WHY_MACHINE).flag("runtime-cgroups", ""),
    row(Kind::Text, WHY_MACHINE).flag("system-cgroups", "").field("systemCgroups", "null"),
    row(Kind::Text, WHY_MACHINE).flag("system-reserved-cgroup", "").field("systemReservedCgroup", "null"),
    row(Kind::Bool, WHY_MACHINE).field("singleProcessOOMKill", "null"),
    row(Kind::Object, WHY_MACHINE).field("userNamespaces", "null"),
];

const WHY_RATES: &str = "requests have no rates and encodings to set";
const RATES: &[OptionRow] = &[
    row(Kind::Int, WHY_RATES).flag("event-burst", "100").field("eventBurst", "100").zero_is_default(),
    row(Kind::Int, WHY_RATES).flag("event-qps", "50").field("eventRecordQPS", "50"),
    row(Kind::Int, WHY_RATES).flag("kube-api-burst", "100").field("kubeAPIBurst", "100").zero_is_default(),
    row(Kind::Text, WHY_RATES)
        .flag("kube-api-content-type", "application/vnd.kubernetes.protobuf")
        .field("contentType", r#""application/vnd.kubernetes.protobuf""#),
    row(Kind::Int, WHY_RATES).flag("kube-api-qps", "50").field("kubeAPIQPS", "50"),
    row(Kind::Int, WHY_RATES).flag("registry-burst", "10").field("registryBurst", "10").zero_is_default(),
    row(Kind::Int, WHY_RATES).flag("registry-qps", "5").field("registryPullQPS", "5"),
    row(Kind::Duration, WHY_RATES).flag("runtime-request-timeout", "2m0s").field("runtimeRequestTimeout", r#""2m0s""#),
    row(Kind::Text, WHY_RATES).field("configMapAndSecretChangeDetectionStrategy", r#""Watch""#),
];

const WHY_OLD: &str = "kubelets of today have no such flag";
const OLD: &[OptionRow] = &[
    row(Kind::Text, WHY_OLD).old_flag("azure-container-registry-config"),
    row(Kind::Text, WHY_OLD).old_flag("bootstrap-checkpoint-path"),
    row(Kind::Text, WHY_OLD).old_flag("chaos-chance"),
    row(Kind::Text, WHY_OLD).old_flag("cloud-config"),
    row(Kind::Text, WHY_OLD).old_flag("container-runtime"),
    row(Kind::Text, WHY_OLD).old_flag("docker-endpoint"),
    row(Kind::Text, WHY_OLD).old_flag("dynamic-config-dir"),
    row(Kind::Text, WHY_OLD).old_flag("experimental-bootstrap-kubeconfig"),
    row(Kind::Text, WHY_OLD).old_flag("experimental-dockershim-root-directory"),
    row(Kind::Text, WHY_OLD).old_flag("image-pull-progress-deadline"),
    row(Kind::Text, WHY_OLD).old_flag("master-service-namespace"),
    row(Kind::Bool, WHY_OLD).old_flag("really-crash-for-testing"),
    row(Kind::Bool, WHY_OLD).old_flag("redirect-container-streaming"),
    row(Kind::Bool, WHY_OLD).old_flag("register-schedulable"),
    row(Kind::Text, WHY_OLD).old_flag("seccomp-profile-root"),
];

const WHY_OTHER: &str = "the agent has nothing of the kind";
const OTHER: &[OptionRow] = &[
    row(Kind::Text, WHY_OTHER).flag("cloud-provider", ""),
    row(Kind::Bool, WHY_OTHER).flag("contention-profiling", "false").field("enableContentionProfiling", "null"),
    row(Kind::Bool, WHY_OTHER)
        .flag("enable-controller-attach-detach", "true")
        .field("enableControllerAttachDetach", "true"),
    row(Kind::Bool, WHY_OTHER).flag("exit-on-lock-contention", "false"),
    row(Kind::Text, WHY_OTHER).flag("experimental-mounter-path", ""),
    row(Kind::Text, WHY_OTHER).flag("image-credential-provider-bin-dir", ""),
    row(Kind::Text, WHY_OTHER).flag("image-credential-provider-config", ""),
    row(Kind::Text, WHY_OTHER).flag("image-service-endpoint", "").field("imageServiceEndpoint", "null"),
    row(Kind::Text, WHY_OTHER).flag("lock-file", ""),
    row(Kind::Int, WHY_OTHER).flag("pods-per-core", "0").field("podsPerCore", "null"),
    row(Kind::Bool, WHY_OTHER).flag("runonce", "false").field("runOnce", "null"),
    row(Kind::Text, WHY_OTHER)
        .flag("volume-plugin-dir", "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")
        .field("volumePluginDir", r#""/usr/libexec/kubernetes/kubelet-plugins/volume/exec/""#),
    row(Kind::Duration, WHY_OTHER).flag("volume-stats-agg-period", "1m0s").field("volumeStatsAggPeriod", r#""1m0s""#),
    row(Kind::Int, WHY_OTHER).field("containerLogMaxWorkers", "1"),
    row(Kind::Bool, WHY_OTHER).field("enableDebugFlagsHandler", "true"),
    row(Kind::Bool, WHY_OTHER).field("enableProfilingHandler", "true"),
    row(Kind::Bool, WHY_OTHER).field("enableSystemLogQuery", "false"),
    row(Kind::Text, WHY_OTHER).field("imagePullCredentialsVerificationPolicy", r#""NeverVerifyPreloadedImages""#),
    row(Kind::List, WHY_OTHER).field("preloadedImagesVerificationAllowlist", "null"),
    row(Kind::Text, WHY_OTHER).field("showHiddenMetricsForVersion", "null"),
    row(Kind::Duration, WHY_OTHER).field("shutdownGracePeriod", r#""0s""#),
    row(Kind::Object, WHY_OTHER).field("shutdownGracePeriodByPodPriority", "null"),
    row(Kind::Duration, WHY_OTHER).field("shutdownGracePeriodCriticalPods", r#""0s""#),
    row(Kind::List, WHY_OTHER).field("tlsCurvePreferences", "null"),
    row(Kind::Object, WHY_OTHER).field("tracing", "null"),
];
