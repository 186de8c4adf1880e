//! An upgrade that was ordered: the command leaves it on disk, and the agent has it carried out, so that it ends exactly new
//! or exactly old whatever becomes of the command.
//!
//! The order is there until it has ended. The record beside it says how far it is, one JSON object a line, and stays as the
//! account of the last upgrade.

mod carry;
mod follow;
#[cfg(test)]
mod full_disk;
pub mod status;
pub mod owner;
pub mod record;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::UpgradeError;
use super::prepare::Goal;
use super::rollback::RollbackOptions;
use super::run::Request;
use super::table::SelectedPhases;
use super::target::ImageChange;
use crate::agent::control;
use crate::config::spec::PullPolicy;
use crate::host::Paths;
use crate::host::fs::{FsError, make_dirs_durably, read_if_exists, remove_file, sync_dir, write_file};
use crate::host::paths::CONTROL_SOCKET;
use crate::release::{UpgradePolicy, VersionError};
use crate::workflow::phase::PhaseError;
use crate::workflow::state::StateError;

pub use carry::carry_out;
pub use follow::{FollowError, follow};

/// Where orders are, as the node sees it.
pub const DIR: &str = "/var/lib/kubeboot/upgrade";
/// The upgrade that was ordered and has not ended.
pub const ORDER: &str = "/var/lib/kubeboot/upgrade/order.json";
/// What became of the last one, so far.
pub const RECORD: &str = "/var/lib/kubeboot/upgrade/record.json";
/// What an order looks like. A kubeboot that knows another one lets it be.
const FORMAT: u32 = 1;

/// What was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    format: u32,
    /// Tells it from every other one.
    pub id: String,
    /// The words of the command.
    pub command: String,
    /// When.
    pub ordered: Timestamp,
    /// Kubeconfig of an administrator; None for admin.conf.
    pub kubeconfig: Option<PathBuf>,
    /// How long one component may take to be healthy, in milliseconds.
    limit: u64,
    /// What is to be done.
    pub what: What,
}

/// What an order is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// `upgrade apply` or `upgrade node`.
    Apply(Box<Wanted>),
    /// `upgrade rollback`.
    Rollback(RollbackOptions),
}

/// What an upgrade was asked for, as [`Request`] and [`Goal`] have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    version: Option<String>,
    /// `COMPONENT=IMAGE`.
    images: Vec<String>,
    patches_dir: Option<PathBuf>,
    etcd: bool,
    certificates: bool,
    policy: UpgradePolicy,
    /// Names of phases and `group/child`.
    phases: Vec<String>,
    one_phase: bool,
    ignored: Vec<String>,
    pull_policy: Option<PullPolicy>,
}

/// An order that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FsError),
    /// Its record.
    #[error(transparent)]
    Record(#[from] StateError),
    /// It makes no sense.
    #[error("{ORDER} is damaged, or of another kubeboot's: remove it, and order the upgrade again")]
    Unreadable(#[source] serde_json::Error),
    /// Another kubeboot has written it.
    #[error("{ORDER} is of format {0}, which this kubeboot does not know: use the one that wrote it")]
    Format(u32),
    /// A version in it.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A phase in it.
    #[error(transparent)]
    Phase(#[from] PhaseError),
    /// An image in it.
    #[error(transparent)]
    Image(#[from] UpgradeError),
    /// A path that is none.
    #[error("cannot resolve {}", path.display())]
    Path {
        /// What was given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Order {
    /// The order of `command`. Paths in it are made absolute: who carries it out is somewhere else.
    ///
    /// # Errors
    /// A working directory that is gone.
    pub fn new(command: String, what: What, kubeconfig: Option<&Path>, limit: Duration) -> Result<Self, OrderError> {
        let ordered = Timestamp::now();
        Ok(Self {
            format: FORMAT,
            id: format!("{}-{}", ordered.as_millisecond(), std::process::id()),
            command,
            ordered,
            kubeconfig: kubeconfig.map(absolute).transpose()?,
            limit: limit.as_millis().try_into().unwrap_or(u64::MAX),
            what,
        })
    }

    /// How long one component may take to be healthy.
    pub fn limit(&self) -> Duration {
        Duration::from_millis(self.limit)
    }

    /// The order that has not ended, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, or that this kubeboot does not understand.
    pub fn read(paths: &Paths) -> Result<Option<Self>, OrderError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Some(content) = read_if_exists(&paths.on_host(ORDER))? else { return Ok(None) };
        let Format { format } = serde_json::from_slice(&content).map_err(OrderError::Unreadable)?;
        match format {
            FORMAT => serde_json::from_slice(&content).map(Some).map_err(OrderError::Unreadable),
            other => Err(OrderError::Format(other)),
        }
    }

    /// Leaves the order to be carried out. The caller has the machine's lock: no other upgrade is being carried out.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, paths: &Paths) -> Result<(), OrderError> {
        let dir = paths.on_host(DIR);
        make_dirs_durably(&dir, 0o700)?;
        remove_file(&paths.on_host(RECORD))?;
        let content = serde_json::to_vec_pretty(self).map_err(OrderError::Unreadable)?;
        write_file(&paths.on_host(ORDER), &content, 0o600)?;
        Ok(())
    }

    /// The order has ended.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(paths: &Paths) -> Result<(), OrderError> {
        remove_file(&paths.on_host(ORDER))?;
        let dir = paths.on_host(DIR);
        if dir.exists() {
            sync_dir(&dir)?;
        }
        Ok(())
    }
}

/// What became of an order that was to be handed over.
pub enum HandedOver<L> {
    /// It will be carried out, and may be followed.
    Yes,
    /// No agent of this machine carries upgrades out; here is the lock again.
    No(L),
}

/// Has the agent of this machine carry `order` out. `lock` is whatever holds the machine's lock: it is given back when the
/// order is on disk.
///
/// # Errors
/// Files that cannot be written.
pub async fn hand_over<L>(paths: &Paths, order: &Order, lock: L) -> Result<HandedOver<L>, OrderError> {
    let socket = paths.on_host(CONTROL_SOCKET);
    if !paths.is_live() || control::look_for_upgrade(&socket).await.is_err() {
        return Ok(HandedOver::No(lock));
    }
    order.write(paths)?;
    drop(lock);
    // An agent that has ended in the meantime finds the order when it comes back; who follows says that it is gone.
    if let Err(error) = control::look_for_upgrade(&socket).await {
        tracing::debug!(%error, "the agent cannot be woken");
    }
    Ok(HandedOver::Yes)
}

impl Wanted {
    /// `request` as data.
    ///
    /// # Errors
    /// A working directory that is gone.
    pub fn of(request: &Request) -> Result<Self, OrderError> {
        let goal = &request.goal;
        Ok(Self {
            version: goal.version.as_ref().map(ToString::to_string),
            images: goal.images.iter().map(|one| format!("{}={}", one.component, one.image)).collect(),
            patches_dir: goal.patches_dir.as_deref().map(absolute).transpose()?,
            etcd: goal.etcd,
            certificates: goal.certificates,
            policy: goal.policy,
            phases: goal.parts.names(),
            one_phase: request.one_phase,
            ignored: request.ignored.clone(),
            pull_policy: request.pull_policy,
        })
    }

    /// The request of `command` again. The user has seen its warnings already.
    ///
    /// # Errors
    /// What this kubeboot does not know.
    pub fn request(&self, command: &str) -> Result<Request, OrderError> {
        let images = self.images.iter().map(|image| ImageChange::parse(image)).collect::<Result<_, _>>()?;
        Ok(Request {
            goal: Goal {
                version: self.version.as_deref().map(str::parse).transpose()?,
                images,
                patches_dir: self.patches_dir.clone(),
                etcd: self.etcd,
                certificates: self.certificates,
                policy: self.policy,
                parts: SelectedPhases::named(&self.phases)?,
            },
            command: command.to_owned(),
            one_phase: self.one_phase,
            ignored: self.ignored.clone(),
            warnings: Vec::new(),
            warned: true,
            pull_policy: self.pull_policy,
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, OrderError> {
    std::path::absolute(path).map_err(|source| OrderError::Path { path: path.to_owned(), source })
}
