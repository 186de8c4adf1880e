//! `UpgradeConfiguration`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::spec::PullPolicy;
use super::{Patches, Timeouts};

/// `UpgradeConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeConfiguration {
    /// For `upgrade apply`.
    pub apply: UpgradeApply,
    /// For `upgrade diff`.
    pub diff: UpgradeDiff,
    /// For `upgrade node`.
    pub node: UpgradeNode,
    /// For `upgrade plan`.
    pub plan: UpgradePlan,
    /// How long is waited; what init was given where nothing is said.
    pub timeouts: Option<Timeouts>,
}

/// `apply`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeApply {
    /// Version to go to; the argument of the command counts in place of it.
    pub kubernetes_version: String,
    /// Allow alpha and beta versions.
    pub allow_experimental_upgrades: Option<bool>,
    /// Allow release candidates.
    #[serde(rename = "allowRCUpgrades")]
    pub allow_rc_upgrades: Option<bool>,
    /// Taken for kubeadm's sake: `kubeboot certs renew` renews certificates.
    pub certificate_renewal: Option<bool>,
    /// Only show what would be done.
    pub dry_run: Option<bool>,
    /// Upgrade etcd too.
    pub etcd_upgrade: Option<bool>,
    /// Go against the version policy.
    pub force_upgrade: Option<bool>,
    /// Checks whose errors are only warnings.
    pub ignore_preflight_errors: Vec<String>,
    /// Changes to what is written; an absolute path.
    pub patches: Patches,
    /// Print the configuration of the cluster.
    pub print_config: Option<bool>,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// When images are pulled.
    pub image_pull_policy: Option<PullPolicy>,
    /// Taken for kubeadm's sake: images are pulled side by side.
    pub image_pull_serial: Option<bool>,
}

/// `diff`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeDiff {
    /// Version to go to; the argument of the command counts in place of it.
    pub kubernetes_version: String,
    /// Lines around each change.
    pub context_lines: Option<i32>,
}

/// `node`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeNode {
    /// Taken for kubeadm's sake: `kubeboot certs renew` renews certificates.
    pub certificate_renewal: Option<bool>,
    /// Only show what would be done.
    pub dry_run: Option<bool>,
    /// Upgrade etcd too.
    pub etcd_upgrade: Option<bool>,
    /// Checks whose errors are only warnings.
    pub ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// Changes to what is written; an absolute path.
    pub patches: Patches,
    /// When images are pulled.
    pub image_pull_policy: Option<PullPolicy>,
    /// Taken for kubeadm's sake: images are pulled side by side.
    pub image_pull_serial: Option<bool>,
}

/// `plan`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradePlan {
    /// Version to go to; the argument of the command counts in place of it.
    pub kubernetes_version: String,
    /// Allow alpha and beta versions.
    pub allow_experimental_upgrades: Option<bool>,
    /// Allow release candidates.
    #[serde(rename = "allowRCUpgrades")]
    pub allow_rc_upgrades: Option<bool>,
    /// Only show what would be done.
    pub dry_run: Option<bool>,
    /// Upgrade etcd too.
    pub etcd_upgrade: Option<bool>,
    /// Checks whose errors are only warnings.
    pub ignore_preflight_errors: Vec<String>,
    /// Print the configuration of the cluster.
    pub print_config: Option<bool>,
}
