//! Replacing components, one after the other: each with its certificates, waited for and checked before the next.

use std::path::Path;

use super::apply::{Machine, Renewal, Work, wait};
use super::certificates::{self, ADMIN};
use super::etcd::call_off_downgrade;
use super::gates::Settling;
use super::journal::Journal;
use super::plan::Step;
use super::progress::{Going, watched};
use super::{UpgradeError, data, gates, kept, snapshot, swap};
use crate::event::ReplacementStep;
use crate::host::digest::sha256;
use crate::host::paths::MANIFESTS_DIR;
use crate::manifests::COMPONENTS;
use crate::workflow::session::{report_end, report_start};

/// Replaces one component after the other and waits for each; then those are waited for that a run before this one has
/// replaced.
pub(super) async fn control_plane(
    machine: &mut Machine<'_>,
    work: &Work<'_>,
    journal: &mut Journal,
    resumed: bool,
) -> Result<Option<Settling>, UpgradeError> {
    if journal.is_restoring() {
        data::restore(machine, journal, true).await?;
    }
    let mut settling = None;
    for step in &work.steps {
        renew(machine, work, step.component, journal)?;
        let (api, mut away) = (machine.api, journal.api_away);
        let replaced = watched(api, &mut away, replace(machine, work, step, journal)).await;
        journal.api_away = away;
        settling = Some(replaced?);
        journal.write(machine.tree)?;
    }
    if resumed {
        let mut away = journal.api_away;
        let checked = watched(machine.api, &mut away, check_again(machine, work, journal)).await;
        journal.api_away = away;
        settling = Some(checked?);
        if let Some(data) = &mut journal.etcd_data {
            data.served = Some(true);
            snapshot::keep_log_if_possible(machine, journal);
        }
    }
    if settling.is_some() {
        renew(machine, work, ADMIN, journal)?;
    }
    Ok(settling)
}

/// Checks the components that a run before this one has replaced.
async fn check_again(machine: &Machine<'_>, work: &Work<'_>, journal: &Journal) -> Result<Settling, UpgradeError> {
    let replaced = |component: &&str| machine.tree.exists(&journal.backup.join(format!("{component}.yaml")));
    let replaced: Vec<&'static str> = COMPONENTS.into_iter().filter(replaced).collect();
    settle(machine, |component| replaced.contains(&component)).await?;
    if journal.etcd_data.is_some() {
        call_off_downgrade(machine).await;
    }
    let settling = Settling::begin(machine.health, replaced.clone()).await;
    let is_checked = |component: &&&str| !work.steps.iter().any(|step| step.component == **component);
    for component in replaced.iter().filter(is_checked) {
        let file = Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"));
        let Some(now) = machine.tree.read(&file)? else { continue };
        gates::pass(gates::Parts::of(machine, journal), component, &now).await?;
    }
    Ok(settling)
}

/// New certificates for `component`, which reads them when it starts again; a run that was cut off may have made them.
fn renew(
    machine: &mut Machine<'_>,
    work: &Work<'_>,
    component: &str,
    journal: &mut Journal,
) -> Result<(), UpgradeError> {
    let Some(Renewal { spec, now }) = work.renewal else { return Ok(()) };
    if journal.renewed.iter().any(|name| name == component) {
        return Ok(());
    }
    let files = certificates::renew(spec, &machine.paths, component, now, machine.reporter)?;
    kept::replace(machine.tree, journal, &files)?;
    journal.renewed.push(component.to_owned());
    journal.write(machine.tree)
}

/// Waits for the components that are `wanted`, whichever manifests they have.
pub(super) async fn settle(machine: &Machine<'_>, wanted: impl Fn(&str) -> bool) -> Result<(), UpgradeError> {
    for component in COMPONENTS.into_iter().filter(|component| wanted(component)) {
        let file = Path::new(MANIFESTS_DIR).join(format!("{component}.yaml"));
        let Some(now) = machine.tree.read(&file)? else { continue };
        wait(machine, component, &file, Some(sha256(&now))).await?;
    }
    Ok(())
}

async fn replace(
    machine: &mut Machine<'_>,
    work: &Work<'_>,
    step: &Step,
    journal: &mut Journal,
) -> Result<Settling, UpgradeError> {
    let phase = format!("upgrade/{}", step.component);
    let title = format!("{}: {} -> {}", step.component, step.old_image, step.new_image);
    let started = report_start(machine.reporter, &phase, &title);
    let going = Going::begin(machine.reporter, step.component, (&step.old_image, &step.new_image));
    if step.data_dir.is_some() {
        going.at(ReplacementStep::Data);
        if journal.etcd_before.is_none() {
            // Of one that does not answer nothing is known.
            journal.etcd_before = gates::formats(machine.etcd).await.ok();
        }
        data::keep(machine, step, journal).await?;
        going.at(ReplacementStep::Swap);
        swap::swap(machine, step, journal).await?;
    } else {
        going.at(ReplacementStep::Swap);
        machine.tree.write(&step.file, &step.new, 0o600)?;
        wait(machine, step.component, &step.file, Some(step.new_hash())).await?;
    }
    let replaced = work.steps.iter().map(|step| step.component).collect();
    let settling = Settling::begin(machine.health, replaced).await;
    going.at(ReplacementStep::Checks);
    gates::pass(gates::Parts::of(machine, journal), step.component, &step.new).await?;
    going.at(ReplacementStep::Done);
    report_end(machine.reporter, &phase, started, true);
    Ok(settling)
}
