//! What the agent says of itself and its pods. One [`HealthReport`] is one line on the control socket.

pub use crate::agent::pod::phase::Phase;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything the agent knows, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// Grows by one with each report that differs from the one before.
    pub sequence: u64,
    /// The agent itself.
    pub agent: AgentReport,
    /// Every pod that is wanted or still being stopped, by namespace and name.
    pub pods: Vec<PodReport>,
    /// What is wrong with sources (an invalid manifest, a missing directory) and with the runtime.
    pub problems: Vec<Problem>,
}

/// The agent itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentReport {
    /// Process id.
    pub pid: u32,
    /// kubeboot's version.
    pub version: String,
    /// The node's name, the suffix of its pods' names.
    pub node_name: String,
    /// When it started.
    pub started_at: Timestamp,
    /// The directory or file it watches.
    pub static_pod_path: Option<String>,
    /// The container runtime (`docker 20.10.24`), None while it cannot be reached.
    pub runtime: Option<String>,
    /// Whether every source and the runtime have been read once, so that a pod that is missing here is neither wanted
    /// nor there.
    pub synced: bool,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Name with the node's suffix.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// UID; also the hash of the manifest as the agent understood it (`kubernetes.io/config.hash`).
    pub uid: String,
    /// The file it comes from.
    pub file: Option<String>,
    /// SHA-256 in hex of the file's bytes: what a writer of the file can know beforehand.
    pub file_hash: Option<String>,
    /// Label `component`, which control-plane pods carry.
    pub component: Option<String>,
    /// The API server has bound it to the node: what it is about is the cluster's, and no part of the node's own health.
    #[serde(default)]
    pub bound: bool,
    /// Phase, in the API's words.
    pub phase: Phase,
    /// Ready in the kubelet's sense: every container is, by its readiness probe's own rules.
    pub ready: bool,
    /// Healthy: every container runs and has answered its readiness check (or, where it has none, its startup or
    /// liveness check) since it started, asked at once and often rather than by `initialDelaySeconds` and
    /// `periodSeconds`, and no probe says otherwise now.
    pub healthy: bool,
    /// Being stopped because its manifest was changed or removed.
    pub terminating: bool,
    /// Since when `healthy` is what it is.
    pub since: Timestamp,
    /// Why the pod as a whole cannot go on (a failed mount, an image that cannot be had, held back until the API server
    /// is ready), None as a rule.
    pub message: Option<String>,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerReport>,
    /// The pod of a changed manifest, which is being tried beside this one, and takes its place once it is ready. It is
    /// neither ready nor healthy before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Box<PodReport>>,
}

impl PodReport {
    /// It and its successor.
    pub fn generations(&self) -> impl Iterator<Item = &Self> {
        [Some(self), self.successor.as_deref()].into_iter().flatten()
    }

    /// Whether a container of it runs.
    pub fn is_running(&self) -> bool {
        self.containers.iter().any(|one| matches!(one.state, StateReport::Running { .. }))
    }
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerReport {
    /// Name.
    pub name: String,
    /// Whether it is an init container.
    pub init: bool,
    /// Image as the manifest names it.
    pub image: String,
    /// The runtime's id of the current instance.
    pub id: Option<String>,
    /// State.
    pub state: StateReport,
    /// How the instance before ended.
    pub last_termination: Option<TerminationReport>,
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// See [`PodReport::ready`].
    pub ready: bool,
    /// See [`PodReport::healthy`].
    pub healthy: bool,
    /// How often it was restarted.
    pub restarts: u32,
    /// What the last failing probe or check said.
    pub probe_message: Option<String>,
}

/// State of a container as it is reported.
pub type StateReport = State<TerminationReport>;

/// What the agent makes of the runtime's state of a container; `Termination` is what is said of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum State<Termination> {
    /// Not running yet, or not again.
    Waiting {
        /// `ContainerCreating`, `CrashLoopBackOff`, `ErrImagePull`, ...
        reason: String,
        /// More words.
        message: String,
    },
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Terminated(Termination),
}

impl<Termination> State<Termination> {
    /// It does not run, for this reason.
    pub fn waiting(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Waiting { reason: reason.into(), message: message.into() }
    }

    /// The same, with its end said by `of`.
    pub fn map<Other>(self, of: impl FnOnce(Termination) -> Other) -> State<Other> {
        match self {
            Self::Waiting { reason, message } => State::Waiting { reason, message },
            Self::Running { started_at } => State::Running { started_at },
            Self::Terminated(termination) => State::Terminated(of(termination)),
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationReport {
    /// Exit code.
    pub exit_code: i64,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// Why the agent stopped it (`Liveness probe failed 8 times in a row: ...`) and its termination message, else the
    /// runtime's words.
    pub message: String,
    /// When.
    pub finished_at: Option<Timestamp>,
    /// Its last log lines (20 at most), oldest first; only of a container that ended badly.
    pub log: Vec<String>,
}

/// Something wrong that is no pod's own fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where: a file, a directory, `runtime`.
    pub subject: String,
    /// What is wrong and what the agent does about it.
    pub message: String,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// SHA-256 in hex of the manifest's bytes it is about; None where it is about no content, or about one that could not be
    /// read.
    #[serde(default)]
    pub file_hash: Option<String>,
}

impl Problem {
    /// An error that is about no particular content.
    pub fn error(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), message: message.into(), severity: Severity::Error, file_hash: None }
    }

    /// The same problem, about content with this hash.
    #[must_use]
    pub fn about(self, file_hash: impl Into<String>) -> Self {
        Self { file_hash: Some(file_hash.into()), ..self }
    }
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// Something is not used as it is now: a manifest, a directory, the runtime.
    #[default]
    Error,
    /// It is used all the same.
    Warning,
}
