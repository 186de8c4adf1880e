//! What `/metrics/cadvisor` says of the machine as a whole, and of the processes of containers.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

use super::family::{Family, gauge, number};
use super::storage::FileSystem;
use super::usage::Measured;

/// Processors, memory and the file system of the agent's directory.
pub fn families(measured: &Measured, root: &Path, cpu_millis: i64, memory: i64) -> Vec<Family> {
    let count = |value: i64| number(u64::try_from(value).unwrap_or(0));
    let failed = measured.node.usage.cpu_nanos.is_none() || measured.node.usage.memory.is_none();
    let mut families = vec![
        gauge("machine_cpu_cores", "Processors", count(cpu_millis / 1000)),
        gauge("machine_memory_bytes", "Memory in bytes", count(memory)),
        gauge("container_scrape_error", "Whether something could not be measured", f64::from(u8::from(failed))),
    ];
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let (cores, sockets) = topology(&cpuinfo);
    families.push(gauge("machine_cpu_physical_cores", "Cores of processors", number(cores)));
    families.push(gauge("machine_cpu_sockets", "Sockets of processors", number(sockets)));
    families.extend(
        measured.node.details.swap_limit.map(|bytes| gauge("machine_swap_bytes", "Swap in bytes", number(bytes))),
    );
    families.extend(file_system(root));
    families
}

/// A value of a disk: its family, and which number of /proc/diskstats it is, in what units.
type OfDisk = (&'static str, &'static str, &'static str, usize, f64);

/// Those of cAdvisor that have no sample for a container. The kernel counts times in milliseconds, which become seconds here;
/// cAdvisor's source (`metrics/prometheus.go`) divides them as if they were nanoseconds.
const OF_DISK: &[OfDisk] = &[
    ("container_fs_reads_merged_total", "counter", "Reads that were merged with others", 1, 1.0),
    ("container_fs_sector_reads_total", "counter", "Sectors read", 2, 1.0),
    ("container_fs_read_seconds_total", "counter", "Time that reads took", 3, 1e-3),
    ("container_fs_writes_merged_total", "counter", "Writes that were merged with others", 5, 1.0),
    ("container_fs_sector_writes_total", "counter", "Sectors written", 6, 1.0),
    ("container_fs_write_seconds_total", "counter", "Time that writes took", 7, 1e-3),
    ("container_fs_io_current", "gauge", "Reads and writes under way", 8, 1.0),
    ("container_fs_io_time_seconds_total", "counter", "Time in which anything was under way", 9, 1e-3),
    ("container_fs_io_time_weighted_seconds_total", "counter", "The same, times what was under way", 10, 1e-3),
];

/// The numbers of the device `8:0` in a /proc/diskstats; none where the kernel keeps none of it.
fn disk_numbers(diskstats: &str, device: &str) -> Vec<u64> {
    let numbers = diskstats.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = format!("{}:{}", words.next()?, words.next()?) == device;
        is_it.then(|| words.skip(1).map_while(|word| word.parse().ok()).collect())
    });
    numbers.unwrap_or_default()
}

/// The root file system of pods, as a whole.
fn file_system(root: &Path) -> Vec<Family> {
    let Some((found, device)) = FileSystem::of(root).zip(fs::metadata(root).ok()) else { return Vec::new() };
    let device = format!("{}:{}", major(device.dev()), minor(device.dev()));
    let disk = disk_numbers(&fs::read_to_string("/proc/diskstats").unwrap_or_default(), &device);
    let device = device_name(&device);
    let empty = ["container", "image", "name", "namespace", "pod"].map(|name| (name, String::new()));
    let own = [("device", device), ("id", "/".to_owned())];
    let labels: Vec<_> = empty.into_iter().chain(own).collect();
    let values = [
        ("container_fs_limit_bytes", "gauge", "Bytes of the file system", Some(found.capacity)),
        ("container_fs_usage_bytes", "gauge", "Bytes that are taken of it", found.used),
        // The kubelet's name, which Prometheus' linter takes for a counter's.
        ("container_fs_inodes_total", "untyped", "Files that it can hold", Some(found.inodes)),
        ("container_fs_inodes_free", "gauge", "Files that can still be made", Some(found.inodes_free)),
    ];
    let family = |(name, kind, help, value): (_, _, _, Option<f64>)| {
        let samples = vec![(labels.clone(), value?)];
        Some(Family { name, kind, help, samples })
    };
    let values = values.into_iter().map(|(name, kind, help, value)| (name, kind, help, value.map(number)));
    let of_disk =
        |(name, kind, help, at, unit): &OfDisk| (*name, *kind, *help, disk.get(*at).map(|value| number(*value) * unit));
    values.chain(OF_DISK.iter().map(of_disk)).filter_map(family).collect()
}

/// Cores and sockets of a /proc/cpuinfo. One that says nothing of them has as many cores as processors, in one socket.
fn topology(cpuinfo: &str) -> (u64, u64) {
    let (mut cores, mut sockets, mut processors) = (BTreeSet::new(), BTreeSet::new(), 0_u64);
    for block in cpuinfo.split("\n\n").filter(|block| block.contains("processor")) {
        processors = processors.saturating_add(1);
        let value = |name: &str| {
            block.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
        };
        if let Some((socket, core)) = value("physical id").zip(value("core id")) {
            sockets.insert(socket);
            cores.insert((socket, core));
        }
    }
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    match cores.is_empty() {
        true => (processors, 1),
        false => (count(cores.len()), count(sockets.len())),
    }
}

/// What the processes of a container have open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processes {
    /// File descriptors,
    pub files: u64,
    /// and those of them that are sockets.
    pub sockets: u64,
}

impl Processes {
    /// Of all these; None where there is none.
    pub fn of(pids: &[u32]) -> Option<Self> {
        Self::of_proc(Path::new("/proc"), pids)
    }

    fn of_proc(proc: &Path, pids: &[u32]) -> Option<Self> {
        let files = |pid: &u32| fs::read_dir(proc.join(pid.to_string()).join("fd"));
        let files = pids.iter().flat_map(|pid| files(pid).into_iter().flatten().flatten());
        let sum = files.fold(Self::default(), |sum, file| {
            let is_socket = fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
            let sockets = sum.sockets.saturating_add(u64::from(is_socket));
            Self { files: sum.files.saturating_add(1), sockets }
        });
        (!pids.is_empty()).then_some(sum)
    }
}

/// `/dev/sda` of `8:0`, and the number itself of a device without a name.
pub fn device_name(number: &str) -> String {
    let described = std::fs::read_to_string(format!("/sys/dev/block/{number}/uevent")).unwrap_or_default();
    let name = described.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| number.to_owned(), |name| format!("/dev/{name}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn cores_and_sockets_are_counted_as_far_as_the_kernel_names_them() {
        let of = |number: u8, socket: u8, core: u8| {
            format!("processor\t: {number}\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n")
        };
        let text = [of(0, 0, 0), of(1, 0, 0), of(2, 0, 1), of(3, 1, 0)].concat();
        assert_eq!(topology(&text), (3, 2));
        assert_eq!(topology("processor: 0\n\nprocessor: 1\n"), (2, 1));
    }

    #[test]
    fn the_numbers_of_a_disk_are_those_of_its_device() {
        let text =
            "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 254       0 vda 13 2 289 2712 19 3 981 12709 1 2240 17080 46\n";
        assert_eq!(disk_numbers(text, "254:0"), [13, 2, 289, 2712, 19, 3, 981, 12709, 1, 2240, 17080, 46]);
        assert_eq!(disk_numbers(text, "0:34"), [0_u64; 0]);
    }

    #[test]
    fn what_all_processes_of_a_container_have_open_is_counted() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, links) in [("7", ["socket:[1]", "/dev/null"].as_slice()), ("8", &["pipe:[2]"])] {
            let dir = proc.path().join(pid).join("fd");
            fs::create_dir_all(&dir).unwrap();
            for (number, to) in links.iter().enumerate() {
                symlink(to, dir.join(number.to_string())).unwrap();
            }
        }
        let found = Processes::of_proc(proc.path(), &[7, 8, 9]);
        assert_eq!(found, Some(Processes { files: 3, sockets: 1 }), "one of them is gone");
        assert_eq!(Processes::of_proc(proc.path(), &[]), None);
    }

    #[test]
    fn the_file_system_of_pods_has_a_device_and_a_size() {
        let families = file_system(Path::new("/"));
        // A file system that is on no disk has no numbers of one.
        assert!([4, 4 + OF_DISK.len()].contains(&families.len()), "{families:?}");
        let (labels, limit) = &families[0].samples[0];
        assert!(*limit > 0.0 && labels.iter().any(|(name, value)| *name == "device" && !value.is_empty()));
    }
}
