//! `UpgradeConfiguration` and the flags of `upgrade`, into an [`UpgradeSpec`].

use std::path::PathBuf;

use super::cluster::{skip_phases, version, warn_of_unused};
use super::error::ConfigError;
use super::flags::{self, FlagRow, beside, has, row};
use super::kinds;
use super::load::{Input, Loaded, conclude, directory, report_on};
use super::names;
use super::node::{ignore_list, timeouts};
use super::report::{Part, Report};
use super::spec::{UpgradeApply, UpgradeCommon, UpgradeDiff, UpgradeNode, UpgradePlan, UpgradeSpec};
use super::wire::{self, UpgradeConfiguration};
use crate::release::KubernetesVersion;

/// The flags of the commands below `upgrade` as the user gave them; one that was not given is None or empty. A flag
/// goes into every section that has its field: only the section of the command that was given is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpgradeFlags {
    /// The argument; may go with `--config`, whose `kubernetesVersion` it replaces.
    pub version: Option<String>,
    /// `--allow-experimental-upgrades`.
    pub allow_experimental_upgrades: Option<bool>,
    /// `--allow-release-candidate-upgrades`.
    pub allow_release_candidate_upgrades: Option<bool>,
    /// `--certificate-renewal`.
    pub certificate_renewal: Option<bool>,
    /// `--context-lines`.
    pub context_lines: Option<usize>,
    /// `--dry-run`; may go with `--config`.
    pub dry_run: Option<bool>,
    /// `--etcd-upgrade`.
    pub etcd_upgrade: Option<bool>,
    /// `--force`.
    pub force: Option<bool>,
    /// `--ignore-preflight-errors`; may go with `--config`, which it adds to.
    pub ignore_preflight_errors: Vec<String>,
    /// `--patches`.
    pub patches: Option<String>,
    /// `--print-config`.
    pub print_config: Option<bool>,
    /// `--skip-phases`; may go with `--config`, whose `skipPhases` it replaces.
    pub skip_phases: Vec<String>,
}

const FLAGS: &[FlagRow<UpgradeFlags>] = &[
    row("--allow-experimental-upgrades", "allowExperimentalUpgrades of the command's section", |flags| {
        flags.allow_experimental_upgrades.is_some()
    }),
    row("--allow-release-candidate-upgrades", "allowRCUpgrades of the command's section", |flags| {
        flags.allow_release_candidate_upgrades.is_some()
    }),
    row("--certificate-renewal", "certificateRenewal of the command's section", |flags| {
        flags.certificate_renewal.is_some()
    }),
    row("--context-lines", "diff.contextLines", |flags| flags.context_lines.is_some()),
    row("--etcd-upgrade", "etcdUpgrade of the command's section", |flags| flags.etcd_upgrade.is_some()),
    row("--force", "apply.forceUpgrade", |flags| flags.force.is_some()),
    row("--patches", "patches.directory of the command's section", |flags| has(&flags.patches)),
    row("--print-config", "printConfig of the command's section", |flags| flags.print_config.is_some()),
    beside("the version", "apply.kubernetesVersion", |flags| has(&flags.version)),
    beside("--ignore-preflight-errors", "apply.ignorePreflightErrors", |flags| {
        !flags.ignore_preflight_errors.is_empty()
    }),
    beside("--skip-phases", "apply.skipPhases", |flags| !flags.skip_phases.is_empty()),
];

/// Reads, defaults and checks the configuration of `upgrade`. No file is opened, no network asked. A file with
/// documents for other commands alone gives the defaults.
///
/// # Errors
/// Everything that is wrong with the file and the flags, at once.
pub fn load_upgrade(input: &Input<UpgradeFlags>) -> Result<Loaded<UpgradeSpec>, ConfigError> {
    let mut report = report_on(input, FLAGS);
    let wire: UpgradeConfiguration = match &input.file {
        Some((_, text)) => {
            flags::refuse(FLAGS, &input.flags, &mut report);
            if !kinds::read(text, &[Part::Upgrade], &mut report) {
                kinds::demand(Part::Upgrade, &mut report);
            }
            kinds::decode(Part::Upgrade, &mut report)
        }
        None => UpgradeConfiguration::default(),
    };
    let spec = resolve(&wire, &input.flags, &mut report);
    conclude(Some(spec), false, report)
}

/// The spec; not to be used where the report has a problem.
pub(super) fn resolve(wire: &UpgradeConfiguration, flags: &UpgradeFlags, report: &mut Report) -> UpgradeSpec {
    let argument = flags.version.as_deref().map(str::trim).filter(|version| !version.is_empty());
    let argument = argument.and_then(|text| version((Part::Upgrade, "apply.kubernetesVersion"), text, report));
    let spec = Resolver { flags, argument, report }.spec(wire);
    warn_of_unused(report);
    spec
}

pub(super) const CONTEXT_LINES: i32 = 3;

struct Resolver<'a> {
    flags: &'a UpgradeFlags,
    /// The version on the command line.
    argument: Option<KubernetesVersion>,
    report: &'a mut Report,
}

/// The fields that sections share, which no trait can name.
macro_rules! common {
    ($this:ident, $section:literal, $wire:ident) => {
        UpgradeCommon {
            certificate_renewal: or($this.flags.certificate_renewal, $wire.certificate_renewal, true),
            etcd_upgrade: or($this.flags.etcd_upgrade, $wire.etcd_upgrade, true),
            ignore_preflight_errors: $this
                .ignored(concat!($section, ".ignorePreflightErrors"), &$wire.ignore_preflight_errors),
            patches_dir: $this.patches(concat!($section, ".patches.directory"), &$wire.patches),
            skip_phases: skip_phases(&$wire.skip_phases, &$this.flags.skip_phases),
            image_pull_policy: $wire.image_pull_policy,
            image_pull_serial: $wire.image_pull_serial.unwrap_or(true),
        }
    };
}

impl Resolver<'_> {
    fn spec(&mut self, wire: &UpgradeConfiguration) -> UpgradeSpec {
        UpgradeSpec {
            apply: self.apply(&wire.apply),
            node: self.node(&wire.node),
            plan: self.plan(&wire.plan),
            diff: self.diff(&wire.diff),
            timeouts: wire.timeouts.as_ref().map(|wire| timeouts(Part::Upgrade, wire, self.report)),
        }
    }

    fn apply(&mut self, wire: &wire::UpgradeApply) -> UpgradeApply {
        let flags = self.flags;
        UpgradeApply {
            kubernetes_version: self.version("apply.kubernetesVersion", &wire.kubernetes_version),
            allow_experimental_upgrades: or(flags.allow_experimental_upgrades, wire.allow_experimental_upgrades, false),
            allow_rc_upgrades: or(flags.allow_release_candidate_upgrades, wire.allow_rc_upgrades, false),
            dry_run: or(flags.dry_run, wire.dry_run, false),
            force: or(flags.force, wire.force_upgrade, false),
            print_config: or(flags.print_config, wire.print_config, false),
            common: common!(self, "apply", wire),
        }
    }

    fn node(&mut self, wire: &wire::UpgradeNode) -> UpgradeNode {
        let flags = self.flags;
        UpgradeNode { dry_run: or(flags.dry_run, wire.dry_run, false), common: common!(self, "node", wire) }
    }

    fn plan(&mut self, wire: &wire::UpgradePlan) -> UpgradePlan {
        let flags = self.flags;
        UpgradePlan {
            kubernetes_version: self.version("plan.kubernetesVersion", &wire.kubernetes_version),
            allow_experimental_upgrades: or(flags.allow_experimental_upgrades, wire.allow_experimental_upgrades, false),
            allow_rc_upgrades: or(flags.allow_release_candidate_upgrades, wire.allow_rc_upgrades, false),
            dry_run: or(flags.dry_run, wire.dry_run, false),
            etcd_upgrade: or(flags.etcd_upgrade, wire.etcd_upgrade, true),
            ignore_preflight_errors: self.ignored("plan.ignorePreflightErrors", &wire.ignore_preflight_errors),
            print_config: or(flags.print_config, wire.print_config, false),
        }
    }

    fn diff(&mut self, wire: &wire::UpgradeDiff) -> UpgradeDiff {
        const FIELD: &str = "diff.contextLines";
        let lines = wire.context_lines.unwrap_or(CONTEXT_LINES);
        let lines = usize::try_from(lines).map_err(|_| format!("{lines} is not a number of lines"));
        let lines = self.report.check(Part::Upgrade, FIELD, lines).unwrap_or_default();
        UpgradeDiff {
            kubernetes_version: self.version("diff.kubernetesVersion", &wire.kubernetes_version),
            context_lines: self.flags.context_lines.unwrap_or(lines),
        }
    }

    /// The argument, else what the file says.
    fn version(&mut self, field: &str, written: &str) -> Option<KubernetesVersion> {
        match &self.argument {
            Some(argument) => Some(argument.clone()),
            None if written.trim().is_empty() => None,
            None => version((Part::Upgrade, field), written, self.report),
        }
    }

    fn ignored(&mut self, field: &str, written: &[String]) -> Vec<String> {
        ignore_list((Part::Upgrade, field), written, &self.flags.ignore_preflight_errors, self.report)
    }

    fn patches(&mut self, field: &str, wire: &wire::Patches) -> Option<PathBuf> {
        let written = directory(&wire.directory);
        if written.is_some() {
            self.report.check(Part::Upgrade, field, names::absolute(wire.directory.trim()));
        }
        self.flags.patches.as_deref().and_then(directory).or(written)
    }
}

fn or(flag: Option<bool>, written: Option<bool>, default: bool) -> bool {
    flag.or(written).unwrap_or(default)
}
