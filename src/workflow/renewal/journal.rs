//! What a renewal has decided and not yet carried out, so that a killed one is finished by the next command: the new
//! files before any old one is replaced, then the components that have yet to be restarted.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::RenewalError;
use crate::host::fs::{FsError, NewFile};
use crate::host::tree::{MemoryTree, Tree};

/// Where it is, as the node sees it. It holds private keys until they are in place.
pub const JOURNAL: &str = "/etc/kubernetes/tmp/kubeboot-renewal.json";

/// The journal. Has no Debug: it holds private keys.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Journal {
    /// kubeadm's names of what is renewed.
    pub names: Vec<String>,
    /// New files that are not all in place yet.
    pub files: Vec<File>,
    /// Whether components are to be restarted.
    pub restart: bool,
    /// Components that have yet to be, with the containers they had when the files were in place.
    pub pending: Vec<Pending>,
}

/// A new file.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    path: PathBuf,
    mode: u32,
    /// In base64.
    content: String,
    /// What it replaces, in base64.
    before: Option<String>,
}

/// A component that has yet to be restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its name.
    pub component: String,
    /// The containers that do not know the new certificates.
    pub before: Vec<String>,
    /// The certificate of its own that it served then, by its fingerprint.
    pub served: Option<String>,
}

impl Journal {
    /// A journal that is to put `staged` in the place of what is in `tree`.
    pub fn of(names: Vec<String>, staged: &MemoryTree, tree: &dyn Tree, restart: bool) -> Result<Self, FsError> {
        let mut files = Vec::new();
        for (path, file) in staged.files() {
            let before = tree.read(path)?.map(|content| STANDARD.encode(content));
            let content = STANDARD.encode(&file.content);
            files.push(File { path: path.clone(), mode: file.mode, content, before });
        }
        Ok(Self { names, files, restart, pending: Vec::new() })
    }

    /// The journal of a renewal that was cut off, if there is one.
    pub fn read(tree: &dyn Tree) -> Result<Option<Self>, RenewalError> {
        let Some(content) = tree.read(Path::new(JOURNAL))? else { return Ok(None) };
        // The parser's words may repeat what it read.
        serde_json::from_slice(&content).map(Some).map_err(|_| RenewalError::Journal)
    }

    /// Writes it, with what it holds of keys for root alone.
    pub fn write(&self, tree: &mut dyn Tree) -> Result<(), RenewalError> {
        let path = Path::new(JOURNAL);
        if let Some(dir) = path.parent() {
            tree.make_dir(dir, 0o700)?;
        }
        let content = serde_json::to_vec(self).map_err(|_| RenewalError::Journal)?;
        tree.write(path, &content, 0o600)?;
        Ok(())
    }

    /// Removes it.
    pub fn remove(tree: &mut dyn Tree) -> Result<(), FsError> {
        tree.remove(Path::new(JOURNAL)).map(drop)
    }

    /// Puts the new files in place: all of them, or, when one cannot be written, the old ones again.
    pub fn replace(&self, tree: &mut dyn Tree) -> Result<(), RenewalError> {
        let Err(error) = write(tree, self.files.iter().map(|file| (file, Some(&file.content))))? else { return Ok(()) };
        match write(tree, self.files.iter().map(|file| (file, file.before.as_ref())))? {
            Ok(()) => Err(RenewalError::Unchanged(error)),
            Err(_) => Err(error.into()),
        }
    }
}

/// Writes the contents that there are, the key of a pair right before or behind its certificate.
fn write<'a>(
    tree: &mut dyn Tree,
    files: impl Iterator<Item = (&'a File, Option<&'a String>)>,
) -> Result<Result<(), FsError>, RenewalError> {
    let mut decoded = Vec::new();
    for (file, content) in files.filter_map(|(file, content)| Some((file, content?))) {
        decoded.push((file, STANDARD.decode(content).map_err(|_| RenewalError::Journal)?));
    }
    let files: Vec<NewFile<'_>> =
        decoded.iter().map(|(file, content)| NewFile { path: &file.path, content, mode: file.mode }).collect();
    Ok(tree.write_all(&files).map(drop))
}
