//! What a runtime says of what it has: containers, images, processes and events.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::types::ContainerName;

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Stopped.
    Exited {
        /// Exit code.
        exit_code: i64,
        /// `Completed`, `Error`, `OOMKilled` or, of one whose start failed, `StartError`.
        reason: String,
        /// The runtime's message, empty as a rule.
        message: String,
        /// When it was started, if ever.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Option<Timestamp>,
    },
}

impl ContainerState {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// Whom the first process of a container was started as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUser {
    /// User.
    pub uid: i64,
    /// Primary group.
    pub gid: i64,
    /// All groups, those among them that the image's `/etc/group` gives.
    pub groups: Vec<i64>,
}

/// A container as the runtime has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// The runtime's id.
    pub id: String,
    /// What the API calls the runtime: `docker`, `containerd`, `cri-o`.
    pub runtime: &'static str,
    /// Identity, from the labels and the name.
    pub name: ContainerName,
    /// Whether this is a sandbox.
    pub is_sandbox: bool,
    /// Image reference it was made from.
    pub image: String,
    /// Image id.
    pub image_id: String,
    /// State.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Address in the pod network; None for the host's network or when stopped.
    pub ip: Option<String>,
    /// Whom it runs as; None where the runtime does not say what that came to, as Docker does not.
    pub user: Option<ContainerUser>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerRecord {
    /// The container as the API names it: `docker://ID`.
    pub fn reference(&self) -> String {
        format!("{}://{}", self.runtime, self.id)
    }
}

/// What a command in a container left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code; 126 and 127 where the command could not be run.
    pub exit_code: i64,
    /// stdout and stderr, 10 KiB at most.
    pub output: String,
}

/// Which part of a container's log is wanted, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is written, until the container ends.
    pub follow: bool,
    /// Begin each line with when it was written, in RFC 3339.
    pub timestamps: bool,
    /// Only lines that were written since; whole seconds count.
    pub since: Option<Timestamp>,
    /// Begin with this many lines before the end; None begins at the beginning.
    pub tail: Option<u64>,
    /// No more bytes than this.
    pub limit_bytes: Option<u64>,
}

/// Where a runtime keeps images, and how much they take there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFileSystem {
    /// The directory.
    pub dir: std::path::PathBuf,
    /// Bytes that images take.
    pub bytes: u64,
    /// Files that they take, where the runtime counts them.
    pub inodes: Option<u64>,
}

/// Where a container's main process is on this machine; nothing is known of one that does not run, or that runs
/// elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: Option<u32>,
    /// Its network namespace, where the runtime names it; else it is that of the process.
    pub network_namespace: Option<std::path::PathBuf>,
}

impl Process {
    /// What names its network namespace.
    pub fn network(&self) -> Option<std::path::PathBuf> {
        let own = || self.pid.map(|pid| format!("/proc/{pid}/ns/net").into());
        self.network_namespace.clone().or_else(own)
    }
}

/// Something happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// Which container.
    pub id: String,
    /// Its pod's UID.
    pub pod_uid: String,
    /// What.
    pub kind: RuntimeEventKind,
}

/// Kinds of [`RuntimeEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeEventKind {
    /// It runs.
    Started,
    /// It ended.
    Exited,
    /// It was removed.
    Removed,
}

/// An image in the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Image id.
    pub id: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// The image's user, as written (`""`, `1000`, `nobody`).
    pub user: String,
}
