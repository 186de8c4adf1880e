//! The rest of what cgroups count of a container, which only those who ask for it pay for.

use std::fs;
use std::path::Path;

use super::usage::{Group, Mounts, UNLIMITED, number};
use crate::host::memory::{MemInfo, field};

/// What `cpuacct.stat` counts in, on every Linux: 100 a second.
const TICK_NANOS: u64 = 10_000_000;

/// Each as far as the machine's version of cgroups has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// Processor time in nanoseconds, outside the kernel
    pub user_nanos: Option<u64>,
    /// and in it.
    pub system_nanos: Option<u64>,
    /// Periods of its CPU limit,
    pub periods: Option<u64>,
    /// those in which it was held back,
    pub throttled_periods: Option<u64>,
    /// and for how long in all.
    pub throttled_nanos: Option<u64>,
    /// Its CPU limit: microseconds of each period; None without one.
    pub quota_micros: Option<u64>,
    /// The period.
    pub period_micros: Option<u64>,
    /// Its share of the processors (v1).
    pub shares: Option<u64>,
    /// Periods in which it went beyond its CPU limit with what it had saved,
    pub burst_periods: Option<u64>,
    /// and for how long in all.
    pub burst_nanos: Option<u64>,
    /// Bytes that were swapped out.
    pub swap: Option<u64>,
    /// How much may be; None without a limit.
    pub swap_limit: Option<u64>,
    /// Bytes that it is to keep when memory is short.
    pub reservation: Option<u64>,
    /// How often it was at its limit of memory.
    pub at_limit: Option<u64>,
    /// Bytes of files that are mapped.
    pub mapped_file: Option<u64>,
    /// Bytes that the kernel has for it.
    pub kernel: Option<u64>,
    /// Pages of files in bytes that were used of late,
    pub active_file: Option<u64>,
    /// and that were not.
    pub inactive_file: Option<u64>,
    /// The most memory that it had.
    pub peak: Option<u64>,
    /// How often one of its processes was killed for memory.
    pub oom_kills: Option<u64>,
    /// Its threads,
    pub threads: Option<u64>,
    /// how many it may have, None without a limit,
    pub threads_limit: Option<u64>,
    /// and processes,
    pub processes: Option<u64>,
    /// those that are in it itself.
    pub pids: Vec<u32>,
    /// What it read and wrote, by block device.
    pub devices: Vec<Device>,
    /// How long it has waited for processors,
    pub cpu_pressure: Option<Pressure>,
    /// for memory,
    pub memory_pressure: Option<Pressure>,
    /// and for disks. The kernel says that of cgroups of v2 alone.
    pub io_pressure: Option<Pressure>,
}

/// How long tasks have waited for something.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some of them.
    pub some: Stall,
    /// All of them.
    pub full: Stall,
}

/// For how long, and for how much of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
    /// Microseconds in all.
    pub micros: u64,
}

impl Pressure {
    /// Reads a `cpu.pressure` or `/proc/pressure/cpu`; None of what is none.
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let stall = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            let value =
                |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let average = |name: &str| value(name).and_then(|value| value.parse().ok()).unwrap_or(0.0);
            let averages = ["avg10", "avg60", "avg300"].map(average);
            Some(Stall { averages, micros: value("total")?.parse().ok()? })
        };
        // Older kernels say nothing of all tasks that wait for processors.
        Some(Self { some: stall("some")?, full: stall("full").unwrap_or_default() })
    }
}

/// What went to and from a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Its number, `8:0`.
    pub number: String,
    /// Bytes read and written.
    pub bytes: [u64; 2],
    /// Reads and writes.
    pub operations: [u64; 2],
}

/// Reads what the directory of a controller of v1 has.
type Read = fn(&mut Details, &Path);
/// Counts of a device: of reads and writes.
type Counts = fn(&mut Device) -> &mut [u64; 2];

impl Mounts {
    /// What a cgroup counts; nothing of one that is gone.
    pub fn details_of(&self, group: &Group) -> Details {
        let dir = |controller: &str| self.dir(group, controller);
        let mut details = Details::default();
        if let Some(unified) = dir("").filter(|dir| self.counts_unified(group) && dir.join("cpu.stat").exists()) {
            details.read_unified(&unified);
        }
        let controllers: [(&str, Read); 5] = [
            ("cpuacct", Details::read_cpuacct),
            ("cpu", Details::read_cpu),
            ("memory", Details::read_memory),
            ("pids", Details::read_pids),
            ("blkio", Details::read_blkio),
        ];
        for (controller, read) in controllers {
            if let Some(dir) = dir(controller) {
                read(&mut details, &dir);
            }
        }
        details
    }
}

impl Details {
    /// What is known of the whole machine: its swap, and how long its tasks have waited.
    pub fn of_machine() -> Self {
        Self::of_proc(Path::new("/proc"))
    }

    fn of_proc(proc: &Path) -> Self {
        let meminfo = MemInfo::read_below(proc);
        let pressure = |what: &str| Pressure::read(&proc.join("pressure").join(what));
        let swap_limit = meminfo.bytes("SwapTotal");
        Self {
            swap: swap_limit.zip(meminfo.bytes("SwapFree")).map(|(total, free)| total.saturating_sub(free)),
            swap_limit,
            cpu_pressure: pressure("cpu"),
            memory_pressure: pressure("memory"),
            io_pressure: pressure("io"),
            ..Self::default()
        }
    }
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

impl Details {
    fn read_cpuacct(&mut self, dir: &Path) {
        let stat = text(dir, "cpuacct.stat");
        let nanos = |name: &str| field(&stat, name).map(|ticks| ticks.saturating_mul(TICK_NANOS));
        (self.user_nanos, self.system_nanos) = (nanos("user"), nanos("system"));
    }

    fn read_cpu(&mut self, dir: &Path) {
        let stat = text(dir, "cpu.stat");
        self.periods = field(&stat, "nr_periods");
        self.throttled_periods = field(&stat, "nr_throttled");
        self.throttled_nanos = field(&stat, "throttled_time");
        (self.burst_periods, self.burst_nanos) = (field(&stat, "nr_bursts"), field(&stat, "burst_time"));
        // No limit is a negative number.
        self.quota_micros = number(dir, "cpu.cfs_quota_us");
        self.period_micros = number(dir, "cpu.cfs_period_us");
        self.shares = number(dir, "cpu.shares");
    }

    fn read_memory(&mut self, dir: &Path) {
        let stat = text(dir, "memory.stat");
        self.swap = field(&stat, "total_swap");
        self.mapped_file = field(&stat, "total_mapped_file");
        self.active_file = field(&stat, "total_active_file");
        self.inactive_file = field(&stat, "total_inactive_file");
        self.kernel = number(dir, "memory.kmem.usage_in_bytes");
        self.peak = number(dir, "memory.max_usage_in_bytes");
        // Swap is limited together with memory.
        let limit = |file: &str| number(dir, file).filter(|limit| *limit < UNLIMITED);
        let limits = limit("memory.memsw.limit_in_bytes").zip(limit("memory.limit_in_bytes"));
        self.swap_limit = limits.map(|(both, memory)| both.saturating_sub(memory));
        self.reservation = limit("memory.soft_limit_in_bytes");
        self.at_limit = number(dir, "memory.failcnt");
        self.oom_kills = field(&text(dir, "memory.oom_control"), "oom_kill");
    }

    fn read_pids(&mut self, dir: &Path) {
        self.threads = number(dir, "pids.current");
        self.threads_limit = number(dir, "pids.max");
        self.pids = text(dir, "cgroup.procs").lines().filter_map(|pid| pid.trim().parse().ok()).collect();
        self.processes = Some(self.pids.len() as u64);
    }

    /// Lines of `8:0 Read 123`.
    fn read_blkio(&mut self, dir: &Path) {
        let files: [(&str, Counts); 2] = [
            ("blkio.throttle.io_service_bytes", |device| &mut device.bytes),
            ("blkio.throttle.io_serviced", |device| &mut device.operations),
        ];
        for (file, counts) in files {
            for line in text(dir, file).lines() {
                let mut words = line.split_whitespace();
                let (Some(device), Some(what), Some(count)) = (words.next(), words.next(), words.next()) else {
                    continue;
                };
                let at = match what {
                    "Read" => 0,
                    "Write" => 1,
                    _ => continue,
                };
                if let Some(slot) = counts(self.device(device)).get_mut(at) {
                    *slot = count.parse().unwrap_or(0);
                }
            }
        }
    }

    fn read_unified(&mut self, dir: &Path) {
        let stat = text(dir, "cpu.stat");
        let nanos = |name: &str| field(&stat, name).map(|micros| micros.saturating_mul(1000));
        (self.user_nanos, self.system_nanos) = (nanos("user_usec"), nanos("system_usec"));
        (self.periods, self.throttled_periods) = (field(&stat, "nr_periods"), field(&stat, "nr_throttled"));
        self.throttled_nanos = nanos("throttled_usec");
        (self.burst_periods, self.burst_nanos) = (field(&stat, "nr_bursts"), nanos("burst_usec"));
        let most = text(dir, "cpu.max");
        let mut most = most.split_whitespace().map(|word| word.parse().ok());
        (self.quota_micros, self.period_micros) = (most.next().flatten(), most.next().flatten());
        let stat = text(dir, "memory.stat");
        self.mapped_file = field(&stat, "file_mapped");
        (self.active_file, self.inactive_file) = (field(&stat, "active_file"), field(&stat, "inactive_file"));
        self.kernel = field(&stat, "kernel");
        (self.swap, self.peak) = (number(dir, "memory.swap.current"), number(dir, "memory.peak"));
        self.swap_limit = number(dir, "memory.swap.max");
        self.reservation = number(dir, "memory.low");
        let events = text(dir, "memory.events");
        (self.oom_kills, self.at_limit) = (field(&events, "oom_kill"), field(&events, "max"));
        self.read_pids(dir);
        let pressure = |file: &str| Pressure::read(&dir.join(file));
        self.cpu_pressure = pressure("cpu.pressure");
        (self.memory_pressure, self.io_pressure) = (pressure("memory.pressure"), pressure("io.pressure"));
        // Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
        for line in text(dir, "io.stat").lines() {
            let mut words = line.split_whitespace();
            let Some(device) = words.next() else { continue };
            let counts: Vec<(&str, u64)> = words
                .filter_map(|word| word.split_once('='))
                .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
                .collect();
            let of = |name: &str| counts.iter().find(|(found, _)| *found == name).map_or(0, |(_, count)| *count);
            let device = self.device(device);
            (device.bytes, device.operations) = ([of("rbytes"), of("wbytes")], [of("rios"), of("wios")]);
        }
    }

    fn device(&mut self, number: &str) -> &mut Device {
        let at = self.devices.iter().position(|device| device.number == number).unwrap_or(self.devices.len());
        if at == self.devices.len() {
            self.devices.push(Device { number: number.to_owned(), ..Device::default() });
        }
        &mut self.devices[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            crate::host::fs::write_file(&dir.path().join(name), text.as_bytes(), 0o644).unwrap();
        }
        dir
    }

    /// What either says.
    fn of_both() -> Details {
        Details {
            user_nanos: Some(20_000_000),
            system_nanos: Some(10_000_000),
            periods: Some(9),
            throttled_periods: Some(4),
            throttled_nanos: Some(7000),
            quota_micros: Some(50_000),
            period_micros: Some(100_000),
            shares: None,
            burst_periods: Some(2),
            burst_nanos: Some(3000),
            swap: Some(1),
            swap_limit: Some(50),
            reservation: Some(40),
            at_limit: Some(6),
            mapped_file: Some(2),
            kernel: Some(5),
            active_file: Some(3),
            inactive_file: Some(4),
            peak: Some(100),
            oom_kills: Some(1),
            threads: Some(3),
            threads_limit: Some(9),
            processes: Some(2),
            pids: vec![1, 2],
            devices: vec![Device { number: "8:0".into(), bytes: [10, 20], operations: [1, 2] }],
            ..Details::default()
        }
    }

    #[test]
    fn the_machine_has_swap_and_waits() {
        let proc = dir(&[("meminfo", "SwapTotal: 10 kB\nSwapFree: 4 kB\n")]);
        std::fs::create_dir(proc.path().join("pressure")).unwrap();
        crate::host::fs::write_file(
            &proc.path().join("pressure/memory"),
            b"some avg10=0 avg60=0 avg300=0 total=3\n",
            0o644,
        )
        .unwrap();
        let found = Details::of_proc(proc.path());
        assert_eq!((found.swap, found.swap_limit), (Some(6 * 1024), Some(10 * 1024)));
        assert_eq!((found.memory_pressure.unwrap().some.micros, found.cpu_pressure), (3, None));
    }

    #[test]
    fn both_versions_tell_the_same() {
        let expected = of_both();
        let old = dir(&[
            ("cpuacct.stat", "user 2\nsystem 1\n"),
            ("cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 7000\nnr_bursts 2\nburst_time 3000\n"),
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.shares", "512\n"),
            ("memory.stat", "swap 9\ntotal_swap 1\ntotal_mapped_file 2\ntotal_active_file 3\ntotal_inactive_file 4\n"),
            ("memory.kmem.usage_in_bytes", "5\n"),
            ("memory.max_usage_in_bytes", "100\n"),
            ("memory.limit_in_bytes", "70\n"),
            ("memory.memsw.limit_in_bytes", "120\n"),
            ("memory.soft_limit_in_bytes", "40\n"),
            ("memory.failcnt", "6\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "9\n"),
            ("cgroup.procs", "1\n2\n"),
            ("blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Write 20\n8:0 Sync 0\nTotal 30\n"),
            ("blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
        ]);
        let mut found = Details::default();
        for read in [Details::read_cpuacct, Details::read_cpu, Details::read_memory] {
            read(&mut found, old.path());
        }
        found.read_pids(old.path());
        found.read_blkio(old.path());
        assert_eq!(found, Details { shares: Some(512), ..expected.clone() });
        let new = dir(&[
            (
                "cpu.stat",
                "usage_usec 30000\nuser_usec 20000\nsystem_usec 10000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\nnr_bursts 2\nburst_usec 3\n",
            ),
            ("cpu.max", "50000 100000\n"),
            ("memory.stat", "file_mapped 2\nkernel 5\nkernel_stack 1\nactive_file 3\ninactive_file 4\n"),
            ("memory.swap.current", "1\n"),
            ("memory.swap.max", "50\n"),
            ("memory.low", "40\n"),
            ("pids.max", "9\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n"),
            (
                "io.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=2.00 total=4\n",
            ),
            ("memory.peak", "100\n"),
            ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("cgroup.procs", "1\n2\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
        ]);
        let mut found = Details::default();
        found.read_unified(new.path());
        let stall = |averages, micros| Stall { averages, micros };
        let waited = Pressure { some: stall([1.5, 0.25, 0.0], 77), full: Stall::default() };
        let io = Pressure { some: stall([0.0; 3], 5), full: stall([0.0, 0.0, 2.0], 4) };
        assert_eq!(found, Details { cpu_pressure: Some(waited), io_pressure: Some(io), ..expected });
        crate::host::fs::write_file(&new.path().join("cpu.max"), b"max 100000\n", 0o644).unwrap();
        found.read_unified(new.path());
        assert_eq!(found.quota_micros, None);
        assert_eq!(Mounts::default().details_of(&Group::of_process(1)), Details::default());
    }
}
