//! `kubeboot upgrade apply` and `rollback`: what is asked before, and what is said afterwards.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::flags::{How, UpgradeTarget};
use crate::cli::{Globals, Hint, report};
use crate::config::ClusterSpec;
use crate::config::older::cluster_configuration;
use crate::release::kubeadm_row;
use crate::ui;
use crate::workflow::upgrade::prepare::PrepareError;
use crate::workflow::upgrade::run::{Parts, Request, Rollback, RunError, Upgrade};
use crate::workflow::upgrade::table::SelectedPhases as Phases;
use crate::workflow::upgrade::{Outcome, UpgradeError};
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
pub async fn apply_it(globals: &Globals, to: &UpgradeTarget, phases: Phases, how: &How) -> anyhow::Result<ExitCode> {
    let (paths, reporter) = (globals.paths(), ui::reporter(how.output));
    let parts = Parts::of_machine(&paths, Some(to.kubeconfig.clone()), reporter.clone());
    let request = Request {
        goal: to.goal(phases)?,
        command: to.command.clone(),
        one_phase: to.command.contains(" phase "),
        ignored: to.section.common.ignore_preflight_errors.clone(),
        warnings: to.warnings.clone(),
        pull_policy: how.pull_policy,
    };
    let mut upgrade = Upgrade::prepare(&paths, parts, request).map_err(explain)?;
    if to.section.print_config {
        ui::print(&configuration(upgrade.spec())?)?;
    }
    let limit = how.limit(upgrade.spec())?;
    if upgrade.is_idle() {
        reporter.note("upgrade", "nothing to do: these very manifests are in place".into());
        return Ok(ExitCode::SUCCESS);
    }
    if how.dry_run {
        ui::print(&upgrade.would())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !how.yes && !ui::confirm(&upgrade.question(), "--yes")? {
        bail!("nothing was changed");
    }
    Ok(ended(upgrade.run(limit).await.map_err(explain)?))
}

/// What to do next, attached to what went wrong.
fn explain(error: RunError) -> anyhow::Error {
    let hint = match &error {
        RunError::Prepare(PrepareError::NotInitialised) => Some("run `kubeboot init` first"),
        RunError::Upgrade(UpgradeError::Unreadable(_)) => Some(WITHOUT_API),
        _ => None,
    };
    let error = anyhow::Error::new(error);
    match hint {
        Some(hint) => error.context(Hint::new(hint)),
        None => error,
    }
}

/// Reports what failed; returns the exit code.
fn ended(outcome: Outcome) -> ExitCode {
    let code = ExitCode::from(outcome.exit_code());
    match outcome {
        Outcome::Upgraded { .. } => {}
        Outcome::RolledBack { cause, etcd } => {
            let ended = etcd.map_or_else(
                || "the upgrade failed, and everything is as it was before".to_owned(),
                |version| format!("the upgrade failed, and everything is old again, with etcd {version}"),
            );
            report(&anyhow::Error::new(cause).context(ended));
        }
        Outcome::Failed { cause, rollback } => {
            report(&anyhow::Error::new(cause).context("the upgrade failed"));
            report(&anyhow::Error::new(rollback).context(
                "and putting everything old back failed too; when its cause is mended, run `kubeboot upgrade rollback`",
            ));
        }
    }
    code
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
    let parts = Parts::of_machine(&paths, kubeconfig, ui::reporter(how.output));
    let mut rollback = Rollback::prepare(&paths, parts, etcd_copy)?;
    let limit = how.limit(rollback.spec())?;
    if how.dry_run {
        ui::print(&rollback.would())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !how.yes && !ui::confirm(&rollback.question(), "--yes")? {
        bail!("nothing was changed");
    }
    rollback.run(limit).await?;
    Ok(ExitCode::SUCCESS)
}
