//! Users of pods that have a user namespace of their own (`hostUsers: false`; the kubelet's user namespace manager).
//!
//! Each such pod has 65536 ids that no other has, and none of the machine's own, which are below them. Which ones is in
//! the pod's directory, in the kubelet's file and words: it is there before the pod's sandbox is, outlives the agent, and
//! the ids are free again when the directory is gone.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::pod_dir;
use crate::host::fs::{FsError, read_if_exists, write_file};
use crate::runtime::UserRange;

/// How many ids a pod has, and where those of the first begin (`idsPerPod` of the kubelet, at its default).
const COUNT: u32 = 65536;
const NAME: &str = "userns";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// The users that a pod was given, None if none.
///
/// # Errors
/// The file cannot be read, or says something else than such a file does.
pub fn of(root: &Path, uid: &str) -> Result<Option<UserRange>, FsError> {
    read(&file(&pod_dir(root, uid)))
}

/// Gives a pod users that no pod with a directory below `root` has, or those that it has already. At most `pods` can have
/// some. The pod's directory must be there.
///
/// # Errors
/// All are given away, or it is not known which: a file of a pod's cannot be read.
pub fn give(root: &Path, uid: &str, pods: u32) -> Result<UserRange, FsError> {
    let all = root.join("pods");
    let lock = File::open(&all).map_err(|e| FsError::new("open", &all, e))?;
    // Until it is closed: two pods must not find the same ids free.
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| FsError::new("lock", &all, e.into()))?;
    if let Some(own) = of(root, uid)? {
        return Ok(own);
    }
    let taken = taken(&all)?;
    let slots = (1..=pods).map_while(|slot| slot.checked_mul(COUNT));
    let mut free = slots.filter(|first| {
        let ids = ids(*first, COUNT);
        taken.iter().all(|other| other.end <= ids.start || ids.end <= other.start)
    });
    let Some(first) = free.next().filter(|first| first.checked_add(COUNT).is_some()) else {
        let problem = io::Error::other(format!("all users for {pods} pods are given away"));
        return Err(FsError::new("give users to a pod of", &all, problem));
    };
    let mapping = vec![Mapping { host_id: first, container_id: 0, length: COUNT }];
    let written = Written { uid_mappings: mapping.clone(), gid_mappings: mapping };
    let file = file(&pod_dir(root, uid));
    let text = serde_json::to_vec(&written).map_err(|e| FsError::new("write", &file, e.into()))?;
    write_file(&file, &text, 0o644)?;
    Ok(UserRange { first, count: COUNT })
}

fn file(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// So many ids.
fn ids(first: u32, count: u32) -> Range<u64> {
    u64::from(first)..u64::from(first).saturating_add(count.into())
}

/// The ids of all pods, a kubelet's too.
fn taken(all: &Path) -> Result<Vec<Range<u64>>, FsError> {
    let mut taken = Vec::new();
    for entry in fs::read_dir(all).map_err(|e| FsError::new("list", all, e))? {
        let entry = entry.map_err(|e| FsError::new("list", all, e))?;
        let range = read(&file(&entry.path()))?;
        taken.extend(range.map(|range| ids(range.first, range.count)));
    }
    Ok(taken)
}

fn read(file: &Path) -> Result<Option<UserRange>, FsError> {
    let Some(text) = read_if_exists(file)? else { return Ok(None) };
    let range = serde_json::from_slice(&text).ok().and_then(range);
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it does not say which users the pod has");
    range.map(Some).ok_or_else(|| FsError::new("use", file, wrong()))
}

/// One mapping, the same for users and groups, to ids that are none of the machine's own.
fn range(written: Written) -> Option<UserRange> {
    let ([users], [groups]) = (written.uid_mappings.as_slice(), written.gid_mappings.as_slice()) else { return None };
    let Mapping { host_id: first, container_id, length: count } = *users;
    let sound = users == groups && container_id == 0 && first >= COUNT && count > 0;
    first.checked_add(count).filter(|_| sound).map(|_| UserRange { first, count })
}

#[cfg(test)]
mod tests {
    use super::super::{claim, remove_pod_dir};
    use super::*;

    fn first(root: &Path, uid: &str) -> u32 {
        claim(root, uid).unwrap();
        let given = give(root, uid, 3).unwrap();
        assert_eq!(given.count, 65536);
        given.first
    }

    #[test]
    fn no_two_pods_have_the_same_users_and_a_pod_keeps_its_own() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(["a", "b", "a", "c"].map(|uid| first(root, uid)), [65536, 131_072, 65536, 196_608]);
        claim(root, "d").unwrap();
        let error = give(root, "d", 3).unwrap_err();
        assert!(error.source.to_string().contains("given away"), "{error}");
        assert_eq!(of(root, "d").unwrap(), None);
        remove_pod_dir(root, "b").unwrap();
        assert_eq!(first(root, "d"), 131_072, "free again");
        assert_eq!(of(root, "c").unwrap().map(|range| range.first), Some(196_608));
    }

    #[test]
    fn a_kubelets_pods_keep_theirs_and_a_damaged_file_gives_no_pod_the_users_of_another() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let written = |uid: &str, text: &str| {
            claim(root, uid).unwrap();
            write_file(&pod_dir(root, uid).join("userns"), text.as_bytes(), 0o644).unwrap();
        };
        let mapping = |host: u32| format!(r#"[{{"hostId":{host},"containerId":0,"length":65536}}]"#);
        let both = |users: u32, groups: u32| {
            format!(r#"{{"uidMappings":{},"gidMappings":{}}}"#, mapping(users), mapping(groups))
        };
        written("kubelets", &both(65536, 65536));
        assert_eq!(first(root, "a"), 131_072);
        for text in ["", "{}", &both(0, 0), &both(65536, 131_072), &both(u32::MAX, u32::MAX)] {
            written("damaged", text);
            assert!(of(root, "damaged").is_err(), "{text}");
            claim(root, "b").unwrap();
            let error = give(root, "b", 9).unwrap_err();
            assert!(error.path.ends_with("damaged/userns"), "{error}");
        }
    }
}
