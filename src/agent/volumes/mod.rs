//! Volumes of a pod on the machine, and the pod's own directory `ROOT/pods/UID`, laid out as the kubelet lays it out.

pub mod refresh;
mod atomic;
mod empty_dir;
mod host_path;
mod memory;
mod projected;
mod remove;
mod sub_path;
pub mod usage;
pub mod users;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Volume;
use rustix::fs::OFlags;

use super::objects::Objects;
use super::pod::StaticPod;
use super::pod::downward::Facts;
use crate::host::clock::Instant;
use crate::host::fs::{FsError, make_dirs};

pub use remove::{remove_pod_dir, remove_volumes};
pub use sub_path::{Slot, sub_path};

/// Why a volume cannot be mounted (the kubelet's event `FailedMount`).
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A hostPath is not there, or is something else than its type says.
    #[error("volume {volume}: hostPath type {wanted}: {} is {found}", path.display())]
    Type {
        /// The volume's name.
        volume: String,
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: &'static str,
    },
    /// A sub-path leads out of its volume.
    #[error("subPath {sub_path} leads out of volume {volume}")]
    Escape {
        /// The volume's name.
        volume: String,
        /// The sub-path.
        sub_path: String,
    },
    /// A kind of volume that this agent does not mount.
    #[error(
        "volume {volume}: {kind} volumes are not mounted by this agent; mount it on the machine and use a hostPath"
    )]
    Unsupported {
        /// The volume's name.
        volume: String,
        /// `nfs`, `iscsi`, ...
        kind: String,
    },
    /// A file cannot be written for want of its content: a field that is not known, an object that is not there.
    #[error("volume {volume}: {problem}")]
    Content {
        /// The volume's name.
        volume: String,
        /// Which file.
        problem: String,
    },
    /// The file system refused.
    #[error("volume {volume}")]
    Io {
        /// The volume's name.
        volume: String,
        /// What failed.
        #[source]
        source: FsError,
    },
}

/// `ROOT/pods/UID`: volumes, managed files and termination messages of a pod.
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// A file in each pod's directory that says that this agent made it: a real kubelet of this machine, also one that does
/// not run now, has its pods' directories in the same place.
const CLAIM: &str = ".kubeboot";
/// Where a pod's volumes are, in its directory, and the parts of them that are mounted alone.
const VOLUMES: &str = "volumes";
const SUB_PATHS: &str = "volume-subpaths";

/// Makes a pod's directory, as this agent's, before anything of the pod is made.
pub fn claim(root: &Path, uid: &str) -> Result<(), FsError> {
    let dir = pod_dir(root, uid);
    let file = dir.join(CLAIM);
    make_dirs(&dir, 0o750)?;
    let made = OpenOptions::new().create(true).append(true).mode(0o644).open(&file);
    made.map(drop).map_err(|e| FsError::new("make", &file, e))
}

/// UIDs of the pods whose directories below `root` this agent, or one before it, has made.
pub fn claimed(root: &Path) -> BTreeSet<String> {
    let dirs = fs::read_dir(root.join("pods")).into_iter().flatten().flatten();
    let ours = dirs.filter(|dir| dir.path().join(CLAIM).is_file());
    ours.filter_map(|dir| dir.file_name().into_string().ok()).collect()
}

/// The path a volume has on the machine; None for a kind that is not mounted here.
pub fn path(volume: &Volume, root: &Path, uid: &str) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    let plugins = [
        (volume.empty_dir.is_some(), "empty-dir"),
        (volume.downward_api.is_some(), "downward-api"),
        (volume.projected.is_some(), "projected"),
        (volume.config_map.is_some(), "configmap"),
        (volume.secret.is_some(), "secret"),
    ];
    let (_, plugin) = plugins.into_iter().find(|(present, _)| *present)?;
    Some(pod_dir(root, uid).join(VOLUMES).join(format!("kubernetes.io~{plugin}")).join(&volume.name))
}

/// Whether the agent writes the files of a volume, from what the API server or it itself knows: containers may only read
/// them.
pub fn is_of_api(volume: &Volume) -> bool {
    volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
}

/// The file that is mounted at a container's terminationMessagePath, one an instance.
pub fn termination_file(root: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod_dir(root, uid).join("containers").join(container).join(format!("{attempt:08x}"))
}

/// What the files of volumes are made from.
pub struct Inputs<'a> {
    /// What is known of the node.
    pub facts: &'a Facts,
    /// What the pod refers to in the API.
    pub objects: &'a Objects,
}

/// Whether volumes of a pod have been made.
pub fn is_made(root: &Path, uid: &str) -> bool {
    pod_dir(root, uid).join(VOLUMES).is_dir()
}

/// Makes and checks every volume of a pod. May be repeated: what is there stays, or is brought up to date. Files that are
/// there stay, too, where their content cannot be had any more, as with the kubelet: a pod that runs is not stopped by that.
pub fn prepare(pod: &StaticPod, root: &Path, inputs: &Inputs<'_>) -> Result<(), VolumeError> {
    prepare_each(pod, root, inputs, &mut |_, _, _| {})
}

/// [`prepare`], with how long each volume took and whether it could be made.
pub fn prepare_each(
    pod: &StaticPod,
    root: &Path,
    inputs: &Inputs<'_>,
    made: &mut dyn FnMut(&Volume, Duration, bool),
) -> Result<(), VolumeError> {
    for volume in pod.spec.volumes.iter().flatten() {
        let started = Instant::now();
        let prepared = prepare_one(pod, volume, root, inputs);
        made(volume, started.elapsed(), prepared.is_ok());
        prepared?;
    }
    Ok(())
}

fn prepare_one(pod: &StaticPod, volume: &Volume, root: &Path, inputs: &Inputs<'_>) -> Result<(), VolumeError> {
    let name = || volume.name.clone();
    let Some(path) = path(volume, root, &pod.uid) else {
        return Err(VolumeError::Unsupported { volume: name(), kind: kind(volume) });
    };
    if let Some(host) = &volume.host_path {
        return host_path::prepare(&volume.name, host);
    }
    if let Some(source) = &volume.empty_dir {
        let made = empty_dir::prepare(&path, source, &pod.spec, inputs.facts.node_memory);
        return made.map_err(|source| VolumeError::Io { volume: name(), source });
    }
    match write(pod, volume, &path, inputs) {
        Err(VolumeError::Content { .. }) if atomic::is_written(&path) => Ok(()),
        written => written,
    }
}

/// What a kubelet calls the plugin that makes a volume.
pub fn plugin(volume: &Volume) -> &'static str {
    let plugins = [
        (volume.host_path.is_some(), "kubernetes.io/host-path"),
        (volume.empty_dir.is_some(), "kubernetes.io/empty-dir"),
        (volume.config_map.is_some(), "kubernetes.io/configmap"),
        (volume.secret.is_some(), "kubernetes.io/secret"),
        (volume.projected.is_some(), "kubernetes.io/projected"),
        (volume.downward_api.is_some(), "kubernetes.io/downward-api"),
    ];
    plugins.into_iter().find(|(is, _)| *is).map_or("N/A", |(_, name)| name)
}

/// Brings the files of those volumes of a pod up to date that the agent writes. All are tried; the first error counts.
pub fn refresh(pod: &StaticPod, root: &Path, inputs: &Inputs<'_>) -> Result<(), VolumeError> {
    let mut result = Ok(());
    for volume in pod.spec.volumes.iter().flatten() {
        if let Some(path) = path(volume, root, &pod.uid) {
            result = result.and(write(pod, volume, &path, inputs));
        }
    }
    result
}

/// Writes the files of a volume; those of another kind have none.
fn write(pod: &StaticPod, volume: &Volume, path: &Path, inputs: &Inputs<'_>) -> Result<(), VolumeError> {
    let name = || volume.name.clone();
    let io = |source| VolumeError::Io { volume: name(), source };
    let Some(payload) = projected::payload(pod, volume, inputs) else { return Ok(()) };
    let payload = payload.map_err(|problem| VolumeError::Content { volume: name(), problem })?;
    if projected::is_secret(volume) {
        memory::ensure(path).map_err(io)?;
    }
    let group = pod.spec.security_context.as_ref().and_then(|context| context.fs_group);
    atomic::write(path, &payload, group.and_then(|group| u32::try_from(group).ok())).map_err(io)
}

/// The field that says what a volume is.
fn kind(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let mut names = fields.as_object().into_iter().flat_map(|map| map.keys()).filter(|key| *key != "name");
    names.next().cloned().unwrap_or_else(|| "unknown".to_owned())
}

/// Makes the file a container writes its last words to, empty and open to all.
pub fn make_termination_file(path: &Path) -> Result<(), FsError> {
    if let Some(parent) = path.parent() {
        make_dirs(parent, 0o750)?;
    }
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let open = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(nofollow).open(path);
    let made = open.and_then(|file| file.set_permissions(Permissions::from_mode(0o666)));
    made.map_err(|e| FsError::new("create", path, e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::agent::pod::tests::pod_with;

    fn prepared(pod: &StaticPod, root: &Path) -> Result<(), VolumeError> {
        prepare(pod, root, &Inputs { facts: &Facts::default(), objects: &Objects::default() })
    }

    #[test]
    fn an_empty_dir_is_open_to_all_survives_a_second_prepare_and_goes_with_the_pod() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod_with("volumes: [{name: v, emptyDir: {}}]", "");
        prepared(&pod, root.path()).unwrap();
        let dir = root.path().join("pods").join(&pod.uid).join("volumes/kubernetes.io~empty-dir/v");
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::File::create(dir.join("kept")).unwrap();
        prepared(&pod, root.path()).unwrap();
        assert!(dir.join("kept").exists());
        remove_pod_dir(root.path(), &pod.uid).unwrap();
        remove_pod_dir(root.path(), &pod.uid).unwrap();
        assert_eq!(fs::read_dir(root.path().join("pods")).unwrap().count(), 0);
    }

    #[test]
    fn volumes_that_the_agent_writes_belong_to_the_pods_group() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod_with(
            "securityContext: {fsGroup: 4242}\n  volumes: [{name: e, emptyDir: {}}, {name: d, downwardAPI: {items: \
             [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]",
            "",
        );
        prepared(&pod, root.path()).unwrap();
        let of = |volume: &str| root.path().join("pods").join(&pod.uid).join("volumes").join(volume);
        let (dir, file) = (of("kubernetes.io~empty-dir/e"), of("kubernetes.io~downward-api/d").join("name"));
        let seen = |path: &Path| fs::metadata(path).map(|meta| (meta.gid(), meta.mode() & 0o7777)).unwrap();
        assert_eq!((seen(&dir), seen(&file)), ((4242, 0o2777), (4242, 0o644)));
        assert_eq!(fs::read_to_string(file).unwrap(), "p-node1");
    }

    #[test]
    fn a_volume_of_a_kind_that_is_not_mounted_here_names_it() {
        let mut pod = pod_with("volumes: [{name: v, emptyDir: {}}]", "");
        let nfs = serde_json::json!({"name": "v", "nfs": {"server": "s", "path": "/"}});
        pod.spec.volumes = Some(vec![serde_json::from_value(nfs).unwrap()]);
        let error = prepared(&pod, Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().starts_with("volume v: nfs volumes are not mounted"), "{error}");
    }
}
