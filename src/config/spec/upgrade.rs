//! What `upgrade` takes from its configuration.

use std::path::PathBuf;

use super::{PullPolicy, Timeouts};
use crate::release::KubernetesVersion;

/// `UpgradeConfiguration` with the flags, every default filled in and every value checked.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradeSpec {
    /// For `upgrade apply`.
    pub apply: UpgradeApply,
    /// For `upgrade node`.
    pub node: UpgradeNode,
    /// For `upgrade plan`.
    pub plan: UpgradePlan,
    /// For `upgrade diff`.
    pub diff: UpgradeDiff,
    /// `timeouts`; None where the configuration says nothing and what init was given stands.
    pub timeouts: Option<Timeouts>,
}

/// `apply`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradeApply {
    /// `kubernetesVersion`.
    pub kubernetes_version: Option<KubernetesVersion>,
    /// `allowExperimentalUpgrades`: to alpha, beta and release candidates.
    pub allow_experimental_upgrades: bool,
    /// `allowRCUpgrades`: to release candidates.
    pub allow_rc_upgrades: bool,
    /// `dryRun`.
    pub dry_run: bool,
    /// `forceUpgrade`: go against the version policy.
    pub force: bool,
    /// `printConfig`.
    pub print_config: bool,
    /// What it shares with `node`.
    pub common: UpgradeCommon,
}

/// `node`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradeNode {
    /// `dryRun`.
    pub dry_run: bool,
    /// What it shares with `apply`.
    pub common: UpgradeCommon,
}

/// Fields of both `apply` and `node`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradeCommon {
    /// `certificateRenewal`.
    pub certificate_renewal: bool,
    /// `etcdUpgrade`.
    pub etcd_upgrade: bool,
    /// `ignorePreflightErrors` and the flag, merged, lower case.
    pub ignore_preflight_errors: Vec<String>,
    /// `patches.directory` or `--patches`.
    pub patches_dir: Option<PathBuf>,
    /// `skipPhases` or `--skip-phases`.
    pub skip_phases: Vec<String>,
    /// `imagePullPolicy`; None where the configuration says nothing and what init was given stands.
    pub image_pull_policy: Option<PullPolicy>,
    /// `imagePullSerial`.
    pub image_pull_serial: bool,
}

/// `plan`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradePlan {
    /// `kubernetesVersion`.
    pub kubernetes_version: Option<KubernetesVersion>,
    /// `allowExperimentalUpgrades`.
    pub allow_experimental_upgrades: bool,
    /// `allowRCUpgrades`.
    pub allow_rc_upgrades: bool,
    /// `dryRun`.
    pub dry_run: bool,
    /// `etcdUpgrade`.
    pub etcd_upgrade: bool,
    /// `ignorePreflightErrors` and the flag, merged, lower case.
    pub ignore_preflight_errors: Vec<String>,
    /// `printConfig`.
    pub print_config: bool,
}

/// `diff`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradeDiff {
    /// `kubernetesVersion`.
    pub kubernetes_version: Option<KubernetesVersion>,
    /// `contextLines`.
    pub context_lines: usize,
}
