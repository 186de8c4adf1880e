//! The checks before the first write: all of them run, all findings come at once, under kubeadm's names.
//!
//! A check is a row of [`CHECKS`] and a pure function of the configuration, the machine's [`Facts`] and what is ours
//! already. [`interest`] says which facts to gather.

pub mod agent;
pub mod etcd;
mod files;
mod kubelet;
mod machine;
mod network;
mod ports;
pub mod upgrade;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::spec::{ClusterSpec, JoinSpec, NodeAgent, NodeSpec};
use crate::event::Reporter;
use crate::host::facts::{Facts, Interest};
use crate::release::KubernetesVersion;

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
pub struct OwnLeftovers {
    /// Files and directories of the inventory, as the node sees them.
    pub paths: BTreeSet<PathBuf>,
    /// Ports that our own pods listen on.
    pub ports: BTreeSet<u16>,
    /// Our own processes: the agent, and those in the containers of its pods.
    pub pids: BTreeSet<u32>,
}

impl OwnLeftovers {
    fn has(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }
}

/// What is to be made of the machine, which decides what is asked of it.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'a> {
    /// A control-plane node.
    Init(&'a ClusterSpec),
    /// A worker of a cluster; its version is not known before it is found.
    Join(&'a JoinSpec, Option<&'a KubernetesVersion>),
}

impl<'a> From<&'a ClusterSpec> for Goal<'a> {
    fn from(spec: &'a ClusterSpec) -> Self {
        Self::Init(spec)
    }
}

impl<'a> Goal<'a> {
    fn node(self) -> &'a NodeSpec {
        match self {
            Self::Init(spec) => &spec.node,
            Self::Join(spec, _) => &spec.node,
        }
    }

    /// Whether a real kubelet runs the pods; a worker has to have one.
    fn kubelet(self) -> bool {
        match self {
            Self::Init(spec) => spec.kubeboot.node_agent == NodeAgent::Kubelet,
            Self::Join(..) => true,
        }
    }

    fn is_met_by(self, on: On) -> bool {
        match (self, on) {
            (_, On::Both) => true,
            (Self::Init(_), on) => on == On::Init,
            (Self::Join(..), on) => on == On::Join,
        }
    }

    /// The version of the control plane.
    fn control_plane(self) -> Option<&'a KubernetesVersion> {
        match self {
            Self::Init(spec) => Some(&spec.kubernetes_version),
            Self::Join(_, version) => version,
        }
    }
}

/// What a check looks at.
pub(crate) struct Subject<'a> {
    goal: Goal<'a>,
    facts: &'a Facts,
    ours: &'a OwnLeftovers,
}

impl<'a> Subject<'a> {
    /// The configuration of a control-plane node; None for a worker.
    fn cluster(&self) -> Option<&'a ClusterSpec> {
        match self.goal {
            Goal::Init(spec) => Some(spec),
            Goal::Join(..) => None,
        }
    }

    /// The kubelet of this machine, where it has one that says what it is.
    fn kubelet_version(&self) -> Option<KubernetesVersion> {
        self.facts.kubelet_version.as_ref()?.parse().ok()
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
    /// For whom it makes sense.
    pub on: On,
    check: fn(&Subject) -> Vec<Problem>,
}

/// The commands that check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// `init`.
    Init,
    /// `join` of a worker.
    Join,
    /// Both.
    Both,
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

const fn check(
    name: &'static str,
    severity: Severity,
    (on, scope): (On, Scope),
    check: fn(&Subject) -> Vec<Problem>,
) -> Check {
    Check { name, severity, scope, on, check }
}

const INIT: (On, Scope) = (On::Init, Scope::Live);
const INIT_FILES: (On, Scope) = (On::Init, Scope::Files);
const INIT_EMBEDDED: (On, Scope) = (On::Init, Scope::Embedded);
const JOIN_FILES: (On, Scope) = (On::Join, Scope::Files);
const BOTH: (On, Scope) = (On::Both, Scope::Live);
const BOTH_FILES: (On, Scope) = (On::Both, Scope::Files);
const BOTH_KUBELET: (On, Scope) = (On::Both, Scope::Kubelet);

/// Every check, in the order of its findings.
///
/// What kubeadm demands for the kubelet's sake alone (tools, kernel, cgroup version) is asked of machines
/// that run a kubelet.
pub const CHECKS: &[Check] = &[
    check("IsPrivilegedUser", Severity::Error, BOTH, machine::is_privileged_user),
    check("NumCPU", Severity::Error, INIT, machine::cpus),
    check("Mem", Severity::Error, INIT, machine::memory),
    check("DiskSpace", Severity::Error, BOTH_FILES, machine::disk_space_error),
    check("DiskSpace", Severity::Warning, BOTH_FILES, machine::disk_space_warning),
    check("KubernetesVersion", Severity::Warning, INIT_FILES, machine::kubernetes_version),
    check("KubeletVersion", Severity::Error, BOTH_KUBELET, kubelet::version),
    check("SystemVerification", Severity::Warning, INIT_EMBEDDED, machine::cgroup_controllers),
    check("SystemVerification", Severity::Error, BOTH_KUBELET, kubelet::kernel),
    check("SystemVerification", Severity::Error, BOTH_KUBELET, kubelet::kernel_options),
    check("SystemVerification", Severity::Warning, BOTH_KUBELET, kubelet::optional_kernel_options),
    check("SystemVerification", Severity::Error, BOTH_KUBELET, kubelet::controllers),
    check("SystemVerification", Severity::Warning, BOTH_KUBELET, kubelet::optional_controllers),
    check("SystemVerification", Severity::Error, BOTH_KUBELET, kubelet::cgroup_version),
    check("SystemVerification", Severity::Warning, BOTH_KUBELET, kubelet::cgroup_version_soon),
    check("CRI", Severity::Error, BOTH, machine::runtime),
    check("ContainerRuntimeVersion", Severity::Warning, BOTH_KUBELET, kubelet::runtime_version),
    check("Swap", Severity::Warning, BOTH, machine::swap),
    check("FileExisting-", Severity::Error, BOTH_KUBELET, kubelet::programs),
    check("Hostname", Severity::Warning, BOTH, network::hostname),
    check("Port-", Severity::Error, BOTH, ports::ports),
    check("Firewalld", Severity::Warning, INIT, network::firewalld),
    check("FileContent-", Severity::Warning, INIT_EMBEDDED, network::forwarding),
    check("FileContent-", Severity::Error, BOTH_KUBELET, network::forwarding),
    check("HTTPProxy", Severity::Warning, BOTH, network::proxy),
    check("HTTPProxyCIDR", Severity::Warning, INIT, network::proxy_of_networks),
    check(agent::CHECK, Severity::Error, INIT_FILES, agent::settings),
    check("FileAvailable-", Severity::Error, INIT_FILES, files::manifests),
    check("FileAvailable-", Severity::Error, JOIN_FILES, files::of_another_node),
    check("DirAvailable-", Severity::Error, INIT_FILES, files::etcd_data),
    check("ExternalEtcdClientCertificates", Severity::Error, INIT_FILES, files::external_etcd),
    check("ExternalEtcdVersion", Severity::Error, INIT, etcd::version),
];

/// Names that `--ignore-preflight-errors` takes though nothing here has them: kubeadm's checks of the kubelet's world,
/// of other commands, and of older releases.
const ACCEPTED: &[&str] = &[
    "all",
    "controlplanenodesready",
    "corednsmigration",
    "corednsunsupportedplugins",
    "createjob",
    "imagepull",
    "isdockersystemdcheck",
    "removedfeaturegates",
    "removedflags",
    "staticpodmanifest",
];

/// Kinds of checks whose names go on with a file, a port or a unit.
const FAMILIES: &[&str] = &["diravailable-", "fileavailable-", "filecontent-", "fileexisting-", "port-", "service-"];

/// The facts that the checks look at.
pub fn interest<'a>(goal: impl Into<Goal<'a>>) -> Interest {
    let goal = goal.into();
    Interest {
        ports: ports::needed_ports(goal).into_iter().map(|needed| needed.port).collect(),
        paths: files::of_interest(goal),
        programs: machine::of_interest(goal),
        resolve: Some(goal.node().name.clone()),
        kubelet: goal.kubelet(),
    }
}

/// Runs every check that makes sense here. Errors named by `--ignore-preflight-errors` come as warnings.
pub fn run<'a>(goal: impl Into<Goal<'a>>, facts: &Facts, ours: &OwnLeftovers) -> Vec<Finding> {
    let goal = goal.into();
    let mut findings = run_those(goal, facts, ours, |_| true);
    findings.extend(unknown_names(&goal.node().ignore_preflight_errors));
    findings
}

fn run_those(goal: Goal<'_>, facts: &Facts, ours: &OwnLeftovers, wanted: fn(&Check) -> bool) -> Vec<Finding> {
    let subject = Subject { goal, facts, ours };
    let ignored = &goal.node().ignore_preflight_errors;
    let mut findings = Vec::new();
    for row in CHECKS.iter().filter(|row| wanted(row) && goal.is_met_by(row.on) && applies(row.scope, &subject)) {
        for problem in (row.check)(&subject) {
            let check = format!("{}{}", row.name, problem.detail);
            let severity = if is_ignored(ignored, &check) { Severity::Warning } else { row.severity };
            findings.push(Finding { check, severity, message: problem.message });
        }
    }
    findings
}

/// Runs every check; warnings are reported as they come.
///
/// # Errors
/// [`PreflightError`] with every error at once.
pub fn check_machine<'a>(
    goal: impl Into<Goal<'a>>,
    facts: &Facts,
    ours: &OwnLeftovers,
    reporter: &dyn Reporter,
) -> Result<(), PreflightError> {
    conclude(run(goal, facts, ours), reporter)
}

/// The check that has to wait until the cluster is found: whether this kubelet goes with that control plane.
///
/// # Errors
/// [`PreflightError`] where it does not.
pub fn check_kubelet(
    spec: &JoinSpec,
    control_plane: &KubernetesVersion,
    facts: &Facts,
    reporter: &dyn Reporter,
) -> Result<(), PreflightError> {
    let goal = Goal::Join(spec, Some(control_plane));
    conclude(run_those(goal, facts, &OwnLeftovers::default(), |row| row.name == "KubeletVersion"), reporter)
}

/// Reports the warnings among `findings`.
///
/// # Errors
/// [`PreflightError`] with the errors among them.
pub fn conclude(findings: Vec<Finding>, reporter: &dyn Reporter) -> Result<(), PreflightError> {
    let (errors, warnings): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    for warning in warnings {
        reporter.warn(PHASE, warning.to_string());
    }
    if errors.is_empty() { Ok(()) } else { Err(PreflightError { errors }) }
}

/// The machine is not fit; every reason at once.
#[derive(Debug, thiserror::Error)]
#[error(
    "[preflight] Some fatal errors occurred:{}\n[preflight] If you know what you are doing, you can make a check \
     non-fatal with `--ignore-preflight-errors={}`",
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
        Scope::Embedded => subject.facts.live && !subject.goal.kubelet(),
        Scope::Kubelet => subject.facts.live && subject.goal.kubelet(),
    }
}

/// Whether `--ignore-preflight-errors` names a check.
pub fn is_ignored(ignored: &[String], check: &str) -> bool {
    ignored.iter().any(|name| name == "all" || name.eq_ignore_ascii_case(check))
}

/// The findings with errors that `--ignore-preflight-errors` names as warnings.
pub fn with_ignored(mut findings: Vec<Finding>, ignored: &[String]) -> Vec<Finding> {
    for finding in findings.iter_mut().filter(|finding| is_ignored(ignored, &finding.check)) {
        finding.severity = Severity::Warning;
    }
    findings
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
