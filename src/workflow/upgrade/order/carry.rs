//! Carrying an order out: in a process of its own, which the agent starts, and starts again until the order has ended.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Ending, OrderRecord};
use super::{DIR, Order, OrderError, Wanted, What};
use crate::error::causes;
use crate::event::Reporter;
use crate::host::Paths;
use crate::host::disk::{Disk, HostDisk};
use crate::host::fs::FsError;
use crate::host::lock::wait_until_free;
use crate::host::paths::{KUBELET_DIR, KUBERNETES_DIR};
use crate::host::reserve::{self, Reserve};
use crate::host::tree::{HostTree, NoRecord};
use crate::workflow::state::lock::LockError;
use crate::workflow::state::{LOCK, StateError};
use crate::workflow::upgrade::journal::{Journal, State};
use crate::workflow::upgrade::rollback::RollbackOptions;
use crate::workflow::upgrade::run::{Parts, Rollback, RunError, TakenBack, Upgrade};
use crate::workflow::upgrade::{Outcome, UpgradeError};

/// Where an upgrade writes, beside etcd's data.
const WRITTEN: [&str; 3] = [DIR, KUBERNETES_DIR, KUBELET_DIR];

/// How often is looked whether a full disk has room again.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// What an upgrade acts on, with a kubeconfig and a reporter.
pub type MakeParts<'a> = &'a dyn Fn(Option<PathBuf>, Arc<dyn Reporter>) -> Parts;

/// Carries out what was ordered on the machine below `paths`, from wherever an attempt before was cut off; returns how it
/// ended, or None when nothing was ordered.
///
/// # Errors
/// An order or a record that cannot be read or written. What goes wrong with the upgrade is in the [`Ending`].
pub async fn carry_out(paths: &Paths, parts: MakeParts<'_>) -> Result<Option<Ending>, OrderError> {
    loop {
        let Some(order) = Order::read(paths)? else { return Ok(None) };
        let (record, ended) = OrderRecord::open(paths, &order)?;
        if let Some(ending) = ended {
            Order::remove(paths)?;
            return Ok(Some(ending));
        }
        let record = Arc::new(record);
        let parts = parts(order.kubeconfig.clone(), record.clone());
        match attempt(paths, &order, &record, parts).await {
            Attempt::Ended(ending) => return Ok(Some(ending)),
            Attempt::Failed(error) => return Err(error),
            // An attempt whose agent is gone, or another command, is at work.
            Attempt::Locked => {
                let lock = paths.state().join(LOCK);
                let free = tokio::task::spawn_blocking(move || wait_until_free(&lock)).await;
                if let Ok(waited) = free {
                    waited?;
                }
            }
            Attempt::Full => {
                let text =
                    "the disk is full, and the upgrade is neither done nor taken back: it goes on when there is room";
                record.warn("upgrade", text.into());
                wait_for_room(paths).await;
            }
        }
    }
}

enum Attempt {
    Ended(Ending),
    Locked,
    /// The disk is full, and it is half done.
    Full,
    Failed(OrderError),
}

/// Why an attempt comes to no end of its own.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    /// What was ordered cannot be understood.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// It cannot be begun.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is too little room to be sure of an end.
    #[error(transparent)]
    Room(FsError),
    /// It cannot be finished for want of room, nor taken back.
    #[error(transparent)]
    Full(UpgradeError),
}

impl AttemptError {
    fn ending(&self) -> Ending {
        match self {
            Self::Order(error) => Ending::refused(error, None),
            Self::Run(error) => Ending::refused(error, error.hint()),
            Self::Room(error) => Ending::refused(error, Some("make room there, and run the same command again")),
            Self::Full(error) => Ending::refused(error, None),
        }
    }

    /// Whether another process is at work.
    fn is_locked(&self) -> bool {
        let Self::Run(RunError::State(StateError::Lock(error))) = self else { return false };
        matches!(error, LockError::Held { .. } | LockError::Gone { .. })
    }
}

/// One attempt.
async fn attempt(paths: &Paths, order: &Order, record: &OrderRecord, parts: Parts) -> Attempt {
    let ended = match &order.what {
        What::Apply(wanted) => apply(paths, order, wanted, record, parts.clone()).await,
        What::Rollback(options) => {
            let taken_back = take_back(paths, order, record, parts.clone(), *options).await;
            taken_back.map(|how| Ending::of_rollback(&how)).map_err(AttemptError::from)
        }
    };
    let error = match ended {
        Ok(ending) => return conclude(paths, record, ending),
        Err(error) if error.is_locked() => return Attempt::Locked,
        Err(error) if is_full(&error) && is_half_done(paths) => return Attempt::Full,
        Err(error) => error,
    };
    let mut ending = error.ending();
    if matches!(order.what, What::Apply(_)) && is_half_done(paths) {
        // What cannot go on goes back: it is neither old nor new.
        match take_back(paths, order, record, parts, RollbackOptions::default()).await {
            Ok(_) => ending.code = 2,
            Err(undo) if is_full(&undo) => return Attempt::Full,
            Err(undo) => {
                ending.code = 3;
                ending.errors.extend(Ending::refused(&undo, None).errors);
            }
        }
    }
    conclude(paths, record, ending)
}

/// The machine's lock is held until the end is on record.
async fn apply(
    paths: &Paths,
    order: &Order,
    wanted: &Wanted,
    record: &OrderRecord,
    parts: Parts,
) -> Result<Ending, AttemptError> {
    let mut upgrade = Upgrade::prepare(paths, parts, wanted.request(&order.command)?)?;
    let _reserve = match set_room_aside(paths) {
        Err(error) if !is_half_done(paths) => return Err(AttemptError::Room(error)),
        reserve => reserve.ok(),
    };
    record.begin()?;
    let outcome = upgrade.run(order.limit()).await?;
    let ending = Ending::of(&outcome);
    if let Outcome::Failed { rollback, .. } = outcome
        && is_full(&rollback)
    {
        return Err(AttemptError::Full(rollback));
    }
    // While the lock is held. That it cannot be recorded is said by who concludes.
    let _ = record.end(ending.clone());
    Ok(ending)
}

async fn take_back(
    paths: &Paths,
    order: &Order,
    record: &OrderRecord,
    parts: Parts,
    options: RollbackOptions,
) -> Result<TakenBack, RunError> {
    let mut rollback = Rollback::prepare(paths, parts, options)?;
    // A rollback is tried without room too: what else could be done?
    let _reserve = set_room_aside(paths).ok();
    if let Err(error) = record.begin() {
        tracing::warn!(%error, "cannot record the attempt");
    }
    rollback.run(order.limit()).await
}

/// Room for what is written until the end, the rollback included, where nothing else may take it. To be called with the
/// machine's lock held: there is one such file on a disk.
fn set_room_aside(paths: &Paths) -> Result<Reserve, FsError> {
    Reserve::take(&WRITTEN.map(|dir| paths.on_host(dir)))
}

/// Whether what went wrong is that the disk is full.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full = |cause: &io::Error| matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    causes(Some(error)).any(|cause| cause.downcast_ref::<io::Error>().is_some_and(full))
}

/// Waits until as much as is set aside is free. No event tells of that.
async fn wait_for_room(paths: &Paths) {
    let has_room = |dir: &&str| HostDisk.free(&paths.on_host(dir)).map_or(true, |free| free >= reserve::SIZE);
    while !WRITTEN.iter().all(has_room) {
        tokio::time::sleep(ROOM_INTERVAL).await;
    }
}

/// Records the end, unless that has been done, and takes the order away.
fn conclude(paths: &Paths, record: &OrderRecord, ending: Ending) -> Attempt {
    let recorded = record.end(ending.clone());
    // Gone it has to be in any case, or what has ended would be done again.
    match Order::remove(paths).and(recorded) {
        Ok(()) => Attempt::Ended(ending),
        Err(error) => Attempt::Failed(error),
    }
}

/// Whether an upgrade was cut off in the middle.
fn is_half_done(paths: &Paths) -> bool {
    let journal = Journal::read(&HostTree::new(paths.clone(), NoRecord));
    journal.ok().flatten().is_some_and(|journal| journal.state == State::Applying)
}
