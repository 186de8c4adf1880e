//! The last good bytes of each manifest, kept below the root directory.
//!
//! A manifest that turns invalid keeps its pod. Without this an agent that is restarted before the manifest is mended
//! would know nothing of the pod any more and would have to take its containers for orphans.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::listing::Entry;
use crate::host::fs::{FsError, make_dirs, read_if_exists, remove_file, write_file};

/// The directory, below the root directory.
const DIR: &str = "kubeboot-manifests";

/// The files of one source.
pub struct Checkpoint {
    dir: PathBuf,
    /// What is on disk, by file name.
    kept: BTreeMap<String, Arc<[u8]>>,
}

impl Checkpoint {
    /// Below this root directory.
    pub fn new(root: &Path) -> Self {
        Self { dir: root.join(DIR), kept: BTreeMap::new() }
    }

    /// What an earlier agent kept of these files. What cannot be read is as good as not kept.
    pub fn load(&mut self, names: &[String]) -> Vec<Entry> {
        for name in names {
            if let Ok(Some(bytes)) = read_if_exists(&self.dir.join(name)) {
                self.kept.insert(name.clone(), bytes.into());
            }
        }
        self.kept.iter().map(|(name, bytes)| Entry { name: name.clone(), content: Ok(bytes.to_vec()) }).collect()
    }

    /// Keeps these, and only these. Manifests may hold what is nobody else's business: 0600, as they have it
    /// themselves.
    pub fn keep(&mut self, good: BTreeMap<String, Arc<[u8]>>) -> Result<(), FsError> {
        if good == self.kept && (good.is_empty() || self.dir.is_dir()) {
            return Ok(());
        }
        make_dirs(&self.dir, 0o700)?;
        for (name, bytes) in &good {
            write_file(&self.dir.join(name), bytes, 0o600)?;
        }
        let found = fs::read_dir(&self.dir).map_err(|e| FsError::new("list", &self.dir, e))?;
        for name in found.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if !good.contains_key(&name) {
                remove_file(&self.dir.join(name))?;
            }
        }
        self.kept = good;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let bytes = |text: &str| Arc::<[u8]>::from(text.as_bytes());
        let good = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), bytes(name))).collect();
        Checkpoint::new(root.path()).keep(good(&["a.yaml", "b.yaml"])).unwrap();
        let mut again = Checkpoint::new(root.path());
        let found = again.load(&["b.yaml".into(), "c.yaml".into()]);
        assert_eq!(found, [Entry { name: "b.yaml".into(), content: Ok(b"b.yaml".to_vec()) }]);
        again.keep(good(&["c.yaml"])).unwrap();
        let left: Vec<_> = fs::read_dir(root.path().join(DIR)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["c.yaml"]);
    }
}
