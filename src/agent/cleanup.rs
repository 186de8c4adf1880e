//! What a pod leaves on the machine when its containers are gone: its directory below the root directory, its
//! cgroups, its logs and the links to them.
//!
//! A container that somebody else removes takes none of this along, and an agent that is killed between two steps
//! leaves it to the next one, which may never hear of the pod. So all of it goes by the pod's UID, and an agent that
//! starts looks for UIDs that no one knows any more (the kubelet's `cleanupOrphanedPodDirs` and
//! `evictPodLogsDirectories`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::cgroups::Cgroups;
use super::options::AgentOptions;
use super::volumes;
use crate::error::chain;
use crate::host::fs::{FsError, entries};
use crate::host::remove::remove_tree;

/// Removes what the pod with this UID has left. The directory goes last: as long as it is there, the next agent knows
/// that something may be left.
///
/// # Errors
/// What cannot be unmounted or removed, or does not end. It is for [`remove_all`] then.
pub fn remove(options: &AgentOptions, cgroups: &Cgroups, uid: &str) -> Result<(), FsError> {
    // The UID may come from a label that anybody can set.
    if uid.is_empty() || uid.contains('/') {
        return Ok(());
    }
    cgroups.remove(uid)?;
    for dir in log_dirs(&options.pod_logs_dir, uid)? {
        for link in entries(&options.container_logs_dir)? {
            if fs::read_link(&link).is_ok_and(|target| target.starts_with(&dir)) {
                gone(fs::remove_file(&link)).map_err(|e| FsError::new("remove", &link, e))?;
            }
        }
        remove_tree(&dir)?;
    }
    volumes::remove_pod_dir(&options.root_dir, uid)
}

/// Removes what the pods with these UIDs have left, which are gone. Returns the UIDs of those of which something is left.
/// Only pods of this root directory that an agent has made are meant ([`volumes::claimed`]): the logs of others lie beside
/// theirs, and a kubelet's pods are its own.
pub fn remove_all(options: &AgentOptions, cgroups: &Cgroups, uids: &BTreeSet<String>) -> Vec<String> {
    let mut left = Vec::new();
    for uid in uids {
        match remove(options, cgroups, uid) {
            Ok(()) => info!(uid, "removed what a pod had left that is gone"),
            Err(error) => {
                warn!(uid, error = chain(&error), "cannot remove what a pod has left that is gone");
                left.push(uid.clone());
            }
        }
    }
    left
}

/// `podLogsDir/NS_POD_UID`: one, unless somebody gave two pods the same UID.
fn log_dirs(pod_logs_dir: &Path, uid: &str) -> Result<Vec<PathBuf>, FsError> {
    let end = format!("_{uid}");
    let is_its =
        |dir: &PathBuf| dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(&end));
    Ok(entries(pod_logs_dir)?.into_iter().filter(is_its).collect())
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::logs;
    use crate::runtime::ContainerName;
    use crate::testing::threads::apart;

    fn options(dir: &Path) -> AgentOptions {
        let mut options = AgentOptions::new("n");
        options.root_dir = dir.join("root");
        options.pod_logs_dir = dir.join("pods");
        options.container_logs_dir = dir.join("containers");
        options
    }

    fn pod(options: &AgentOptions, uid: &str) {
        volumes::claim(&options.root_dir, uid).unwrap();
        let name = ContainerName {
            pod: "p-n".into(),
            namespace: "default".into(),
            uid: uid.into(),
            container: "c".into(),
            attempt: 0,
        };
        logs::link(options, &name, &format!("id-{uid}"), Path::new("/gone/json.log")).unwrap();
    }

    fn left(options: &AgentOptions) -> [usize; 3] {
        [&options.root_dir.join("pods"), &options.pod_logs_dir, &options.container_logs_dir]
            .map(|dir| entries(dir).unwrap().len())
    }

    #[test]
    fn a_pods_logs_links_and_directory_go_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        pod(&options, "one");
        pod(&options, "two");
        remove(&options, &Cgroups::new(&options), "one").unwrap();
        assert_eq!(left(&options), [1, 1, 1]);
        assert!(entries(&options.container_logs_dir).unwrap()[0].ends_with("p-n_default_c-id-two.log"));
        remove(&options, &Cgroups::new(&options), "one").unwrap();
        for strange in ["", "../pods/two"] {
            remove(&options, &Cgroups::new(&options), strange).unwrap();
        }
        assert_eq!(left(&options), [1, 1, 1]);
    }

    #[test]
    fn nothing_behind_a_mount_among_the_logs_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        pod(&options, "one");
        let (mount, data) = (options.pod_logs_dir.join("default_p-n_one/c/more"), dir.path().join("data"));
        [&mount, &data.join("kept")].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
        apart(|| {
            rustix::mount::mount_bind(&data, &mount).unwrap();
            assert!(remove(&options, &Cgroups::new(&options), "one").is_err());
            assert!(data.join("kept").exists() && volumes::claimed(&options.root_dir).contains("one"));
        });
    }

    #[test]
    fn an_agent_that_starts_clears_pods_nobody_knows_of_its_own_root_directory_alone() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        pod(&options, "wanted");
        pod(&options, "gone");
        let other = AgentOptions { root_dir: dir.path().join("other"), ..options.clone() };
        pod(&other, "others");
        fs::create_dir_all(options.root_dir.join("pods/a-kubelets")).unwrap();
        let known = BTreeSet::from(["wanted".to_owned()]);
        let unknown = volumes::claimed(&options.root_dir).difference(&known).cloned().collect();
        let still = remove_all(&options, &Cgroups::new(&options), &unknown);
        assert!(still.is_empty(), "{still:?}");
        assert_eq!(left(&options), [2, 2, 2], "the wanted one's and the kubelet's");
        assert_eq!(left(&other), [1, 2, 2]);
    }
}
