//! Removing, with care: never through a link, never behind a mount point, and a directory only when nothing else is in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::StepError;
use crate::config::spec::UnmountFlag;
use crate::host::fs::{FsError, entries};
use crate::host::paths::{CONTAINER_LOGS_DIR, POD_LOGS_DIR};
use crate::host::remove::remove_tree;
use crate::host::{Paths, mounts};
use crate::workflow::state::inventory::{Item, Kind};

/// The mount points below those of the `items` that are trees, in the order of mounting, each as a path below its tree: the
/// kernel's table resolves every link, and the tree may be behind some.
///
/// # Errors
/// It is not known what is mounted.
pub fn mounts<'a>(items: impl Iterator<Item = &'a Item>, paths: &Paths) -> Result<Vec<PathBuf>, FsError> {
    let mut trees: Vec<(PathBuf, &Path)> = Vec::new();
    for item in items.filter(|item| item.kind == Kind::Tree) {
        let on_host = paths.on_host(&item.path);
        // Of a link only the link goes.
        if on_host.is_symlink() {
            continue;
        }
        match fs::canonicalize(&on_host) {
            Ok(real) => trees.push((real, &item.path)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(FsError::new("resolve", &item.path, e)),
        }
    }
    // One that is in another has the same mounts.
    trees.sort_by_key(|(real, _)| real.components().count());
    let mounts = mounts::read()?.into_iter();
    let named = mounts.filter_map(|mount| {
        let mut found = trees.iter().filter_map(|(real, tree)| Some(tree.join(mount.point.strip_prefix(real).ok()?)));
        found.next()
    });
    Ok(named.collect())
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

/// Removes `path` with everything in it. Returns whether it was there.
///
/// # Errors
/// [`StepError::Mounted`] where something is mounted at it or in it, whatever links lead there: nothing is removed then;
/// nor is it where the mounts are not known. What is mounted later is not entered either.
pub fn tree(path: &Path) -> Result<bool, StepError> {
    let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    let mounted = if is_link { vec![] } else { mounts::below(path)? };
    match mounted.into_iter().next() {
        Some(path) => Err(StepError::Mounted { path }),
        None => Ok(remove_tree(path)?),
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
/// no one recorded the pods that the API server gave, or whose manifests somebody else wrote; and the last of them may
/// have come after the steps were planned.
pub fn pod_logs(paths: &Paths, uids: &BTreeSet<String>) -> Result<(), StepError> {
    let (pods, containers) = (paths.on_host(POD_LOGS_DIR), paths.on_host(CONTAINER_LOGS_DIR));
    let names = |dir: &Path| -> Result<Vec<String>, FsError> {
        // Those of others may have names that are no text.
        let name = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        Ok(entries(dir)?.iter().filter_map(name).collect())
    };
    for name in names(&pods)? {
        let Some((pod, uid)) = name.rsplit_once('_') else { continue };
        let Some((namespace, pod)) = pod.split_once('_').filter(|_| uids.contains(uid)) else { continue };
        let prefix = format!("{pod}_{namespace}_");
        for link in names(&containers)?.into_iter().filter(|link| link.starts_with(&prefix)) {
            tree(&containers.join(link))?;
        }
        tree(&pods.join(&name))?;
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
    use crate::testing::threads::{apart, tmpfs};

    #[test]
    fn a_tree_goes_without_what_its_links_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        fs::create_dir_all(ours.join("a")).unwrap();
        fs::create_dir_all(theirs.join("b")).unwrap();
        std::os::unix::fs::symlink(&theirs, ours.join("a/link")).unwrap();
        assert!(tree(&ours).unwrap());
        assert!(!ours.exists() && theirs.join("b").exists());
        assert!(!tree(&ours).unwrap());
    }

    /// A tree of ours that is behind a link and has something of somebody else's mounted in it.
    fn linked(dir: &Path) -> (Paths, PathBuf, PathBuf) {
        let (mount, theirs) = (dir.join("disk/kubelet/pods/u/v"), dir.join("theirs"));
        fs::create_dir_all(&mount).unwrap();
        fs::create_dir_all(theirs.join("kept")).unwrap();
        fs::create_dir_all(dir.join("root/var")).unwrap();
        std::os::unix::fs::symlink(dir.join("disk"), dir.join("root/var/lib")).unwrap();
        (Paths::new(dir.join("root")), mount, theirs)
    }

    #[test]
    fn nothing_is_removed_where_something_is_mounted_whatever_links_lead_there() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, mount, theirs) = linked(dir.path());
        apart(|| {
            rustix::mount::mount_bind(&theirs, &mount).unwrap();
            for path in ["/var/lib/kubelet", "/var/lib/kubelet/pods", "/var/lib/kubelet/pods/u/v"] {
                let error = tree(&paths.on_host(path)).unwrap_err();
                assert!(matches!(&error, StepError::Mounted { path } if *path == mount), "{path}: {error:?}");
                assert!(theirs.join("kept").exists(), "{path}");
            }
            let items = ["/var/lib", "/var/lib/kubelet/pods", "/var/lib/kubelet", "/gone"].map(Item::tree);
            assert_eq!(
                mounts(items.iter(), &paths).unwrap(),
                [Path::new("/var/lib/kubelet/pods/u/v")],
                "of a link only the link goes"
            );
            assert!(unmount(&paths.on_host("/var/lib/kubelet/pods/u/v"), &[]).unwrap());
            assert!(tree(&paths.on_host("/var/lib/kubelet")).unwrap() && theirs.join("kept").exists());
        });
    }

    #[test]
    fn nothing_is_removed_while_the_mounts_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, mount, theirs) = linked(dir.path());
        apart(|| {
            rustix::mount::mount_bind(&theirs, &mount).unwrap();
            tmpfs("/proc");
            assert!(tree(&paths.on_host("/var/lib/kubelet")).is_err());
            assert!(mounts([Item::tree("/var/lib/kubelet")].iter(), &paths).is_err());
            assert!(theirs.join("kept").exists());
        });
    }

    #[test]
    fn logs_behind_a_mount_stay() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let (logs, theirs) = (root.path().join("var/log/pods/shop_web_3-4/c"), root.path().join("theirs"));
        [&logs, &theirs.join("kept")].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
        apart(|| {
            rustix::mount::mount_bind(&theirs, &logs).unwrap();
            assert!(pod_logs(&paths, &["3-4".to_owned()].into()).is_err());
            assert!(theirs.join("kept").exists());
        });
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
