//! Checks of what a real kubelet needs; our own agent needs none of it.

use super::{Problem, Subject};
use crate::host::facts::Runtime;
use crate::host::silence::Silence;
use crate::kubelet::files::DEFAULT_CRI_SOCKET;
use crate::release::{KubeletRow, KubernetesVersion, kubelet_refusal, kubelet_row};

/// The kubelet, and all that one of any release needs beside it.
pub(super) const PROGRAMS: &[&str] = &["kubelet", "conntrack", "losetup", "mount", "cp"];

/// Kernels that Kubernetes is tested on, and any from 6.0 on.
const KERNELS: [(u64, u64); 3] = [(5, 4), (5, 10), (5, 15)];

/// Controllers a kubelet does not start without, by cgroup version.
const REQUIRED: [(u8, &[&str]); 2] = [
    (1, &["cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"]),
    // Devices and freezing are no controllers there: every kernel that has version 2 can do them.
    (2, &["cpu", "cpuset", "memory", "pids"]),
];
/// Controllers without which some limits are not held to.
const OPTIONAL: [(u8, &[&str]); 2] = [(1, &["hugetlb", "blkio"]), (2, &["hugetlb", "io"])];

fn row(s: &Subject) -> Option<&'static KubeletRow> {
    s.kubelet_version().as_ref().or(s.goal.control_plane()).map(kubelet_row)
}

fn one(problem: Option<String>) -> Vec<Problem> {
    problem.map(Problem::new).into_iter().collect()
}

pub(super) fn version(s: &Subject) -> Vec<Problem> {
    let refusal = |kubelet: KubernetesVersion| kubelet_refusal(&kubelet, s.goal.control_plane()?);
    one(s.kubelet_version().and_then(refusal))
}

pub(super) fn kernel(s: &Subject) -> Vec<Problem> {
    let mut parts = s.facts.kernel.split(['.', '-']).map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return vec![] };
    let is_fit = major >= 6 || KERNELS.contains(&(major, minor));
    let message = || {
        format!("unsupported kernel release {}: kubelets are made for 5.4, 5.10, 5.15 and 6.0 or newer", s.facts.kernel)
    };
    one((!is_fit).then(message))
}

/// Options that a kubelet's kernel has to be built with, each with what it was called before or after.
pub(super) const REQUIRED_OPTIONS: &[&[&str]] = &[
    &["NAMESPACES"],
    &["NET_NS"],
    &["PID_NS"],
    &["IPC_NS"],
    &["UTS_NS"],
    &["CGROUPS"],
    &["CGROUP_BPF"],
    &["CGROUP_CPUACCT"],
    &["CGROUP_DEVICE"],
    &["CGROUP_FREEZER"],
    &["CGROUP_PIDS"],
    &["CGROUP_SCHED"],
    &["CPUSETS"],
    &["MEMCG"],
    &["INET"],
    &["EXT4_FS"],
    &["PROC_FS"],
    &["NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT"],
    &["NETFILTER_XT_MATCH_COMMENT"],
    &["FAIR_GROUP_SCHED"],
];
/// Options without which some things cannot be had.
pub(super) const OPTIONAL_OPTIONS: &[&[&str]] = &[
    &["OVERLAY_FS", "OVERLAYFS_FS"],
    &["BLK_DEV_DM"],
    &["CFS_BANDWIDTH"],
    &["CGROUP_HUGETLB"],
    &["SECCOMP"],
    &["SECCOMP_FILTER"],
];

/// Those that are neither built in nor a module; none where the kernel does not tell.
fn unset(s: &Subject, wanted: &[&[&'static str]]) -> String {
    let Some(options) = &s.facts.kernel_options else { return String::new() };
    let is_set = |name: &&str| matches!(options.get(*name).map(String::as_str), Some("y" | "m"));
    let unset = wanted.iter().filter(|names| !names.iter().any(is_set));
    unset.filter_map(|names| names.first()).map(|name| format!("CONFIG_{name}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn kernel_options(s: &Subject) -> Vec<Problem> {
    let list = unset(s, REQUIRED_OPTIONS);
    one((!list.is_empty()).then(|| format!("the kernel was built without {list}, which a kubelet needs")))
}

pub(super) fn optional_kernel_options(s: &Subject) -> Vec<Problem> {
    let list = unset(s, OPTIONAL_OPTIONS);
    let message = match &s.facts.kernel_options {
        None => Some("the kernel does not tell how it was built, and neither does a file of its package".to_owned()),
        Some(_) => (!list.is_empty()).then(|| format!("the kernel was built without the optional {list}")),
    };
    one(message)
}

fn missing(s: &Subject, wanted: &[(u8, &'static [&'static str])]) -> String {
    let of_version = wanted.iter().find(|(version, _)| Some(*version) == s.facts.cgroup.version);
    let names = of_version.map_or(&[][..], |(_, names)| names);
    let is_missing = |name: &&&str| !s.facts.cgroup.controllers.iter().any(|have| have == **name);
    names.iter().filter(is_missing).copied().collect::<Vec<_>>().join(", ")
}

pub(super) fn controllers(s: &Subject) -> Vec<Problem> {
    if s.facts.cgroup.version.is_none() {
        return one(Some("no control groups are mounted at /sys/fs/cgroup: a kubelet does not start without".into()));
    }
    let list = missing(s, &REQUIRED);
    let message = || format!("missing required cgroups: {list}: enable them on the kernel's command line");
    one((!list.is_empty()).then(message))
}

pub(super) fn optional_controllers(s: &Subject) -> Vec<Problem> {
    let list = missing(s, &OPTIONAL);
    one((!list.is_empty()).then(|| format!("missing optional cgroups: {list}")))
}

/// Newer kubelets refuse cgroup v1.
pub(super) fn cgroup_version(s: &Subject) -> Vec<Problem> {
    let refuses = s.facts.cgroup.version == Some(1) && row(s).is_some_and(|row| !row.runs_on_cgroup_v1);
    let message = "the kubelet of this release does not run on cgroup v1: boot with \
                   systemd.unified_cgroup_hierarchy=1, or, on a control-plane node, let kubeboot's own agent run the \
                   pods (nodeAgent: embedded)";
    one(refuses.then(|| message.to_owned()))
}

pub(super) fn cgroup_version_soon(s: &Subject) -> Vec<Problem> {
    let takes = s.facts.cgroup.version == Some(1) && row(s).is_some_and(|row| row.runs_on_cgroup_v1);
    one(takes.then(|| "cgroups v1 support is going away: kubelets from 1.35 on do not start here".to_owned()))
}

pub(super) fn runtime(s: &Subject) -> Vec<Problem> {
    let Runtime::Unreachable { address, error, why, .. } = &s.facts.cri else { return vec![] };
    let advice = match address == DEFAULT_CRI_SOCKET {
        _ if *why == Silence::Denied => "run this as root",
        true => "start containerd, or name another runtime with --cri-socket",
        false => "start the runtime, or name another with --cri-socket",
    };
    one(Some(format!("the container runtime does not answer at {address} ({error}); {advice}")))
}

/// The kubelet asks the runtime for its cgroup driver instead of believing its settings.
pub(super) fn runtime_version(s: &Subject) -> Vec<Problem> {
    let lacks = s.facts.cri_has_runtime_config == Some(false) && row(s).is_some_and(|row| row.endpoint_in_config);
    let name = match &s.facts.cri {
        Runtime::Reachable(name) => name.as_str(),
        _ => "the container runtime",
    };
    one(lacks.then(|| {
        format!(
            "{name} does not know the call RuntimeConfig: kubelets will need it; until the runtime is upgraded, \
             cgroupDriver in KubeletConfiguration has to be what the runtime uses"
        )
    }))
}

pub(super) fn programs(s: &Subject) -> Vec<Problem> {
    let needed = row(s).map_or(&["losetup", "mount", "cp"][..], |row| row.programs);
    let missing = PROGRAMS.iter().filter(|name| **name == "kubelet" || needed.contains(name));
    let problem = |name: &&str| Problem {
        detail: (**name).to_owned(),
        message: format!("{name} is neither on the PATH nor in an sbin directory: install it"),
    };
    missing.filter(|name| matches!(s.facts.programs.get(**name), Some(None))).map(problem).collect()
}
