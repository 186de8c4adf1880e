//! What an upgrade in progress has to remember: where it goes, and where everything old is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::UpgradeError;
use crate::host::paths::TMP_DIR;
use crate::host::tree::Tree;

/// The journal's path as the node sees it.
pub const JOURNAL: &str = "/var/lib/kubeboot/upgrade.json";
/// What the names of directories with old manifests begin with; the time follows, as in kubeadm's.
pub const BACKUP_PREFIX: &str = "kubeadm-backup-manifests-";

/// The last upgrade on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Journal {
    /// What it goes to, in words: a version, or the images.
    pub target: String,
    /// The command that finishes it.
    pub command: String,
    /// The directory with the old manifests.
    pub backup: PathBuf,
    /// Where etcd's data was copied to, and from where.
    pub etcd_data: Option<DataCopy>,
    /// The etcd that stays although everything else is old again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_kept: Option<String>,
    /// Whose certificates are new: components, and [`ADMIN`](super::certificates::ADMIN).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renewed: Vec<String>,
    /// Files besides the manifests that were replaced, or are about to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Kept>,
    /// The file with the objects of the cluster as they were; None where none are touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<PathBuf>,
    /// Whether objects may be new.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub objects_written: bool,
    /// How far it is.
    pub state: State,
}

/// A copy of etcd's data directory, and what is known of the data since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataCopy {
    /// The data directory.
    pub from: PathBuf,
    /// The copy.
    pub to: PathBuf,
    /// The version of the etcd that was stopped for it; None where nothing tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether its successor has been healthy: the data then hold writes that the copy lacks. None while it has not been
    /// waited for to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// Whether the copy is being put back: until that is done no etcd may start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restoring: bool,
}

/// A file that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kept {
    /// Which.
    pub path: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// Where the old one is; None where there was none.
    pub copy: Option<PathBuf>,
    /// SHA-256 of everything that the upgrade wrote in its place: what has another one is somebody's since.
    pub ours: Vec<String>,
}

/// How far an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Manifests may be old or new.
    Applying,
    /// All are new and were healthy.
    Done,
    /// All are old again, but for an etcd that was kept.
    RolledBack,
}

impl Journal {
    /// Whether the copy of etcd's data was being put back when a run was cut off.
    pub fn is_restoring(&self) -> bool {
        self.etcd_data.as_ref().is_some_and(|data| data.restoring)
    }

    /// Where the manifest of the etcd is kept to which the upgrade goes.
    pub fn new_etcd(&self) -> PathBuf {
        self.backup.join("new/etcd.yaml")
    }

    /// Where etcd's data are copied to: named as kubeadm names it, and the same for each run of this upgrade.
    pub fn etcd_copy(&self) -> PathBuf {
        let name = self.backup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stamp = name.strip_prefix(BACKUP_PREFIX).unwrap_or(name);
        Path::new(TMP_DIR).join(format!("kubeadm-backup-etcd-{stamp}"))
    }

    /// The journal of an upgrade that begins.
    pub fn new(target: impl Into<String>, command: impl Into<String>, backup: PathBuf) -> Self {
        Self {
            target: target.into(),
            command: command.into(),
            backup,
            etcd_data: None,
            etcd_kept: None,
            renewed: Vec::new(),
            files: Vec::new(),
            objects: None,
            objects_written: false,
            state: State::Applying,
        }
    }

    /// The journal on this machine, if an upgrade ever began.
    pub fn read(tree: &dyn Tree) -> Result<Option<Self>, UpgradeError> {
        let path = Path::new(JOURNAL);
        let Some(content) = tree.read(path)? else { return Ok(None) };
        serde_json::from_slice(&content)
            .map(Some)
            .map_err(|source| UpgradeError::Journal { path: path.to_owned(), source })
    }

    /// Writes it, durably.
    pub fn write(&self, tree: &mut dyn Tree) -> Result<(), UpgradeError> {
        let path = Path::new(JOURNAL);
        let content = serde_json::to_vec_pretty(self)
            .map_err(|source| UpgradeError::Journal { path: path.to_owned(), source })?;
        tree.write(path, &content, 0o600)?;
        Ok(())
    }
}
