//! What a process's cgroup has used, read from the files of cgroup v1 and v2.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::memory::{MemInfo, field};
use crate::host::mounts;

/// What was used so far, and is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All of it, pages of files included.
    pub usage: u64,
    /// Without the pages of files that would go first: what is judged by.
    pub working_set: u64,
    /// Without any pages of files.
    pub rss: u64,
    /// Pages of files.
    pub cache: u64,
    /// The limit, None without one.
    pub limit: Option<u64>,
    /// Pages that were not there when they were used,
    pub page_faults: u64,
    /// and those that had to be read from a disk.
    pub major_page_faults: u64,
}

/// From this on, a limit of v1 is none.
pub(super) const UNLIMITED: u64 = 1 << 60;

/// What a cgroup file system is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// The cgroup that its top is.
    root: PathBuf,
    point: PathBuf,
    /// Empty for v2.
    controllers: Vec<String>,
}

/// The cgroup file systems of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Those of this process.
    pub fn read() -> Self {
        // Usage is only reported: without the table it is not known.
        Self::of(mounts::read().unwrap_or_default())
    }

    fn of(mounts: Vec<mounts::Mount>) -> Self {
        let mount = |mount: mounts::Mount| {
            let controllers = match mount.system.as_str() {
                "cgroup" => mount.options.split(',').map(str::to_owned).collect(),
                "cgroup2" => Vec::new(),
                _ => return None,
            };
            Some(Mount { root: mount.root, point: mount.point, controllers })
        };
        Self(mounts.into_iter().filter_map(mount).collect())
    }

    /// What a cgroup has used; nothing is known of one that is gone.
    pub fn usage_of(&self, group: &Group) -> Usage {
        let dir = |controller: &str| self.dir(group, controller);
        let cpu = dir("cpuacct").and_then(|dir| number(&dir, "cpuacct.usage"));
        let memory = dir("memory").and_then(|dir| memory_v1(&dir));
        let unified = dir("");
        Usage {
            cpu_nanos: cpu.or_else(|| unified.as_deref().and_then(cpu_v2)),
            memory: memory.or_else(|| unified.as_deref().and_then(memory_v2)),
        }
    }

    /// What the whole machine has used.
    pub fn of_machine(&self) -> Usage {
        let top = |controller: &str| self.of_controller(controller).map(|mount| mount.point.clone());
        let cpu = top("cpuacct").and_then(|dir| number(&dir, "cpuacct.usage"));
        let cpu_nanos = cpu.or_else(|| top("").as_deref().and_then(cpu_v2));
        // The kernel counts no pages of the top cgroup of v2.
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Usage { cpu_nanos, memory: machine_memory(&MemInfo::read(), &read("/proc/vmstat")) }
    }

    /// Whether the hierarchy of v2 says something of this cgroup. Where those of v1 count, everything may be at its top,
    /// which counts for the whole machine.
    pub(super) fn counts_unified(&self, group: &Group) -> bool {
        let is_top = group.0.lines().any(|line| line == "0::/");
        !is_top || self.of_controller("memory").is_none_or(|mount| mount.controllers.is_empty())
    }

    /// The mount of a controller of v1, or, without a name, of v2.
    fn of_controller(&self, controller: &str) -> Option<&Mount> {
        self.0.iter().find(|mount| match controller {
            "" => mount.controllers.is_empty(),
            name => mount.controllers.iter().any(|one| one == name),
        })
    }

    /// The directory of a cgroup.
    pub(super) fn dir(&self, group: &Group, controller: &str) -> Option<PathBuf> {
        let is_of = |names: &str| match controller {
            "" => names.is_empty(),
            name => names.split(',').any(|one| one == name),
        };
        let path = group.0.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            is_of(names).then_some(path)
        })?;
        let mount = self.of_controller(controller)?;
        let below = Path::new(path).strip_prefix(&mount.root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
        Some(mount.point.join(below))
    }
}

/// A cgroup, as the text of a /proc/PID/cgroup: its path in each hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group(String);

impl Group {
    /// That of a process; of one that is gone it is in none.
    pub fn of_process(pid: u32) -> Self {
        Self(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default())
    }

    /// The nearest one around it, or itself, with a name that fits; None where none has.
    pub fn ancestor(&self, fits: impl Fn(&str) -> bool) -> Option<Self> {
        let has = |dir: &Path| dir.file_name().and_then(|name| name.to_str()).is_some_and(&fits);
        let above = |line: &str| {
            let mut fields = line.splitn(3, ':');
            let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let found = Path::new(path).ancestors().find(|dir| has(dir))?;
            Some(format!("{number}:{names}:{}\n", found.display()))
        };
        let lines: String = self.0.lines().filter_map(above).collect();
        (!lines.is_empty()).then_some(Self(lines))
    }

    /// Its path, where memory is counted.
    pub fn path(&self) -> &str {
        let of = |names: &str| {
            let mut lines = self.0.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
            lines.find(|(found, _)| found.split(',').any(|one| one == names)).map(|(_, path)| path)
        };
        of("memory").or_else(|| of("")).unwrap_or("/")
    }
}

pub(super) fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn cpu_v2(dir: &Path) -> Option<u64> {
    let stat = fs::read_to_string(dir.join("cpu.stat")).ok()?;
    field(&stat, "usage_usec").map(|micros| micros.saturating_mul(1000))
}

fn memory_v1(dir: &Path) -> Option<MemoryUsage> {
    let usage = number(dir, "memory.usage_in_bytes")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let value = |name: &str| field(&stat, name).unwrap_or(0);
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(value("total_inactive_file")),
        rss: value("total_rss"),
        cache: value("total_cache"),
        limit: number(dir, "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED),
        page_faults: value("total_pgfault"),
        major_page_faults: value("total_pgmajfault"),
    })
}

fn memory_v2(dir: &Path) -> Option<MemoryUsage> {
    let usage = number(dir, "memory.current")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let value = |name: &str| field(&stat, name).unwrap_or(0);
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(value("inactive_file")),
        rss: value("anon"),
        cache: value("file"),
        limit: number(dir, "memory.max"),
        page_faults: value("pgfault"),
        major_page_faults: value("pgmajfault"),
    })
}

fn machine_memory(meminfo: &MemInfo, vmstat: &str) -> Option<MemoryUsage> {
    let bytes = |name: &str| meminfo.bytes(name);
    let (total, free) = (bytes("MemTotal")?, bytes("MemFree")?);
    let usage = total.saturating_sub(free);
    let faults = |name: &str| field(vmstat, name).unwrap_or(0);
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(bytes("Inactive(file)").unwrap_or(0)),
        rss: bytes("AnonPages").unwrap_or(0),
        cache: bytes("Cached").unwrap_or(0),
        limit: Some(total),
        page_faults: faults("pgfault"),
        major_page_faults: faults("pgmajfault"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            crate::host::fs::write_file(&dir.join(name), text.as_bytes(), 0o644).unwrap();
        }
    }

    const V1: &str = "25 24 0:22 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      26 24 0:23 /docker/x /c/memory rw - cgroup cgroup rw,memory\n\
                      27 24 0:24 / /c/unified rw - cgroup2 cgroup rw\n28 1 8:1 / / rw - ext4 /dev/vda rw\n";

    #[test]
    fn a_process_is_found_in_each_hierarchy() {
        let mounts = Mounts::of(mounts::parse(V1.as_bytes()).unwrap());
        let group = Group("4:memory:/docker/x/kubepods/pod1/c\n3:cpu,cpuacct:/kubepods/pod1/c\n0::/k\n".to_owned());
        let dir = |controller: &str| mounts.dir(&group, controller).map(|dir| dir.display().to_string());
        assert_eq!(dir("cpuacct").as_deref(), Some("/c/cpu,cpuacct/kubepods/pod1/c"));
        assert_eq!(dir("memory").as_deref(), Some("/c/memory/kubepods/pod1/c"));
        assert_eq!(dir("").as_deref(), Some("/c/unified/k"));
        assert_eq!(dir("pids"), None);
        assert_eq!(Mounts::default().usage_of(&group), Usage::default());
    }

    #[test]
    fn where_both_versions_are_the_top_of_the_new_one_is_the_machines_and_no_containers() {
        let dir = tempfile::tempdir().unwrap();
        let pressure = "some avg10=90.00 avg60=90.00 avg300=90.00 total=5\n";
        write(dir.path(), &[("cpu.stat", "user_usec 7\n"), ("cpu.pressure", pressure)]);
        write(&dir.path().join("own"), &[("cpu.stat", "user_usec 7\n"), ("cpu.pressure", pressure)]);
        let new = format!("27 24 0:24 / {} rw - cgroup2 cgroup rw\n", dir.path().display());
        let both = format!("26 24 0:23 / /none/memory rw - cgroup cgroup rw,memory\n{new}");
        let waits = |table: &str, path: &str| {
            let mounts = Mounts::of(mounts::parse(table.as_bytes()).unwrap());
            mounts.details_of(&Group(format!("0::{path}\n"))).cpu_pressure.is_some()
        };
        assert_eq!((waits(&both, "/"), waits(&both, "/own"), waits(&new, "/")), (false, true, true));
    }

    #[test]
    fn a_container_is_in_its_pods_cgroup_and_that_in_the_one_of_all_pods() {
        let old = Group(
            "4:memory:/kubepods/burstable/poda-b/c\n3:name=systemd:/kubepods/burstable/poda-b/c\n0::/\n".to_owned(),
        );
        let pod = old.ancestor(|name| name == "poda-b").unwrap();
        assert_eq!(pod.0, "4:memory:/kubepods/burstable/poda-b\n3:name=systemd:/kubepods/burstable/poda-b\n");
        assert_eq!(
            (pod.path(), old.ancestor(|name| name == "kubepods").unwrap().path()),
            ("/kubepods/burstable/poda-b", "/kubepods")
        );
        assert_eq!(old.ancestor(|name| name == "x"), None);
        let new = Group("0::/kubepods.slice/kubepods-poda_b.slice/cri-containerd-c.scope\n".to_owned());
        assert_eq!(
            new.ancestor(|name| name.ends_with("poda_b.slice")).unwrap().path(),
            "/kubepods.slice/kubepods-poda_b.slice"
        );
    }

    #[test]
    fn both_versions_tell_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let v1 = dir.path().join("v1");
        let stat = "rss 1\ntotal_rss 40\ntotal_cache 60\ntotal_inactive_file 25\ntotal_pgfault 7\ntotal_pgmajfault 2\n";
        write(&v1, &[("memory.usage_in_bytes", "100\n"), ("memory.stat", stat), ("cpuacct.usage", "5000\n")]);
        write(&v1, &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        let v2 = dir.path().join("v2");
        let stat = "anon 40\nfile 60\ninactive_file 25\npgfault 7\npgmajfault 2\n";
        write(&v2, &[("memory.current", "100\n"), ("memory.stat", stat), ("memory.max", "max\n")]);
        write(&v2, &[("cpu.stat", "usage_usec 5\nuser_usec 3\n")]);
        let expected = MemoryUsage {
            usage: 100,
            working_set: 75,
            rss: 40,
            cache: 60,
            limit: None,
            page_faults: 7,
            major_page_faults: 2,
        };
        assert_eq!((memory_v1(&v1), memory_v2(&v2)), (Some(expected), Some(expected)));
        assert_eq!((number(&v1, "cpuacct.usage"), cpu_v2(&v2)), (Some(5000), Some(5000)));
        assert_eq!((memory_v1(&v2), memory_v2(&v1)), (None, None));
    }

    #[test]
    fn the_machine_is_judged_by_what_it_could_not_give_back() {
        let meminfo = "MemTotal: 100 kB\nMemFree: 30 kB\nCached: 20 kB\nInactive(file): 10 kB\nAnonPages: 15 kB\n";
        let found = machine_memory(&MemInfo::of(meminfo), "pgfault 9\npgmajfault 2\n").unwrap();
        assert_eq!((found.page_faults, found.major_page_faults), (9, 2));
        assert_eq!([found.usage, found.working_set, found.rss], [70, 60, 15].map(|kib| kib * 1024));
    }
}
