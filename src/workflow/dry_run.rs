//! What a command would do, done in memory: no root, no network, no runtime, and not a file touched.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cluster::object::Object;
use crate::host::Paths;
use crate::host::fs::FsError;
use crate::host::tree::{HostTree, MemoryFile, MemoryTree, NoRecord, Tree};

/// What stands in the place of a secret.
const WITHHELD: &str = "<withheld>";

/// What a command would do.
#[derive(Default)]
pub struct DryRun {
    steps: Vec<Step>,
    tree: MemoryTree,
}

enum Step {
    Would(&'static str, String),
    Warning(&'static str, String),
    Write(PathBuf, MemoryFile),
    Apply(Object),
}

/// One step, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "step")]
pub enum Shown {
    /// Something besides a file.
    Action {
        /// What would be done.
        text: String,
    },
    /// Something the user should know of.
    Warning {
        /// What.
        text: String,
    },
    /// A file.
    File {
        /// Where, as the node sees it.
        path: PathBuf,
        /// Its mode, in octal.
        mode: String,
        /// What it would hold; of a private key, nothing.
        content: String,
    },
    /// An object in the cluster.
    Object {
        /// What would be done: `CREATE` or `PATCH`.
        action: String,
        /// Its kind, namespace and name.
        name: String,
        /// The object as YAML; of a secret, nothing.
        content: String,
    },
}

impl DryRun {
    /// Nothing yet, above what is on the machine.
    pub(super) fn above(paths: &Paths) -> Self {
        Self { steps: Vec::new(), tree: MemoryTree::above(paths.clone()) }
    }

    /// The files as they would be.
    pub(super) fn tree(&self) -> &dyn Tree {
        &self.tree
    }

    /// Something that the user should know of.
    pub(super) fn warn(&mut self, phase: &'static str, text: String) {
        self.steps.push(Step::Warning(phase, text));
    }

    /// Objects in the cluster.
    pub(super) fn apply(&mut self, objects: Vec<Object>) {
        self.steps.extend(objects.into_iter().map(Step::Apply));
    }

    /// Something besides a file.
    pub(super) fn would(&mut self, phase: &'static str, text: String) {
        self.steps.push(Step::Would(phase, text));
    }

    /// The files that `write` writes.
    pub(super) fn files<T, E>(&mut self, write: impl FnOnce(&mut dyn Tree) -> Result<T, E>) -> Result<T, E> {
        let before = self.tree.clone();
        let said = write(&mut self.tree)?;
        let new = self.tree.since(&before);
        self.steps.extend(new.files().iter().map(|(path, file)| Step::Write(path.clone(), file.clone())));
        Ok(said)
    }

    /// The steps in kubeadm's words; no secret is in it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            match step {
                Step::Would(phase, what) => text.push_str(&format!("[{phase}] {what}\n")),
                Step::Warning(phase, what) => text.push_str(&format!("[{phase}] WARNING: {what}\n")),
                Step::Write(path, file) => {
                    text.push_str(&format!("[dryrun] Would write file {path:?} with content:\n"));
                    without_secrets(&file.content).lines().for_each(|line| text.push_str(&format!("\t{line}\n")));
                }
                Step::Apply(object) => {
                    let (verb, resource, group) = object.action();
                    let what = format!("{verb} on resource {resource:?} in API group {group:?}");
                    text.push_str(&format!("[dryrun] Would perform action {what}\n[dryrun] Attached object:\n"));
                    shown(object).lines().for_each(|line| text.push_str(&format!("\t{line}\n")));
                }
            }
        }
        text
    }

    /// The steps as values; no secret is in them.
    pub fn shown(&self) -> Vec<Shown> {
        let shown = |step: &Step| match step {
            Step::Would(_, text) => Shown::Action { text: text.clone() },
            Step::Warning(_, text) => Shown::Warning { text: text.clone() },
            Step::Write(path, file) => Shown::File {
                path: path.clone(),
                mode: format!("{:04o}", file.mode),
                content: without_secrets(&file.content),
            },
            Step::Apply(object) => Shown::Object {
                action: object.action().0.to_owned(),
                name: object.key().to_string(),
                content: shown(object),
            },
        };
        self.steps.iter().map(shown).collect()
    }

    /// Writes the files, secrets too, with their modes below `dir`, at the paths that the node would see; returns how
    /// many.
    ///
    /// # Errors
    /// What the file system refuses, the root directory among it.
    pub fn write_below(&self, dir: &Path) -> Result<usize, FsError> {
        std::fs::create_dir_all(dir).map_err(|e| FsError::new("create directory", dir, e))?;
        let dir = dir.canonicalize().map_err(|e| FsError::new("find", dir, e))?;
        if dir == Path::new("/") {
            let refused =
                std::io::Error::other("a dry run writes nothing where it would count; name another directory");
            return Err(FsError::new("write below", dir, refused));
        }
        let mut tree = HostTree::new(Paths::new(dir), NoRecord);
        for (path, mode) in self.tree.dirs() {
            tree.make_dir(path, *mode)?;
        }
        for (path, file) in self.tree.files() {
            tree.write(path, &file.content, file.mode)?;
        }
        Ok(self.tree.files().len())
    }
}

fn shown(object: &Object) -> String {
    // An object is JSON, which YAML holds whole.
    object.shown().unwrap_or_default()
}

/// The text of a file, without private keys and tokens.
fn without_secrets(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    if text.contains("PRIVATE KEY-----") {
        return format!("{WITHHELD}\n");
    }
    let line = |line: &str| match line.split_once(':') {
        Some((name, _)) if matches!(name.trim(), "client-key-data" | "token" | "password") => {
            format!("{name}: {WITHHELD}\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}
