//! emptyDirs on the disk that have grown beyond their `sizeLimit`. A kubelet evicts their pods; this agent evicts
//! nothing and says what it sees. One in memory cannot grow: its tmpfs is as large as its limit.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use tracing::warn;

use super::path;
use crate::agent::board::Board;
use crate::agent::control::report::{Problem, Severity};
use crate::agent::events::{Recorder, Subject};
use crate::agent::pod::StaticPod;
use crate::agent::pod::resources;
use crate::host::beneath::{DIRECTORY, open_dir};

/// How often they are measured, as by the kubelet's eviction manager. Pods without such a volume cost nothing.
const INTERVAL: Duration = Duration::from_secs(10);
/// What `st_blocks` counts in.
const BLOCK: u64 = 512;

/// A volume that is too large.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excess {
    volume: String,
    limit: String,
}

/// Measures until the agent ends.
pub async fn watch(root: PathBuf, board: Arc<Board>, events: Arc<Recorder>) {
    let mut known: Vec<Problem> = Vec::new();
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let pods = board.pods().into_iter().filter_map(|entry| entry.pod);
        let pods: Vec<_> = pods.filter(|pod| limited(pod).next().is_some()).collect();
        let root = root.clone();
        let measure = move || pods.into_iter().map(|pod| (excesses(&pod, &root), pod)).collect::<Vec<_>>();
        let Ok(found) = tokio::task::spawn_blocking(measure).await else { continue };
        let mut problems = Vec::new();
        for (pod, excess) in found.iter().flat_map(|(all, pod)| all.iter().map(move |excess| (pod, excess))) {
            let message =
                format!("volume {} is larger than its sizeLimit {}; no pod is evicted", excess.volume, excess.limit);
            let problem = Problem { severity: Severity::Warning, ..Problem::error(pod.key.to_string(), message) };
            if !known.contains(&problem) {
                warn!(pod = %pod.key, "{}", problem.message);
                let subject = Subject { pod: &pod.key, uid: &pod.uid, container: None };
                events.warning(subject, "VolumeLimitExceeded", &problem.message);
            }
            problems.push(problem);
        }
        if problems != known {
            known = problems;
            board.set_problems("volumes", known.clone());
        }
    }
}

/// The volumes of a pod that have a limit and are on the disk, each with it.
fn limited(pod: &StaticPod) -> impl Iterator<Item = (&k8s_openapi::api::core::v1::Volume, u64, &str)> {
    pod.spec.volumes.iter().flatten().filter_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|dir| dir.medium.as_deref().unwrap_or_default().is_empty())?;
        let quantity = source.size_limit.as_ref()?;
        let limit = u64::try_from(resources::bytes(quantity)?).ok().filter(|limit| *limit > 0)?;
        Some((volume, limit, quantity.0.as_str()))
    })
}

fn excesses(pod: &StaticPod, root: &Path) -> Vec<Excess> {
    let too_large = limited(pod)
        .filter(|(volume, limit, _)| path(volume, root, &pod.uid).is_some_and(|dir| used(&dir, *limit) > *limit));
    too_large.map(|(volume, _, text)| Excess { volume: volume.name.clone(), limit: text.to_owned() }).collect()
}

/// What a directory takes with all that is below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes on its file system.
    pub bytes: u64,
    /// Files and directories, itself included.
    pub inodes: u64,
}

impl Taken {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }

    fn add(&mut self, stat: &Stat) {
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK);
        *self = self.and(Self { bytes, inodes: 1 });
    }
}

/// Bytes that the files below `dir` take on its own file system; counting ends beyond `enough`.
fn used(dir: &Path, enough: u64) -> u64 {
    let top = |taken: &Taken| taken.bytes > enough;
    taken_until(dir, top).map_or(0, |taken| taken.bytes)
}

/// What `dir`, or a file, takes on its own file system, each file with several names once.
///
/// # Errors
/// It cannot be opened.
pub fn taken(dir: &Path) -> io::Result<Taken> {
    taken_until(dir, |_| false)
}

fn taken_until(dir: &Path, enough: impl Fn(&Taken) -> bool) -> io::Result<Taken> {
    let (mut taken, mut several) = (Taken::default(), BTreeSet::new());
    let top = rustix::fs::open(dir, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&top)?;
    taken.add(&stat);
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(taken);
    }
    let top = rustix::fs::open(dir, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
    let mut rest = vec![PathBuf::from(".")];
    while let Some(dir) = rest.pop() {
        // A container may exchange any of them for a link meanwhile: those are not followed, and mounts are not entered.
        let Ok(opened) = open_dir(top.as_fd(), dir.as_path()) else { continue };
        for entry in Dir::read_from(&opened).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            // What is gone by now takes nothing.
            let Ok(found) = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_dir = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            if found.st_dev != stat.st_dev || !is_dir && found.st_nlink > 1 && !several.insert(found.st_ino) {
                continue;
            }
            taken.add(&found);
            if enough(&taken) {
                return Ok(taken);
            }
            if is_dir {
                rest.push(dir.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::agent::objects::Objects;
    use crate::agent::pod::downward::Facts;
    use crate::agent::pod::tests::pod_with;
    use crate::agent::volumes::Inputs;

    #[test]
    fn a_volume_on_the_disk_beyond_its_limit_is_found_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod_with(
            "volumes: [{name: big, emptyDir: {sizeLimit: 1Mi}}, {name: small, emptyDir: {sizeLimit: 1Mi}}, \
             {name: free, emptyDir: {}}]",
            "",
        );
        super::super::prepare(&pod, root.path(), &Inputs { facts: &Facts::default(), objects: &Objects::default() })
            .unwrap();
        assert_eq!(excesses(&pod, root.path()), []);
        let volumes = root.path().join("pods").join(&pod.uid).join("volumes/kubernetes.io~empty-dir");
        for (volume, size) in [("big", 2 << 20), ("small", 1 << 18), ("free", 2 << 20)] {
            fs::create_dir(volumes.join(volume).join("sub")).unwrap();
            fs::File::create(volumes.join(volume).join("sub/file")).unwrap().write_all(&vec![1; size]).unwrap();
        }
        let expected = Excess { volume: "big".into(), limit: "1Mi".into() };
        assert_eq!(excesses(&pod, root.path()), [expected]);
    }
    #[test]
    fn what_a_directory_takes_counts_each_file_once_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("sub")).unwrap();
        crate::host::fs::write_file(&outside, &vec![1; 1 << 20], 0o644).unwrap();
        crate::host::fs::write_file(&inside.join("sub/file"), &vec![1; 1 << 16], 0o644).unwrap();
        fs::hard_link(inside.join("sub/file"), inside.join("again")).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let found = taken(&inside).unwrap();
        assert_eq!(found.inodes, 4, "itself, a directory, a file, a link");
        assert!((1 << 16..1 << 20).contains(&found.bytes), "{found:?}");
        assert_eq!(taken(&outside).unwrap().inodes, 1);
        assert!(taken(&dir.path().join("none")).is_err());
    }
}
