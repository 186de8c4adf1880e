//! The last good bytes of each manifest, kept below the root directory.
//!
//! A manifest that turns invalid keeps its pod. Without this an agent that is restarted before the manifest is mended
//! would know nothing of the pod any more and would have to take its containers for orphans.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::listing::Entry;
use crate::host::digest::sha256;
use crate::host::fs::{FsError, make_dirs, read_if_exists, remove_file, write_file};

/// The directory, below the root directory.
const DIR: &str = "kubeboot-manifests";
/// The last good answer of a URL, beside it.
const ANSWER: &str = "kubeboot-manifest-url";

/// The files of one source.
#[derive(Clone)]
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

    /// Keeps these, and only these. Manifests may hold secrets: 0600, as they have it
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

/// The last good answer of a URL.
#[derive(Clone)]
pub struct Answer {
    file: PathBuf,
    /// What the file begins with: the answer of another URL is of no use.
    head: String,
    kept: Option<Arc<[u8]>>,
}

impl Answer {
    /// That of `url`, below this root directory.
    pub fn new(root: &Path, url: &str) -> Self {
        Self { file: root.join(ANSWER), head: format!("{}\n", sha256(url.as_bytes())), kept: None }
    }

    /// What an earlier agent kept. What cannot be read is as good as not kept.
    pub fn load(&mut self) -> Option<Arc<[u8]>> {
        let bytes = read_if_exists(&self.file).ok().flatten()?;
        self.kept = bytes.strip_prefix(self.head.as_bytes()).map(Arc::from);
        self.kept.clone()
    }

    /// Keeps this one.
    pub fn keep(&mut self, body: &Arc<[u8]>) -> Result<(), FsError> {
        if self.kept.as_ref() == Some(body) {
            return Ok(());
        }
        if let Some(dir) = self.file.parent() {
            make_dirs(dir, 0o755)?;
        }
        write_file(&self.file, &[self.head.as_bytes(), body].concat(), 0o600)?;
        self.kept = Some(Arc::clone(body));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_its_url_alone() {
        let root = tempfile::tempdir().unwrap();
        let body = |text: &str| Arc::<[u8]>::from(text.as_bytes());
        let mut answer = Answer::new(&root.path().join("r"), "http://x/a");
        assert_eq!(answer.load(), None);
        answer.keep(&body("one")).unwrap();
        answer.keep(&body("")).unwrap();
        let mut again = Answer::new(&root.path().join("r"), "http://x/a");
        assert_eq!(again.load(), Some(body("")), "that nothing is wanted is worth keeping too");
        again.keep(&body("two")).unwrap();
        assert_eq!(Answer::new(&root.path().join("r"), "http://x/a").load(), Some(body("two")));
        assert_eq!(Answer::new(&root.path().join("r"), "http://x/b").load(), None);
    }

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
