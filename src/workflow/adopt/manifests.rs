//! The manifests of a node that somebody else made: where they are and what they run.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::AdoptError;
use crate::agent::control::expect::Expectation;
use crate::host::Paths;
use crate::host::digest::sha256;
use crate::host::fs::FsError;
use crate::host::paths::{ADOPTED_MANIFESTS, MANIFESTS_DIR};
use crate::host::tree::Tree;
use crate::yaml;

/// A manifest, wherever it is now.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its file name.
    pub name: String,
    content: Vec<u8>,
    pod: Value,
}

/// Names of the files in a directory of manifests, as a kubelet reads them: all but those with a leading dot.
///
/// # Errors
/// What cannot be read, and a link: it would come back as a file.
pub fn names(paths: &Paths, dir: &str) -> Result<Vec<String>, AdoptError> {
    let host = paths.on_host(dir);
    let entries = match std::fs::read_dir(&host) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(FsError::new("read", &host, e).into()),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|e| FsError::new("read", &host, e))?;
        let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else {
            continue;
        };
        let kind = entry.file_type().map_err(|e| FsError::new("look at", entry.path(), e))?;
        if kind.is_symlink() {
            return Err(refused(&Path::new(dir).join(name), "it is a link; put the file itself there"));
        }
        if kind.is_file() {
            names.insert(name);
        }
    }
    Ok(names.into_iter().collect())
}

/// Reads the manifests `names`, those that are aside from there.
pub fn read(tree: &dyn Tree, names: impl Iterator<Item = String>) -> Result<Vec<Found>, AdoptError> {
    let mut found = Vec::new();
    for name in names {
        let place = Path::new(MANIFESTS_DIR).join(&name);
        let content = match tree.read(&Path::new(ADOPTED_MANIFESTS).join(&name))? {
            Some(content) => Some(content),
            None => tree.read(&place)?,
        };
        let Some(content) = content else { continue };
        let text = std::str::from_utf8(&content).map_err(|e| refused(&place, &e.to_string()))?;
        let pod = yaml::to_value_lenient(text).map_err(|e| refused(&place, &e.to_string()))?;
        if pod.get("kind") != Some(&Value::from("Pod")) {
            return Err(refused(&place, "it is no Pod"));
        }
        found.push(Found { name, content, pod });
    }
    Ok(found)
}

fn refused(path: &Path, reason: &str) -> AdoptError {
    AdoptError::Manifest { path: path.to_owned(), reason: reason.to_owned() }
}

impl Found {
    fn containers(&self) -> impl Iterator<Item = &Value> {
        let lists = ["/spec/initContainers", "/spec/containers"];
        lists.into_iter().filter_map(|at| self.pod.pointer(at)?.as_array()).flatten()
    }

    /// The images it needs.
    pub fn images(&self) -> Vec<String> {
        self.containers().filter_map(|one| Some(one.get("image")?.as_str()?.to_owned())).collect()
    }

    /// The command lines that its manifest spells out whole.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let words = |one: &Value, field: &str| -> Vec<String> {
            let list = one.get(field).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        let line = |one: &Value| [words(one, "command"), words(one, "args")].concat();
        self.containers().filter(|one| one.get("command").is_some()).map(line).collect()
    }

    /// What the agent is to report of it; None of a pod that says no component's name.
    pub fn expectation(&self) -> Option<Expectation> {
        Some(Expectation {
            component: self.pod.pointer("/metadata/labels/component")?.as_str()?.to_owned(),
            file: Path::new(MANIFESTS_DIR).join(&self.name).display().to_string(),
            file_hash: Some(sha256(&self.content)),
        })
    }
}
