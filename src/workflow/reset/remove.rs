//! Removing, with care: never through a link, never behind a mount point.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::StepError;
use crate::config::spec::UnmountFlag;
use crate::host::Paths;
use crate::host::fs::FsError;
use crate::host::paths::{CONTAINER_LOGS_DIR, POD_LOGS_DIR};

/// Every mount point below the root, as the node sees it, in the order of mounting.
pub fn mounts(paths: &Paths) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&text)
        .into_iter()
        .filter_map(|mount| {
            let below = mount.strip_prefix(paths.root()).ok()?;
            Some(Path::new("/").join(below))
        })
        .collect()
}

/// Field 5 of each line; octal escapes stand for blanks.
fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| PathBuf::from(unescape(field))).collect()
}

fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// Unmounts, never through a link; that nothing is mounted is fine.
pub fn unmount(path: &Path, flags: &[UnmountFlag]) -> Result<bool, StepError> {
    let flag = |flag: &UnmountFlag| match flag {
        UnmountFlag::Force => UnmountFlags::FORCE,
        UnmountFlag::Detach => UnmountFlags::DETACH,
        UnmountFlag::Expire => UnmountFlags::EXPIRE,
        UnmountFlag::NoFollow => UnmountFlags::NOFOLLOW,
    };
    let flags = flags.iter().map(flag).fold(UnmountFlags::NOFOLLOW, |all, one| all | one);
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(FsError::new("unmount", path, errno.into()).into()),
    }
}

/// Removes `path` with everything in it; `mounts` are the mount points of the machine. Returns whether it was there.
///
/// # Errors
/// [`StepError::Mounted`] where something is mounted at it or in it: nothing is removed then.
pub fn tree(path: &Path, mounts: &[PathBuf], paths: &Paths) -> Result<bool, StepError> {
    if let Some(mount) = mounts.iter().map(|mount| paths.on_host(mount)).find(|mount| mount.starts_with(path)) {
        return Err(StepError::Mounted { path: mount });
    }
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(FsError::new("look at", path, e).into()),
    };
    // `remove_dir_all` follows no links.
    let removed = if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FsError::new("remove", path, e).into()),
        _ => Ok(true),
    }
}

/// Removes the control groups that a kubelet has made for its pods, those that hold no process any more.
pub fn empty_cgroups() {
    const MOUNTS: &str = "/sys/fs/cgroup";
    const NAMES: [&str; 2] = ["kubepods", "kubepods.slice"];
    let below = fs::read_dir(MOUNTS).into_iter().flatten().flatten().map(|entry| entry.path());
    let hierarchies = below.filter(|path| path.is_dir()).chain([PathBuf::from(MOUNTS)]);
    hierarchies.flat_map(|dir| NAMES.map(|name| dir.join(name))).for_each(|dir| remove_cgroups(&dir));
}

/// The deepest first; one that is in use stays, and those above it with it.
fn remove_cgroups(dir: &Path) {
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .for_each(|entry| remove_cgroups(&entry.path()));
    let _ = fs::remove_dir(dir);
}

/// Removes the logs of the agent's pods, and the links to them. Those of the control plane are steps of their own, but
/// nobody recorded the pods that the API server gave, or whose manifests somebody else wrote; and the last of them may
/// have come after the steps were planned.
pub fn pod_logs(paths: &Paths, uids: &BTreeSet<String>) -> Result<(), StepError> {
    let (pods, containers) = (paths.on_host(POD_LOGS_DIR), paths.on_host(CONTAINER_LOGS_DIR));
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    for name in names(&pods) {
        let Some((pod, uid)) = name.rsplit_once('_') else { continue };
        let Some((namespace, pod)) = pod.split_once('_').filter(|_| uids.contains(uid)) else { continue };
        let prefix = format!("{pod}_{namespace}_");
        for link in names(&containers).into_iter().filter(|link| link.starts_with(&prefix)) {
            tree(&containers.join(link), &[], paths)?;
        }
        tree(&pods.join(&name), &[], paths)?;
    }
    Ok(())
}

/// Removes an empty directory, or returns the names of what is in it.
pub fn directory(path: &Path) -> Result<Vec<String>, FsError> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(vec![]),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
            let entries = fs::read_dir(path).map_err(|e| FsError::new("read", path, e))?;
            Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        }
        Err(e) => Err(FsError::new("remove", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let text = "22 1 0:20 / /proc rw - proc proc rw\n30 22 0:3 / /mnt/a\\040b rw shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(text), [Path::new("/proc"), Path::new("/mnt/a b")]);
    }

    #[test]
    fn a_tree_goes_without_what_its_links_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        fs::create_dir_all(ours.join("a")).unwrap();
        fs::create_dir_all(theirs.join("b")).unwrap();
        std::os::unix::fs::symlink(&theirs, ours.join("a/link")).unwrap();
        assert!(tree(&ours, &[], &Paths::default()).unwrap());
        assert!(!ours.exists() && theirs.join("b").exists());
        assert!(!tree(&ours, &[], &Paths::default()).unwrap());
    }

    #[test]
    fn nothing_is_removed_where_something_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("data/disk");
        fs::create_dir_all(&mount).unwrap();
        let error = tree(&dir.path().join("data"), std::slice::from_ref(&mount), &Paths::default()).unwrap_err();
        assert!(matches!(error, StepError::Mounted { path } if path == mount));
        assert!(mount.exists());
    }

    #[test]
    fn the_logs_of_the_agents_pods_go_and_nobody_elses() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let (pods, containers) = (root.path().join("var/log/pods"), root.path().join("var/log/containers"));
        ["kube-system_proxy-x_1-2", "kube-system_etcd-cp1_12", "shop_web_3-4"]
            .iter()
            .for_each(|name| fs::create_dir_all(pods.join(name).join("c")).unwrap());
        fs::create_dir_all(&containers).unwrap();
        for link in ["proxy-x_kube-system_c-1.log", "web_shop_c-2.log"] {
            std::os::unix::fs::symlink("/nowhere", containers.join(link)).unwrap();
        }
        pod_logs(&paths, &["1-2".to_owned(), "12".to_owned()].into()).unwrap();
        assert!(!pods.join("kube-system_proxy-x_1-2").exists() && !pods.join("kube-system_etcd-cp1_12").exists());
        assert!(containers.join("proxy-x_kube-system_c-1.log").symlink_metadata().is_err());
        assert!(containers.join("web_shop_c-2.log").symlink_metadata().is_ok());
        assert!(pods.join("shop_web_3-4").exists());
    }

    #[test]
    fn a_directory_with_somebody_elses_files_stays_and_names_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/mine")).unwrap();
        assert_eq!(directory(&dir.path().join("d")).unwrap(), ["mine"]);
        fs::remove_dir(dir.path().join("d/mine")).unwrap();
        assert_eq!(directory(&dir.path().join("d")).unwrap(), Vec::<String>::new());
        assert!(!dir.path().join("d").exists());
    }
}
