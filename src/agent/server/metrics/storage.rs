//! What pods take on disks: their volumes, what their containers write, and their logs.
//!
//! Finding that out means looking at every file, so it is done when it is asked for, off the runtime's threads, and a pod
//! is looked at once a minute at most, as by a kubelet. A client waits for a moment only: of what takes longer the
//! next one hears, and until then what was found before stands.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Volume;
use rustix::fs::statvfs;

use super::usage::PodUsage;
use crate::agent::context::Context;
use crate::agent::logs;
use crate::agent::options::AgentOptions;
use crate::agent::pod::StaticPod;
use crate::agent::volumes;
use crate::agent::volumes::usage::{Taken, taken};
use crate::host::clock::Instant;
use crate::host::mounts::{self, Mount};
use crate::runtime::ContainerName;

/// How long what was found stands: the kubelet's default of `volumeStatsAggPeriod`.
const PERIOD: Duration = Duration::from_secs(60);
/// How long one who asks waits.
const WAIT: Duration = Duration::from_secs(2);

/// A file system, and what something takes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// When that was so.
    pub at: Timestamp,
    /// Bytes in all,
    pub capacity: u64,
    /// and those that an ordinary user may still write.
    pub available: u64,
    /// Files in all, 0 where it does not count them,
    pub inodes: u64,
    /// and those that can still be made.
    pub inodes_free: u64,
    /// Bytes that are taken.
    pub used: Option<u64>,
    /// Files that are.
    pub inodes_used: Option<u64>,
}

impl FileSystem {
    /// That of a path, whole. May hang where that is far away.
    pub fn of(path: &Path) -> Option<Self> {
        let found = statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self {
            at: Timestamp::now(),
            capacity: bytes(found.f_blocks),
            available: bytes(found.f_bavail),
            inodes: found.f_files,
            inodes_free: found.f_ffree,
            used: Some(bytes(found.f_blocks.saturating_sub(found.f_bfree))),
            inodes_used: Some(found.f_files.saturating_sub(found.f_ffree)),
        })
    }

    /// What something takes of it.
    fn with(self, taken: Option<Taken>) -> Self {
        Self { used: taken.map(|taken| taken.bytes), inodes_used: taken.map(|taken| taken.inodes), ..self }
    }
}

/// What a pod takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodStorage {
    /// Its volumes that are made for it, by their names.
    pub volumes: Vec<(String, FileSystem)>,
    /// What its containers have written beside volumes, by their ids.
    pub written: BTreeMap<String, FileSystem>,
    /// The logs of its containers, by their names.
    pub logs: BTreeMap<String, FileSystem>,
    /// All of it that goes with the pod.
    pub ephemeral: Option<FileSystem>,
}

/// Of which pod that is asked.
struct Asked {
    key: ContainerName,
    pod: Option<Arc<StaticPod>>,
    /// Name, id and process of its containers.
    containers: Vec<(String, String, u32)>,
}

#[derive(Default)]
struct Known {
    /// None until it was looked at once.
    found: Option<(Instant, Arc<PodStorage>)>,
    is_looked_at: bool,
}

impl Known {
    fn is_due(&self) -> bool {
        !self.is_looked_at && self.found.as_ref().is_none_or(|(at, _)| at.elapsed() >= PERIOD)
    }
}

/// What is known of pods, by UID.
#[derive(Default)]
pub struct Storage(Arc<Mutex<HashMap<String, Known>>>);

impl Storage {
    /// What these pods take, as far as that is known in a moment.
    pub async fn of(&self, context: &Arc<Context>, pods: &[PodUsage]) -> HashMap<String, Arc<PodStorage>> {
        let due = self.due(pods);
        if !due.is_empty() {
            let (known, context) = (Arc::clone(&self.0), Arc::clone(context));
            let look = tokio::task::spawn_blocking(move || look(&known, due, |asked| measure(&context.options, asked)));
            let _ = tokio::time::timeout(WAIT, look).await;
        }
        let known = lock(&self.0);
        known.iter().filter_map(|(uid, known)| Some((uid.clone(), Arc::clone(&known.found.as_ref()?.1)))).collect()
    }

    /// Those that have to be looked at, which this one is to do. Only pods that are there are remembered.
    fn due(&self, pods: &[PodUsage]) -> Vec<Asked> {
        let mut known = lock(&self.0);
        known.retain(|uid, one| one.is_looked_at || pods.iter().any(|pod| pod.uid == *uid));
        let mut due = Vec::new();
        for pod in pods {
            let one = known.entry(pod.uid.clone()).or_default();
            if one.is_due() {
                one.is_looked_at = true;
                due.push(Asked::of(pod));
            }
        }
        due
    }
}

impl Asked {
    fn of(pod: &PodUsage) -> Self {
        let containers = pod.containers.iter().map(|one| (one.name.clone(), one.id.clone(), one.pid)).collect();
        let key = ContainerName {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            container: String::new(),
            attempt: 0,
        };
        Self { key, pod: pod.pod.clone(), containers }
    }
}

fn lock(known: &Mutex<HashMap<String, Known>>) -> MutexGuard<'_, HashMap<String, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at one pod after the other. One that cannot be looked at to the end is looked at again.
fn look(known: &Mutex<HashMap<String, Known>>, due: Vec<Asked>, measure: impl Fn(&Asked) -> PodStorage) {
    struct Looking<'a>(&'a Mutex<HashMap<String, Known>>, Vec<Asked>);
    impl Drop for Looking<'_> {
        fn drop(&mut self) {
            let mut known = lock(self.0);
            for asked in &self.1 {
                known.entry(asked.key.uid.clone()).or_default().is_looked_at = false;
            }
        }
    }
    let looking = Looking(known, due);
    for asked in &looking.1 {
        let found = Arc::new(measure(asked));
        let mut known = lock(known);
        let one = known.entry(asked.key.uid.clone()).or_default();
        (one.found, one.is_looked_at) = (Some((Instant::now(), found)), false);
    }
}

fn measure(options: &AgentOptions, asked: &Asked) -> PodStorage {
    let mut storage = PodStorage::default();
    let mut all = Taken::default();
    let volumes = asked.pod.iter().flat_map(|pod| pod.spec.volumes.iter().flatten());
    for volume in volumes.filter(|volume| volume.host_path.is_none()) {
        let path = volumes::path(volume, &options.root_dir, &asked.key.uid);
        let Some((path, system)) = path.and_then(|path| Some((path.clone(), FileSystem::of(&path)?))) else { continue };
        let taken = taken(&path).ok();
        if is_ephemeral(volume) {
            all = all.and(taken.unwrap_or_default());
        }
        storage.volumes.push((volume.name.clone(), system.with(taken)));
    }
    for (name, id, pid) in &asked.containers {
        if let Some((dir, system)) = written_layer(*pid).and_then(|dir| Some((dir.clone(), FileSystem::of(&dir)?))) {
            let taken = taken(&dir).ok();
            all = all.and(taken.unwrap_or_default());
            storage.written.insert(id.clone(), system.with(taken));
        }
        let key = ContainerName { container: name.clone(), ..asked.key.clone() };
        let dir = logs::file(options, &key).parent().map(Path::to_owned).unwrap_or_default();
        if let Some(system) = FileSystem::of(&options.pod_logs_dir) {
            let taken = files_in(&dir);
            all = all.and(taken);
            storage.logs.insert(name.clone(), system.with(Some(taken)));
        }
    }
    let own = [options.root_dir.join("pods").join(&asked.key.uid).join("etc-hosts")];
    let own = own.iter().filter_map(|path| taken(path).ok()).fold(Taken::default(), Taken::and);
    all = all.and(own).and(files_in(&logs::pod_dir(options, &asked.key)));
    storage.ephemeral = FileSystem::of(&options.root_dir).map(|system| system.with(Some(all)));
    storage
}

/// Whether a volume takes of the node's own disk, in the kubelet's sense.
fn is_ephemeral(volume: &Volume) -> bool {
    let on_disk = volume.empty_dir.as_ref().is_some_and(|dir| dir.medium.as_deref().unwrap_or_default().is_empty());
    on_disk || volume.config_map.is_some()
}

/// What the files in a directory take, or what they are links to: a runtime may keep logs elsewhere.
fn files_in(dir: &Path) -> Taken {
    let files =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| fs::canonicalize(entry.path()).ok());
    files.filter(|file| file.is_file()).filter_map(|file| taken(&file).ok()).fold(Taken::default(), Taken::and)
}

/// Where what a container writes beside its volumes is: the upper directory of its root, where that is an overlay.
fn written_layer(pid: u32) -> Option<PathBuf> {
    upper_dir(mounts::of_process(pid).ok()?)
}

fn upper_dir(mounts: Vec<Mount>) -> Option<PathBuf> {
    let root = mounts.into_iter().rfind(|mount| mount.point == Path::new("/"))?;
    let upper = root.options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
    Some(PathBuf::from(upper)).filter(|dir| root.system == "overlay" && dir.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    fn asked(uid: &str) -> PodUsage {
        PodUsage { uid: uid.into(), ..PodUsage::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_looked_at_by_one_at_a_time_and_once_a_minute() {
        let storage = Storage::default();
        let first = storage.due(&[asked("a"), asked("b")]);
        assert_eq!(first.len(), 2);
        assert!(storage.due(&[asked("a"), asked("b")]).is_empty(), "the first one is at it");
        look(&storage.0, first, |_| PodStorage::default());
        tokio::time::advance(PERIOD - Duration::from_secs(1)).await;
        assert!(storage.due(&[asked("a"), asked("b")]).is_empty(), "it stands for a minute");
        tokio::time::advance(Duration::from_secs(1)).await;
        let again = storage.due(&[asked("b")]);
        assert_eq!(again.len(), 1);
        assert_eq!(lock(&storage.0).len(), 1, "what is gone is forgotten");
        let crashed = std::panic::catch_unwind(|| look(&storage.0, again, |_| panic!("no disk")));
        assert!(crashed.is_err());
        assert_eq!(storage.due(&[asked("b")]).len(), 1, "it is looked at again");
    }

    #[test]
    fn volumes_logs_and_hosts_are_measured_and_host_paths_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod_with(
            "volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}, {name: h, hostPath: {path: /}}]",
            "",
        );
        let mut options = AgentOptions::new("n");
        (options.root_dir, options.pod_logs_dir) = (dir.path().join("k"), dir.path().join("logs"));
        let below = options.root_dir.join("pods").join(&pod.uid);
        for (volume, bytes) in [("d", 1 << 16), ("m", 1 << 17)] {
            let path = below.join("volumes/kubernetes.io~empty-dir").join(volume);
            fs::create_dir_all(&path).unwrap();
            crate::host::fs::write_file(&path.join("file"), &vec![1; bytes], 0o644).unwrap();
        }
        crate::host::fs::write_file(&below.join("etc-hosts"), b"127.0.0.1 localhost\n", 0o644).unwrap();
        let usage = PodUsage {
            namespace: pod.key.namespace.clone(),
            name: pod.key.name.clone(),
            uid: pod.uid.clone(),
            containers: vec![super::super::usage::ContainerUsage { name: "c".into(), ..Default::default() }],
            pod: Some(Arc::new(pod)),
            ..PodUsage::default()
        };
        let asked = Asked::of(&usage);
        let logs = logs::pod_dir(&options, &asked.key).join("c");
        fs::create_dir_all(&logs).unwrap();
        crate::host::fs::write_file(&dir.path().join("elsewhere"), &vec![1; 1 << 15], 0o644).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), logs.join("0.log")).unwrap();
        let found = measure(&options, &asked);
        let names: Vec<_> = found.volumes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["d", "m"]);
        let used: Vec<u64> = found.volumes.iter().map(|(_, system)| system.used.unwrap()).collect();
        assert!(used[0] >= 1 << 16 && used[1] >= 1 << 17, "{used:?}");
        assert_eq!(found.volumes[0].1.inodes_used, Some(2));
        assert!(found.logs["c"].used >= Some(1 << 15) && found.logs["c"].inodes_used == Some(1), "a link is followed");
        let all = found.ephemeral.unwrap().used.unwrap();
        assert!(all >= used[0] + (1 << 15) && all < used[0] + used[1], "memory takes nothing of the disk: {all}");
    }

    #[test]
    fn what_a_container_writes_is_in_the_upper_directory_of_its_root() {
        let table = b"600 500 0:50 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/d/1/diff,workdir=/d/1/work\n\
                      601 600 0:51 / /proc rw - proc proc rw\n";
        assert_eq!(upper_dir(mounts::parse(table).unwrap()), Some("/d/1/diff".into()));
        assert_eq!(upper_dir(mounts::parse(b"600 500 8:1 / / rw - ext4 /dev/sda1 rw\n").unwrap()), None);
        assert_eq!(
            upper_dir(mounts::parse(b"600 500 0:50 / / rw - overlay overlay rw,upperdir=1/diff\n").unwrap()),
            None,
            "relative to what?"
        );
    }
}
