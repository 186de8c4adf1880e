//! `kubeboot upgrade plan|diff|apply|rollback`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use serde::Serialize;

use super::{Globals, Hint};
use crate::agent::control::ControlSocket;
use crate::config::spec::PullPolicy;
use crate::config::{ClusterSpec, GoDuration, HostDefaults, Input, UpgradeFlags, UpgradeSpec, load_upgrade};
use crate::event::Reporter;
use crate::host::Paths;
use crate::host::paths::CONTROL_SOCKET;
use crate::host::tree::{HostTree, NoRecord, Tree};
use crate::manifests;
use crate::release::{KubernetesVersion, upgrade_allowed};
use crate::runtime::docker::Docker;
use crate::runtime::images::ensure_images;
use crate::ui::{self, Output};
use crate::upgrade::apply::{Machine, Title, apply, rollback};
use crate::upgrade::diff::unified;
use crate::upgrade::journal::{JOURNAL, Journal, State as JournalState};
use crate::upgrade::plan::{Step, plan};
use crate::upgrade::target::{ImageChange, running_version, targets};
use crate::upgrade::{Outcome, current};
use crate::workflow::saved::Saved;
use crate::workflow::state::State;

/// Move the running control plane to another version or image, one component after the other.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubeboot upgrade plan v1.36.3
  kubeboot upgrade apply v1.36.3
  kubeboot upgrade apply --image kube-scheduler=registry.example.com/kube-scheduler:v1.36.3-fix
  kubeboot upgrade rollback

Every image is fetched before anything is touched. Then etcd, kube-apiserver, kube-controller-manager and kube-scheduler
are replaced in this order, each as soon as the agent reports the one before healthy. If one is not, all old manifests are
put back. Backups stay below /etc/kubernetes/tmp.")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Show which component would get which image.
    #[command(after_help = "Exit codes: 0 printed, 1 any error.")]
    Plan {
        #[command(flatten)]
        to: To,
        /// How to print: text, json or yaml.
        #[arg(short, long, default_value = "text", value_name = "FORMAT")]
        output: Output,
    },
    /// Show how the manifests would change, as a unified diff.
    #[command(after_help = "Exit codes: 0 printed, whether anything would change or not, 1 any error.")]
    Diff {
        #[command(flatten)]
        to: To,
        /// Lines of context around each change [default: 3]
        #[arg(short, long, value_name = "N")]
        context_lines: Option<usize>,
    },
    /// Replace the components.
    #[command(
        after_help = "Exit codes: 0 upgraded (or nothing to do), 2 a component failed and everything is as it was \
                            before, 3 a component failed and going back failed too, 1 any other error."
    )]
    Apply {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        how: How,
    },
    /// Take the last upgrade back: the one that was cut off, or the one that succeeded.
    #[command(after_help = "Exit codes: 0 the old manifests run and are healthy, 1 any error.")]
    Rollback {
        #[command(flatten)]
        how: How,
    },
}

/// Where an upgrade goes.
#[derive(Debug, clap::Args)]
struct To {
    /// Kubernetes version, such as v1.36.3.
    version: Option<String>,
    /// Another image for one component; may be repeated, with a version or without.
    #[arg(long, value_name = "COMPONENT=IMAGE")]
    image: Vec<String>,
    /// Directory with patches for the manifests; replaces the one given to init.
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,
    /// Upgrade etcd too [default: true]
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL")]
    etcd_upgrade: Option<bool>,
    /// Go to a version that the version policy advises against.
    #[arg(short, long)]
    force: bool,
    /// Configuration file with an UpgradeConfiguration, whose section for this command counts
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How an upgrade is carried out.
#[derive(Debug, clap::Args)]
struct How {
    /// Ask nothing.
    #[arg(short, long)]
    yes: bool,
    /// Say what would be done, and touch nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long one replaced component may take to become healthy; default: timeouts.upgradeManifests, 5m0s.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// How to print progress: text, json (one event a line) or yaml.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    output: Output,
    /// `timeouts.upgradeManifests` of the configuration.
    #[arg(skip)]
    configured: Option<Duration>,
    /// `imagePullPolicy` of the configuration.
    #[arg(skip)]
    pull_policy: Option<PullPolicy>,
}

/// One row of `upgrade plan`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    component: &'static str,
    current: String,
    target: String,
    changed: bool,
}

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    match args.command {
        Sub::Plan { to, output } => {
            let flags = UpgradeFlags::default();
            let wanted = to.wanted(flags, |spec| Section {
                version: spec.plan.kubernetes_version,
                patches: None,
                etcd_upgrade: spec.plan.etcd_upgrade,
                force: false,
            })?;
            show_plan(&prepare(&paths, &wanted)?, output)
        }
        Sub::Diff { to, context_lines } => {
            let mut lines = 0;
            let flags = UpgradeFlags { context_lines, ..UpgradeFlags::default() };
            let wanted = to.wanted(flags, |spec| {
                lines = spec.diff.context_lines;
                Section { version: spec.diff.kubernetes_version, patches: None, etcd_upgrade: true, force: false }
            })?;
            ui::print(&unified(&prepare(&paths, &wanted)?.steps, lines))?;
            Ok(ExitCode::SUCCESS)
        }
        Sub::Apply { to, mut how } => {
            let flags = UpgradeFlags { dry_run: Some(true).filter(|_| how.dry_run), ..UpgradeFlags::default() };
            let wanted = to.wanted(flags, |spec| {
                how.dry_run = spec.apply.dry_run;
                how.pull_policy = spec.apply.common.image_pull_policy;
                how.configured = spec.timeouts.map(|timeouts| timeouts.upgrade_manifests);
                Section {
                    version: spec.apply.kubernetes_version,
                    patches: spec.apply.common.patches_dir,
                    etcd_upgrade: spec.apply.common.etcd_upgrade,
                    force: spec.apply.force,
                }
            })?;
            apply_it(&paths, &wanted, &how).await
        }
        Sub::Rollback { how } => roll_back(&paths, &how).await,
    }
}

/// What a command takes from its section of the configuration.
struct Section {
    version: Option<KubernetesVersion>,
    patches: Option<PathBuf>,
    etcd_upgrade: bool,
    force: bool,
}

/// Where an upgrade goes, flags and file together.
struct Wanted {
    section: Section,
    image: Vec<String>,
    warnings: Vec<String>,
    config: Option<PathBuf>,
}

impl To {
    /// Merges the flags with the file; `section` takes the command's own part out of both.
    fn wanted(self, flags: UpgradeFlags, section: impl FnOnce(UpgradeSpec) -> Section) -> anyhow::Result<Wanted> {
        let file = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
                Some((path.clone(), text))
            }
            None => None,
        };
        let flags = UpgradeFlags {
            version: self.version,
            patches: self.patches.as_ref().map(|dir| dir.display().to_string()),
            etcd_upgrade: self.etcd_upgrade,
            force: Some(true).filter(|_| self.force),
            ..flags
        };
        let loaded = load_upgrade(&Input { file, flags, host: HostDefaults::default() })?;
        let mut section = section(loaded.spec);
        // The flag counts for every command, as in a plan for an apply.
        section.patches = section.patches.or(self.patches);
        section.force |= self.force;
        section.etcd_upgrade &= self.etcd_upgrade.unwrap_or(true);
        Ok(Wanted { section, image: self.image, warnings: loaded.warnings, config: self.config })
    }
}

/// What an upgrade would do.
struct Prepared {
    saved: Saved,
    spec: ClusterSpec,
    from: Option<KubernetesVersion>,
    to: Option<KubernetesVersion>,
    steps: Vec<Step>,
    warnings: Vec<String>,
    command: String,
}

fn prepare(paths: &Paths, to: &Wanted) -> anyhow::Result<Prepared> {
    let tree = HostTree::new(paths.clone(), NoRecord);
    let now = |path: &Path| current(&tree, path);
    let from = running_version(now)?;
    let saved = Saved::read(&tree)?.ok_or_else(|| {
        anyhow!("this machine was not initialised by `kubeboot init`").context(Hint::new("run `kubeboot init` first"))
    })?;
    let (mut spec, mut warnings) = saved.spec()?;
    warnings.extend(to.warnings.iter().cloned());
    let images = to.image.iter().map(|i| ImageChange::parse(i)).collect::<Result<Vec<_>, _>>()?;
    let version = to.section.version.clone();
    let mut rendered = Vec::new();
    if let Some(version) = &version {
        if let Some(from) = &from
            && let Err(refusal) = upgrade_allowed(from, version)
        {
            match refusal.can_be_forced() && to.section.force {
                true => warnings.push(format!("{refusal}; going on because of --force")),
                false => return Err(refusal.into()),
            }
        }
        spec.kubernetes_version = version.clone();
        if let Some(patches) = &to.section.patches {
            spec.patches_dir = Some(patches.clone());
        }
        let exists = |path: &Path| tree.exists(path);
        let host = manifests::Host { exists: &exists, proxy_env: manifests::proxy_env(std::env::vars()) };
        for component in manifests::wanted(&spec) {
            rendered.push(manifests::render(&spec, component, &host)?);
        }
    }
    let steps = plan(now, &targets(&rendered, &images, to.section.etcd_upgrade, now)?)?;
    let command = command_of(to);
    Ok(Prepared { saved, spec, from, to: version, steps, warnings, command })
}

/// The command that does the same again.
fn command_of(to: &Wanted) -> String {
    let mut words = vec!["kubeboot upgrade apply".to_owned()];
    words.extend(to.section.version.as_ref().map(ToString::to_string));
    words.extend(to.image.iter().map(|i| format!("--image {i}")));
    match &to.config {
        Some(file) => words.push(format!("--config {}", file.display())),
        None => words.extend(to.section.patches.iter().map(|p| format!("--patches {}", p.display()))),
    }
    words.join(" ")
}

fn show_plan(prepared: &Prepared, output: Output) -> anyhow::Result<ExitCode> {
    let rows: Vec<Row> = prepared.steps.iter().map(row).collect();
    if output != Output::Text {
        ui::print_value(output, &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let running = prepared.from.as_ref().map_or_else(|| "an unknown version".into(), ToString::to_string);
    if prepared.to.is_none() && rows.is_empty() {
        ui::print(&format!(
            "Kubernetes {running} is running. kubeboot asks no server for newer versions: name one, as in\n\n  kubeboot upgrade \
             plan v1.36.3\n"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    for warning in &prepared.warnings {
        ui::print(&format!("warning: {warning}\n"))?;
    }
    if rows.is_empty() {
        ui::print(&format!("Nothing to do: Kubernetes {running} is running with these very manifests.\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells = rows.into_iter().map(|r| [r.component.to_owned(), r.current, r.target]);
    ui::print(&ui::table(["COMPONENT", "CURRENT", "TARGET"], cells))?;
    ui::print(&format!("\nTo do it:  {}\n", prepared.command))?;
    Ok(ExitCode::SUCCESS)
}

fn row(step: &Step) -> Row {
    Row {
        component: step.component,
        current: step.old_image.clone(),
        target: step.new_image.clone(),
        changed: step.old_image != step.new_image,
    }
}

/// `--timeout`, else what the configuration says.
fn limit(how: &How, spec: &ClusterSpec) -> anyhow::Result<Duration> {
    match &how.timeout {
        Some(text) => {
            let duration: GoDuration = text.parse().with_context(|| format!("--timeout {text}"))?;
            duration.to_std().with_context(|| format!("--timeout {text} is negative"))
        }
        None => Ok(how.configured.unwrap_or(spec.timeouts.upgrade_manifests)),
    }
}

async fn apply_it(paths: &Paths, to: &Wanted, how: &How) -> anyhow::Result<ExitCode> {
    if to.section.version.is_none() && to.image.is_empty() {
        bail!("name a version (kubeboot upgrade apply v1.36.3) or an image (--image COMPONENT=IMAGE)");
    }
    let reporter = ui::reporter(how.output);
    let mut state = open(paths)?;
    let prepared = prepare(paths, to)?;
    for warning in &prepared.warnings {
        reporter.warn("upgrade", warning.clone());
    }
    let limit = limit(how, &prepared.spec)?;
    let mut tree = HostTree::new(paths.clone(), &mut state.inventory);
    let cut_off = Journal::read(&tree)?.is_some_and(|j| j.state == JournalState::Applying);
    if prepared.steps.is_empty() && !cut_off {
        reporter.note("upgrade", "nothing to do: these very manifests are in place".into());
        return Ok(ExitCode::SUCCESS);
    }
    if how.dry_run {
        ui::print(&unified(&prepared.steps, 3))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !how.yes && !ui::confirm(&question(&prepared), "--yes")? {
        bail!("nothing was changed");
    }
    fetch(&prepared, how.pull_policy, &reporter).await?;
    let title = Title { target: prepared.command.clone(), command: prepared.command.clone(), stamp: stamp() };
    let health = ControlSocket(paths.on_host(CONTROL_SOCKET));
    let mut machine =
        Machine { paths: paths.clone(), tree: &mut tree, health: &health, reporter: reporter.as_ref(), limit };
    let outcome = apply(&mut machine, &prepared.steps, &title).await?;
    if let (Outcome::Upgraded { .. }, Some(version)) = (&outcome, &prepared.to) {
        prepared.saved.with_version(version).write(&mut tree)?;
    }
    finish(outcome, reporter.as_ref(), &prepared)
}

fn question(prepared: &Prepared) -> String {
    let replaced: Vec<&str> = prepared.steps.iter().map(|s| s.component).collect();
    format!("Replace {}?", replaced.join(", "))
}

fn open(paths: &Paths) -> anyhow::Result<State> {
    State::open(paths)?
        .ok_or_else(|| anyhow!("this machine was not initialised by `kubeboot init`: there is nothing to upgrade"))
}

/// Every image, before anything is touched.
async fn fetch(prepared: &Prepared, policy: Option<PullPolicy>, reporter: &Arc<dyn Reporter>) -> anyhow::Result<()> {
    let docker = Docker::connect(prepared.spec.kubeboot.docker_host.as_deref())?;
    let images: Vec<String> = prepared.steps.iter().map(|s| s.new_image.clone()).collect();
    let policy = policy.unwrap_or(prepared.spec.node.image_pull_policy);
    ensure_images(&docker, &images, policy, reporter.as_ref()).await?;
    Ok(())
}

fn finish(outcome: Outcome, reporter: &dyn Reporter, prepared: &Prepared) -> anyhow::Result<ExitCode> {
    let code = ExitCode::from(outcome.exit_code());
    match outcome {
        Outcome::Upgraded { replaced } => {
            let what = prepared.to.as_ref().map_or_else(|| "the new images".to_owned(), |v| format!("Kubernetes {v}"));
            reporter.note("upgrade", format!("{what} is running: {} replaced", replaced.join(", ")));
        }
        Outcome::RolledBack { cause } => {
            super::report(&anyhow::Error::new(cause).context("the upgrade failed, and everything is as it was before"));
        }
        Outcome::Failed { cause, rollback } => {
            super::report(&anyhow::Error::new(cause).context("the upgrade failed"));
            super::report(&anyhow::Error::new(rollback).context(
                "and putting the old manifests back failed too; when its cause is mended, run `kubeboot upgrade rollback`",
            ));
        }
    }
    Ok(code)
}

async fn roll_back(paths: &Paths, how: &How) -> anyhow::Result<ExitCode> {
    let reporter = ui::reporter(how.output);
    let mut state = open(paths)?;
    let mut tree = HostTree::new(paths.clone(), &mut state.inventory);
    let Some(journal) = Journal::read(&tree)? else {
        bail!("no upgrade to take back: {JOURNAL} is not there");
    };
    let saved = Saved::read(&tree)?.context("this machine was not initialised by `kubeboot init`")?;
    let limit = limit(how, &saved.spec()?.0)?;
    if how.dry_run {
        ui::print(&format!("would put the manifests in {} back\n", journal.backup.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !how.yes && !ui::confirm(&format!("Put the manifests in {} back?", journal.backup.display()), "--yes")? {
        bail!("nothing was changed");
    }
    let health = ControlSocket(paths.on_host(CONTROL_SOCKET));
    let mut machine =
        Machine { paths: paths.clone(), tree: &mut tree, health: &health, reporter: reporter.as_ref(), limit };
    let journal = rollback(&mut machine).await?;
    if let Some(version) = running_version(|path: &Path| current(&tree, path))? {
        saved.with_version(&version).write(&mut tree)?;
    }
    reporter.note("upgrade", format!("the manifests of {} are back and healthy", journal.backup.display()));
    Ok(ExitCode::SUCCESS)
}

/// The time in the names of backups, as kubeadm writes it.
fn stamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d-%H-%M-%S").to_string()
}
