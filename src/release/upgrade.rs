//! Which version may follow which.

use serde::{Deserialize, Serialize};

use super::{KubernetesVersion, RELEASES};

/// Why an upgrade may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Kubernetes upgrades one minor at a time.
    #[error("{from} to {to} skips a minor version; upgrade to a 1.{} release first", from.minor() + 1)]
    SkipsMinor {
        /// What runs.
        from: KubernetesVersion,
        /// What was asked for.
        to: KubernetesVersion,
    },
    /// One minor down is the most.
    #[error("{from} to {to} goes down by more than one minor version, which Kubernetes does not support")]
    GoesDownTooFar {
        /// What runs.
        from: KubernetesVersion,
        /// What was asked for.
        to: KubernetesVersion,
    },
    /// Newer than this program knows.
    #[error("{to} is newer than 1.{newest}, the newest release this program knows; use a newer program, or --force")]
    TooNew {
        /// What was asked for.
        to: KubernetesVersion,
        /// The newest minor in the release table.
        newest: u64,
    },
    /// Not a release.
    #[error(
        "{to} is a pre-release; ask for it with --allow-experimental-upgrades or --allow-release-candidate-upgrades"
    )]
    Prerelease {
        /// What was asked for.
        to: KubernetesVersion,
    },
}

impl Refusal {
    /// Whether `--force` gets past it. As in kubeadm nothing gets past a wrong distance, unless the target is a
    /// pre-release.
    pub fn can_be_forced(&self) -> bool {
        match self {
            Self::SkipsMinor { to, .. } | Self::GoesDownTooFar { to, .. } => to.is_prerelease(),
            Self::TooNew { .. } | Self::Prerelease { .. } => true,
        }
    }
}

/// What was asked for besides releases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradePolicy {
    /// `--allow-experimental-upgrades`: alpha, beta and release candidates.
    pub experimental: bool,
    /// `--allow-release-candidate-upgrades`.
    pub release_candidate: bool,
    /// `--force`: what [`Refusal::can_be_forced`] says.
    pub force: bool,
}

impl UpgradePolicy {
    fn allows(self, to: &KubernetesVersion) -> bool {
        let is_candidate = to.semver().pre.starts_with("rc.");
        !to.is_prerelease() || self.experimental || (self.release_candidate && is_candidate)
    }
}

/// Whether a control plane may go from `from` to `to`: kubeadm's rules for `upgrade apply`, the strictest first. `--force`
/// is the caller's affair.
///
/// The same version and a lower patch or one lower minor pass, as they do in kubeadm.
pub fn upgrade_allowed(from: &KubernetesVersion, to: &KubernetesVersion, policy: UpgradePolicy) -> Result<(), Refusal> {
    let (from, to) = (from.clone(), to.clone());
    let newest = RELEASES[RELEASES.len() - 1].minor;
    if to.minor() > from.minor() + 1 {
        return Err(Refusal::SkipsMinor { from, to });
    }
    if to.minor() + 1 < from.minor() {
        return Err(Refusal::GoesDownTooFar { from, to });
    }
    if to.minor() > newest {
        return Err(Refusal::TooNew { to, newest });
    }
    if !policy.allows(&to) {
        return Err(Refusal::Prerelease { to });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str) -> Result<(), Refusal> {
        upgrade_allowed(&from.parse().unwrap(), &to.parse().unwrap(), UpgradePolicy::default())
    }

    #[test]
    fn a_patch_a_minor_up_and_a_minor_down_are_allowed() {
        for (from, to) in
            [("v1.20.2", "v1.20.3"), ("v1.36.2", "v1.36.2"), ("v1.36.2", "v1.37.0"), ("v1.37.0", "v1.36.0")]
        {
            assert_eq!(check(from, to), Ok(()), "{from} to {to}");
        }
    }

    #[test]
    fn a_skipped_minor_and_two_minors_down_are_refused_for_good() {
        for (from, to) in [("v1.34.0", "v1.36.0"), ("v1.36.0", "v1.34.5")] {
            assert!(!check(from, to).unwrap_err().can_be_forced(), "{from} to {to}");
        }
        assert!(matches!(check("v1.34.0", "v1.36.0"), Err(Refusal::SkipsMinor { .. })));
        assert!(matches!(check("v1.36.0", "v1.34.5"), Err(Refusal::GoesDownTooFar { .. })));
    }

    #[test]
    fn a_prerelease_and_a_release_of_tomorrow_need_force() {
        for (from, to) in [("v1.36.0", "v1.37.0-rc.1"), ("v1.37.0", "v1.38.0"), ("v1.34.0", "v1.36.0-alpha.1")] {
            assert!(check(from, to).unwrap_err().can_be_forced(), "{from} to {to}");
        }
    }

    #[test]
    fn pre_releases_are_allowed_by_the_flag_that_is_for_them() {
        let check = |to: &str, policy: UpgradePolicy| {
            upgrade_allowed(&"v1.36.0".parse().unwrap(), &to.parse().unwrap(), policy)
        };
        let candidates = UpgradePolicy { release_candidate: true, ..UpgradePolicy::default() };
        let all = UpgradePolicy { experimental: true, ..UpgradePolicy::default() };
        assert!(check("v1.37.0-rc.1", candidates).is_ok() && check("v1.37.0-rc.1", all).is_ok());
        assert!(check("v1.37.0-beta.0", candidates).is_err() && check("v1.37.0-beta.0", all).is_ok());
    }
}
