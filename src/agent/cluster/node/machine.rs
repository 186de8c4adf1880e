//! What the Node's status says of the machine itself, from where cAdvisor reads it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::host::memory::MemInfo;

/// The machine, as it was looked at once: none of it changes while it runs, but for huge pages and disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// /etc/machine-id.
    pub machine_id: String,
    /// The firmware's UUID, else the machine id.
    pub system_uuid: String,
    /// Another one each time the kernel starts.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution in its own words.
    pub os_image: String,
    /// Processors that are online.
    pub cpus: i64,
    /// All memory, in KiB.
    pub memory_kib: i64,
    /// Reserved memory by the size of its pages in KiB: how many there are.
    pub huge_pages: BTreeMap<i64, i64>,
    /// The file system of the root directory, in bytes.
    pub storage_bytes: i64,
    /// Whether containers can be confined by AppArmor.
    pub apparmor: bool,
}

impl Machine {
    /// Looks at the machine whose root is `root`; `storage` is in the file system that pods write to.
    pub fn look(root: &Path, storage: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned());
        let first = |paths: &[&str]| {
            paths.iter().find_map(|path| read(path).filter(|text| !text.is_empty())).unwrap_or_default()
        };
        let machine_id = first(&["etc/machine-id", "var/lib/dbus/machine-id"]);
        let system_uuid = first(&["sys/class/dmi/id/product_uuid", "proc/device-tree/vm,uuid", "etc/machine-id"]);
        let there = storage.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        let storage = rustix::fs::statvfs(there).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
        Self {
            machine_id,
            system_uuid: system_uuid.trim_end_matches('\0').to_owned(),
            boot_id: first(&["proc/sys/kernel/random/boot_id"]),
            kernel_version: rustix::system::uname().release().to_string_lossy().into_owned(),
            os_image: os_image(&first(&["etc/os-release", "usr/lib/os-release"])),
            cpus: count(&first(&["sys/devices/system/cpu/online"])).unwrap_or_else(cpus),
            memory_kib: kib(&MemInfo::read_below(&root.join("proc")), "MemTotal").unwrap_or(0),
            huge_pages: huge_pages(&root.join("sys/kernel/mm/hugepages")),
            storage_bytes: i64::try_from(storage).unwrap_or(i64::MAX),
            apparmor: read("sys/module/apparmor/parameters/enabled").is_some_and(|text| text.starts_with('Y')),
        }
    }
}

/// Memory that can be had now without swapping, in KiB; None where the kernel does not say.
pub fn available_memory() -> Option<i64> {
    kib(&MemInfo::read(), "MemAvailable")
}

/// The architecture in Go's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn cpus() -> i64 {
    i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1)
}

/// How many numbers are in `0-3,8`.
fn count(list: &str) -> Option<i64> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        to.parse::<i64>().ok()?.checked_sub(from.parse().ok()?)?.checked_add(1)
    };
    list.split(',').map(range).sum::<Option<i64>>().filter(|sum| *sum > 0)
}

fn kib(info: &MemInfo, name: &str) -> Option<i64> {
    info.kib(name).and_then(|kib| i64::try_from(kib).ok())
}

fn os_image(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map(|name| name.trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "Linux".to_owned())
}

fn huge_pages(dir: &Path) -> BTreeMap<i64, i64> {
    let Ok(found) = fs::read_dir(dir) else { return BTreeMap::new() };
    let size = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let pages = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        Some((kib, pages))
    };
    found.filter_map(Result::ok).filter_map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    #[test]
    fn a_machine_is_read_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/machine-id", "abc\n"),
            ("etc/os-release", "NAME=X\nPRETTY_NAME=\"Some Linux 7\"\n"),
            ("proc/sys/kernel/random/boot_id", "boot\n"),
            ("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n"),
            ("sys/devices/system/cpu/online", "0-2,5\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "3\n"),
        ] {
            let path = root.path().join(path);
            make_dirs(path.parent().unwrap(), 0o755).unwrap();
            write_file(&path, text.as_bytes(), 0o644).unwrap();
        }
        let found = Machine::look(root.path(), &root.path().join("not/there"));
        assert_eq!((found.machine_id.as_str(), found.system_uuid.as_str()), ("abc", "abc"));
        assert_eq!((found.boot_id.as_str(), found.os_image.as_str()), ("boot", "Some Linux 7"));
        assert_eq!((found.cpus, found.memory_kib), (4, 2048));
        assert_eq!(found.huge_pages, BTreeMap::from([(2048, 3)]));
        assert!(found.storage_bytes > 0 && !found.kernel_version.is_empty());
    }

    #[test]
    fn a_machine_that_says_nothing_has_a_processor_and_a_name() {
        let found = Machine::look(Path::new("/nonexistent"), Path::new("/"));
        assert!(found.cpus > 0 && found.os_image == "Linux" && found.huge_pages.is_empty());
        assert_eq!((count("0"), count("x"), count("")), (Some(1), None, None));
    }
}
