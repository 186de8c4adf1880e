//! Versions: which image tag, flag, probe path and etcd belongs to which Kubernetes minor. The only place that compares
//! versions; everything else asks a [`Release`].

mod flags;
mod gates;
mod kubeadm;
mod kubelet;
mod surge;
mod table;
mod upgrade;
mod version;

pub use flags::{FEATURE_GATES, Fate, KUBELET, Minor as ReleaseMinor, Retired, retired_flag, retired_gate};
pub use kubeadm::{ConfigApi, KubeadmRow, kubeadm_row, kubelet_config_map};
pub use kubelet::{KubeletRow, is_kubelet_too_old, kubelet_refusal, kubelet_row};
pub use surge::surge_flags;
pub use table::{
    ComponentRow, EtcdRow, ProbePaths, RELEASES, Release, etcd_formats, etcd_goes_back, etcd_opens, etcd_row, etcds_for,
};
pub use upgrade::{Refusal, UpgradePolicy, upgrade_allowed};
pub use version::{KubernetesVersion, VersionError};

/// What runs when no version is given: the newest release that the table covers whole.
pub const DEFAULT_VERSION: &str = "v1.37.1";

/// The row that serves a version.
#[derive(Debug, Clone)]
pub struct Found {
    /// The row.
    pub row: &'static Release,
    /// Set when the version's own minor has no row and a neighbour's is used.
    pub warning: Option<String>,
}

/// The row of `version`'s minor, else the newest row that starts at or below it, with a warning.
///
/// A row *starts* at the first minor that still takes its flags, so what lies between two rows gets flags it accepts.
pub fn find(version: &KubernetesVersion) -> Found {
    let minor = version.minor();
    let row = RELEASES.iter().rev().find(|row| row.since <= minor).unwrap_or(&RELEASES[0]);
    let warning = (row.minor != minor).then(|| {
        format!(
            "Kubernetes 1.{minor} is not in the release table: it gets the flags, probes and etcd of 1.{}",
            row.minor
        )
    });
    Found { row, warning }
}

/// The newest release of a minor that the table knows: what a label such as `stable-1.36` stands for. None for a minor
/// without a row.
pub fn newest(minor: u64) -> Option<String> {
    let row = RELEASES.iter().find(|row| row.minor == minor)?;
    Some(format!("v1.{}.{}", row.minor, row.newest_patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(text: &str) -> (u64, bool) {
        let found = find(&text.parse().unwrap());
        (found.row.minor, found.warning.is_some())
    }

    #[test]
    fn a_minor_in_the_table_finds_its_row_without_a_warning() {
        for minor in [20, 34, 35, 36, 37] {
            assert_eq!(row_of(&format!("v1.{minor}.1")), (minor, false));
        }
    }

    #[test]
    fn any_other_minor_finds_a_row_whose_flags_it_takes_and_a_warning() {
        // --insecure-port and --port went away in 1.24, so the 1.20 row ends before it.
        for (minor, row) in [(19, 20), (23, 20), (24, 34), (33, 34), (38, 37), (99, 37)] {
            assert_eq!(row_of(&format!("v1.{minor}.0")), (row, true), "1.{minor}");
        }
    }

    #[test]
    fn the_default_version_is_of_the_newest_row() {
        assert_eq!(row_of(DEFAULT_VERSION), (RELEASES.last().unwrap().minor, false));
    }

    #[test]
    fn the_newest_release_of_all_is_the_default_and_each_row_has_its_own() {
        let newest_of_all = RELEASES.last().unwrap().minor;
        assert_eq!(newest(newest_of_all).as_deref(), Some(DEFAULT_VERSION));
        assert_eq!(newest(20).as_deref(), Some("v1.20.15"));
        assert_eq!(newest(30), None);
    }

    #[test]
    fn rows_are_in_order_and_start_at_or_below_themselves() {
        assert!(RELEASES.is_sorted_by(|a, b| a.minor < b.minor && a.since < b.since));
        assert!(RELEASES.iter().all(|row| row.since <= row.minor));
    }
}
