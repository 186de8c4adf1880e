//! `kubeboot upgrade apply` and `rollback`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;

use super::flags::{How, Wanted};
use crate::agent::control::ControlSocket;
use crate::cli::{Globals, Hint};
use crate::cluster::addons::coredns;
use crate::config::ClusterSpec;
use crate::config::older::cluster_configuration;
use crate::config::spec::PullPolicy;
use crate::etcd::{Etcd, Member};
use crate::event::Reporter;
use crate::host::Paths;
use crate::host::disk::HostDisk;
use crate::host::paths::CONTROL_SOCKET;
use crate::host::tree::HostTree;
use crate::release::kubeadm_row;
use crate::runtime::endpoint::Endpoint;
use crate::runtime::images::ensure_images;
use crate::ui;
use crate::workflow::machine::cluster::{AdminApi, Api, Site};
use crate::workflow::preflight::{conclude, upgrade as checks};
use crate::workflow::state::State;
use crate::workflow::state::saved::Saved;
use crate::workflow::upgrade::apply::{Machine, Title, apply};
use crate::workflow::upgrade::data::loss;
use crate::workflow::upgrade::diff::unified;
use crate::workflow::upgrade::etcd::Aim;
use crate::workflow::upgrade::journal::{JOURNAL, Journal, State as JournalState};
use crate::workflow::upgrade::prepare::{PrepareError, Prepared, prepare};
use crate::workflow::upgrade::rollback::rollback;
use crate::workflow::upgrade::table::{Part, Wanted as Parts};
use crate::workflow::upgrade::target::running_version;
use crate::workflow::upgrade::{Outcome, UpgradeError, current};
use crate::yaml;

/// What is to be done when the API server is needed and cannot be asked.
const WITHOUT_API: &str = "nothing was changed; to upgrade without the cluster's objects add \
                           --skip-phases=upload-config,bootstrap-token,addon";

/// The ClusterConfiguration, as it would be uploaded.
pub fn configuration(spec: &ClusterSpec) -> anyhow::Result<String> {
    let config = cluster_configuration(spec, kubeadm_row(&spec.kubernetes_version).config_api);
    Ok(yaml::to_string(&config)?)
}

/// Prepares and carries out.
pub async fn apply_it(globals: &Globals, to: &Wanted, parts: Parts, how: &How) -> anyhow::Result<ExitCode> {
    if to.is_empty() {
        bail!("name a version (kubeboot upgrade apply v1.36.3) or an image (--image COMPONENT=IMAGE)");
    }
    let paths = globals.paths();
    let reporter = ui::reporter(how.output);
    let mut state = open(&paths)?;
    let looks = parts.has(Part::Preflight);
    let ignored = &to.section.common.ignore_preflight_errors;
    if looks {
        conclude(checks::findings(&checks::see_files(&paths), ignored), reporter.as_ref())?;
    }
    let mut prepared = prepare(&paths, &to.goal(parts)?).map_err(explain)?;
    if !paths.is_live() {
        prepared.objects.clear();
    }
    for warning in prepared.warnings.iter().chain(&to.warnings) {
        reporter.warn("upgrade", warning.clone());
    }
    if to.section.print_config {
        ui::print(&configuration(&prepared.spec)?)?;
    }
    let limit = how.limit(&prepared.spec)?;
    let mut tree = HostTree::new(paths.clone(), &mut state.inventory);
    let cut_off = Journal::read(&tree)?.is_some_and(|j| j.state == JournalState::Applying);
    let (title, work) = (title(to), prepared.work(Timestamp::now()));
    if work.is_idle() && !cut_off && !only_objects(to, &prepared) {
        reporter.note("upgrade", "nothing to do: these very manifests are in place".into());
        return Ok(ExitCode::SUCCESS);
    }
    if how.dry_run {
        let would: String = prepared.would().iter().map(|line| format!("[dryrun] {line}\n")).collect();
        ui::print(&(unified(&prepared.steps, 3) + &would))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !how.yes && !ui::confirm(&question(&prepared), "--yes")? {
        bail!("nothing was changed");
    }
    let cluster = AdminApi { kubeconfig: Some(to.kubeconfig.clone()) };
    let api = Api { cluster: &cluster, site: Site { paths: &paths, spec: &prepared.spec } };
    if looks && !cut_off {
        preflight(&prepared, api, ignored, reporter.as_ref()).await?;
    }
    fetch(&prepared, how.pull_policy, &reporter).await?;
    let health = ControlSocket(paths.on_host(CONTROL_SOCKET));
    let reporter_ref = reporter.as_ref();
    let etcd = Member::of(&prepared.spec, &paths);
    let mut machine = Machine {
        paths: paths.clone(),
        tree: &mut tree,
        disk: &mut HostDisk,
        etcd: &etcd,
        health: &health,
        api,
        reporter: reporter_ref,
        limit,
    };
    let outcome = apply(&mut machine, &work, &title).await.map_err(hinted)?;
    finish(outcome, reporter_ref, &prepared, to)
}

/// Asks the cluster whether it may be upgraded; not of an upgrade that leaves the cluster's objects alone, which needs no
/// API server.
async fn preflight(
    prepared: &Prepared,
    api: Api<'_>,
    ignored: &[String],
    reporter: &dyn Reporter,
) -> anyhow::Result<()> {
    if prepared.objects.is_empty() {
        return Ok(());
    }
    let maps = prepared.objects.iter().flat_map(|group| &group.objects);
    let mut settings = maps.filter(|object| object.resource.kind == "ConfigMap" && object.name() == coredns::NAME);
    let seen = checks::see_cluster(api, settings.next()).await;
    let seen = seen.map_err(|error| hinted(UpgradeError::Unreadable(error)))?;
    Ok(conclude(checks::findings(&seen, ignored), reporter)?)
}

/// Whether the command is for objects alone: one phase that changes no file here.
fn only_objects(to: &Wanted, prepared: &Prepared) -> bool {
    to.command.contains(" phase ") && !prepared.objects.is_empty()
}

fn title(to: &Wanted) -> Title {
    Title { target: to.command.clone(), command: to.command.clone(), stamp: stamp() }
}

fn explain(error: PrepareError) -> anyhow::Error {
    match error {
        PrepareError::NotInitialised => anyhow::Error::new(error).context(Hint::new("run `kubeboot init` first")),
        error => error.into(),
    }
}

fn hinted(error: UpgradeError) -> anyhow::Error {
    match error {
        UpgradeError::Unreadable(_) => anyhow::Error::new(error).context(Hint::new(WITHOUT_API)),
        error => error.into(),
    }
}

fn question(prepared: &Prepared) -> String {
    let replaced: Vec<&str> = prepared.steps.iter().map(|s| s.component).collect();
    match replaced.is_empty() {
        true => "Go on?".to_owned(),
        false => format!("Replace {}?", replaced.join(", ")),
    }
}

fn open(paths: &Paths) -> anyhow::Result<State> {
    State::open(paths)?
        .ok_or_else(|| anyhow!("this machine was not initialised by `kubeboot init`: there is nothing to upgrade"))
}

/// Every image, before anything is touched.
async fn fetch(prepared: &Prepared, policy: Option<PullPolicy>, reporter: &Arc<dyn Reporter>) -> anyhow::Result<()> {
    let runtime = Endpoint::of(&prepared.spec).connect()?;
    let images: Vec<String> = prepared.steps.iter().map(|s| s.new_image.clone()).collect();
    let policy = policy.unwrap_or(prepared.spec.node.image_pull_policy);
    ensure_images(&*runtime, &images, policy, reporter.as_ref()).await?;
    Ok(())
}

fn finish(outcome: Outcome, reporter: &dyn Reporter, prepared: &Prepared, to: &Wanted) -> anyhow::Result<ExitCode> {
    let code = ExitCode::from(outcome.exit_code());
    match outcome {
        Outcome::Upgraded { replaced } => {
            let version = to.section.version.as_ref();
            let what = version.map_or_else(|| "the new images".to_owned(), |v| format!("Kubernetes {v}"));
            let replaced = if replaced.is_empty() { "nothing was".to_owned() } else { replaced.join(", ") };
            reporter.note("upgrade", format!("{what} is running: {replaced} replaced"));
            if prepared.files.iter().any(|file| file.path.starts_with(crate::host::paths::KUBELET_DIR)) {
                let text = "the kubelet's settings are new: they count from its next start (systemctl restart kubelet)";
                reporter.note("upgrade", text.into());
            }
        }
        Outcome::RolledBack { cause, etcd } => {
            let ended = etcd.map_or_else(
                || "the upgrade failed, and everything is as it was before".to_owned(),
                |version| format!("the upgrade failed, and everything is old again, with etcd {version}"),
            );
            super::super::report(&anyhow::Error::new(cause).context(ended));
        }
        Outcome::Failed { cause, rollback } => {
            super::super::report(&anyhow::Error::new(cause).context("the upgrade failed"));
            super::super::report(&anyhow::Error::new(rollback).context(
                "and putting everything old back failed too; when its cause is mended, run `kubeboot upgrade rollback`",
            ));
        }
    }
    Ok(code)
}

/// Takes the last upgrade back.
///
/// With `etcd_copy` the copy of etcd's data goes back too, whatever was written since.
pub async fn roll_back(
    globals: &Globals,
    how: &How,
    kubeconfig: Option<PathBuf>,
    etcd_copy: bool,
) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    let reporter = ui::reporter(how.output);
    let mut state = open(&paths)?;
    let mut tree = HostTree::new(paths.clone(), &mut state.inventory);
    let Some(journal) = Journal::read(&tree)? else {
        bail!("no upgrade to take back: {JOURNAL} is not there");
    };
    let saved = Saved::read(&tree)?.context("this machine was not initialised by `kubeboot init`")?;
    let spec = saved.spec()?.0;
    let limit = how.limit(&spec)?;
    if how.dry_run {
        ui::print(&format!("would put the manifests in {} back\n", journal.backup.display()))?;
        if let Some(data) = journal.etcd_data.as_ref().filter(|_| etcd_copy) {
            ui::print(&format!("would put {} back in the place of {}\n", data.to.display(), data.from.display()))?;
        }
        for file in &journal.files {
            ui::print(&format!("would put {} back\n", file.path.display()))?;
        }
        if journal.objects_written {
            ui::print("would put the cluster's objects back\n")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let etcd = Member::of(&spec, &paths);
    let aim = if etcd_copy { Aim::Copy } else { Aim::Old };
    let mut question = format!("Put the manifests in {} back?", journal.backup.display());
    if let Some(data) = journal.etcd_data.as_ref().filter(|_| etcd_copy) {
        let writes = etcd.writes_since(&paths.on_host(&data.to), &paths.on_host(&data.from));
        question = format!("{question} {}.", capitalised(&loss(writes)));
    }
    if !how.yes && !ui::confirm(&question, "--yes")? {
        bail!("nothing was changed");
    }
    let health = ControlSocket(paths.on_host(CONTROL_SOCKET));
    let cluster = AdminApi { kubeconfig };
    let api = Api { cluster: &cluster, site: Site { paths: &paths, spec: &spec } };
    let reporter_ref = reporter.as_ref();
    let mut machine = Machine {
        paths: paths.clone(),
        tree: &mut tree,
        disk: &mut HostDisk,
        etcd: &etcd,
        health: &health,
        api,
        reporter: reporter_ref,
        limit,
    };
    let journal = rollback(&mut machine, aim).await?;
    // An upgrade of an earlier kubeboot's has not kept the version among its files.
    if let (Some(version), Some(saved)) = (running_version(|path: &Path| current(&tree, path))?, Saved::read(&tree)?) {
        saved.with_version(&version).write(&mut tree)?;
    }
    let but = journal.etcd_kept.as_ref().map_or_else(String::new, |version| format!(", with etcd {version}"));
    reporter.note("upgrade", format!("the manifests of {} are back and healthy{but}", journal.backup.display()));
    Ok(ExitCode::SUCCESS)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The time in the names of backups, as kubeadm writes it.
pub fn stamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d-%H-%M-%S").to_string()
}
