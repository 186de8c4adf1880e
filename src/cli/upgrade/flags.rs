//! The flags of the commands below `upgrade`, and what they come to with a configuration file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::cli::Globals;
use crate::cli::spec::read_file;
use crate::config::spec::{PullPolicy, UpgradeCommon};
use crate::config::{ClusterSpec, GoDuration, HostDefaults, Input, UpgradeFlags, UpgradeSpec, load_upgrade};
use crate::release::{KubernetesVersion, UpgradePolicy};
use crate::ui::Output;
use crate::workflow::upgrade::prepare::Goal;
use crate::workflow::upgrade::table::SelectedPhases as Parts;
use crate::workflow::upgrade::target::ImageChange;

/// Where an upgrade goes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct To {
    /// Kubernetes version, such as v1.36.3.
    pub version: Option<String>,
    /// Another image for one component; may be repeated, with a version or without.
    #[arg(long, value_name = "COMPONENT=IMAGE")]
    image: Vec<String>,
    /// Directory with patches for the manifests and the kubelet's settings; replaces the one given to init.
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,
    /// Upgrade etcd too [default: true]
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL")]
    etcd_upgrade: Option<bool>,
    /// Go to a version that the version policy advises against.
    #[arg(short, long)]
    force: bool,
    /// Go to an alpha, beta or release candidate.
    #[arg(long)]
    allow_experimental_upgrades: bool,
    /// Go to a release candidate.
    #[arg(long)]
    allow_release_candidate_upgrades: bool,
    /// Print the ClusterConfiguration that the upgrade works with.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    common: Common,
}

impl To {
    /// What `upgrade node` was given: the version is the cluster's.
    pub fn node(patches: Option<PathBuf>, etcd_upgrade: Option<bool>, common: Common) -> Self {
        Self { patches, etcd_upgrade, common, ..Self::default() }
    }
}

/// What every command below `upgrade` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Common {
    /// Configuration file with an UpgradeConfiguration, whose section for this command counts
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kubeconfig of an administrator, for the cluster's objects [default: /etc/kubernetes/admin.conf]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Checks whose errors are only warnings, separated by commas; `all` are all of them
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
}

/// What is done besides replacing components.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Also {
    /// Renew each component's certificates with it [default: true]
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL")]
    certificate_renewal: Option<bool>,
    /// Phases to leave out, separated by commas
    #[arg(long, value_name = "PHASE", value_delimiter = ',')]
    skip_phases: Vec<String>,
}

/// How an upgrade is carried out.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct How {
    /// Ask nothing.
    #[arg(short, long)]
    pub yes: bool,
    /// Say what would be done, and touch nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How long one replaced component may take to become healthy; default: timeouts.upgradeManifests, 5m0s.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// How to print progress: text, json (one event a line) or yaml.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,
    /// `timeouts.upgradeManifests` of the configuration.
    #[arg(skip)]
    pub configured: Option<Duration>,
    /// `imagePullPolicy` of the configuration.
    #[arg(skip)]
    pub pull_policy: Option<PullPolicy>,
}

impl How {
    /// `--timeout`, else what the configuration says.
    pub fn limit(&self, spec: &ClusterSpec) -> anyhow::Result<Duration> {
        match &self.timeout {
            Some(text) => {
                let duration: GoDuration = text.parse().with_context(|| format!("--timeout {text}"))?;
                duration.to_std().with_context(|| format!("--timeout {text} is negative"))
            }
            None => Ok(self.configured.unwrap_or(spec.timeouts.upgrade_manifests)),
        }
    }
}

/// What a command takes from its section of the configuration.
pub struct Section {
    pub version: Option<KubernetesVersion>,
    pub policy: UpgradePolicy,
    pub print_config: bool,
    pub common: UpgradeCommon,
}

impl Section {
    /// A section that only looks: what it does not say is as for `upgrade apply` without flags.
    pub fn looking(version: Option<KubernetesVersion>, apply: &crate::config::spec::UpgradeApply) -> Self {
        let policy = UpgradePolicy {
            experimental: apply.allow_experimental_upgrades,
            release_candidate: apply.allow_rc_upgrades,
            force: apply.force,
        };
        Self { version, policy, print_config: false, common: apply.common.clone() }
    }
}

/// Where an upgrade goes, flags and file together.
pub struct UpgradeTarget {
    pub section: Section,
    image: Vec<String>,
    pub warnings: Vec<String>,
    /// The words of the command that does the same again.
    pub command: String,
    pub kubeconfig: PathBuf,
}

impl UpgradeTarget {
    /// The same for the workflow.
    pub fn goal(&self, parts: Parts) -> anyhow::Result<Goal> {
        let images = self.image.iter().map(|image| ImageChange::parse(image)).collect::<Result<Vec<_>, _>>()?;
        Ok(Goal {
            version: self.section.version.clone(),
            images,
            patches_dir: self.section.common.patches_dir.clone(),
            etcd: self.section.common.etcd_upgrade,
            certificates: self.section.common.certificate_renewal,
            policy: self.section.policy,
            parts,
        })
    }
}

/// All flags of a command, as far as it has them.
pub struct CommandFlags {
    /// The words of the command.
    pub command: String,
    pub to: To,
    pub also: Also,
    pub dry_run: Option<bool>,
    pub context_lines: Option<usize>,
}

impl CommandFlags {
    /// Merges the flags with the file; `section` takes the command's own part out of both.
    pub fn wanted(
        self,
        globals: &Globals,
        section: impl FnOnce(UpgradeSpec) -> Section,
    ) -> anyhow::Result<UpgradeTarget> {
        let Self { command, to, also, dry_run, context_lines } = self;
        let file = to.common.config.as_ref().map(|path| read_file(path)).transpose()?;
        let set = |flag: bool| flag.then_some(true);
        let flags = UpgradeFlags {
            version: to.version.clone(),
            allow_experimental_upgrades: set(to.allow_experimental_upgrades),
            allow_release_candidate_upgrades: set(to.allow_release_candidate_upgrades),
            certificate_renewal: also.certificate_renewal,
            context_lines,
            dry_run,
            etcd_upgrade: to.etcd_upgrade,
            force: set(to.force),
            ignore_preflight_errors: to.common.ignore_preflight_errors.clone(),
            patches: to.patches.as_ref().map(|dir| dir.display().to_string()),
            print_config: set(to.print_config),
            skip_phases: also.skip_phases.clone(),
        };
        let loaded = load_upgrade(&Input { file, flags, host: HostDefaults::default() })?;
        let section = section(loaded.spec);
        let command = again(command, &to, &also, section.version.as_ref());
        let kubeconfig = to.common.kubeconfig.unwrap_or_else(|| globals.paths().kubeconfig("admin.conf"));
        Ok(UpgradeTarget { section, image: to.image, warnings: loaded.warnings, command, kubeconfig })
    }
}

/// The command that does the same again.
fn again(command: String, to: &To, also: &Also, version: Option<&KubernetesVersion>) -> String {
    let mut words = vec![command];
    words.extend(version.map(ToString::to_string));
    words.extend(to.image.iter().map(|image| format!("--image {image}")));
    words.extend(to.common.config.iter().map(|file| format!("--config {}", file.display())));
    words.extend(to.patches.iter().map(|dir| format!("--patches {}", dir.display())));
    words.extend(to.etcd_upgrade.filter(|wanted| !wanted).map(|_| "--etcd-upgrade=false".to_owned()));
    words.extend(also.certificate_renewal.filter(|wanted| !wanted).map(|_| "--certificate-renewal=false".to_owned()));
    words.extend((!also.skip_phases.is_empty()).then(|| format!("--skip-phases={}", also.skip_phases.join(","))));
    words.extend(to.common.kubeconfig.iter().map(|file| format!("--kubeconfig {}", file.display())));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_does_the_same_again_has_every_flag_that_matters() {
        let to = To {
            image: vec!["etcd=r/e:1".into()],
            etcd_upgrade: Some(false),
            common: Common { kubeconfig: Some("/k".into()), ..Common::default() },
            ..To::default()
        };
        let also = Also { certificate_renewal: Some(false), skip_phases: vec!["addon".into(), "preflight".into()] };
        let version = "v1.36.3".parse().unwrap();
        assert_eq!(
            again("kubeboot upgrade apply".into(), &to, &also, Some(&version)),
            "kubeboot upgrade apply v1.36.3 --image etcd=r/e:1 --etcd-upgrade=false --certificate-renewal=false \
             --skip-phases=addon,preflight --kubeconfig /k"
        );
        assert_eq!(
            again("kubeboot upgrade apply".into(), &To::default(), &Also::default(), None),
            "kubeboot upgrade apply"
        );
    }
}
