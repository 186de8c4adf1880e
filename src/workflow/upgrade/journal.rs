//! What an upgrade in progress has to remember: where it goes, and where everything old is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::UpgradeError;
use super::gates::Formats;
use crate::etcd::wal::Moment;
use crate::event::Away;
use crate::host::paths::TMP_DIR;
use crate::host::tree::Tree;

/// The journal's path as the node sees it.
pub const JOURNAL: &str = "/var/lib/kubeboot/upgrade.json";
/// What the names of directories with old manifests begin with; the time follows, as in kubeadm's.
pub const BACKUP_PREFIX: &str = "kubeadm-backup-manifests-";

/// What the names of directories with etcd's data begin with; the time follows, as in kubeadm's.
pub const DATA_PREFIX: &str = "kubeadm-backup-etcd-";

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
    /// The directory that etcd's data are copied to; None where that is kubeadm's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_copy: Option<PathBuf>,
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
    /// Whether the API server answered the administrator before anything was touched: only then it has to answer afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub api_answered: bool,
    /// What etcd was before it was replaced; None where it was not, or where it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_before: Option<Formats>,
    /// For how long the API server was away while components were replaced; None where that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_away: Option<Away>,
    /// How far it is.
    pub state: State,
}

/// What a backup says of itself when the journal is another upgrade's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The command of the upgrade.
    pub command: String,
    /// The directory with etcd's data, where that is not beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_copy: Option<PathBuf>,
}

impl About {
    /// Its file below the directory with the old manifests.
    pub const FILE: &str = "upgrade.json";
}

/// A copy of etcd's data directory, and what is known of the data since. The files are those of a stopped etcd, or those of
/// a [`Snapshot`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataCopy {
    /// The data directory.
    pub from: PathBuf,
    /// The copy.
    pub to: PathBuf,
    /// The version of the etcd that ran until then; None where nothing tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What is known of the snapshot; None where etcd was stopped for the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// Whether its successor has been healthy: the data then hold writes that the copy lacks. None where it was not, or was
    /// not waited for to the end: its log tells then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// Whether the copy is being put back: until that is done no etcd may start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restoring: bool,
}

/// A snapshot of a running etcd. It lacks the last writes, which the log has: that is added when etcd has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// SHA-256 of the database, in hexadecimal.
    pub sha256: String,
    /// The minor version of the format of the data; None before etcd 3.6, which does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// What tells the log of the old etcd from that of the next; None of one of several members, whose data must not go back
    /// without those of the others.
    pub moment: Option<Moment>,
    /// Whether the log is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_log: bool,
}

impl DataCopy {
    /// Whether it may be put back.
    pub fn is_restorable(&self) -> bool {
        self.snapshot.as_ref().is_none_or(|snapshot| snapshot.moment.is_some())
    }
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

    /// The copy of etcd's data, where it may be put back.
    pub fn restorable(&self) -> Option<&DataCopy> {
        self.etcd_data.as_ref().filter(|data| data.is_restorable())
    }

    /// What the backup says of itself, and where.
    ///
    /// # Errors
    /// A command that JSON cannot hold.
    pub fn about(&self) -> Result<(PathBuf, Vec<u8>), UpgradeError> {
        let path = self.backup.join(About::FILE);
        let content = serde_json::to_vec(&About { command: self.command.clone(), etcd_copy: self.etcd_copy.clone() })
            .map_err(|source| UpgradeError::Journal { path: path.clone(), source })?;
        Ok((path, content))
    }

    /// Where the manifest of a component is kept to which the upgrade goes; an earlier kubeboot has kept etcd's alone.
    pub fn new_manifest(&self, component: &str) -> PathBuf {
        self.backup.join(format!("new/{component}.yaml"))
    }

    /// Where etcd's data are copied to, the same for each run of this upgrade.
    pub fn etcd_copy(&self) -> PathBuf {
        self.etcd_copy.clone().unwrap_or_else(|| self.etcd_copy_in(Path::new(TMP_DIR)))
    }

    /// Where in `dir` they would be copied to: named as kubeadm names it.
    pub fn etcd_copy_in(&self, dir: &Path) -> PathBuf {
        let name = self.backup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stamp = name.strip_prefix(BACKUP_PREFIX).unwrap_or(name);
        dir.join(format!("{DATA_PREFIX}{stamp}"))
    }

    /// The journal of an upgrade that begins.
    pub fn new(target: impl Into<String>, command: impl Into<String>, backup: PathBuf) -> Self {
        Self {
            target: target.into(),
            command: command.into(),
            backup,
            etcd_copy: None,
            etcd_data: None,
            etcd_kept: None,
            renewed: Vec::new(),
            files: Vec::new(),
            objects: None,
            objects_written: false,
            api_answered: false,
            etcd_before: None,
            api_away: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::MemoryTree;

    #[test]
    fn the_journal_of_an_earlier_kubeboot_is_read() {
        let mut tree = MemoryTree::empty();
        let text = r#"{"target": "v1.37.1", "command": "kubeboot upgrade apply v1.37.1", "backup": "/b", "etcdData":
            {"from": "/var/lib/etcd", "to": "/c", "version": "3.6.8", "served": false}, "state": "applying"}"#;
        tree.write(Path::new(JOURNAL), text.as_bytes(), 0o600).unwrap();
        let journal = Journal::read(&tree).unwrap().unwrap();
        let data = journal.restorable().unwrap();
        assert_eq!((data.snapshot.as_ref(), data.served), (None, Some(false)));
        journal.write(&mut tree).unwrap();
        assert_eq!(Journal::read(&tree).unwrap().unwrap(), journal);
    }
}
