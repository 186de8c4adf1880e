//! Moving a running control plane to other manifests: plan, diff, apply, rollback.
//!
//! An upgrade ends exactly new or exactly old; the one exception is an etcd that has served and that cannot go back without
//! loss, which then stays, with everything else old. The old manifests are copied aside first, each new one replaces its
//! predecessor in one rename, and the agent is asked, by the hash of the file, whether that very manifest is healthy; then
//! [`gates`] show whether the component does what it is there for. The first that does not brings all of them back. Certificates are renewed with the component that reads them; the
//! node's settings and the objects of the cluster follow when every component is healthy, and all of it is put back with
//! the manifests. A journal written before the first rename lets a killed upgrade be finished by the same command or
//! taken back by `upgrade rollback`.

pub mod apply;
pub mod assess;
pub mod backups;
pub mod certificates;
pub mod copy;
pub mod data;
pub mod diff;
pub mod etcd;
pub mod gates;
pub mod journal;
pub mod kept;
pub mod manifest;
pub mod objects;
pub mod order;
pub mod plan;
pub mod prepare;
mod progress;
mod replace;
pub mod rollback;
pub mod run;
pub mod settings;
mod snapshot;
mod swap;
pub mod table;
pub mod target;
pub mod worker;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::agent::control::expect::WaitError;
use crate::host::fs::FsError;
use crate::host::tree::Tree;
use crate::workflow::machine::Cause;

const MIB: u64 = 1 << 20;

/// How an upgrade ended. Each has an exit code of its own, so that a script can tell them apart.
#[derive(Debug)]
pub enum Outcome {
    /// Every component runs the new manifest, or did so before.
    Upgraded {
        /// The components that were replaced.
        replaced: Vec<&'static str>,
    },
    /// A component failed, and everything is as it was before.
    RolledBack {
        /// What failed.
        cause: UpgradeError,
        /// The version of the new etcd, where that stays: everything but it is old.
        etcd: Option<String>,
    },
    /// A component failed, and putting the old manifests back did not make everything healthy either.
    Failed {
        /// What failed first.
        cause: UpgradeError,
        /// What failed while going back.
        rollback: UpgradeError,
    },
}

impl Outcome {
    /// 0 upgraded, 2 rolled back, 3 failed; 1 is left to every other error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Upgraded { .. } => 0,
            Self::RolledBack { .. } => 2,
            Self::Failed { .. } => 3,
        }
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] crate::workflow::state::StateError),
    /// The machine or the cluster is not fit.
    #[error(transparent)]
    Preflight(#[from] crate::workflow::preflight::PreflightError),
    /// The container runtime.
    #[error(transparent)]
    Runtime(#[from] crate::runtime::RuntimeError),
    /// Images cannot be had.
    #[error(transparent)]
    Images(#[from] crate::runtime::images::ImagesError),
    /// A certificate cannot be renewed.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    /// The cluster's objects cannot be read, and so not be put back.
    #[error("cannot read the objects of the cluster that the upgrade would change")]
    Unreadable(#[source] Cause),
    /// Objects cannot be written.
    #[error("cannot write {what} to the cluster")]
    Objects {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The replaced component did not become healthy.
    #[error("{component} did not become healthy")]
    Unhealthy {
        /// Which one.
        component: &'static str,
        /// Why.
        #[source]
        source: Box<WaitError>,
    },
    /// The replaced component is healthy, and does not do what it is there for.
    #[error("{component} is healthy, but not past the check `{gate}` within {} s: {why}", limit.as_secs())]
    Gate {
        /// The check, one of [`gates::GATES`] or the settling at the end.
        gate: &'static str,
        /// Which component.
        component: &'static str,
        /// How long it was waited for.
        limit: std::time::Duration,
        /// What the last look at it has shown.
        why: String,
    },
    /// A manifest on disk is not one.
    #[error("{} is not a Pod manifest that can be upgraded: {reason}", path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no control plane to upgrade.
    #[error("{} is missing: this machine runs no control plane made by `kubeboot init`", path.display())]
    NoManifest {
        /// The file that should be there.
        path: PathBuf,
    },
    /// An earlier upgrade was cut off.
    #[error(
        "an upgrade to {target} was cut off: finish it with `{command}`, or take it back with `kubeboot upgrade rollback`"
    )]
    Interrupted {
        /// Its target.
        target: String,
        /// The command that finishes it.
        command: String,
    },
    /// No room for a copy.
    #[error(
        "{what} needs {} MiB in {}: make room there, and run the same command again",
        need.div_ceil(MIB),
        places.iter().map(|(path, free)| format!("{}, where {} MiB are free", path.display(), free / MIB))
            .collect::<Vec<_>>().join(", or in ")
    )]
    NoRoom {
        /// What needs it.
        what: &'static str,
        /// Bytes.
        need: u64,
        /// Where it may be, as the node sees it, and how many bytes are free there.
        places: Vec<(PathBuf, u64)>,
    },
    /// etcd cannot be asked.
    #[error(transparent)]
    Etcd(#[from] crate::etcd::EtcdError),
    /// There is no snapshot.
    #[error(transparent)]
    Snapshot(#[from] crate::etcd::snapshot::SnapshotError),
    /// Something else is in the snapshot's place.
    #[error("{} is not the snapshot of etcd that the upgrade has taken: what was there is needed to go back", path.display())]
    OtherSnapshot {
        /// The file.
        path: PathBuf,
    },
    /// The log that belongs to the snapshot cannot be had.
    #[error(transparent)]
    Log(#[from] crate::etcd::wal::LogError),
    /// The log was not kept.
    #[error("the copy of etcd's data in {} is not whole: etcd's log is missing there", path.display())]
    NoLog {
        /// The copy.
        path: PathBuf,
    },
    /// The copy is older than what was acknowledged.
    #[error(
        "the copy of etcd's data is not put back: {} would be lost with that",
        writes.map_or_else(|| "what was written since".to_owned(), |writes| format!("{writes} writes since then"))
    )]
    WouldLose {
        /// How many, where that can be read.
        writes: Option<u64>,
    },
    /// The next etcd does not open the data of the one that runs.
    #[error(
        "etcd {to} does not open the data of etcd {from}: an upgrade goes from one minor version to the next ({})",
        match reachable.as_slice() { [] => "none is known".to_owned(), known => format!("here to {}", known.join(", ")) }
    )]
    Unopened {
        /// The version that runs.
        from: String,
        /// The version that was asked for.
        to: String,
        /// The minor versions that open the data.
        reachable: Vec<String>,
    },
    /// The data of one of several members would go back.
    #[error(
        "etcd has more than one member, and the data of one alone never go back: remove this member (`etcdctl member \
         remove`), empty its data directory, and let it join again; {} is a snapshot for `etcdutl snapshot restore`",
        snapshot.display()
    )]
    OfSeveral {
        /// The snapshot.
        snapshot: PathBuf,
    },
    /// etcd does not take its data back.
    #[error("etcd does not go back to {to}")]
    Downgrade {
        /// The minor version.
        to: String,
        /// Why.
        #[source]
        source: crate::etcd::EtcdError,
    },
    /// etcd takes too long.
    #[error("etcd has not taken its data back to {to} within {} s", limit.as_secs())]
    SlowDowngrade {
        /// The minor version.
        to: String,
        /// How long it was waited for.
        limit: std::time::Duration,
    },
    /// The copy of etcd's data was asked for.
    #[error("there is no copy of etcd's data: the last upgrade has not replaced etcd's image")]
    NoCopy,
    /// What would be taken back is not the last upgrade.
    #[error(
        "{component} runs {image}, and what would be taken back is {upgrade}: another upgrade has followed, or an edit. Take that \
         back with what made it, or add --force, which puts the manifests in {} back all the same",
        backup.display()
    )]
    NotLast {
        /// Which component.
        component: &'static str,
        /// Its image now.
        image: String,
        /// The command of the upgrade, and from which image to which it went.
        upgrade: String,
        /// Where the manifests from before it are.
        backup: PathBuf,
    },
    /// Nothing to take back.
    #[error("no upgrade to take back: {} is not there", path.display())]
    NothingToRollBack {
        /// The journal's path.
        path: PathBuf,
    },
    /// The journal cannot be understood.
    #[error("{} is damaged; everything old is below /etc/kubernetes/tmp", path.display())]
    Journal {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// `--image` names what is no component.
    #[error("--image {given}: expected COMPONENT=IMAGE with one of {}", known.join(", "))]
    ImageFlag {
        /// What was given.
        given: String,
        /// The components.
        known: Vec<&'static str>,
    },
}

/// The manifest of a running control plane: the file, or, where an upgrade that was cut off had taken it away, its
/// backup.
pub fn current(tree: &dyn Tree, file: &Path) -> Result<Option<Vec<u8>>, UpgradeError> {
    if let Some(content) = tree.read(file)? {
        return Ok(Some(content));
    }
    match (journal::Journal::read(tree)?, file.file_name()) {
        (Some(journal), Some(name)) if journal.state == journal::State::Applying => {
            Ok(tree.read(&journal.backup.join(name))?)
        }
        _ => Ok(None),
    }
}
