//! kubeadm's patches: files named `TARGET[SUFFIX][+TYPE].EXT` below one directory.
//!
//! TARGET is a static pod, `kubeletconfiguration`, `corednsdeployment` or `kubeproxydaemonset` (from kubeadm 1.37 on); TYPE
//! is `strategic` (the default), `merge` (RFC 7386) or `json` (RFC 6902); EXT is `yaml` or `json`. The directory is walked in the order of names, into its directories too; a file
//! may hold several documents, and all that fit a target are applied one after the other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json_patch::{self, JsonPatchError};
use super::strategic::{self, StrategicError};
use crate::yaml::{self, YamlError};

/// The patch target of `/var/lib/kubelet/config.yaml`.
pub const KUBELET_TARGET: &str = "kubeletconfiguration";

/// The patch target of CoreDNS's Deployment.
pub const COREDNS_TARGET: &str = "corednsdeployment";

/// The patch target of kube-proxy's DaemonSet.
pub const KUBE_PROXY_TARGET: &str = "kubeproxydaemonset";

/// Every target that kubeadm knows, longer names before those they begin with.
const TARGETS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    KUBELET_TARGET,
    COREDNS_TARGET,
    KUBE_PROXY_TARGET,
];

/// A patch that cannot be read or applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The directory or a file in it.
    #[error("cannot read patches from {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What follows the `+` of a file name.
    #[error("{}: {kind:?} is no kind of patch; write +strategic, +merge or +json", path.display())]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What was there.
        kind: String,
    },
    /// No YAML.
    #[error("{} is no YAML", path.display())]
    Yaml {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: YamlError,
    },
    /// No list of operations, or one that fails, such as removing what is not there.
    #[error("{} does not apply", path.display())]
    JsonPatch {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: JsonPatchError,
    },
    /// A strategic merge that cannot be made.
    #[error("{} cannot be merged", path.display())]
    Strategic {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StrategicError,
    },
}

/// How a patch is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PatchKind {
    Strategic,
    Merge,
    Json,
}

/// What they are called in file names.
const KINDS: [(&str, PatchKind); 3] =
    [("strategic", PatchKind::Strategic), ("merge", PatchKind::Merge), ("json", PatchKind::Json)];

#[derive(Debug)]
struct Patch {
    target: &'static str,
    kind: PatchKind,
    path: PathBuf,
    value: Value,
}

/// The patches of one directory.
#[derive(Debug, Default)]
pub struct Patches {
    patches: Vec<Patch>,
    /// Files that are no patches by their name, and empty ones.
    pub ignored: Vec<PathBuf>,
}

impl Patches {
    /// Reads all patches below `dir`, a path of this process: patches belong to the user who runs the command, not to the
    /// node's file tree.
    ///
    /// # Errors
    /// A directory or file that cannot be read, an unknown kind of patch, a file that is no YAML.
    pub fn read(dir: &Path) -> Result<Self, PatchError> {
        let mut patches = Self::default();
        patches.walk(dir)?;
        Ok(patches)
    }

    fn walk(&mut self, dir: &Path) -> Result<(), PatchError> {
        let read = |source| PatchError::Read { path: dir.to_owned(), source };
        let mut entries = fs::read_dir(dir).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            match entry.file_type().map_err(read)?.is_dir() {
                true => self.walk(&path)?,
                false => self.add(path)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<(), PatchError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((target, kind)) = parse_name(&name).map_err(|kind| PatchError::Kind { path: path.clone(), kind })?
        else {
            self.ignored.push(path);
            return Ok(());
        };
        let text = fs::read_to_string(&path).map_err(|source| PatchError::Read { path: path.clone(), source })?;
        let yaml = |source| PatchError::Yaml { path: path.clone(), source };
        let documents = yaml::documents(&text).map_err(yaml)?;
        if documents.is_empty() {
            self.ignored.push(path);
            return Ok(());
        }
        for document in documents {
            let mut value = yaml::Node::parse_lenient(&document).map_err(yaml)?.0.to_value();
            whole_numbers(&mut value);
            self.patches.push(Patch { target, kind, path: path.clone(), value });
        }
        Ok(())
    }

    /// Applies the patches of `target`, one of [`super::COMPONENTS`] or of this module's targets, in order.
    ///
    /// # Errors
    /// A patch that does not apply.
    pub fn apply(&self, target: &str, value: &mut Value) -> Result<(), PatchError> {
        self.patches.iter().filter(|patch| patch.target == target).try_for_each(|patch| patch.apply(value))
    }
}

impl Patch {
    fn apply(&self, value: &mut Value) -> Result<(), PatchError> {
        let path = || self.path.clone();
        match self.kind {
            PatchKind::Merge => ::json_patch::merge(value, &self.value),
            PatchKind::Json => json_patch::apply(value, &self.value)
                .map_err(|source| PatchError::JsonPatch { path: path(), source })?,
            PatchKind::Strategic => {
                let lists = match self.target {
                    KUBELET_TARGET => strategic::NO_LISTS,
                    COREDNS_TARGET | KUBE_PROXY_TARGET => strategic::WORKLOAD_LISTS,
                    _ => strategic::POD_LISTS,
                };
                strategic::merge(value, &self.value, lists)
                    .map_err(|source| PatchError::Strategic { path: path(), source })?;
            }
        }
        Ok(())
    }
}

/// Writes 8080.0 and 8.08e3 as 8080, as they come out of the JSON that kubeadm makes of a patch.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            // Up to here every whole number is a float of its own.
            if let Some(float) = whole.filter(|float| float.abs() <= 9_007_199_254_740_992.0) {
                *number = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Target and kind of a file name; None for a file that is no patch, Err for an unknown kind.
fn parse_name(name: &str) -> Result<Option<(&'static str, PatchKind)>, String> {
    let Some(stem) = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".json")) else { return Ok(None) };
    let Some(target) = TARGETS.into_iter().find(|target| stem.starts_with(target)) else { return Ok(None) };
    // A suffix holds neither dot nor plus, so the first of them ends it.
    let kind = stem[target.len()..].split_once(['+', '.']);
    match (kind, stem[target.len()..].contains('+')) {
        (Some((_, rest)), true) => {
            let known = KINDS.iter().find(|(word, _)| rest.starts_with(word));
            let kind =
                known.map(|(_, kind)| *kind).ok_or_else(|| rest.split('.').next().unwrap_or_default().to_owned());
            kind.map(|kind| Some((target, kind)))
        }
        _ => Ok(Some((target, PatchKind::Strategic))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_says_what_is_patched_and_how() {
        use PatchKind::*;
        for (name, expected) in [
            ("etcd.yaml", Some(("etcd", Strategic))),
            ("etcd1+json.yaml", Some(("etcd", Json))),
            ("kube-apiserver0+merge.json", Some(("kube-apiserver", Merge))),
            ("kube-controller-manager+strategic.yaml", Some(("kube-controller-manager", Strategic))),
            ("kubeletconfiguration9.yaml", Some(("kubeletconfiguration", Strategic))),
            ("kubeproxydaemonset0+json.yaml", Some(("kubeproxydaemonset", Json))),
            ("kube-proxy.yaml", None),
            ("etcd.yml", None),
            ("README.md", None),
        ] {
            assert_eq!(parse_name(name), Ok(expected), "{name}");
        }
        for name in ["etcd+bogus.yaml", "etcd0+.yaml"] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn patches_are_applied_in_the_order_of_names_document_by_document() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| crate::host::fs::write_file(&dir.path().join(name), text.as_bytes(), 0o644);
        put("etcd1+merge.yaml", "a: 2\n---\nb: 1\n").unwrap();
        put("etcd0+merge.yaml", "a: 1\nc: yes\n").unwrap();
        put("etcd2+json.yaml", "- {op: replace, path: /b, value: 3}\n").unwrap();
        put("notes.txt", "x").unwrap();
        put("etcd3.yaml", "# nothing yet\n").unwrap();
        let patches = Patches::read(dir.path()).unwrap();
        let mut value = serde_json::json!({});
        patches.apply("etcd", &mut value).unwrap();
        assert_eq!(value, serde_json::json!({"a": 2, "b": 3, "c": true}));
        let ignored: Vec<_> = patches.ignored.iter().filter_map(|p| p.file_name()?.to_str()).collect();
        assert_eq!(ignored, ["etcd3.yaml", "notes.txt"]);
    }

    #[test]
    fn a_patch_that_does_not_apply_is_an_error_with_the_files_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd+json.yaml");
        crate::host::fs::write_file(&path, b"- {op: remove, path: /nope}\n", 0o644).unwrap();
        let error = Patches::read(dir.path()).unwrap().apply("etcd", &mut serde_json::json!({})).unwrap_err();
        assert_eq!(error.to_string(), format!("{} does not apply", path.display()));
    }

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"- {op: test, path: /port, value: 8080.0}\n- {op: add, path: /other, value: 1.8e4}\n";
        crate::host::fs::write_file(&dir.path().join("etcd+json.yaml"), text, 0o644).unwrap();
        let mut value = serde_json::json!({"port": 8080});
        Patches::read(dir.path()).unwrap().apply("etcd", &mut value).unwrap();
        assert_eq!(value.to_string(), r#"{"other":18000,"port":8080}"#);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(matches!(Patches::read(Path::new("/nowhere")), Err(PatchError::Read { .. })));
    }
}
