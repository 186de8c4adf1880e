//! emptyDir volumes: a directory of the pod's own, on the disk or in memory.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec};

use super::memory;
use super::remove::is_mount_point;
use crate::agent::resources::{self, amount, bytes};
use crate::host::fs::{FsError, make_dirs};

/// Open to all: any user of any container may write there.
const MODE: u32 = 0o777;
/// What is made below belongs to the directory's group.
const SET_GROUP: u32 = 0o2000;
const PREFIX: &str = "hugepages-";

/// What is mounted over a volume's directory.
#[derive(Debug, PartialEq, Eq)]
struct Medium {
    system: &'static str,
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
    let is_new = !path.is_dir();
    if is_new {
        if let Some(parent) = path.parent() {
            make_dirs(parent, 0o750)?;
        }
        DirBuilder::new().create(path).map_err(|e| FsError::new("create directory", path, e))?;
    }
    let medium = medium(source, pod, node_memory).map_err(|e| FsError::new("choose the medium of", path, e))?;
    let mounted = medium.filter(|_| is_new || !is_mount_point(path));
    if let Some(Medium { system, options }) = &mounted {
        memory::mount(system, path, options)?;
    }
    if is_new || mounted.is_some() {
        own(path, group)?;
    }
    Ok(())
}

/// The umask must not close it; the pod's group gets it.
fn own(path: &Path, group: Option<i64>) -> Result<(), FsError> {
    let group = group.and_then(|group| u32::try_from(group).ok());
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
            Ok(Some(Medium { system: "tmpfs", options: format!("mode=0777{size}") }))
        }
        _ => {
            let pages = page_size(name, pod).ok_or_else(|| {
                std::io::Error::other(format!("medium {name} needs one size of huge pages among the pod's requests"))
            })?;
            Ok(Some(Medium { system: "hugetlbfs", options: format!("mode=0777,pagesize={pages}") }))
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
    use super::*;
    use crate::agent::pod::tests::pod_with;

    #[test]
    fn memory_is_limited_by_the_least_of_volume_containers_and_node() {
        let limited = "resources: {limits: {memory: 64Mi}}";
        for (volume, container, expected) in [
            ("medium: Memory", "", "mode=0777,size=8589934592"),
            ("medium: Memory, sizeLimit: 1Mi", limited, "mode=0777,size=1048576"),
            ("medium: Memory, sizeLimit: 1Gi", limited, "mode=0777,size=67108864"),
            ("medium: HugePages-2Mi", "", "mode=0777,pagesize=2097152"),
            ("medium: HugePages", "resources: {limits: {hugepages-1Gi: 2Gi}}", "mode=0777,pagesize=1073741824"),
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
}
