//! The checks before the first write: all of them run, all findings come at once, under kubeadm's names.
//!
//! A check is a row of [`CHECKS`] and a pure function of the configuration, the machine's [`Facts`] and what is ours
//! already. [`interest`] says which facts to gather.

mod files;
mod machine;
mod network;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::spec::{ClusterSpec, NodeAgent};
use crate::event::Reporter;
use crate::host::facts::{Facts, Interest};

/// The phase's name, which its events carry.
pub const PHASE: &str = "preflight";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The command goes on.
    Warning,
    /// The command does not start, unless `--ignore-preflight-errors` names the check.
    Error,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check's name in kubeadm's words, which `--ignore-preflight-errors` takes (`Port-6443`).
    pub check: String,
    /// How bad it is, errors that are ignored being warnings.
    pub severity: Severity,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.message)
    }
}

/// What an earlier, unfinished run of ours left, which is no finding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ours {
    /// Files and directories of the inventory, as the node sees them.
    pub paths: BTreeSet<PathBuf>,
    /// Ports that our own pods listen on.
    pub ports: BTreeSet<u16>,
    /// Our own processes: the agent, and those in the containers of its pods.
    pub pids: BTreeSet<u32>,
}

impl Ours {
    fn has(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }
}

/// What a check looks at.
pub(crate) struct Subject<'a> {
    spec: &'a ClusterSpec,
    facts: &'a Facts,
    ours: &'a Ours,
}

impl Subject<'_> {
    fn kubelet(&self) -> bool {
        self.spec.kubeboot.node_agent == NodeAgent::Kubelet
    }
}

/// One row of [`CHECKS`].
pub struct Check {
    /// The name, or the part before the port or path in it.
    pub name: &'static str,
    /// How bad its findings are.
    pub severity: Severity,
    /// Where it makes sense.
    pub scope: Scope,
    check: fn(&Subject) -> Vec<Problem>,
}

/// Where a check makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Wherever files are written, below another root too.
    Files,
    /// On the running machine.
    Live,
    /// On the running machine when our own agent runs the pods.
    Embedded,
    /// On the running machine when a kubelet runs the pods.
    Kubelet,
}

/// What a check found; `detail` completes the name of one that looks at many things.
struct Problem {
    detail: String,
    message: String,
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Self { detail: String::new(), message: message.into() }
    }

    /// Of a check whose name ends in a port.
    fn of_port(port: u16, message: impl Into<String>) -> Self {
        Self { detail: port.to_string(), message: message.into() }
    }

    /// Of a check whose name ends in a path, every `/` of it a `-`.
    fn of_path(path: &Path, message: impl Into<String>) -> Self {
        Self { detail: path.to_string_lossy().replace('/', "-"), message: message.into() }
    }
}

const fn check(name: &'static str, severity: Severity, scope: Scope, check: fn(&Subject) -> Vec<Problem>) -> Check {
    Check { name, severity, scope, check }
}

/// Every check, in the order of its findings.
///
/// What kubeadm demands for the kubelet's sake alone (tools, cgroup version, port 10250) is asked of machines that run
/// a kubelet.
pub const CHECKS: &[Check] = &[
    check("IsPrivilegedUser", Severity::Error, Scope::Live, machine::is_privileged_user),
    check("NumCPU", Severity::Error, Scope::Live, machine::cpus),
    check("Mem", Severity::Error, Scope::Live, machine::memory),
    check("DiskSpace", Severity::Error, Scope::Files, machine::disk_space_error),
    check("DiskSpace", Severity::Warning, Scope::Files, machine::disk_space_warning),
    check("SystemVerification", Severity::Warning, Scope::Live, machine::cgroup_controllers),
    check("SystemVerification", Severity::Error, Scope::Kubelet, machine::cgroup_version),
    check("CRI", Severity::Error, Scope::Live, machine::runtime),
    check("Swap", Severity::Warning, Scope::Live, machine::swap),
    check("FileExisting-", Severity::Error, Scope::Kubelet, machine::programs),
    check("Hostname", Severity::Warning, Scope::Live, network::hostname),
    check("Port-", Severity::Error, Scope::Live, network::ports),
    check("Firewalld", Severity::Warning, Scope::Live, network::firewalld),
    check("FileContent-", Severity::Warning, Scope::Embedded, network::forwarding),
    check("FileContent-", Severity::Error, Scope::Kubelet, network::forwarding),
    check("HTTPProxy", Severity::Warning, Scope::Live, network::proxy),
    check("HTTPProxyCIDR", Severity::Warning, Scope::Live, network::proxy_of_networks),
    check("FileAvailable-", Severity::Error, Scope::Files, files::manifests),
    check("DirAvailable-", Severity::Error, Scope::Files, files::etcd_data),
    check("ExternalEtcdClientCertificates", Severity::Error, Scope::Files, files::external_etcd),
];

/// Names that `--ignore-preflight-errors` takes though nothing here has them: kubeadm's checks of the kubelet's world,
/// of other commands, and of older releases.
const ACCEPTED: &[&str] = &[
    "all",
    "containerruntimeversion",
    "externaletcdversion",
    "imagepull",
    "isdockersystemdcheck",
    "kubeletversion",
    "kubernetesversion",
];

/// Kinds of checks whose names go on with a file, a port or a unit.
const FAMILIES: &[&str] = &["diravailable-", "fileavailable-", "filecontent-", "fileexisting-", "port-", "service-"];

/// The facts that the checks of `spec` look at.
pub fn interest(spec: &ClusterSpec) -> Interest {
    Interest {
        ports: network::needed_ports(spec).into_iter().map(|needed| needed.port).collect(),
        paths: files::of_interest(spec),
        programs: machine::of_interest(spec),
        resolve: Some(spec.node.name.clone()),
    }
}

/// Runs every check that makes sense here. Errors named by `--ignore-preflight-errors` come as warnings.
pub fn run(spec: &ClusterSpec, facts: &Facts, ours: &Ours) -> Vec<Finding> {
    let subject = Subject { spec, facts, ours };
    let ignored = &spec.node.ignore_preflight_errors;
    let mut findings = Vec::new();
    for row in CHECKS.iter().filter(|row| applies(row.scope, &subject)) {
        for problem in (row.check)(&subject) {
            let check = format!("{}{}", row.name, problem.detail);
            let severity = if is_ignored(ignored, &check) { Severity::Warning } else { row.severity };
            findings.push(Finding { check, severity, message: problem.message });
        }
    }
    findings.extend(unknown_names(ignored));
    findings
}

/// Runs the checks, reports what is only a warning, and fails with all errors at once.
pub fn check_machine(
    spec: &ClusterSpec,
    facts: &Facts,
    ours: &Ours,
    reporter: &dyn Reporter,
) -> Result<(), PreflightError> {
    let (errors, warnings): (Vec<Finding>, Vec<Finding>) =
        run(spec, facts, ours).into_iter().partition(|finding| finding.severity == Severity::Error);
    for warning in warnings {
        reporter.warn(PHASE, warning.to_string());
    }
    if errors.is_empty() { Ok(()) } else { Err(PreflightError { errors }) }
}

/// The machine is not fit; every reason at once.
#[derive(Debug, thiserror::Error)]
#[error(
    "the machine is not ready:{}\nmend these, or pass --ignore-preflight-errors={} to go on all the same",
    list(errors),
    names(errors)
)]
pub struct PreflightError {
    /// The findings, errors only.
    pub errors: Vec<Finding>,
}

fn list(errors: &[Finding]) -> String {
    errors.iter().map(|finding| format!("\n\t[ERROR {}]: {}", finding.check, finding.message)).collect()
}

fn names(errors: &[Finding]) -> String {
    let mut names: Vec<&str> = errors.iter().map(|finding| finding.check.as_str()).collect();
    names.dedup();
    names.join(",")
}

fn applies(scope: Scope, subject: &Subject) -> bool {
    match scope {
        Scope::Files => true,
        Scope::Live => subject.facts.live,
        Scope::Embedded => subject.facts.live && !subject.kubelet(),
        Scope::Kubelet => subject.facts.live && subject.kubelet(),
    }
}

fn is_ignored(ignored: &[String], check: &str) -> bool {
    ignored.iter().any(|name| name == "all" || name.eq_ignore_ascii_case(check))
}

/// A name that no check has is most likely a slip of the pen, and silence would hide it.
fn unknown_names(ignored: &[String]) -> impl Iterator<Item = Finding> {
    let known = |name: &str| {
        ACCEPTED.contains(&name)
            || FAMILIES.iter().any(|family| name.starts_with(family))
            || CHECKS.iter().any(|row| row.name.eq_ignore_ascii_case(name))
    };
    ignored.iter().filter(move |name| !known(&name.to_ascii_lowercase())).map(|name| Finding {
        check: "IgnorePreflightErrors".into(),
        severity: Severity::Warning,
        message: format!("no check is called {name:?}; nothing is ignored by that name"),
    })
}

#[cfg(test)]
mod tests;
