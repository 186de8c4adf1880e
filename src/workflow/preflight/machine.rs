//! Checks of the machine as such.

use super::{Goal, Problem, Subject, kubelet};
use crate::host::facts::{InitSystem, Runtime};
use crate::host::silence::Silence;
use crate::release::RELEASES;
use crate::runtime::endpoint::Endpoint;

const MIN_CPUS: usize = 2;
/// MiB, as kubeadm counts.
const MIN_MEMORY: u64 = 1700;
const MIB: u64 = 1024 * 1024;

/// Free bytes below which a write is bound to fail, and below which etcd and images are soon out of room.
const ROOM: [(&str, u64, u64); 2] = [("/etc", 10 * MIB, 10 * MIB), ("/var/lib", 200 * MIB, 2048 * MIB)];

pub(super) fn of_interest(goal: Goal<'_>) -> Vec<&'static str> {
    let tools = if goal.kubelet() { kubelet::PROGRAMS } else { &[] };
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

/// A release that this program was not made for may need what it does not write.
pub(super) fn kubernetes_version(s: &Subject) -> Vec<Problem> {
    let newest = RELEASES.last().map_or(0, |row| row.minor);
    let newer = s.cluster().map(|spec| &spec.kubernetes_version).filter(|version| version.minor() > newest);
    let message = |version| {
        format!(
            "Kubernetes version {version} is newer than the newest this kubeboot knows, 1.{newest}: use a newer \
             kubeboot, or an older Kubernetes"
        )
    };
    newer.map(|version| Problem::new(message(version))).into_iter().collect()
}

pub(super) fn runtime(s: &Subject) -> Vec<Problem> {
    if let Goal::Join(..) = s.goal {
        return kubelet::runtime(s);
    }
    let Runtime::Unreachable { address, error, why, by_environment } = &s.facts.runtime else { return vec![] };
    if let Some(Endpoint::Cri(socket)) = s.cluster().map(Endpoint::of) {
        let advice = match why {
            Silence::Denied => "run this as root",
            _ => "start it, with its CRI plugin enabled, or name another with --cri-socket",
        };
        return vec![Problem::new(format!("no container runtime answers at {socket} ({error}); {advice}"))];
    }
    let installed = s.facts.programs.get("dockerd").is_some_and(Option::is_some);
    let advice = match (installed, s.facts.init) {
        _ if *why == Silence::Denied => "run this as root, or as a member of the socket's group",
        _ if *by_environment => "correct DOCKER_HOST, or take it out of the environment",
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
    let why = match s.goal {
        Goal::Init(_) => "etcd gets slow when it is swapped out",
        Goal::Join(..) => "the kubelet does not start unless failSwapOn is false",
    };
    let message = || format!("swap is on ({list}): {why}; turn it off with swapoff -a");
    (!list.is_empty()).then(|| Problem::new(message())).into_iter().collect()
}
