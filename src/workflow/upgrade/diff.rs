//! What an upgrade would change, line by line.

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::UpgradeError;
use super::plan::Step;
use super::prepare::Prepared;
use super::table::Part;
use crate::host::tree::Tree;
use crate::workflow::machine::Cause;
use crate::workflow::machine::cluster::Api;
use crate::workflow::state::saved::SAVED;

/// One thing that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// The component, the file's path, or namespace and name of the config map.
    pub name: String,
    /// How it would change, as a unified diff.
    pub diff: String,
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A component's manifest.
    Manifest,
    /// Another file of this node.
    File,
    /// A config map of the cluster.
    ConfigMap,
}

/// A unified diff of every step, in order, with `context` lines around each change.
pub fn unified(steps: &[Step], context: usize) -> String {
    steps.iter().map(|step| unified_one(step, context)).collect()
}

fn unified_one(step: &Step, context: usize) -> String {
    between(&step.file.display().to_string(), (&step.old, &step.new), context)
}

/// A unified diff of two texts of `name`; empty where they are the same.
fn between(name: &str, (old, new): (&[u8], &[u8]), context: usize) -> String {
    let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
    TextDiff::from_lines(old.as_ref(), new.as_ref())
        .unified_diff()
        .context_radius(context)
        .header(name, &format!("{name} (new)"))
        .to_string()
}

/// The manifests and the other files of this node that would change. What init was given is none of them: it is this
/// program's own, and may hold tokens.
///
/// # Errors
/// Files that cannot be read.
pub fn files(tree: &dyn Tree, prepared: &Prepared, context: usize) -> Result<Vec<Change>, UpgradeError> {
    let manifest = |step: &Step| Change {
        kind: Kind::Manifest,
        name: step.component.to_owned(),
        diff: unified_one(step, context),
    };
    let mut all: Vec<Change> = prepared.steps.iter().map(manifest).collect();
    for file in prepared.files.iter().filter(|file| file.path.as_os_str() != SAVED) {
        let old = tree.read(&file.path)?.unwrap_or_default();
        let name = file.path.display().to_string();
        let diff = between(&name, (&old, &file.content), context);
        all.push(Change { kind: Kind::File, name, diff });
    }
    Ok(all)
}

/// The config maps with kubeadm's and the kubelets' configuration, as far as they would change.
///
/// # Errors
/// The API server does not answer.
pub async fn config_maps(api: Api<'_>, prepared: &Prepared, context: usize) -> Result<Vec<Change>, Cause> {
    let mut all = Vec::new();
    let groups = prepared.objects.iter().filter(|group| group.part == Part::UploadConfig);
    for object in groups.flat_map(|group| &group.objects).filter(|object| object.resource.kind == "ConfigMap") {
        let there = api.cluster.get(api.site, object).await?.unwrap_or_default();
        let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name());
        let diff = of_map(&name, (&there["data"], &object.value["data"]), context);
        if !diff.is_empty() {
            all.push(Change { kind: Kind::ConfigMap, name, diff });
        }
    }
    Ok(all)
}

/// A diff of each key of a config map that would be written.
fn of_map(name: &str, (old, new): (&Value, &Value), context: usize) -> String {
    let keys = new.as_object().into_iter().flatten();
    let one = |(key, new): (&String, &Value)| {
        let (old, new) = (old[key].as_str().unwrap_or_default(), new.as_str().unwrap_or_default());
        between(&format!("{name} {key}"), (old.as_bytes(), new.as_bytes()), context)
    };
    keys.map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_diff_names_the_file_and_shows_both_images() {
        let step = Step {
            component: "etcd",
            file: PathBuf::from("/m/etcd.yaml"),
            old: b"a: 1\nimage: x:v1\nb: 2\n".to_vec(),
            new: b"a: 1\nimage: x:v2\nb: 2\n".to_vec(),
            old_image: "x:v1".into(),
            new_image: "x:v2".into(),
            data_dir: None,
        };
        let expected =
            "--- /m/etcd.yaml\n+++ /m/etcd.yaml (new)\n@@ -1,3 +1,3 @@\n a: 1\n-image: x:v1\n+image: x:v2\n b: 2\n";
        assert_eq!(unified(&[step], 3), expected);
    }

    #[test]
    fn a_config_map_changes_key_by_key_and_what_is_not_written_does_not_count() {
        let old = serde_json::json!({"a": "x: 1\n", "same": "y\n", "theirs": "z\n"});
        let new = serde_json::json!({"a": "x: 2\n", "same": "y\n"});
        let diff = of_map("kube-system/m", (&old, &new), 3);
        assert_eq!(diff, "--- kube-system/m a\n+++ kube-system/m a (new)\n@@ -1 +1 @@\n-x: 1\n+x: 2\n");
        assert!(of_map("m", (&Value::Null, &new), 3).contains("+x: 2"), "one that is not there is made");
        assert_eq!(of_map("m", (&old, &old), 3), "");
    }
}
