//! What kind of machine this is, gathered once and plain to look at, so that checks are pure and tests need no machine.

use std::collections::BTreeMap;
use std::fs;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde::Serialize;

use super::memory::MemInfo;
use super::net::{self, Addresses};
use super::ports::{self, Listener};
use super::silence::Silence;
use super::{Paths, environment, kernel};

/// What a command wants to know beyond the machine as such.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// TCP ports that must be free.
    pub ports: Vec<u16>,
    /// Files and directories, as the node sees them.
    pub paths: Vec<PathBuf>,
    /// Programs that are needed.
    pub programs: Vec<&'static str>,
    /// A host name that should resolve.
    pub resolve: Option<String>,
    /// Whether the kubelet should say which one it is.
    pub kubelet: bool,
}

/// Everything that is known of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Whether the root is `/`; otherwise only files are written, and what runs on the machine does not matter.
    pub live: bool,
    /// Effective user id.
    pub uid: u32,
    /// The kernel's host name, as it is.
    pub hostname: String,
    /// The processors this process may use.
    pub cpus: usize,
    /// MiB of memory, None when unknown.
    pub memory: Option<u64>,
    /// Where others may reach the machine.
    pub addresses: Addresses,
    /// Devices and files swap is on.
    pub swap: Vec<String>,
    /// Control groups.
    pub cgroup: Cgroup,
    /// `uname -r`.
    pub kernel: String,
    /// How the kernel was built; None when that was not asked, or the kernel does not say.
    pub kernel_options: Option<kernel::Options>,
    /// Whether IPv4 packets are forwarded, None when unknown.
    pub forwards_v4: Option<bool>,
    /// Whether IPv6 packets are forwarded by new interfaces, None when unknown.
    pub forwards_v6: Option<bool>,
    /// Who starts services.
    pub init: InitSystem,
    /// Whether firewalld runs.
    pub firewalld: bool,
    /// Proxy variables of the environment that are set, in upper case, user names and passwords left out.
    pub proxy: BTreeMap<String, String>,
    /// Programs asked for, with their places.
    pub programs: BTreeMap<String, Option<PathBuf>>,
    /// Room on the file systems that matter, by path.
    pub space: BTreeMap<PathBuf, Space>,
    /// Who listens on the ports asked for.
    pub listeners: Vec<Listener>,
    /// What is at the paths asked for.
    pub paths: BTreeMap<PathBuf, Presence>,
    /// Whether the name asked for resolves; None when it was not asked or no answer came soon.
    pub resolves: Option<bool>,
    /// The container runtime of our own agent; the caller fills this in.
    pub runtime: Runtime,
    /// The version of the kubelet on the PATH; None when that was not asked, there is none, or it does not say.
    pub kubelet_version: Option<String>,
    /// The container runtime of the kubelet; the caller fills this in.
    pub cri: Runtime,
    /// What each server of an external etcd says of itself; the caller fills this in.
    pub external_etcd: Vec<EtcdAnswer>,
    /// Whether that runtime reports its cgroup driver; None when that was not asked.
    pub cri_has_runtime_config: Option<bool>,
}

/// What one server of an external etcd says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdAnswer {
    /// Its URL.
    pub endpoint: String,
    /// Its version, `3.6.8`, or why it did not tell.
    pub version: Result<String, String>,
}

/// Control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// 1 or 2, None when nothing is mounted.
    pub version: Option<u8>,
    /// Controllers that can be used.
    pub controllers: Vec<String>,
}

/// Who starts services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InitSystem {
    /// systemd, and it runs.
    Systemd,
    /// OpenRC, and it runs.
    OpenRc,
    /// None (a container, a CI machine) or one that is not known.
    #[default]
    None,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    /// Bytes that can be written.
    pub available: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Presence {
    /// Nothing.
    Missing,
    /// A file, or anything else that is no directory.
    File,
    /// A directory with so many entries.
    Directory(usize),
    /// It may not be looked at.
    Unknown(String),
}

/// Whether the container runtime answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Runtime {
    /// Not asked.
    #[default]
    NotAsked,
    /// It does; its name and version.
    Reachable(String),
    /// It does not.
    Unreachable {
        /// The socket or URL.
        address: String,
        /// The error and its causes.
        error: String,
        /// What kind of silence it is.
        why: Silence,
        /// Whether DOCKER_HOST in the environment names the address.
        by_environment: bool,
    },
}

/// How long a name may take to resolve: enough for a local answer, too little to be felt.
const RESOLVE_LIMIT: Duration = Duration::from_millis(300);

/// Gathers the facts. Nothing fails: what cannot be read is unknown.
pub fn gather(paths: &Paths, interest: &Interest) -> Facts {
    let name = interest.resolve.clone().filter(|_| paths.is_live()).map(resolve);
    let mut facts = Machine::this().facts(paths, interest);
    facts.kubelet_version =
        find_program("kubelet").filter(|_| interest.kubelet).and_then(|path| kubelet_version(&path));
    if interest.kubelet && facts.live {
        facts.kernel_options = kernel::options(Path::new("/"), &facts.kernel);
    }
    facts.resolves = name.and_then(|answer| answer.recv_timeout(RESOLVE_LIMIT).ok());
    facts
}

/// The kernel's host name and the address to advertise: all that defaults need, without the rest of the facts.
pub fn identity() -> (String, Option<std::net::IpAddr>) {
    let machine = Machine::this();
    (hostname(), machine.addresses().advertise())
}

/// Who starts services on this machine.
pub fn init_system() -> InitSystem {
    Machine::this().init()
}

/// Where a program is: the `PATH`, then the `sbin` directories, which `sudo` and services often lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let mut path = environment::path();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin");
    which::which_in(name, Some(path), "/").ok()
}

/// Where the kernel tells about itself; tests have one of files.
struct Machine {
    proc: PathBuf,
    sys: PathBuf,
    run: PathBuf,
}

impl Machine {
    fn this() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), run: "/run".into() }
    }

    fn facts(&self, paths: &Paths, interest: &Interest) -> Facts {
        Facts {
            live: paths.is_live(),
            uid: rustix::process::geteuid().as_raw(),
            hostname: hostname(),
            cpus: self.cpus(),
            memory: self.memory(),
            addresses: self.addresses(),
            swap: self.swap(),
            cgroup: self.cgroup(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            kernel_options: None,
            forwards_v4: self.flag("sys/net/ipv4/ip_forward"),
            forwards_v6: self.flag("sys/net/ipv6/conf/default/forwarding"),
            init: self.init(),
            firewalld: self.firewalld(),
            proxy: proxy(environment::variables().into_iter()),
            programs: interest.programs.iter().map(|name| ((*name).to_owned(), find_program(name))).collect(),
            space: ["/etc", "/var/lib"].into_iter().filter_map(|path| space(paths, path.as_ref())).collect(),
            listeners: ports::listeners(&self.proc, &interest.ports),
            paths: interest.paths.iter().map(|path| (path.clone(), presence(&paths.on_host(path)))).collect(),
            resolves: None,
            runtime: Runtime::NotAsked,
            kubelet_version: None,
            cri: Runtime::NotAsked,
            external_etcd: vec![],
            cri_has_runtime_config: None,
        }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(self.proc.join(file)).unwrap_or_default()
    }

    /// The processors of `Cpus_allowed_list` (`0-3,8`), which is what Go counts too.
    fn cpus(&self) -> usize {
        let status = self.proc("self/status");
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let count = |range: &str| match range.split_once('-') {
            Some((first, last)) => Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1),
            None => range.parse::<usize>().ok().map(|_| 1),
        };
        list.trim().split(',').filter_map(count).sum()
    }

    fn memory(&self) -> Option<u64> {
        MemInfo::read_below(&self.proc).kib("MemTotal").map(|kib| kib / 1024)
    }

    fn addresses(&self) -> Addresses {
        net::addresses(&self.proc.join("net"), &self.sys)
    }

    fn swap(&self) -> Vec<String> {
        self.proc("swaps")
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    fn cgroup(&self) -> Cgroup {
        let root = self.sys.join("fs/cgroup");
        if let Ok(text) = fs::read_to_string(root.join("cgroup.controllers")) {
            return Cgroup { version: Some(2), controllers: text.split_whitespace().map(str::to_owned).collect() };
        }
        let enabled = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            matches!(fields.as_slice(), [_, _, _, "1"]).then(|| fields[0].to_owned())
        };
        let mounted = |name: &String| root.join(name).exists();
        let controllers: Vec<String> = self.proc("cgroups").lines().filter_map(enabled).filter(mounted).collect();
        Cgroup { version: (!controllers.is_empty()).then_some(1), controllers }
    }

    fn flag(&self, file: &str) -> Option<bool> {
        match self.proc(file).trim() {
            "" => None,
            value => Some(value == "1"),
        }
    }

    fn init(&self) -> InitSystem {
        if self.run.join("systemd/system").is_dir() {
            InitSystem::Systemd
        } else if self.run.join("openrc/softlevel").exists() {
            InitSystem::OpenRc
        } else {
            InitSystem::None
        }
    }

    /// The unit's control group is there while firewalld runs, under either version: no process needs to be asked.
    fn firewalld(&self) -> bool {
        ["fs/cgroup", "fs/cgroup/systemd"]
            .iter()
            .any(|dir| self.sys.join(dir).join("system.slice/firewalld.service").exists())
    }
}

/// The host name of this machine, as `os.Hostname()` of Go has it.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn proxy(environment: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    const NAMES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    let harmless = |value: String| match (value.find("://"), value.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &value[..scheme + 3], &value[at + 1..]),
        (None, Some(at)) => value[at + 1..].to_owned(),
        _ => value,
    };
    let named = environment.map(|(name, value)| (name.to_ascii_uppercase(), harmless(value)));
    named.filter(|(name, value)| NAMES.contains(&name.as_str()) && !value.is_empty()).collect()
}

/// Room on the file system that `path`, or what is there of it, is on.
fn space(paths: &Paths, path: &Path) -> Option<(PathBuf, Space)> {
    let on_host = paths.on_host(path);
    let stat = on_host.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    let read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    Some((path.to_owned(), Space { available, read_only }))
}

fn presence(path: &Path) -> Presence {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => match fs::read_dir(path) {
            Ok(entries) => Presence::Directory(entries.count()),
            Err(e) => Presence::Unknown(e.to_string()),
        },
        Ok(_) => Presence::File,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Presence::Missing
        }
        Err(e) => Presence::Unknown(e.to_string()),
    }
}

/// What `kubelet --version` says: `Kubernetes v1.36.2`.
fn kubelet_version(program: &Path) -> Option<String> {
    let output =
        std::process::Command::new(program).arg("--version").stdin(std::process::Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| line.trim().strip_prefix("Kubernetes ")).map(str::to_owned)
}

/// Resolves in a thread of its own, for the system's resolver knows no deadline.
fn resolve(name: String) -> mpsc::Receiver<bool> {
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().is_ok_and(|mut addresses| addresses.next().is_some());
        // The asker may have stopped waiting.
        let _ = sender.send(found);
    });
    answer
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }
        let of = |name: &str| dir.path().join(name);
        let machine = Machine { proc: of("proc"), sys: of("sys"), run: of("run") };
        (dir, machine)
    }

    #[test]
    fn a_machine_of_files_is_read_whole() {
        let (dir, machine) = machine(&[
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2,8\n"),
            ("proc/meminfo", "MemTotal:        2048000 kB\nMemFree: 1 kB\n"),
            ("proc/swaps", "Filename\tType\n/dev/sda2 partition 1 2 3\n"),
            ("proc/sys/net/ipv4/ip_forward", "1\n"),
            ("proc/sys/net/ipv6/conf/default/forwarding", "0\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"),
            ("run/systemd/system/.keep", ""),
            ("root/etc/kubernetes/manifests/a.yaml", ""),
        ]);
        let interest = Interest {
            paths: ["/etc/kubernetes/manifests", "/etc/kubernetes/manifests/a.yaml", "/nothing"]
                .map(PathBuf::from)
                .to_vec(),
            programs: vec!["sh", "no-such-program"],
            ..Interest::default()
        };
        let facts = machine.facts(&Paths::new(dir.path().join("root")), &interest);
        assert!(!facts.live);
        assert_eq!((facts.cpus, facts.memory), (4, Some(2000)));
        assert_eq!(facts.swap, ["/dev/sda2"]);
        assert_eq!((facts.forwards_v4, facts.forwards_v6), (Some(true), Some(false)));
        assert_eq!(facts.cgroup.version, Some(2));
        assert_eq!(facts.cgroup.controllers, ["cpu", "memory", "pids"]);
        assert_eq!(facts.init, InitSystem::Systemd);
        let paths: Vec<&Presence> = interest.paths.iter().map(|path| &facts.paths[path]).collect();
        assert_eq!(paths, [&Presence::Directory(1), &Presence::File, &Presence::Missing]);
        assert!(facts.programs["sh"].is_some() && facts.programs["no-such-program"].is_none());
        assert!(facts.space[Path::new("/var/lib")].available > 0, "of the directory above, as /var/lib is missing");
    }

    #[test]
    fn an_empty_machine_is_unknown_rather_than_an_error() {
        let (dir, machine) = machine(&[]);
        let facts = machine.facts(&Paths::new(dir.path()), &Interest::default());
        assert_eq!((facts.cpus, facts.memory, facts.forwards_v4), (0, None, None));
        assert_eq!((facts.cgroup.version, facts.init), (None, InitSystem::None));
    }

    #[test]
    fn only_mounted_and_enabled_controllers_of_version_1_count() {
        let (_dir, machine) = machine(&[
            (
                "proc/cgroups",
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t24\t1\npids\t8\t1\t0\ncpu\t1\t1\t1\n",
            ),
            ("sys/fs/cgroup/memory/tasks", ""),
            ("sys/fs/cgroup/pids/tasks", ""),
        ]);
        assert_eq!(machine.cgroup(), Cgroup { version: Some(1), controllers: vec!["memory".into()] });
    }

    #[test]
    fn proxy_variables_are_taken_in_either_case_and_without_passwords() {
        let environment =
            [("https_proxy", "http://u:secret@p:1"), ("HTTP_PROXY", "u:secret@p"), ("NO_PROXY", ""), ("HOME", "/")];
        let proxy = proxy(environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let expected = [("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "p")];
        assert_eq!(proxy, expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
    }

    #[test]
    fn this_machine_has_a_name_processors_and_memory() {
        let facts = gather(&Paths::default(), &Interest::default());
        assert!(facts.live && !facts.hostname.is_empty() && facts.cpus > 0 && facts.memory > Some(0), "{facts:?}");
    }
}
