//! `kubeboot upgrade apply` and `rollback`: what is asked before, and what is said afterwards.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::flags::{How, UpgradeTarget};
use crate::cli::signals::stop_on_signals;
use crate::cli::{Globals, Hint, report};
use crate::config::ClusterSpec;
use crate::config::older::cluster_configuration;
use crate::event::Reporter;
use crate::host::Paths;
use crate::release::kubeadm_row;
use crate::ui;
use crate::workflow::upgrade::order::record::Ending;
use crate::workflow::upgrade::order::{HandedOver, Order, follow, hand_over};
use crate::workflow::upgrade::rollback::RollbackOptions;
use crate::workflow::upgrade::run::{Parts, Request, Rollback, RunError, Upgrade};
use crate::workflow::upgrade::table::SelectedPhases as Phases;
use crate::yaml;

/// The exit code of a command that a signal has ended.
const INTERRUPTED: u8 = 130;

/// The ClusterConfiguration, as it would be uploaded.
pub fn configuration(spec: &ClusterSpec) -> anyhow::Result<String> {
    let config = cluster_configuration(spec, kubeadm_row(&spec.kubernetes_version).config_api);
    Ok(yaml::to_string(&config)?)
}

/// Prepares and carries out.
pub async fn apply_it(globals: &Globals, to: &UpgradeTarget, phases: Phases, how: &How) -> anyhow::Result<ExitCode> {
    let (paths, reporter) = (globals.paths(), ui::reporter(how.output));
    if let Some(order) = Order::read(&paths)?.filter(|_| !how.dry_run) {
        return join_it(&paths, &order, &to.command, &*reporter).await;
    }
    let parts = Parts::of_machine(&paths, Some(to.kubeconfig.clone()), reporter.clone());
    let request = Request {
        goal: to.goal(phases)?,
        command: to.command.clone(),
        one_phase: to.command.contains(" phase "),
        ignored: to.section.common.ignore_preflight_errors.clone(),
        warnings: to.warnings.clone(),
        warned: false,
        pull_policy: how.pull_policy,
    };
    let upgrade = Upgrade::prepare(&paths, parts, request).map_err(explain)?;
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
    let order = upgrade.order(Some(&to.kubeconfig), limit)?;
    let handed_over = match upgrade.is_preflight() {
        // It changes nothing that the agent would have to bring to an end.
        true => HandedOver::No(upgrade),
        false => hand_over(&paths, &order, upgrade).await?,
    };
    match handed_over {
        HandedOver::Yes => follow_it(&paths, &order.id, &*reporter).await,
        HandedOver::No(mut upgrade) => {
            let outcome = upgrade.run(limit).await.map_err(explain)?;
            Ok(ended(Ending::of(&outcome)))
        }
    }
}

/// What becomes of `command` while an upgrade is under way: the same one is followed.
async fn join_it(paths: &Paths, order: &Order, command: &str, reporter: &dyn Reporter) -> anyhow::Result<ExitCode> {
    if order.command != command {
        let hint = "wait until it has ended (kubeboot upgrade status --watch)";
        bail!(anyhow::anyhow!("another upgrade is under way: {}", order.command).context(Hint::new(hint)));
    }
    reporter.note("upgrade", "this very upgrade is under way already".to_owned());
    follow_it(paths, &order.id, reporter).await
}

/// Shows what happens to an upgrade that the agent has carried out, until it has ended.
pub async fn follow_it(paths: &Paths, id: &str, reporter: &dyn Reporter) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop);
    tokio::select! {
        ending = follow(paths, id, reporter) => Ok(ended(ending?)),
        () = stop.cancelled() => {
            let text = "the node agent goes on with it: `kubeboot upgrade status --watch` shows how far it is";
            reporter.note("upgrade", text.to_owned());
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// What to do next, attached to what went wrong.
pub fn explain(error: RunError) -> anyhow::Error {
    let hint = error.hint();
    let error = anyhow::Error::new(error);
    match hint {
        Some(hint) => error.context(Hint::new(hint)),
        None => error,
    }
}

/// Reports what failed; returns the exit code.
fn ended(ending: Ending) -> ExitCode {
    for error in ending.errors {
        let mut causes = error.into_iter().rev();
        let first = anyhow::Error::msg(causes.next().unwrap_or_default());
        let whole = causes.fold(first, anyhow::Error::context);
        report(&match &ending.hint {
            Some(hint) => whole.context(Hint::new(hint.clone())),
            None => whole,
        });
    }
    ExitCode::from(ending.code)
}

/// Takes the last upgrade back.
pub async fn roll_back(
    globals: &Globals,
    how: &How,
    kubeconfig: Option<PathBuf>,
    options: RollbackOptions,
) -> anyhow::Result<ExitCode> {
    let (paths, reporter) = (globals.paths(), ui::reporter(how.output));
    let parts = Parts::of_machine(&paths, kubeconfig.clone(), reporter.clone());
    if let Some(order) = Order::read(&paths)?.filter(|_| !how.dry_run) {
        return join_it(&paths, &order, &options.command(), &*reporter).await;
    }
    let rollback = Rollback::prepare(&paths, parts, options)?;
    let limit = how.limit(rollback.spec())?;
    if how.dry_run {
        ui::print(&rollback.would())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !how.yes && !ui::confirm(&rollback.question(), "--yes")? {
        bail!("nothing was changed");
    }
    let order = rollback.order(kubeconfig.as_deref(), limit)?;
    match hand_over(&paths, &order, rollback).await? {
        HandedOver::Yes => follow_it(&paths, &order.id, &*reporter).await,
        HandedOver::No(mut rollback) => {
            let taken_back = rollback.run(limit).await?;
            Ok(ended(Ending::of_rollback(&taken_back)))
        }
    }
}
