//! Checks of the machine as such.

use super::{Problem, Subject};
use crate::config::spec::{ClusterSpec, NodeAgent};
use crate::host::facts::{InitSystem, Runtime};

const MIN_CPUS: usize = 2;
/// MiB, as kubeadm counts.
const MIN_MEMORY: u64 = 1700;
const MIB: u64 = 1024 * 1024;

/// Free bytes below which a write is bound to fail, and below which etcd and images are soon out of room.
const ROOM: [(&str, u64, u64); 2] = [("/etc", 10 * MIB, 10 * MIB), ("/var/lib", 200 * MIB, 2048 * MIB)];

/// What a kubelet needs beside it; our own agent needs none of them.
const KUBELET_PROGRAMS: &[&str] = &["kubelet", "losetup", "mount", "cp"];

pub(super) fn of_interest(spec: &ClusterSpec) -> Vec<&'static str> {
    let kubelet = spec.kubeboot.node_agent == NodeAgent::Kubelet;
    let tools = if kubelet { KUBELET_PROGRAMS } else { &[] };
    ["dockerd"].iter().chain(tools).copied().collect()
}

pub(super) fn is_privileged_user(s: &Subject) -> Vec<Problem> {
    let message = "not run as root: run it with sudo, or look at what it would do with --dry-run";
    (s.facts.uid != 0).then(|| Problem::new(message)).into_iter().collect()
}

pub(super) fn cpus(s: &Subject) -> Vec<Problem> {
    let message = || format!("{} CPU available, at least {MIN_CPUS} are needed", s.facts.cpus);
    (s.facts.cpus < MIN_CPUS).then(|| Problem::new(message())).into_iter().collect()
}

pub(super) fn memory(s: &Subject) -> Vec<Problem> {
    let short = s.facts.memory.filter(|memory| *memory < MIN_MEMORY);
    let message = |memory| format!("{memory} MB of memory, at least {MIN_MEMORY} MB are needed");
    short.map(|memory| Problem::new(message(memory))).into_iter().collect()
}

pub(super) fn disk_space_error(s: &Subject) -> Vec<Problem> {
    disk_space(s, |available, (_, error, _)| available < error)
}

pub(super) fn disk_space_warning(s: &Subject) -> Vec<Problem> {
    disk_space(s, |available, (_, error, warning)| available >= error && available < warning)
}

fn disk_space(s: &Subject, short: fn(u64, (&str, u64, u64)) -> bool) -> Vec<Problem> {
    let problem = |row: &(&str, u64, u64)| {
        let path = row.0;
        let space = s.facts.space.get(std::path::Path::new(path))?;
        if space.read_only {
            // Said once: by the row of errors, for which no room at all is too little.
            return short(0, *row).then(|| Problem::new(format!("{path} is on a file system mounted read-only")));
        }
        let message = || {
            let (free, wanted) = (space.available / MIB, row.2 / MIB);
            format!("only {free} MiB are free on the file system of {path}, {wanted} MiB should be: make room there")
        };
        short(space.available, *row).then(|| Problem::new(message()))
    };
    ROOM.iter().filter_map(problem).collect()
}

/// Nothing that runs needs these to run, but requests and limits mean nothing without them.
pub(super) fn cgroup_controllers(s: &Subject) -> Vec<Problem> {
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !s.facts.cgroup.controllers.iter().any(|have| have == wanted))
        .collect();
    let message = || {
        let list = missing.join(", ");
        format!("cgroup controllers missing: {list}; requests and limits of the pods will not be held to")
    };
    (!missing.is_empty()).then(|| Problem::new(message())).into_iter().collect()
}

/// The kubelet refuses cgroup v1 from 1.35 on; our own agent does not mind it.
pub(super) fn cgroup_version(s: &Subject) -> Vec<Problem> {
    let refuses = s.spec.kubernetes_version.minor() >= 35 && s.facts.cgroup.version == Some(1);
    let message = "the kubelet of this release does not run on cgroup v1: boot with \
                   systemd.unified_cgroup_hierarchy=1, or let kubeboot's own agent run the pods (nodeAgent: embedded)";
    refuses.then(|| Problem::new(message)).into_iter().collect()
}

pub(super) fn runtime(s: &Subject) -> Vec<Problem> {
    let Runtime::Unreachable { address, error } = &s.facts.runtime else { return vec![] };
    let installed = s.facts.programs.get("dockerd").is_some_and(Option::is_some);
    let advice = match (installed, s.facts.init) {
        (false, _) => {
            "install Docker (apt-get install docker.io, or https://docs.docker.com/engine/install/) and start it"
        }
        (true, InitSystem::Systemd) => "start it: systemctl enable --now docker",
        (true, InitSystem::OpenRc) => "start it: rc-service docker start",
        (true, InitSystem::None) => "start it: nohup dockerd >/var/log/dockerd.log 2>&1 &",
    };
    vec![Problem::new(format!("Docker does not answer at {address} ({error}); {advice}"))]
}

pub(super) fn swap(s: &Subject) -> Vec<Problem> {
    let list = s.facts.swap.join(", ");
    let message = || format!("swap is on ({list}): etcd gets slow when it is swapped out; turn it off with swapoff -a");
    (!list.is_empty()).then(|| Problem::new(message())).into_iter().collect()
}

pub(super) fn programs(s: &Subject) -> Vec<Problem> {
    let missing = KUBELET_PROGRAMS.iter().filter(|name| matches!(s.facts.programs.get(**name), Some(None)));
    let problem = |name: &&str| Problem {
        detail: (**name).to_owned(),
        message: format!("{name} is neither on the PATH nor in an sbin directory: install it"),
    };
    missing.map(problem).collect()
}
