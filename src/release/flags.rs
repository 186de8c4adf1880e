//! Flags of the control plane and of kubelets that a release takes with a warning, or takes no more.
//!
//! Read from the sources: Kubernetes 1.31 to 1.36, the library of 1.37's kube-apiserver (1.37.0-beta.0), etcd 3.5.16, 3.6.8
//! and 3.7.1. None of 1.34 to 1.36 has removed a flag of its predecessor. What 1.37 has changed in a component's own flags is
//! not in the table.
//! The kubelet's are those that kubeadm or the documentation of a runtime has given one, by the release notes; 1.20.2 has all of
//! them, and 1.36.2 none.

use super::gates::gate_of;

const API_SERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";
const ETCD: &str = "etcd";
/// The node agent of a release, whose gates are those of the control plane.
pub const KUBELET: &str = "kubelet";
/// What takes the gates of the table.
const GATED: [&str; 4] = [API_SERVER, CONTROLLER_MANAGER, SCHEDULER, KUBELET];
/// The flag with the gates of those.
pub const FEATURE_GATES: &str = "feature-gates";

/// A version of a component, major and minor.
pub type Minor = (u64, u64);

/// A flag that is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagRow {
    /// The component that takes it.
    pub component: &'static str,
    /// Its name.
    pub flag: &'static str,
    /// Since when it draws a warning, or does nothing.
    pub deprecated: Option<Minor>,
    /// Since when the component does not start with it.
    pub removed: Option<Minor>,
    /// What to use for it; empty where nothing takes its place.
    pub instead: &'static str,
}

const fn deprecated(component: &'static str, flag: &'static str, instead: &'static str) -> FlagRow {
    FlagRow { component, flag, deprecated: Some((1, 31)), removed: None, instead }
}

const fn removed(component: &'static str, flag: &'static str, since: u64, instead: &'static str) -> FlagRow {
    FlagRow { component, flag, deprecated: None, removed: Some((1, since)), instead }
}

/// One of etcd 3.5's that 3.6 takes and 3.7 does not.
const fn experimental(flag: &'static str, instead: &'static str) -> FlagRow {
    FlagRow { component: ETCD, flag, deprecated: Some((3, 6)), removed: Some((3, 7)), instead }
}

const fn gone_from_etcd(flag: &'static str, since: u64) -> FlagRow {
    FlagRow { component: ETCD, flag, deprecated: None, removed: Some((3, since)), instead: "" }
}

const RUNTIMES_NETWORK: &str = "the runtime's settings of its network";
const EXTERNAL_CLOUD: &str = "a cloud controller manager";
const SIZED: &str = "nothing: watch caches are sized by themselves";

/// What kubeadm itself sets is not here: a scheduler's `kubeconfig` is deprecated and has no successor among flags.
#[rustfmt::skip]
static FLAGS: [FlagRow; 61] = [
    // Deprecated since 1.31 at the latest: the oldest of the sources.
    deprecated(API_SERVER, "admission-control", "--enable-admission-plugins or --disable-admission-plugins"),
    deprecated(API_SERVER, "apiserver-count", "--endpoint-reconciler-type=lease"),
    deprecated(API_SERVER, "audit-webhook-batch-initial-backoff", "--audit-webhook-initial-backoff"),
    deprecated(API_SERVER, "default-watch-cache-size", SIZED),
    deprecated(API_SERVER, "enable-logs-handler", ""),
    deprecated(API_SERVER, "kubelet-port", ""),
    deprecated(API_SERVER, "kubelet-read-only-port", ""),
    deprecated(CONTROLLER_MANAGER, "allow-untagged-cloud", "an id of the cluster at the cloud provider"),
    deprecated(CONTROLLER_MANAGER, "node-sync-period", ""),
    deprecated(SCHEDULER, "kube-api-qps", "its configuration file"),
    deprecated(SCHEDULER, "pod-max-in-unschedulable-pods-duration", ""),
    deprecated(SCHEDULER, "profiling", "its configuration file"),
    removed(API_SERVER, "cloud-config", 33, EXTERNAL_CLOUD),
    removed(API_SERVER, "cloud-provider", 33, EXTERNAL_CLOUD),
    removed(API_SERVER, "insecure-port", 24, "--secure-port"),
    removed(CONTROLLER_MANAGER, "port", 24, "--secure-port"),
    removed(SCHEDULER, "port", 24, "--secure-port"),
    removed(KUBELET, "cni-bin-dir", 24, RUNTIMES_NETWORK),
    removed(KUBELET, "cni-cache-dir", 24, RUNTIMES_NETWORK),
    removed(KUBELET, "cni-conf-dir", 24, RUNTIMES_NETWORK),
    removed(KUBELET, "docker-endpoint", 24, "--container-runtime-endpoint"),
    removed(KUBELET, "dynamic-config-dir", 24, ""),
    removed(KUBELET, "image-pull-progress-deadline", 24, ""),
    removed(KUBELET, "network-plugin", 24, RUNTIMES_NETWORK),
    removed(KUBELET, "network-plugin-mtu", 24, RUNTIMES_NETWORK),
    removed(KUBELET, "container-runtime", 27, "--container-runtime-endpoint"),
    removed(KUBELET, "keep-terminated-pod-volumes", 31, ""),
    removed(KUBELET, "pod-infra-container-image", 35, "the runtime's own setting"),
    gone_from_etcd("enable-v2", 6),
    gone_from_etcd("experimental-enable-v2v3", 6),
    gone_from_etcd("proxy", 6),
    gone_from_etcd("proxy-dial-timeout", 6),
    gone_from_etcd("proxy-failure-wait", 6),
    gone_from_etcd("proxy-read-timeout", 6),
    gone_from_etcd("proxy-refresh-interval", 6),
    gone_from_etcd("proxy-write-timeout", 6),
    gone_from_etcd("discovery", 7),
    gone_from_etcd("discovery-proxy", 7),
    experimental("experimental-bootstrap-defrag-threshold-megabytes", "--bootstrap-defrag-threshold-megabytes"),
    experimental("experimental-compact-hash-check-enabled", "--feature-gates=CompactHashCheck=true"),
    experimental("experimental-compact-hash-check-time", "--compact-hash-check-time"),
    experimental("experimental-compaction-batch-limit", "--compaction-batch-limit"),
    experimental("experimental-compaction-sleep-interval", "--compaction-sleep-interval"),
    experimental("experimental-corrupt-check-time", "--corrupt-check-time"),
    experimental("experimental-distributed-tracing-address", "--distributed-tracing-address"),
    experimental("experimental-distributed-tracing-instance-id", "--distributed-tracing-instance-id"),
    experimental("experimental-distributed-tracing-sampling-rate", "--distributed-tracing-sampling-rate"),
    experimental("experimental-distributed-tracing-service-name", "--distributed-tracing-service-name"),
    experimental("experimental-downgrade-check-time", "--downgrade-check-time"),
    experimental("experimental-enable-distributed-tracing", "--enable-distributed-tracing"),
    experimental("experimental-enable-lease-checkpoint", "--feature-gates=LeaseCheckpoint=true"),
    experimental("experimental-enable-lease-checkpoint-persist", "--feature-gates=LeaseCheckpointPersist=true"),
    experimental("experimental-initial-corrupt-check", "--feature-gates=InitialCorruptCheck=true"),
    experimental("experimental-memory-mlock", "--memory-mlock"),
    experimental("experimental-peer-skip-client-san-verification", "--peer-skip-client-san-verification"),
    experimental("experimental-snapshot-catchup-entries", "--snapshot-catchup-entries"),
    experimental("experimental-stop-grpc-service-on-defrag", "--feature-gates=StopGRPCServiceOnDefrag=true"),
    experimental("experimental-txn-mode-write-with-shared-buffer", "--feature-gates=TxnModeWriteWithSharedBuffer=true"),
    experimental("experimental-warning-apply-duration", "--warning-apply-duration"),
    experimental("experimental-warning-unary-request-duration", "--warning-unary-request-duration"),
    experimental("experimental-watch-progress-notify-interval", "--watch-progress-notify-interval"),
];

/// What a release makes of a flag or a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The component does not start with it.
    Removed,
    /// The component does not start with this value of it; the only one that it takes.
    Locked(bool),
    /// It warns, or does nothing.
    Deprecated,
}

/// What is known of a setting that a release does not take as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// What becomes of it.
    pub fate: Fate,
    /// Since which release of the component.
    pub since: Minor,
    /// What to use for it; empty where nothing takes its place.
    pub instead: &'static str,
}

/// What `component` of the version `minor` makes of a flag; None where the table has nothing against it.
pub fn retired_flag(component: &str, flag: &str, minor: Minor) -> Option<Retired> {
    let row = FLAGS.iter().find(|row| row.component == component && row.flag == flag)?;
    let reached = |since: Option<Minor>| since.filter(|since| *since <= minor);
    let of = |fate, since| Retired { fate, since, instead: row.instead };
    reached(row.removed)
        .map(|since| of(Fate::Removed, since))
        .or_else(|| reached(row.deprecated).map(|since| of(Fate::Deprecated, since)))
}

/// What Kubernetes 1.`minor` makes of a feature gate with this value; None where the table has nothing against it. A gate
/// that is set to the value that it is locked to draws a warning.
pub fn retired_gate(component: &str, gate: &str, value: bool, minor: u64) -> Option<Retired> {
    let gate = gate_of(gate).filter(|_| GATED.contains(&component))?;
    let of = |fate, since| Retired { fate, since: (1, since), instead: "" };
    if let Some(since) = gate.removed.filter(|since| *since <= minor) {
        return Some(of(Fate::Removed, since));
    }
    let (since, only) = gate.locked.filter(|(since, _)| *since <= minor)?;
    Some(of(if value == only { Fate::Deprecated } else { Fate::Locked(only) }, since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_deprecated_first_and_removed_later() {
        let fate = |flag: &str, minor| retired_flag(ETCD, flag, minor).map(|found| found.fate);
        let flag = "experimental-initial-corrupt-check";
        assert_eq!(
            [(3, 5), (3, 6), (3, 7)].map(|minor| fate(flag, minor)),
            [None, Some(Fate::Deprecated), Some(Fate::Removed)]
        );
        assert_eq!(fate("feature-gates", (3, 7)), None);
        assert_eq!(retired_flag(API_SERVER, flag, (1, 37)), None, "a flag belongs to a component");
        assert_eq!(retired_flag(API_SERVER, "cloud-provider", (1, 34)).unwrap().fate, Fate::Removed);
        assert_eq!(retired_flag(API_SERVER, "cloud-provider", (1, 32)), None);
        assert_eq!(retired_flag(CONTROLLER_MANAGER, "cloud-provider", (1, 37)), None);
    }

    #[test]
    fn no_flag_is_in_the_table_twice_or_without_a_fate() {
        for (at, row) in FLAGS.iter().enumerate() {
            assert!(row.deprecated.is_some() || row.removed.is_some(), "{row:?}");
            assert!(
                !FLAGS[..at].iter().any(|other| (other.component, other.flag) == (row.component, row.flag)),
                "{row:?}"
            );
        }
    }

    #[test]
    fn what_this_program_sets_itself_is_taken_by_the_release_that_it_is_set_for() {
        use super::super::{RELEASES, etcd_row};
        for release in &RELEASES {
            let components = [
                (API_SERVER, &release.api_server),
                (CONTROLLER_MANAGER, &release.controller_manager),
                (SCHEDULER, &release.scheduler),
            ];
            for (component, row) in components {
                for (flag, _) in row.flags {
                    assert_eq!(retired_flag(component, flag, (1, release.minor)), None, "{component} {flag}");
                }
            }
        }
        for minor in [(3, 4), (3, 5), (3, 6), (3, 7)] {
            let row = etcd_row(&RELEASES[0], Some(&format!("{}.{}.0", minor.0, minor.1)));
            for (flag, _) in row.flags {
                assert_eq!(retired_flag(ETCD, flag, minor), None, "{flag} of {minor:?}");
            }
        }
    }

    #[test]
    fn a_gate_is_locked_to_one_value_first_and_removed_later() {
        let fate = |value, minor| {
            retired_gate(API_SERVER, "AnyVolumeDataSource", value, minor).map(|found| (found.fate, found.since.1))
        };
        assert_eq!(fate(false, 32), None);
        assert_eq!(fate(true, 33), Some((Fate::Deprecated, 33)));
        assert_eq!(fate(false, 36), Some((Fate::Locked(true), 33)));
        assert_eq!(fate(true, 37), Some((Fate::Removed, 37)));
        assert_eq!(retired_gate(API_SERVER, "NoSuchGate", true, 37), None);
        assert_eq!(retired_gate(ETCD, "AnyVolumeDataSource", true, 37), None, "etcd has gates of its own");
    }
}
