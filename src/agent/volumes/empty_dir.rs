//! emptyDir volumes: a directory of the pod's own, on the disk or in memory.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec};

use super::memory;
use crate::agent::pod::resources;
use crate::agent::pod::resources::{amount, bytes};
use crate::host::fs::{FsError, make_dirs};
use crate::host::mounts::is_mount_point;
use crate::host::remove::remove_tree;

/// Open to all: any user of any container may write there.
const MODE: u32 = 0o777;
/// What is made below belongs to the directory's group.
const SET_GROUP: u32 = 0o2000;
/// What a file system of memory has by itself, and the kubelet leaves it: only its owner may remove a file.
const STICKY: u32 = 0o1000;
const PREFIX: &str = "hugepages-";
/// The file system of huge pages.
const HUGE: &str = "hugetlbfs";

/// What is mounted over a volume's directory.
#[derive(Debug, PartialEq, Eq)]
struct Medium {
    system: &'static str,
    /// Its size, behind the options that say whose it is.
    options: String,
}

/// Makes an emptyDir, once: what a container has put there stays until the pod goes.
pub(super) fn prepare(
    path: &Path,
    source: &EmptyDirVolumeSource,
    pod: &PodSpec,
    node_memory: i64,
) -> Result<(), FsError> {
    let group = pod.security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    let medium = medium(source, pod, node_memory).map_err(|e| FsError::new("choose the medium of", path, e))?;
    if !path.is_dir() {
        make(path, group)?;
    }
    let Some(Medium { system, options }) = medium else { return Ok(()) };
    let mode = if system == HUGE { MODE } else { MODE | STICKY };
    let owned =
        group.map_or_else(|| format!("mode={mode:04o}"), |group| format!("mode={:04o},gid={group}", mode | SET_GROUP));
    if !is_mount_point(path)? {
        memory::mount(system, path, &format!("{owned}{options}"))?;
    }
    // Huge pages take no bit for the group at birth. An agent that is killed here has a successor that goes on: a volume
    // in which there is something has been given to a container.
    if system == HUGE && is_empty(path)? {
        own(path, group)?;
    }
    Ok(())
}

/// Makes the directory aside, and moves it into place when it is whose it should be: an agent that is killed in between
/// leaves none that is closed to the pod for good.
fn make(path: &Path, group: Option<u32>) -> Result<(), FsError> {
    let (parent, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    make_dirs(parent, 0o750)?;
    // No volume's name begins with a dot.
    let mut aside = OsString::from(".");
    aside.push(name);
    let aside = parent.join(aside);
    remove_tree(&aside)?;
    DirBuilder::new().create(&aside).map_err(|e| FsError::new("create directory", &aside, e))?;
    own(&aside, group)?;
    fs::rename(&aside, path).map_err(|e| FsError::new("move into place", path, e))
}

fn is_empty(path: &Path) -> Result<bool, FsError> {
    fs::read_dir(path).map(|mut entries| entries.next().is_none()).map_err(|e| FsError::new("list", path, e))
}

/// The umask must not close it; the pod's group gets it.
fn own(path: &Path, group: Option<u32>) -> Result<(), FsError> {
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(|e| FsError::new("give a group to", path, e))?;
    }
    let mode = if group.is_some() { MODE | SET_GROUP } else { MODE };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| FsError::new("open up", path, e))
}

/// None for the disk.
fn medium(source: &EmptyDirVolumeSource, pod: &PodSpec, node_memory: i64) -> Result<Option<Medium>, std::io::Error> {
    let name = source.medium.as_deref().unwrap_or_default();
    match name {
        "" => Ok(None),
        "Memory" => {
            let size = memory_size(source, pod, node_memory);
            let size = if size > 0 { format!(",size={size}") } else { String::new() };
            Ok(Some(Medium { system: "tmpfs", options: size }))
        }
        _ => {
            let pages = page_size(name, pod).ok_or_else(|| {
                std::io::Error::other(format!("medium {name} needs one size of huge pages among the pod's requests"))
            })?;
            Ok(Some(Medium { system: HUGE, options: format!(",pagesize={pages}") }))
        }
    }
}

/// The least of its `sizeLimit`, what the pod's containers may use together, and what the node has.
fn memory_size(source: &EmptyDirVolumeSource, pod: &PodSpec, node_memory: i64) -> i64 {
    let limits: Vec<i64> = pod.containers.iter().map(|container| amount(container, true, "memory", bytes)).collect();
    let of_pod = if limits.contains(&0) { 0 } else { limits.iter().sum() };
    let own = source.size_limit.as_ref().and_then(resources::bytes).unwrap_or(0);
    [own, of_pod, node_memory].into_iter().filter(|size| *size > 0).min().unwrap_or(0)
}

/// The size of the pages, in bytes: named by the medium (`HugePages-2Mi`), or the only one that containers ask for.
fn page_size(medium: &str, pod: &PodSpec) -> Option<i64> {
    let quantity = |text: &str| resources::bytes(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into()));
    if let Some(named) = medium.strip_prefix("HugePages-") {
        return quantity(named);
    }
    let lists = pod.containers.iter().filter_map(|container| container.resources.as_ref()?.requests.as_ref());
    let mut sizes: Vec<_> = lists.flat_map(|list| list.keys()).filter_map(|key| key.strip_prefix(PREFIX)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    match sizes.as_slice() {
        [one] => quantity(one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::agent::pod::tests::pod_with;
    use crate::testing::threads::{apart, without_chown};

    #[test]
    fn memory_is_limited_by_the_least_of_volume_containers_and_node() {
        let limited = "resources: {limits: {memory: 64Mi}}";
        for (volume, container, expected) in [
            ("medium: Memory", "", ",size=8589934592"),
            ("medium: Memory, sizeLimit: 1Mi", limited, ",size=1048576"),
            ("medium: Memory, sizeLimit: 1Gi", limited, ",size=67108864"),
            ("medium: HugePages-2Mi", "", ",pagesize=2097152"),
            ("medium: HugePages", "resources: {limits: {hugepages-1Gi: 2Gi}}", ",pagesize=1073741824"),
        ] {
            let pod = pod_with(&format!("volumes: [{{name: v, emptyDir: {{{volume}}}}}]"), container);
            let source = pod.spec.volumes.as_ref().unwrap()[0].empty_dir.clone().unwrap();
            let medium = medium(&source, &pod.spec, 8 << 30).unwrap().unwrap();
            assert_eq!(medium.options, expected, "{volume} {container}");
        }
        let pod = pod_with("volumes: [{name: v, emptyDir: {medium: HugePages}}]", "");
        let source = pod.spec.volumes.as_ref().unwrap()[0].empty_dir.clone().unwrap();
        assert!(medium(&source, &pod.spec, 0).unwrap_err().to_string().contains("huge pages"));
    }

    #[test]
    fn a_volume_that_could_not_be_given_to_the_pod_is_not_there_until_it_is() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod_with("securityContext: {fsGroup: 4242}\n  volumes: [{name: v, emptyDir: {}}]", "");
        let path = root.path().join("kubernetes.io~empty-dir/v");
        let make = || prepare(&path, &EmptyDirVolumeSource::default(), &pod.spec, 0);
        // An agent that is killed at this point leaves the same.
        without_chown(|| {
            make().unwrap_err();
            assert!(!path.exists());
        });
        make().unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.gid()), (0o2777, 4242));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn memory_belongs_to_the_pods_group_from_its_birth() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod_with("securityContext: {fsGroup: 4242}\n  volumes: [{name: v, emptyDir: {}}]", "");
        let source = EmptyDirVolumeSource { medium: Some("Memory".into()), ..EmptyDirVolumeSource::default() };
        let path = root.path().join("kubernetes.io~empty-dir/v");
        apart(|| {
            prepare(&path, &source, &pod.spec, 1 << 20).unwrap();
            let meta = fs::metadata(&path).unwrap();
            assert_eq!((meta.permissions().mode() & 0o7777, meta.gid()), (0o3777, 4242));
            let plain = path.with_file_name("plain");
            prepare(&plain, &source, &pod_with("", "").spec, 1 << 20).unwrap();
            let meta = fs::metadata(&plain).unwrap();
            assert_eq!((meta.permissions().mode() & 0o7777, meta.gid()), (0o1777, 0));
            // A container may change that.
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            prepare(&path, &source, &pod.spec, 1 << 20).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        });
    }
}
