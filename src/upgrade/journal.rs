//! What an upgrade in progress has to remember: where it goes, and where everything old is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::UpgradeError;
use crate::host::tree::Tree;

/// The journal's path as the node sees it.
pub const JOURNAL: &str = "/var/lib/kubeboot/upgrade.json";

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

/// A copy of etcd's data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataCopy {
    /// The data directory.
    pub from: PathBuf,
    /// The copy.
    pub to: PathBuf,
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
    /// All are old again.
    RolledBack,
}

impl Journal {
    /// The journal of an upgrade that begins.
    pub fn new(target: impl Into<String>, command: impl Into<String>, backup: PathBuf) -> Self {
        Self {
            target: target.into(),
            command: command.into(),
            backup,
            etcd_data: None,
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
