//! What the flags of a kubelet are where they are not given, as `/flagz` of Kubernetes 1.36 shows them. Those that this agent
//! follows have its own defaults: it asks for credentials, and opens no read-only port.

use std::collections::BTreeMap;

/// By name, with the two that are this agent's own.
const DEFAULTS: &[(&str, &str)] = &[
    ("address", "0.0.0.0"),
    ("allowed-unsafe-sysctls", "[]"),
    ("anonymous-auth", "false"),
    ("application-metrics-count-limit", "100"),
    ("authentication-token-webhook", "true"),
    ("authentication-token-webhook-cache-ttl", "2m0s"),
    ("authorization-mode", "Webhook"),
    ("authorization-webhook-cache-authorized-ttl", "5m0s"),
    ("authorization-webhook-cache-unauthorized-ttl", "30s"),
    ("boot-id-file", "/proc/sys/kernel/random/boot_id"),
    ("bootstrap-kubeconfig", ""),
    ("cert-dir", "/var/lib/kubelet/pki"),
    ("cgroup-driver", "cgroupfs"),
    ("cgroup-root", ""),
    ("cgroups-per-qos", "true"),
    ("client-ca-file", ""),
    ("cloud-provider", ""),
    ("cluster-dns", "[]"),
    ("cluster-domain", ""),
    ("config", ""),
    ("config-dir", ""),
    ("container-hints", "/etc/cadvisor/container_hints.json"),
    ("container-log-max-files", "5"),
    ("container-log-max-size", "10Mi"),
    ("container-runtime-endpoint", ""),
    ("containerd", "/run/containerd/containerd.sock"),
    ("containerd-namespace", "k8s.io"),
    ("contention-profiling", "false"),
    ("control-socket", "/run/kubeboot/agent.sock"),
    ("cpu-cfs-quota", "true"),
    ("cpu-cfs-quota-period", "100ms"),
    ("cpu-manager-policy", "none"),
    ("cpu-manager-policy-options", ""),
    ("cpu-manager-reconcile-period", "10s"),
    ("docker-host", ""),
    ("enable-controller-attach-detach", "true"),
    ("enable-debugging-handlers", "true"),
    ("enable-load-reader", "false"),
    ("enable-server", "true"),
    ("enforce-node-allocatable", "[pods]"),
    ("event-burst", "100"),
    ("event-qps", "50"),
    ("event-storage-age-limit", "default=0"),
    ("event-storage-event-limit", "default=0"),
    ("eviction-hard", ""),
    ("eviction-max-pod-grace-period", "0"),
    ("eviction-minimum-reclaim", ""),
    ("eviction-pressure-transition-period", "5m0s"),
    ("eviction-soft", ""),
    ("eviction-soft-grace-period", ""),
    ("exit-on-lock-contention", "false"),
    ("experimental-allocatable-ignore-eviction", "false"),
    ("experimental-mounter-path", ""),
    ("fail-cgroupv1", "true"),
    ("fail-swap-on", "true"),
    ("feature-gates", ""),
    ("file-check-frequency", "20s"),
    ("global-housekeeping-interval", "1m0s"),
    ("hairpin-mode", "promiscuous-bridge"),
    ("healthz-bind-address", "127.0.0.1"),
    ("healthz-port", "10248"),
    ("help", "false"),
    ("hostname-override", ""),
    ("housekeeping-interval", "10s"),
    ("http-check-frequency", "20s"),
    ("image-credential-provider-bin-dir", ""),
    ("image-credential-provider-config", ""),
    ("image-gc-high-threshold", "85"),
    ("image-gc-low-threshold", "80"),
    ("image-service-endpoint", ""),
    ("kernel-memcg-notification", "false"),
    ("kube-api-burst", "100"),
    ("kube-api-content-type", "application/vnd.kubernetes.protobuf"),
    ("kube-api-qps", "50"),
    ("kube-reserved", ""),
    ("kube-reserved-cgroup", ""),
    ("kubeconfig", ""),
    ("kubelet-cgroups", ""),
    ("local-storage-capacity-isolation", "true"),
    ("lock-file", ""),
    ("log-cadvisor-usage", "false"),
    ("log-flush-frequency", "5s"),
    ("log-json-info-buffer-size", "0"),
    ("log-json-split-stream", "false"),
    ("log-text-info-buffer-size", "0"),
    ("log-text-split-stream", "false"),
    ("logging-format", "text"),
    ("machine-id-file", "/etc/machine-id,/var/lib/dbus/machine-id"),
    ("make-iptables-util-chains", "true"),
    ("manifest-url", ""),
    ("manifest-url-header", ""),
    ("max-housekeeping-interval", "15s"),
    ("max-open-files", "1000000"),
    ("max-pods", "110"),
    ("maximum-dead-containers", "-1"),
    ("maximum-dead-containers-per-container", "1"),
    ("memory-manager-policy", "None"),
    ("minimum-container-ttl-duration", "0s"),
    ("minimum-image-ttl-duration", "2m0s"),
    ("node-ip", ""),
    ("node-labels", ""),
    ("node-status-max-images", "50"),
    ("node-status-update-frequency", "10s"),
    ("oom-score-adj", "-999"),
    ("pod-cidr", ""),
    ("pod-manifest-path", ""),
    ("pod-max-pids", "-1"),
    ("pods-per-core", "0"),
    ("port", "10250"),
    ("protect-kernel-defaults", "false"),
    ("provider-id", ""),
    ("qos-reserved", ""),
    ("read-only-port", "0"),
    ("register-node", "true"),
    ("register-with-taints", ""),
    ("registry-burst", "10"),
    ("registry-qps", "5"),
    ("reserved-cpus", ""),
    ("reserved-memory", ""),
    ("resolv-conf", "/etc/resolv.conf"),
    ("root-dir", "/var/lib/kubelet"),
    ("rotate-certificates", "false"),
    ("rotate-server-certificates", "false"),
    ("runonce", "false"),
    ("runtime-cgroups", ""),
    ("runtime-request-timeout", "2m0s"),
    ("seccomp-default", "false"),
    ("serialize-image-pulls", "true"),
    ("storage-driver-buffer-duration", "1m0s"),
    ("storage-driver-db", "cadvisor"),
    ("storage-driver-host", "localhost:8086"),
    ("storage-driver-password", "root"),
    ("storage-driver-secure", "false"),
    ("storage-driver-table", "stats"),
    ("storage-driver-user", "root"),
    ("streaming-connection-idle-timeout", "4h0m0s"),
    ("sync-frequency", "1m0s"),
    ("system-cgroups", ""),
    ("system-reserved", ""),
    ("system-reserved-cgroup", ""),
    ("tls-cert-file", ""),
    ("tls-cipher-suites", "[]"),
    ("tls-min-version", ""),
    ("tls-private-key-file", ""),
    ("topology-manager-policy", "none"),
    ("topology-manager-policy-options", ""),
    ("topology-manager-scope", "container"),
    ("v", "0"),
    ("version", "false"),
    ("vmodule", ""),
    ("volume-plugin-dir", "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"),
    ("volume-stats-agg-period", "1m0s"),
];

/// Every flag with its value: the one that was given, else the default. One of an older kubelet is there if it was given.
pub fn values(given: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let given = given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    DEFAULTS.iter().copied().chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    #[test]
    fn every_flag_of_a_kubelet_has_a_default_and_no_other() {
        let names: Vec<&str> = DEFAULTS.iter().map(|(name, _)| *name).collect();
        let kubelet = include_str!("kubelet-flags-1.36.txt").lines().chain(["control-socket", "docker-host"]);
        let mut expected: Vec<&str> = kubelet.collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_default_is_written_as_its_flag_is_when_it_is_given() {
        for (name, default) in DEFAULTS.iter().filter(|(_, default)| !default.is_empty() && *default != "[]") {
            let row = flags().find(|row| row.name == *name).unwrap();
            // A list in brackets is one of a single text, which flags are not given as.
            let text = default.trim_start_matches('[').trim_end_matches(']');
            let given = row.kind.read(text).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            let mut shown = super::super::flag_shown::Shown::default();
            shown.add(row.kind, &given);
            let expected = if matches!(row.kind, super::super::FlagKind::Secret) { "CLASSIFIED" } else { default };
            let shown = shown.to_string();
            assert!(shown == expected || format!("[{shown}]") == expected, "{name}: {shown} is not {default}");
        }
    }

    #[test]
    fn what_is_given_goes_over_the_default() {
        let given =
            BTreeMap::from([("max-pods", "7"), ("docker-only", "true")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let values = values(&given);
        assert_eq!((values["max-pods"], values["docker-only"], values["port"]), ("7", "true", "10250"));
        assert_eq!(values.len(), DEFAULTS.len() + 1);
    }
}
