//! `UpgradeConfiguration`.

use serde::Deserialize;

use super::super::spec::PullPolicy;
use super::{Patches, Timeouts};

/// `UpgradeConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeConfiguration {
    pub apply: UpgradeApply,
    pub diff: UpgradeDiff,
    pub node: UpgradeNode,
    pub plan: UpgradePlan,
    pub timeouts: Option<Timeouts>,
}

/// `apply`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeApply {
    pub kubernetes_version: String,
    pub allow_experimental_upgrades: Option<bool>,
    #[serde(rename = "allowRCUpgrades")]
    pub allow_rc_upgrades: Option<bool>,
    pub certificate_renewal: Option<bool>,
    pub dry_run: Option<bool>,
    pub etcd_upgrade: Option<bool>,
    pub force_upgrade: Option<bool>,
    pub ignore_preflight_errors: Vec<String>,
    pub patches: Patches,
    pub print_config: Option<bool>,
    pub skip_phases: Vec<String>,
    pub image_pull_policy: Option<PullPolicy>,
    pub image_pull_serial: Option<bool>,
}

/// `diff`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeDiff {
    pub kubernetes_version: String,
    pub context_lines: Option<i32>,
}

/// `node`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradeNode {
    pub certificate_renewal: Option<bool>,
    pub dry_run: Option<bool>,
    pub etcd_upgrade: Option<bool>,
    pub ignore_preflight_errors: Vec<String>,
    pub skip_phases: Vec<String>,
    pub patches: Patches,
    pub image_pull_policy: Option<PullPolicy>,
    pub image_pull_serial: Option<bool>,
}

/// `plan`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UpgradePlan {
    pub kubernetes_version: String,
    pub allow_experimental_upgrades: Option<bool>,
    #[serde(rename = "allowRCUpgrades")]
    pub allow_rc_upgrades: Option<bool>,
    pub dry_run: Option<bool>,
    pub etcd_upgrade: Option<bool>,
    pub ignore_preflight_errors: Vec<String>,
    pub print_config: Option<bool>,
}
