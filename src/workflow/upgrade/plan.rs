//! What an upgrade would replace. Pure: manifests in, steps out.

use std::path::{Path, PathBuf};

use super::UpgradeError;
use super::manifest::{image, meaning, parse};
use crate::host::digest::sha256;
use crate::manifests::COMPONENTS;

/// A manifest for one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// One of [`COMPONENTS`].
    pub component: &'static str,
    /// The file as the node sees it.
    pub file: PathBuf,
    /// Its new content.
    pub content: Vec<u8>,
}

/// One component that an upgrade replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which one.
    pub component: &'static str,
    /// The file as the node sees it.
    pub file: PathBuf,
    /// What is there now.
    pub old: Vec<u8>,
    /// What will be.
    pub new: Vec<u8>,
    /// The image now.
    pub old_image: String,
    /// The image then.
    pub new_image: String,
    /// etcd's data directory, which is copied while etcd is stopped, because another etcd may change its format.
    pub data_dir: Option<PathBuf>,
}

impl Step {
    /// The hash by which the agent will report the old manifest.
    pub fn old_hash(&self) -> String {
        sha256(&self.old)
    }

    /// The hash by which the agent will report the new manifest.
    pub fn new_hash(&self) -> String {
        sha256(&self.new)
    }
}

/// The steps from what is there to `targets`, in the order in which components are replaced: etcd, kube-apiserver,
/// kube-controller-manager, kube-scheduler, as kubeadm does. A manifest that says the same in other words is left
/// alone.
///
/// `current` gives the file's content now, None when it is not there.
pub fn plan(
    current: impl Fn(&Path) -> Result<Option<Vec<u8>>, UpgradeError>,
    targets: &[Target],
) -> Result<Vec<Step>, UpgradeError> {
    let mut steps = Vec::new();
    for component in COMPONENTS {
        let Some(target) = targets.iter().find(|t| t.component == component) else { continue };
        let old = current(&target.file)?.ok_or_else(|| UpgradeError::NoManifest { path: target.file.clone() })?;
        let (before, after) = (parse(&target.file, &old)?, parse(&target.file, &target.content)?);
        if meaning(&before) == meaning(&after) {
            continue;
        }
        let (old_image, new_image) = (image(&before).to_owned(), image(&after).to_owned());
        let data_dir = (component == "etcd" && old_image != new_image).then(|| data_dir(&before)).flatten();
        steps.push(Step {
            component,
            file: target.file.clone(),
            old,
            new: target.content.clone(),
            old_image,
            new_image,
            data_dir,
        });
    }
    Ok(steps)
}

/// Where etcd's manifest keeps its data: the hostPath of the volume `etcd-data`, as kubeadm's reset finds it.
fn data_dir(manifest: &serde_json::Value) -> Option<PathBuf> {
    let volumes = manifest.pointer("/spec/volumes")?.as_array()?;
    let volume = volumes.iter().find(|v| v["name"] == "etcd-data")?;
    volume.pointer("/hostPath/path")?.as_str().map(PathBuf::from)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A manifest of `component` with `image`.
    pub fn manifest(component: &str, image: &str) -> Vec<u8> {
        format!(
            "kind: Pod\nspec:\n  containers:\n  - name: {component}\n    image: {image}\n  volumes:\n  - name: etcd-data\n    \
             hostPath: {{path: /var/lib/etcd}}\n"
        )
        .into_bytes()
    }

    /// A target of `component` with `image`.
    pub fn target(component: &'static str, image: &str) -> Target {
        Target {
            component,
            file: PathBuf::from(format!("/etc/kubernetes/manifests/{component}.yaml")),
            content: manifest(component, image),
        }
    }

    #[test]
    fn only_what_differs_is_replaced_and_in_the_order_of_the_components() {
        let current = |path: &Path| {
            let component = path.file_stem().unwrap().to_str().unwrap();
            let mut content = manifest(component, "r/x:v1");
            content.extend_from_slice(b"# a comment changes nothing\n");
            Ok(Some(content))
        };
        let targets =
            [target("kube-scheduler", "r/x:v2"), target("kube-apiserver", "r/x:v1"), target("etcd", "r/x:v2")];
        let steps = plan(current, &targets).unwrap();
        assert_eq!(steps.iter().map(|s| s.component).collect::<Vec<_>>(), ["etcd", "kube-scheduler"]);
        assert_eq!(steps[0].data_dir.as_deref(), Some(Path::new("/var/lib/etcd")));
        assert_eq!(steps[1].data_dir, None);
    }

    #[test]
    fn without_a_manifest_there_is_nothing_to_upgrade() {
        let error = plan(|_| Ok(None), &[target("etcd", "r/x:v2")]).unwrap_err();
        assert!(matches!(error, UpgradeError::NoManifest { .. }));
    }
}
