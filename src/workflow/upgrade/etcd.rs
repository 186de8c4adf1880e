//! How etcd goes back. An etcd opens data of its own minor version and of the one before, never those that a newer one has
//! opened: what serves all the others' old manifests does not serve etcd's.

use std::time::Duration;

use super::UpgradeError;
use super::apply::Machine;
use super::data::writes_since;
use super::journal::{DataCopy, Journal, State};
use super::manifest::{image, image_version, parse};
use super::target::file;
use crate::etcd::{Downgrade, EtcdError, Minor, Reason};
use crate::event::Event;
use crate::manifests::ETCD;
use crate::release::etcd_goes_back;

/// How long etcd may take to take its data back: it looks every five seconds.
const DOWNGRADE_LIMIT: Duration = Duration::from_secs(20);
/// The pause between two looks: etcd has no event for it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// A control plane that runs, with nothing lost; as old as that allows.
    Running,
    /// The old etcd too, where that loses nothing.
    Old,
    /// The old etcd with the copy of its data, whatever is lost.
    Copy,
}

/// One way of going back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The old etcd, on the data as they are.
    Manifest,
    /// The new etcd stays, and all others go back.
    Stay,
    /// etcd takes its data back itself, then the old one follows.
    Downgrade,
    /// The old etcd, on the copy of its data.
    Copy,
}

impl Way {
    /// What is tried, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Manifest => "trying the old etcd on the data as they are",
            Self::Stay => "trying everything else old, with the new etcd",
            Self::Downgrade => "trying etcd's own downgrade",
            Self::Copy => "trying the old etcd on the copy of its data",
        }
    }
}

/// What decides which ways there are.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// What is asked for.
    pub aim: Aim,
    /// Whether there is a copy of the data: etcd's image changes.
    pub copied: bool,
    /// Whether it may be put back: not that of one of several members.
    pub restorable: bool,
    /// Whether the copy was being put back when a run was cut off.
    pub restoring: bool,
    /// Whether the new etcd's manifest is in place.
    pub replaced: bool,
    /// Whether the new etcd has been healthy, has taken a write, or answers now.
    pub served: bool,
    /// Whether it answers now.
    pub answers: bool,
    /// The minor versions of both, where they are known.
    pub versions: (Option<Minor>, Option<Minor>),
}

/// The ways to go, the best first. The copy is among them only where no acknowledged write is known to be lost with it, or
/// where it was asked for.
///
/// The old etcd on the data as they are comes first wherever the new one does not answer: it loses nothing, and where it
/// does not open what the new one has made of them, it says so and leaves them alone.
pub fn ways(facts: &Facts) -> Vec<Way> {
    let Facts { aim, copied, restorable, restoring, replaced, served, answers, versions } = *facts;
    if restoring || (restorable && aim == Aim::Copy) {
        return vec![Way::Copy];
    }
    let mut ways = match (copied, served, versions) {
        (false, ..) => vec![Way::Manifest],
        // The old manifest may be there because a run was cut off that tried it.
        (_, false, _) => vec![Way::Manifest, Way::Copy],
        (_, true, _) if !replaced => vec![Way::Manifest, Way::Stay],
        (_, true, (Some(old), Some(new))) if old == new => vec![Way::Manifest, Way::Stay],
        (_, true, (Some(old), Some(new))) if etcd_goes_back((new.major, new.minor), (old.major, old.minor)) => {
            match aim {
                Aim::Running => vec![Way::Stay, Way::Downgrade],
                _ => vec![Way::Downgrade, Way::Stay],
            }
        }
        (_, true, (Some(_), Some(_))) => vec![Way::Stay],
        (_, true, _) => vec![Way::Manifest, Way::Stay],
    };
    ways.retain(|way| restorable || *way != Way::Copy);
    if !answers && !ways.contains(&Way::Manifest) {
        ways.insert(0, Way::Manifest);
    }
    ways
}

/// What is so now.
pub(super) async fn look(machine: &Machine<'_>, journal: &Journal, aim: Aim) -> Result<Facts, UpgradeError> {
    let old = machine.tree.read(&journal.backup.join("etcd.yaml"))?;
    let now = machine.tree.read(&file(ETCD))?;
    let new = new_manifest(machine, journal)?;
    let status = machine.etcd.status().await.ok();
    let replaced = old.is_some() && now.is_some() && now != old;
    let data = journal.etcd_data.as_ref();
    let answers = replaced && status.as_ref().is_some_and(|status| status.leader.is_some());
    let version = |manifest: &Option<Vec<u8>>| manifest.as_deref().and_then(version_of);
    let running = status.filter(|_| answers).map(|status| status.version);
    Ok(Facts {
        aim,
        copied: data.is_some(),
        restorable: journal.restorable().is_some(),
        answers,
        restoring: journal.is_restoring(),
        replaced,
        served: answers || journal.state == State::Done || data.is_some_and(|data| has_served(machine, data)),
        versions: (
            data.and_then(|data| data.version.clone()).or_else(|| version(&old)).as_deref().and_then(Minor::of),
            running.or_else(|| version(&new)).as_deref().and_then(Minor::of),
        ),
    })
}

/// Whether the new etcd has served. Where the run that waited for it was cut off, what it has written tells.
fn has_served(machine: &Machine<'_>, data: &DataCopy) -> bool {
    data.served.unwrap_or_else(|| writes_since(machine, data) != Some(0))
}

/// The manifest of the etcd that the upgrade goes to: kept beside the old one, else what is in place.
pub(super) fn new_manifest(machine: &Machine<'_>, journal: &Journal) -> Result<Option<Vec<u8>>, UpgradeError> {
    match machine.tree.read(&journal.new_manifest(ETCD))? {
        None => Ok(machine.tree.read(&file(ETCD))?),
        kept => Ok(kept),
    }
}

/// The version of the etcd that stays, for the user: what it says, else what its image is called.
pub(super) async fn version_that_stays(machine: &Machine<'_>, manifest: &[u8]) -> String {
    match machine.etcd.status().await {
        Ok(status) => status.version,
        Err(_) => version_of(manifest).unwrap_or_else(|| "as the upgrade has made it".into()),
    }
}

fn version_of(manifest: &[u8]) -> Option<String> {
    image_version(image(&parse(&file(ETCD), manifest).ok()?))
}

/// Has etcd take its data back to the minor version of the etcd before. It serves all the while. Safe to repeat.
pub(super) async fn downgrade(machine: &Machine<'_>, to: Minor) -> Result<(), UpgradeError> {
    let failed = |source: EtcdError| UpgradeError::Downgrade { to: to.to_string(), source };
    let tell = |state: String| {
        let name = ETCD.to_owned();
        machine.reporter.event(Event::Component { name, state, healthy: false, detail: None });
    };
    if machine.etcd.status().await.map_err(failed)?.storage == Some(to) {
        return Ok(());
    }
    tell(format!("taking its data back to {to}"));
    match machine.etcd.downgrade(Downgrade::Enable, to).await {
        // A run before this one has asked for it.
        Ok(()) | Err(EtcdError::Refused { reason: Reason::DowngradeInProgress, .. }) => {}
        Err(error) => return Err(failed(error)),
    }
    let taken = async {
        while machine.etcd.status().await.ok().and_then(|status| status.storage) != Some(to) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(DOWNGRADE_LIMIT, taken).await.is_ok() {
        return Ok(());
    }
    // Left alone it would be carried out at some later time, behind the back of what stays.
    cancel(machine, to).await;
    Err(UpgradeError::SlowDowngrade { to: to.to_string(), limit: DOWNGRADE_LIMIT })
}

/// Calls a downgrade off that a run has asked for which then went another way: the etcd that stays has its own format.
pub(super) async fn call_off_downgrade(machine: &Machine<'_>) {
    let Ok(status) = machine.etcd.status().await else { return };
    let Some((storage, own)) = status.storage.zip(status.minor()).filter(|(storage, own)| storage < own) else {
        return;
    };
    if let Err(error) = machine.etcd.downgrade(Downgrade::Cancel, storage).await {
        // Nothing depends on it: this etcd serves the older format too.
        machine.reporter.warn("upgrade", format!("etcd {own} keeps data of {storage}: {error}"));
    }
}

/// Cancels a downgrade that does not get on. One that has got on meanwhile is over, and is called off with the etcd that stays.
async fn cancel(machine: &Machine<'_>, to: Minor) {
    match machine.etcd.downgrade(Downgrade::Cancel, to).await {
        Ok(()) | Err(EtcdError::Refused { reason: Reason::NoDowngrade, .. }) => {}
        Err(error) => {
            let text = format!(
                "the downgrade of etcd's data to {to} is not cancelled: {error}; `etcdctl downgrade cancel` does it"
            );
            machine.reporter.warn("rollback", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(text: &str) -> Option<Minor> {
        Minor::of(text)
    }

    fn facts(aim: Aim, served: bool, versions: (Option<Minor>, Option<Minor>)) -> Facts {
        let restorable = true;
        Facts { aim, copied: true, restorable, restoring: false, replaced: true, served, answers: served, versions }
    }

    #[test]
    fn an_etcd_that_has_served_never_goes_back_to_the_copy_by_itself() {
        let versions = [None, minor("3.4"), minor("3.5"), minor("3.6"), minor("3.7")];
        for (old, new) in versions.iter().flat_map(|old| versions.map(|new| (*old, new))) {
            for (aim, replaced) in [Aim::Running, Aim::Old].into_iter().flat_map(|aim| [(aim, true), (aim, false)]) {
                let ways = ways(&Facts { replaced, ..facts(aim, true, (old, new)) });
                assert!(!ways.contains(&Way::Copy), "{old:?} {new:?} {aim:?} {ways:?}");
                assert!(ways.contains(&Way::Stay), "{old:?} {new:?} {aim:?} {ways:?}");
            }
        }
    }

    #[test]
    fn what_was_asked_for_decides_what_is_tried_first() {
        let across = (minor("3.6.8"), minor("3.7.1"));
        assert_eq!(ways(&facts(Aim::Running, true, across)), [Way::Stay, Way::Downgrade]);
        assert_eq!(ways(&facts(Aim::Old, true, across)), [Way::Downgrade, Way::Stay]);
        assert_eq!(ways(&facts(Aim::Copy, true, across)), [Way::Copy]);
        let before = (minor("3.4.23"), minor("3.5.16"));
        assert_eq!(ways(&facts(Aim::Old, true, before)), [Way::Stay], "3.5 leaves data that 3.4 does not open");
        assert_eq!(ways(&facts(Aim::Old, true, (minor("3.6.8"), minor("3.6.9")))), [Way::Manifest, Way::Stay]);
    }

    #[test]
    fn the_copy_is_for_an_etcd_that_has_never_served_and_for_a_restore_that_was_cut_off() {
        let across = (minor("3.6.8"), minor("3.7.1"));
        assert_eq!(ways(&facts(Aim::Running, false, across)), [Way::Manifest, Way::Copy]);
        assert_eq!(ways(&facts(Aim::Old, false, (None, None))), [Way::Manifest, Way::Copy]);
        assert_eq!(ways(&facts(Aim::Old, false, (minor("3.6.8"), minor("3.6.9")))), [Way::Manifest, Way::Copy]);
        assert_eq!(ways(&Facts { restoring: true, replaced: false, ..facts(Aim::Old, false, across) }), [Way::Copy]);
        let tried = Facts { replaced: false, ..facts(Aim::Old, false, across) };
        assert_eq!(ways(&tried), [Way::Manifest, Way::Copy], "a run that tried the first was cut off");
        let none = Facts { copied: false, restorable: false, ..facts(Aim::Copy, false, (None, None)) };
        assert_eq!(ways(&none), [Way::Manifest]);
    }

    #[test]
    fn the_data_of_one_of_several_members_never_go_back() {
        for (aim, served) in [Aim::Running, Aim::Old, Aim::Copy].into_iter().flat_map(|aim| [(aim, true), (aim, false)])
        {
            for answers in [true, false] {
                let one = facts(aim, served, (minor("3.6.8"), minor("3.7.1")));
                let ways = ways(&Facts { restorable: false, answers, ..one });
                assert!(!ways.contains(&Way::Copy) && !ways.is_empty(), "{aim:?} {served} {answers}: {ways:?}");
            }
        }
    }

    #[test]
    fn what_has_served_and_does_not_answer_any_more_gives_way_to_the_old_one_if_that_opens_the_data() {
        let gone = |versions| ways(&Facts { answers: false, ..facts(Aim::Running, true, versions) });
        let across = (minor("3.6.8"), minor("3.7.1"));
        assert_eq!(gone(across), [Way::Manifest, Way::Stay, Way::Downgrade]);
        assert_eq!(gone((minor("3.4.23"), minor("3.5.16"))), [Way::Manifest, Way::Stay]);
    }
}
