//! The rows.

use super::kubeadm::{CONTROL_PLANE, MASTER};

/// Everything that differs from one Kubernetes minor to the next.
#[derive(Debug)]
pub struct Release {
    /// The minor this row was made for.
    pub minor: u64,
    /// The first minor that accepts this row's flags.
    pub since: u64,
    /// The patch of this minor's newest release when the table was made; labels stand for it.
    pub newest_patch: u64,
    /// Tag of the etcd image.
    pub etcd_tag: &'static str,
    /// Tag of the pause image.
    pub pause_tag: &'static str,
    /// Tag of the CoreDNS image.
    pub coredns_tag: &'static str,
    /// The oldest etcd that an external one may be, as kubeadm of that release checks it.
    pub least_external_etcd: &'static str,
    /// Whether the default registry keeps CoreDNS at `coredns/coredns` rather than at `coredns`.
    pub coredns_nested: bool,
    /// Whether the Corefile keeps the cluster's own names out of the cache, one zone at a time, which CoreDNS reads from
    /// 1.10 on.
    pub coredns_uncached_zones: bool,
    /// Keys of the taints that keep other pods away from control-plane nodes.
    pub control_plane_taints: &'static [&'static str],
    /// Feature gate that two service networks need while dual-stack is not on by itself.
    pub dual_stack_gate: Option<&'static str>,
    /// The mode that kube-proxy gets where the user chose none. kubeadm 1.37 writes it down, because kube-proxy then warns
    /// of a mode that is left open: its default is going to change.
    pub kube_proxy_mode: Option<&'static str>,
    /// Whether kube-proxy's mode `ipvs` is deprecated.
    pub ipvs_deprecated: bool,
    /// kube-apiserver.
    pub api_server: ComponentRow,
    /// kube-controller-manager.
    pub controller_manager: ComponentRow,
    /// kube-scheduler.
    pub scheduler: ComponentRow,
}

/// What one component needs beyond the flags that every release shares.
#[derive(Debug)]
pub struct ComponentRow {
    /// Flags, name and value.
    pub flags: &'static [(&'static str, &'static str)],
    /// Where it answers about its health.
    pub probes: ProbePaths,
}

/// HTTP paths of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbePaths {
    /// Liveness.
    pub liveness: &'static str,
    /// Readiness; None where the component has no such probe.
    pub readiness: Option<&'static str>,
    /// Startup.
    pub startup: &'static str,
}

const fn probes(liveness: &'static str, readiness: Option<&'static str>, startup: &'static str) -> ProbePaths {
    ProbePaths { liveness, readiness, startup }
}

const API_SERVER_PROBES: ProbePaths = probes("/livez", Some("/readyz"), "/livez");
const CONTROLLER_MANAGER_PROBES: ProbePaths = probes("/healthz", None, "/healthz");
const SCHEDULER_PROBES: ProbePaths = probes("/livez", Some("/readyz"), "/livez");

/// What kubeadm 1.36 demands of an external etcd.
const LEAST_EXTERNAL_ETCD: &str = "3.5.24";

/// A row of the releases that take today's flags: only their images differ.
const fn current(
    (minor, newest_patch): (u64, u64),
    since: u64,
    etcd: &'static str,
    coredns: &'static str,
    pause: &'static str,
) -> Release {
    Release {
        minor,
        since,
        newest_patch,
        etcd_tag: etcd,
        pause_tag: pause,
        coredns_tag: coredns,
        least_external_etcd: LEAST_EXTERNAL_ETCD,
        coredns_nested: true,
        coredns_uncached_zones: true,
        control_plane_taints: &[CONTROL_PLANE],
        dual_stack_gate: None,
        kube_proxy_mode: None,
        ipvs_deprecated: minor >= 35,
        api_server: ComponentRow { flags: &[], probes: API_SERVER_PROBES },
        controller_manager: ComponentRow { flags: &[], probes: CONTROLLER_MANAGER_PROBES },
        scheduler: ComponentRow { flags: &[], probes: SCHEDULER_PROBES },
    }
}

/// All releases, oldest first.
///
/// etcd of 1.34 to 1.36 is what kubeadm 1.36.2 maps them to; 1.37 is what kubeadm 1.37 lists with `config images list`.
pub static RELEASES: [Release; 5] = [
    Release {
        minor: 20,
        since: 0,
        newest_patch: 15,
        etcd_tag: "3.4.13-0",
        pause_tag: "3.2",
        coredns_tag: "1.7.0",
        least_external_etcd: "3.2.18",
        coredns_nested: false,
        coredns_uncached_zones: false,
        // The old name until 1.24; both as long as nodes of that age may join.
        control_plane_taints: &[MASTER, CONTROL_PLANE],
        // Alpha in 1.20, on by default from 1.21.
        dual_stack_gate: Some("IPv6DualStack=true"),
        kube_proxy_mode: None,
        ipvs_deprecated: false,
        // The insecure ports are open unless they are set to 0, as kubeadm 1.20 did; 1.24 no longer knows the flags.
        api_server: ComponentRow { flags: &[("insecure-port", "0")], probes: API_SERVER_PROBES },
        controller_manager: ComponentRow { flags: &[("port", "0")], probes: CONTROLLER_MANAGER_PROBES },
        scheduler: ComponentRow { flags: &[("port", "0")], probes: probes("/healthz", None, "/healthz") },
    },
    current((34, 9), 24, "3.6.8-0", "v1.12.1", "3.10.1"),
    current((35, 9), 35, "3.6.8-0", "v1.13.1", "3.10.1"),
    current((36, 4), 36, "3.6.8-0", "v1.14.2", "3.10.2"),
    Release { kube_proxy_mode: Some("iptables"), ..current((37, 1), 37, "3.7.0-0", "v1.14.6", "3.10.2") },
];

/// What differs from one etcd minor to the next. Apart from [`Release`], because `etcd.local.imageTag` may pin another
/// etcd than the release's own.
#[derive(Debug)]
pub struct EtcdRow {
    /// First etcd version of the row, major and minor.
    pub since: (u64, u64),
    /// Flags, name and value.
    pub flags: &'static [(&'static str, &'static str)],
    /// Where it answers on the metrics address.
    pub probes: ProbePaths,
    /// The minor versions whose data it opens. Those of a newer one it refuses, and leaves alone.
    pub opens: &'static [(u64, u64)],
    /// The oldest version that its own downgrade takes the data to, one minor at a time; None where it has none. (3.5 has
    /// the call, but leaves the data as they are, and 3.4 does not open them.)
    pub downgrades_to: Option<(u64, u64)>,
}

const ETCD_PROBES: ProbePaths = probes("/livez", Some("/readyz"), "/readyz");

/// By upstream's binaries. 3.6 still takes the flags of the row before, with a warning; 3.7 refuses them, and 3.5 refuses
/// those of 3.6.
static ETCD: [EtcdRow; 4] = [
    EtcdRow {
        since: (0, 0),
        flags: &[],
        probes: probes("/health", Some("/health"), "/health"),
        opens: &[(3, 3), (3, 4)],
        downgrades_to: None,
    },
    EtcdRow {
        since: (3, 5),
        flags: &[("experimental-initial-corrupt-check", "true"), ("experimental-watch-progress-notify-interval", "5s")],
        probes: ETCD_PROBES,
        opens: &[(3, 4), (3, 5)],
        downgrades_to: None,
    },
    EtcdRow { since: (3, 6), opens: &[(3, 5), (3, 6)], downgrades_to: Some((3, 5)), ..CURRENT_ETCD },
    CURRENT_ETCD,
];

/// The newest row.
const CURRENT_ETCD: EtcdRow = EtcdRow {
    since: (3, 7),
    flags: &[("feature-gates", "InitialCorruptCheck=true"), ("watch-progress-notify-interval", "5s")],
    probes: ETCD_PROBES,
    opens: &[(3, 6), (3, 7)],
    downgrades_to: Some((3, 5)),
};

/// The row of the etcd that runs: by the image `tag` that it was given where that is a version, else by the release's.
pub fn etcd_row(release: &Release, tag: Option<&str>) -> &'static EtcdRow {
    let version = tag.and_then(major_minor).or_else(|| major_minor(release.etcd_tag));
    version.map_or(&ETCD[0], row_of_etcd)
}

fn row_of_etcd(version: (u64, u64)) -> &'static EtcdRow {
    ETCD.iter().rev().find(|row| row.since <= version).unwrap_or(&ETCD[0])
}

/// Whether an etcd of the minor version `from` can take its data back to those of `to`, while it runs.
pub fn etcd_goes_back(from: (u64, u64), to: (u64, u64)) -> bool {
    let oldest = row_of_etcd(from).downgrades_to;
    from.0 == to.0 && from.1 == to.1 + 1 && oldest.is_some_and(|oldest| oldest <= to)
}

/// Whether an etcd of the minor version `etcd` opens data that one of `data` has opened last. One that is newer than the
/// table opens those of the minor version before, as all have; one that is older says itself what it does not open.
pub fn etcd_opens(etcd: (u64, u64), data: (u64, u64)) -> bool {
    match ETCD.iter().find(|row| row.opens.last() == Some(&etcd)) {
        Some(row) => row.opens.contains(&data),
        None if etcd > ETCD[ETCD.len() - 1].since => etcd == data || (etcd.0 == data.0 && etcd.1 == data.1 + 1),
        None => etcd >= data,
    }
}

/// The minor versions that an etcd makes of its cluster's version and of its data's as soon as every member is one of it; None
/// for data that do not say theirs, as before 3.6. Seen within the first second with 3.7.1 on data of 3.6.8.
pub fn etcd_formats(etcd: (u64, u64)) -> ((u64, u64), Option<(u64, u64)>) {
    (etcd, (etcd >= STORAGE_VERSION).then_some(etcd))
}

/// The first etcd whose data say their version.
const STORAGE_VERSION: (u64, u64) = (3, 6);

/// The minor versions of etcd, of those in the table, that open data which one of `data` has opened last.
pub fn etcds_for(data: (u64, u64)) -> Vec<(u64, u64)> {
    let known = ETCD.iter().filter_map(|row| row.opens.last().copied());
    known.filter(|etcd| etcd_opens(*etcd, data)).collect()
}

/// `3.6.8-0` and `v3.6.8` are (3, 6).
fn major_minor(tag: &str) -> Option<(u64, u64)> {
    let mut parts = tag.strip_prefix('v').unwrap_or(tag).split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags_of(release: &Release, tag: Option<&str>) -> Vec<&'static str> {
        etcd_row(release, tag).flags.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn etcd_flags_follow_the_etcd_that_runs_rather_than_the_kubernetes_version() {
        let (old, new) = (&RELEASES[0], &RELEASES[4]);
        assert!(flags_of(old, None).is_empty());
        assert_eq!(flags_of(new, None), ["feature-gates", "watch-progress-notify-interval"]);
        assert_eq!(flags_of(new, Some("v3.5.21"))[0], "experimental-initial-corrupt-check");
        assert_eq!(flags_of(old, Some("3.6.8-0"))[0], "feature-gates");
    }

    #[test]
    fn etcd_goes_back_one_minor_where_both_know_how() {
        assert!(etcd_goes_back((3, 7), (3, 6)) && etcd_goes_back((3, 6), (3, 5)));
        for (from, to) in [((3, 5), (3, 4)), ((3, 7), (3, 5)), ((3, 6), (3, 6)), ((3, 6), (3, 7)), ((4, 6), (3, 5))] {
            assert!(!etcd_goes_back(from, to), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn an_etcd_opens_data_of_its_own_minor_version_and_of_the_one_before() {
        let versions = [(3, 4), (3, 5), (3, 6), (3, 7), (3, 8)];
        for (at, etcd) in versions.into_iter().enumerate() {
            for (of, data) in versions.into_iter().enumerate() {
                assert_eq!(etcd_opens(etcd, data), of == at || of + 1 == at, "{etcd:?} on data of {data:?}");
            }
        }
        assert_eq!(etcds_for((3, 5)), [(3, 5), (3, 6)]);
        assert_eq!(etcd_formats((3, 5)), ((3, 5), None));
        assert_eq!(etcd_formats((3, 7)), ((3, 7), Some((3, 7))));
        assert!(!etcd_opens((4, 0), (3, 7)), "what no release has shown");
        for row in &ETCD {
            assert!(row.since == (0, 0) || row.opens.last() == Some(&row.since), "{row:?}");
        }
    }

    #[test]
    fn an_etcd_tag_that_is_no_version_counts_as_the_releases_own() {
        assert_eq!(flags_of(&RELEASES[4], Some("mine")), flags_of(&RELEASES[4], None));
    }
}
