//! What `upgrade` would do on this machine: the phases that were asked for, made into files, manifests and objects
//! before anything is touched.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::apply::{Renewal, Work};
use super::kept::FileChange;
use super::objects::{self, Group};
use super::plan::{Step, plan};
use super::table::{Part, SelectedPhases};
use super::target::{ImageChange, running_version, targets};
use super::{UpgradeError, current};
use crate::config::ClusterSpec;
use crate::config::spec::Overrides;
use crate::host::paths::{KUBELET_ADOPTED, KUBELET_CONFIG, KUBELET_FLAGS_ENV, KUBELET_INSTANCE_CONFIG};
use crate::host::tree::{HostTree, MemoryTree, NoRecord, Tree};
use crate::host::{Paths, environment};
use crate::kubelet;
use crate::manifests;
use crate::release::{KubernetesVersion, Refusal, UpgradePolicy, upgrade_allowed};
use crate::workflow::machine::Cause;
use crate::workflow::node_files::{RESOLVED, render};
use crate::workflow::state::saved::{SAVED, Saved, SavedError};
use crate::yaml;

/// Where an upgrade goes, and how.
#[derive(Debug, Clone)]
pub struct Goal {
    /// To which version; None where images alone are changed.
    pub version: Option<KubernetesVersion>,
    /// Other images.
    pub images: Vec<ImageChange>,
    /// Patches in the place of those of init.
    pub patches_dir: Option<PathBuf>,
    /// Whether etcd goes too.
    pub etcd: bool,
    /// Whether certificates are renewed.
    pub certificates: bool,
    /// Which versions are allowed.
    pub policy: UpgradePolicy,
    /// The phases.
    pub parts: SelectedPhases,
}

/// An upgrade that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The manifests.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// No control plane of ours.
    #[error("this machine was not initialised by `kubeboot init`")]
    NotInitialised,
    /// Taken over, and its configuration was not read then.
    #[error("this node was taken over by `kubeboot adopt`, and its configuration is not known")]
    NotRead,
    /// What init was given.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// The version is none that this control plane may go to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] manifests::ManifestError),
    /// The kubelet's files.
    #[error(transparent)]
    Kubelet(#[from] kubelet::files::KubeletFilesError),
    /// The kubelet's settings as they are.
    #[error("{} is no YAML", path.display())]
    KubeletConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: yaml::YamlError,
    },
    /// Objects of the cluster.
    #[error("cannot make the objects of the cluster")]
    Objects(#[source] Cause),
}

/// What an upgrade would do.
pub struct Prepared {
    /// The cluster as it will be.
    pub spec: ClusterSpec,
    /// What runs; None where no one can tell.
    pub from: Option<KubernetesVersion>,
    /// The components to replace.
    pub steps: Vec<Step>,
    /// Files of the node that would change.
    pub files: Vec<FileChange>,
    /// Objects of the cluster.
    pub objects: Vec<Group>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Why the version may not follow, where it may not.
    pub refusal: Option<Refusal>,
    /// The node's KubeletConfiguration as it will be; None where it has none, or where only images change.
    pub kubelet_config: Option<Vec<u8>>,
    renews: bool,
    settles: bool,
}

impl Prepared {
    /// The work, certificates being valid from `now`.
    pub fn work(&self, now: Timestamp) -> Work<'_> {
        Work {
            steps: self.steps.clone(),
            renewal: self.renews.then_some(Renewal { spec: &self.spec, now }),
            files: self.files.clone(),
            objects: self.objects.clone(),
            settle: self.settles,
            ..Work::default()
        }
    }

    /// Whether certificates are renewed with their components.
    pub fn renews(&self) -> bool {
        self.renews
    }

    /// Lines for a dry run, besides the manifests.
    pub fn would(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.renews {
            let names = self.steps.iter().map(|step| step.component).collect::<Vec<_>>();
            lines.extend((!names.is_empty()).then(|| format!("Would renew the certificates of {}", names.join(", "))));
        }
        lines.extend(self.files.iter().map(|file| format!("Would write {}", file.path.display())));
        lines.extend(self.objects.iter().map(|group| format!("Would bring {} up to date in the cluster", group.title)));
        lines
    }
}

/// Looks at the machine below `paths` and makes everything that `goal` asks for.
///
/// # Errors
/// A machine without a control plane of ours, a version that may not follow, settings that cannot be used.
pub fn prepare(paths: &Paths, goal: &Goal) -> Result<Prepared, PrepareError> {
    let found = Found::on(paths, goal)?;
    match &found.refusal {
        Some(refusal) => Err(refusal.clone().into()),
        None => make(paths, goal, found),
    }
}

/// The same, to be looked at: a version that may not follow is in [`Prepared::refusal`].
///
/// # Errors
/// A machine without a control plane of ours, settings that cannot be used.
pub fn look(paths: &Paths, goal: &Goal) -> Result<Prepared, PrepareError> {
    make(paths, goal, Found::on(paths, goal)?)
}

/// What is there, and whether the version may follow.
struct Found {
    from: Option<KubernetesVersion>,
    saved: Saved,
    spec: ClusterSpec,
    warnings: Vec<String>,
    refusal: Option<Refusal>,
}

impl Found {
    fn on(paths: &Paths, goal: &Goal) -> Result<Self, PrepareError> {
        let tree = HostTree::new(paths.clone(), NoRecord);
        let from = running_version(|path: &Path| current(&tree, path))?;
        let unknown = || match is_adopted(&tree) {
            true => PrepareError::NotRead,
            false => PrepareError::NotInitialised,
        };
        let saved = Saved::read(&tree)?.ok_or_else(unknown)?;
        let (spec, mut warnings) = saved.spec()?;
        let refusal = match (&goal.version, &from) {
            (Some(to), Some(from)) => match allowed(from, to, goal.policy) {
                Ok(warning) => {
                    warnings.extend(warning);
                    None
                }
                Err(refusal) => Some(refusal),
            },
            _ => None,
        };
        Ok(Self { from, saved, spec, warnings, refusal })
    }
}

fn make(paths: &Paths, goal: &Goal, found: Found) -> Result<Prepared, PrepareError> {
    let tree = HostTree::new(paths.clone(), NoRecord);
    let now = |path: &Path| current(&tree, path);
    let Found { from, saved, spec, warnings, refusal } = found;
    let (kubernetes_version, patches_dir) = (goal.version.clone(), goal.patches_dir.clone());
    let spec = spec.with(Overrides { kubernetes_version, patches_dir, ..Overrides::default() });
    let mut rendered = Vec::new();
    if goal.version.is_some() {
        let proxy_env = environment::proxies();
        for component in manifests::wanted(&spec) {
            rendered.push(render(&spec, component, &proxy_env, &tree)?);
        }
    }
    let mut prepared = Prepared {
        from,
        steps: Vec::new(),
        files: Vec::new(),
        objects: Vec::new(),
        warnings,
        refusal,
        kubelet_config: None,
        renews: goal.certificates && goal.version.is_some(),
        settles: goal.parts.has(Part::PostUpgrade) && goal.version.is_some(),
        spec,
    };
    if goal.parts.has(Part::ControlPlane) {
        prepared.steps = plan(now, &targets(&rendered, &goal.images, goal.etcd, now)?)?;
    }
    if goal.version.is_some() {
        prepared.files = files(&prepared.spec, &saved, &goal.parts, paths, &mut prepared.warnings)?;
        prepared.objects = groups(&prepared.spec, &goal.parts).map_err(PrepareError::Objects)?;
        let changed = prepared.files.iter().find(|file| file.path == Path::new(KUBELET_CONFIG));
        let there = || tree.read(Path::new(KUBELET_CONFIG)).map_err(UpgradeError::File);
        prepared.kubelet_config = changed.map_or_else(there, |file| Ok(Some(file.content.clone())))?;
    }
    Ok(prepared)
}

/// The rules for versions; what `--force` has got past is a warning.
fn allowed(from: &KubernetesVersion, to: &KubernetesVersion, policy: UpgradePolicy) -> Result<Option<String>, Refusal> {
    match upgrade_allowed(from, to, policy) {
        Err(refusal) if refusal.can_be_forced() && policy.force => {
            Ok(Some(format!("{refusal}; going on because of --force")))
        }
        Err(refusal) => Err(refusal),
        Ok(()) => Ok(None),
    }
}

/// The node's files that would be other than they are.
fn files(
    spec: &ClusterSpec,
    saved: &Saved,
    parts: &SelectedPhases,
    paths: &Paths,
    warnings: &mut Vec<String>,
) -> Result<Vec<FileChange>, PrepareError> {
    let tree = HostTree::new(paths.clone(), NoRecord);
    let mut staged = MemoryTree::staging(paths.clone());
    if parts.has(Part::ControlPlane) {
        saved.with_version(&spec.kubernetes_version).write(&mut staged)?;
    }
    // A node without these files has no agent of ours.
    if parts.has(Part::KubeletConfig) && tree.exists(Path::new(KUBELET_CONFIG)) {
        let resolved = tree.exists(Path::new(RESOLVED));
        if is_adopted(&tree) {
            let config = adopted(spec, &tree)?;
            staged.write(Path::new(KUBELET_CONFIG), &config, 0o644).map_err(UpgradeError::File)?;
        } else {
            warnings.extend(kubelet::files::write(spec, resolved, &mut staged)?.warnings);
        }
    }
    let mut changes = Vec::new();
    for path in [SAVED, KUBELET_FLAGS_ENV, KUBELET_INSTANCE_CONFIG, KUBELET_CONFIG].map(Path::new) {
        let Some(file) = staged.files().get(path) else { continue };
        let now = tree.read(path).map_err(UpgradeError::File)?;
        if now.is_none_or(|now| !says_the_same(&now, &file.content)) {
            changes.push(FileChange { path: path.to_owned(), content: file.content.clone(), mode: file.mode });
        }
    }
    Ok(changes)
}

/// Whether two files are the same but for how they are written: kubeadm quotes less.
fn says_the_same(one: &[u8], other: &[u8]) -> bool {
    let value = |bytes: &[u8]| yaml::to_value(std::str::from_utf8(bytes).ok()?).ok();
    one == other || value(one).zip(value(other)).is_some_and(|(one, other)| one == other)
}

/// Whether the node is a kubelet's, which kubeadm made.
fn is_adopted(tree: &dyn Tree) -> bool {
    tree.exists(Path::new(KUBELET_ADOPTED))
}

/// The settings of that kubelet, from those of the cluster. Its flags, and where its runtime is, stay as they are.
fn adopted(spec: &ClusterSpec, tree: &dyn Tree) -> Result<Vec<u8>, PrepareError> {
    let value = |text: &str| {
        yaml::to_value(text).map_err(|source| PrepareError::KubeletConfig { path: KUBELET_CONFIG.into(), source })
    };
    let before = tree.read(Path::new(KUBELET_CONFIG)).map_err(UpgradeError::File)?.unwrap_or_default();
    let before = value(&String::from_utf8_lossy(&before))?;
    let cluster = value(&kubelet::files::cluster_wide(spec)?)?;
    let resolved = tree.exists(Path::new(RESOLVED));
    Ok(kubelet::files::in_cluster(&cluster, &before, spec.patches_dir.as_deref(), resolved)?.into_bytes())
}

/// The objects of the phases that were asked for.
fn groups(spec: &ClusterSpec, parts: &SelectedPhases) -> Result<Vec<Group>, Cause> {
    let mut groups = Vec::new();
    if parts.has_child(Part::UploadConfig, "kubeadm") {
        groups.push(objects::kubeadm_config(spec)?);
    }
    if parts.has_child(Part::UploadConfig, "kubelet") {
        groups.push(objects::kubelet_config(spec)?);
    }
    if parts.has(Part::BootstrapToken) {
        groups.push(objects::bootstrap_rights());
    }
    if parts.has_child(Part::Addon, "coredns") {
        groups.extend(objects::coredns(spec)?);
    }
    if parts.has_child(Part::Addon, "kube-proxy") {
        groups.extend(objects::kube_proxy(spec, &environment::proxies())?);
    }
    Ok(groups)
}
