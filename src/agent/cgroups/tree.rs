//! The cgroup file systems of the machine: which there are, and the few files of them that a pod needs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use tracing::warn;

use crate::agent::pod::resources::PodLimits;
use crate::host::fs::FsError;
use crate::host::mounts::Mount;

/// How often a cgroup whose last process has just ended is asked to go, and how long apart: the kernel sends no event.
const REMOVALS: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);
/// The controllers that children need, where there are any.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// Every place where a pod has a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// cgroup v1: a mount a controller (or several), with the names of its controllers. The unified hierarchy that may be
    /// mounted beside them has none, but runtimes put containers in it all the same.
    V1(Vec<(PathBuf, Vec<String>)>),
    /// cgroup v2: one mount.
    V2(PathBuf),
}

impl Tree {
    /// Picks those of the machine's mounts that are cgroups; None without any.
    pub fn of(mounts: Vec<Mount>) -> Option<Self> {
        let (mut v1, mut v2): (Vec<(PathBuf, Vec<String>)>, _) = (Vec::new(), None);
        for Mount { point, system, options, .. } in mounts {
            match system.as_str() {
                "cgroup" if v1.iter().all(|(known, _)| *known != point) => {
                    v1.push((point, options.split(',').map(str::to_owned).collect()));
                }
                "cgroup2" => v2 = v2.or(Some(point)),
                _ => {}
            }
        }
        if v1.is_empty() {
            return v2.map(Self::V2);
        }
        v1.extend(v2.map(|point| (point, Vec::new())));
        Some(Self::V1(v1))
    }

    fn mounts(&self) -> Vec<&Path> {
        match self {
            Self::V1(mounts) => mounts.iter().map(|(path, _)| path.as_path()).collect(),
            Self::V2(mount) => vec![mount],
        }
    }

    /// Whether a mount limits nothing.
    fn is_bare(&self, mount: &Path) -> bool {
        matches!(self, Self::V1(mounts) if mounts.iter().any(|(path, names)| path == mount && names.is_empty()))
    }

    fn of_controller(&self, name: &str) -> Option<&Path> {
        match self {
            Self::V1(mounts) => {
                let found = mounts.iter().find(|(_, controllers)| controllers.iter().any(|own| own == name));
                found.map(|(path, _)| path.as_path())
            }
            Self::V2(mount) => Some(mount),
        }
    }

    /// Makes a directory in every hierarchy, so that none of those above it is empty and may go.
    pub fn make(&self, dir: &Path) -> Result<(), FsError> {
        for mount in self.mounts() {
            let mut at = mount.to_owned();
            for part in dir.components() {
                if matches!(self, Self::V2(_)) {
                    delegate(&at);
                }
                at.push(part);
                match fs::create_dir(&at) {
                    // Without it no limit is lost.
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists && !self.is_bare(mount) => {
                        return Err(FsError::new("make the cgroup", &at, e));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether a directory is there.
    pub fn exists(&self, dir: &Path) -> bool {
        self.mounts().iter().any(|mount| mount.join(dir).exists())
    }

    /// Writes the limits of a cgroup that is there.
    pub fn limit(&self, dir: &Path, limits: PodLimits, pids: Option<i64>) -> Result<(), FsError> {
        self.set_shares(dir, limits.cpu_shares)?;
        let PodLimits { cpu_quota, cpu_period, memory_bytes, .. } = limits;
        let memory = (memory_bytes > 0).then(|| memory_bytes.to_string());
        let pids = pids.filter(|pids| *pids > 0).map(|pids| pids.to_string());
        let quota = (cpu_quota > 0).then(|| cpu_quota.to_string());
        let v1 = matches!(self, Self::V1(_));
        let unlimited = |value: Option<String>, none: &str| value.unwrap_or_else(|| none.to_owned());
        if v1 {
            self.write(dir, "cpu", "cpu.cfs_period_us", &cpu_period.to_string())?;
            self.write(dir, "cpu", "cpu.cfs_quota_us", &unlimited(quota, "-1"))?;
            self.write(dir, "memory", "memory.limit_in_bytes", &unlimited(memory, "-1"))?;
        } else {
            self.write(dir, "cpu", "cpu.max", &format!("{} {cpu_period}", unlimited(quota, "max")))?;
            self.write(dir, "memory", "memory.max", &unlimited(memory, "max"))?;
        }
        self.write(dir, "pids", "pids.max", &unlimited(pids, "max"))
    }

    /// cpu.shares, or the weight that means the same.
    pub fn set_shares(&self, dir: &Path, shares: i64) -> Result<(), FsError> {
        match self {
            Self::V1(_) => self.write(dir, "cpu", "cpu.shares", &shares.to_string()),
            Self::V2(_) => self.write(dir, "cpu", "cpu.weight", &weight(shares).to_string()),
        }
    }

    /// The sum of the shares of the pods below `dir`.
    pub fn sum_of_shares(&self, dir: &Path) -> i64 {
        let Some(mount) = self.of_controller("cpu") else { return 0 };
        let children = fs::read_dir(mount.join(dir)).into_iter().flatten().flatten().map(|entry| entry.path());
        let (file, shares): (_, fn(i64) -> i64) = match self {
            Self::V1(_) => ("cpu.shares", |shares| shares),
            Self::V2(_) => {
                ("cpu.weight", |weight| (weight.saturating_sub(1).saturating_mul(262_142) / 9999).saturating_add(2))
            }
        };
        let values = children.filter_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok());
        values.map(shares).fold(0, i64::saturating_add)
    }

    /// A controller that the kernel does not have limits nothing.
    fn write(&self, dir: &Path, controller: &str, file: &str, value: &str) -> Result<(), FsError> {
        let Some(mount) = self.of_controller(controller) else { return Ok(()) };
        let path = mount.join(dir).join(file);
        let opened = fs::File::options().write(true).open(&path);
        match opened.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| FsError::new("write", &path, e)),
        }
    }

    /// Removes a directory with everything below it, in every hierarchy. What is gone is fine. Processes that are in it
    /// still are killed, as the kubelet does: a daemon that was killed while it started a container does not know of
    /// them, and would give their address to another pod.
    ///
    /// # Errors
    /// The first that is still busy when the patience is over: a process that was killed keeps its place until all it
    /// had is taken down, and a machine may have better to do. The caller retries later.
    pub fn remove(&self, dir: &Path) -> Result<(), FsError> {
        let mut reported = BTreeSet::new();
        for round in 0.. {
            let here = self.mounts().into_iter().map(|mount| mount.join(dir)).filter(|dir| dir.exists());
            let failed = here.filter_map(|dir| remove_below(&dir).err().map(|error| (dir, error)));
            let Some((left, error)) = failed.reduce(|first, _| first) else { return Ok(()) };
            if round == REMOVALS || error.kind() != io::ErrorKind::ResourceBusy {
                return Err(FsError::new("remove the cgroup", &left, error));
            }
            self.thaw(dir);
            self.mounts().into_iter().for_each(|mount| kill_below(&mount.join(dir), &mut reported));
            std::thread::sleep(REMOVAL_PAUSE);
        }
        Ok(())
    }

    /// Kills what is in cgroups below `dir` that are none of `running`, which are containers' ids: every driver names a
    /// container's cgroup after its id.
    pub fn end_forgotten(&self, dir: &Path, running: &BTreeSet<String>) {
        let mut reported = BTreeSet::new();
        for mount in self.mounts() {
            let entries = fs::read_dir(mount.join(dir)).into_iter().flatten().flatten();
            let strange = entries.filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                entry.file_type().is_ok_and(|kind| kind.is_dir()) && !running.iter().any(|id| name.contains(id))
            });
            for entry in strange {
                self.thaw(&dir.join(entry.file_name()));
                kill_below(&entry.path(), &mut reported);
            }
        }
    }

    /// Lets what is frozen go on: runtimes freeze a cgroup while they end what is in it, and what is frozen does not die.
    fn thaw(&self, dir: &Path) {
        let Some(mount) = self.of_controller("freezer") else { return };
        let (file, word) =
            if matches!(self, Self::V1(_)) { ("freezer.state", "THAWED") } else { ("cgroup.freeze", "0") };
        for dir in with_below(&mount.join(dir)) {
            let opened = fs::File::options().write(true).open(dir.join(file));
            let _ = opened.and_then(|mut file| io::Write::write_all(&mut file, word.as_bytes()));
        }
    }

    /// Removes a directory in every hierarchy where nothing is left below it.
    pub fn remove_if_empty(&self, dir: &Path) {
        for mount in self.mounts() {
            let _ = fs::remove_dir(mount.join(dir));
        }
    }
}

/// The files of a cgroup go with it; only the cgroups below it must go before.
fn remove_below(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Kills every process in a cgroup and in those below it; 0 is one that this process cannot see. Each is signalled once.
fn kill_below(dir: &Path, reported: &mut BTreeSet<i32>) {
    for dir in with_below(dir) {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let processes = text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        for process in processes.filter(|process| !process.is_init() && *process != getpid()) {
            let pid = process.as_raw_nonzero().get();
            if reported.insert(pid) {
                warn!(pid, cgroup = %dir.display(), "killing what no container knows of");
            }
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// A directory, and all below it behind it.
fn with_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
        let below: Vec<PathBuf> = below.collect();
        all.extend(below);
        next = next.saturating_add(1);
    }
    all
}

/// Lets children have controllers. One that cannot be handed down limits nothing below.
fn delegate(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    for name in CONTROLLERS.iter().filter(|name| has(&available, name) && !has(&enabled, name)) {
        let opened = fs::File::options().write(true).open(dir.join("cgroup.subtree_control"));
        let _ = opened.and_then(|mut file| io::Write::write_all(&mut file, format!("+{name}").as_bytes()));
    }
}

/// The weight of cgroup v2 for shares of v1 (the conversion of runc and the kubelet).
fn weight(shares: i64) -> i64 {
    (shares.clamp(2, 262_144).saturating_sub(2).saturating_mul(9999) / 262_142).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::mounts;

    fn of_table(table: &str) -> Option<Tree> {
        Tree::of(mounts::parse(table.as_bytes()).unwrap())
    }

    const V1: &str = "24 1 0:21 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      26 24 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      27 24 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_mount_table_says_which_version_there_is() {
        let Some(Tree::V1(mounts)) = of_table(V1) else { panic!("{:?}", of_table(V1)) };
        assert_eq!(mounts.len(), 3);
        let tree = Tree::V1(mounts);
        assert_eq!(tree.of_controller("cpu"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(tree.of_controller("pids"), None);
        let v2 = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(of_table(v2), Some(Tree::V2("/sys/fs/cgroup".into())));
        assert_eq!(of_table("24 1 0:21 / / rw - ext4 /dev/vda rw\n"), None);
    }

    /// A directory in place of the kernel's: the files that a real cgroup brings are made by hand.
    fn pretend(tree: &Tree, dir: &Path, files: &[&str]) {
        tree.make(dir).unwrap();
        for mount in tree.mounts() {
            for file in files {
                fs::File::create(mount.join(dir).join(file)).unwrap();
            }
        }
    }

    #[test]
    fn a_pod_leaves_nothing_in_the_unified_hierarchy_beside_those_of_v1() {
        let root = tempfile::tempdir().unwrap();
        let line = |id: u32, name: &str, kind: &str, options: &str| {
            let point = root.path().join(name);
            fs::create_dir(&point).unwrap();
            format!("{id} 1 0:{id} / {} rw - {kind} {kind} {options}\n", point.display())
        };
        let table = line(25, "cpu", "cgroup", "rw,cpu") + &line(26, "unified", "cgroup2", "rw");
        let tree = of_table(&table).unwrap();
        let pod = Path::new("kubepods/besteffort/podx");
        tree.make(pod).unwrap();
        // What the runtime made there.
        fs::create_dir_all(root.path().join("unified").join(pod).join("c")).unwrap();
        tree.remove(pod).unwrap();
        assert!(!tree.exists(pod));
        fs::remove_dir_all(root.path().join("unified")).unwrap();
        // No directory can be made there any more.
        fs::File::create(root.path().join("unified")).unwrap();
        tree.make(pod).unwrap();
        assert!(root.path().join("cpu").join(pod).exists());
    }

    #[test]
    fn processes_that_no_container_knows_of_end_with_the_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        let sleep = || std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mut children = [sleep(), sleep()];
        let below = dir.path().join("container");
        fs::create_dir(&below).unwrap();
        for (at, child) in [dir.path(), &below].into_iter().zip(&children) {
            let mut file = fs::File::create(at.join("cgroup.procs")).unwrap();
            // One that cannot be seen, this very process, and what is no number, are let be.
            io::Write::write_all(&mut file, format!("0\n{}\nx\n{}\n", std::process::id(), child.id()).as_bytes())
                .unwrap();
        }
        kill_below(dir.path(), &mut BTreeSet::new());
        for child in &mut children {
            let status = child.wait().unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        }
    }

    const LIMITS: PodLimits =
        PodLimits { cpu_shares: 1024, cpu_quota: 50_000, cpu_period: 100_000, memory_bytes: 4096 };

    #[test]
    fn limits_are_said_in_the_words_of_the_version() {
        let root = tempfile::tempdir().unwrap();
        let dir = Path::new("kubepods/podx");
        let read = |file: &str| fs::read_to_string(root.path().join(dir).join(file)).unwrap();
        let v2 = Tree::V2(root.path().to_owned());
        pretend(&v2, dir, &["cpu.weight", "cpu.max", "memory.max", "pids.max"]);
        v2.limit(dir, LIMITS, Some(100)).unwrap();
        let values = ["cpu.weight", "cpu.max", "memory.max", "pids.max"].map(read);
        assert_eq!(values, ["39", "50000 100000", "4096", "100"]);
        let v1 = Tree::V1(vec![(root.path().to_owned(), vec!["cpu".into(), "memory".into(), "pids".into()])]);
        let files = ["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "memory.limit_in_bytes"];
        pretend(&v1, dir, &files);
        v1.limit(dir, PodLimits { cpu_quota: 0, memory_bytes: 0, ..LIMITS }, None).unwrap();
        assert_eq!(files.map(read), ["1024", "100000", "-1", "-1"]);
        assert_eq!(v1.sum_of_shares(Path::new("kubepods")), 1024);
    }

    #[test]
    fn weights_span_the_range_of_shares() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }
}
