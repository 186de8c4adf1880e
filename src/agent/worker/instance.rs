//! A container or sandbox as a worker knows it.

use std::time::Duration;

use super::view::grace;
use crate::host::clock::Instant;
use crate::runtime::{ContainerRecord, ContainerState, labels};

/// A container is being ended: first its `preStop` hook, then the stop signal, all within one grace period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// When that was decided.
    pub since: Instant,
    /// How long it may take in all.
    pub grace: Duration,
    /// The whole pod is: sidecars are sent their signal after all others have ended, one after the other.
    pub ordered: bool,
    /// Its hook still runs.
    pub hook: bool,
}

/// How far a `postStart` hook is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PostStart {
    /// There is none, it has ended well, or an earlier agent has begun it.
    #[default]
    None,
    /// It runs, and no other container of the pod is started.
    Running,
    /// It failed, for which its container is stopped.
    Failed(String),
}

/// A container (or sandbox) as the runtime had it when last asked, and what the agent is doing with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The runtime's record.
    pub record: ContainerRecord,
    /// When it ended, on the agent's clock.
    pub ended: Option<Instant>,
    /// It is being ended: what was decided about it.
    pub kill: Option<Kill>,
    /// Its stop signal is on its way; the runtime kills it when the grace is over.
    pub stopping: bool,
    /// How far its `postStart` hook is.
    pub post_start: PostStart,
    /// Its grace was ended.
    pub hurried: bool,
    /// Its own liveness or startup probe has failed for good, for which it was stopped.
    pub condemned: bool,
    /// Why the agent stopped it, for who asks how it ended.
    pub stopped_for: Option<String>,
    /// A call about it failed; it is not tried again before.
    pub retry_at: Option<Instant>,
    /// Calls about it that failed in a row.
    pub failures: u32,
    /// Its log has been linked.
    pub linked: bool,
    /// A later instance of the same pod takes its place while it serves on: the UID by which it counts as a predecessor.
    pub former: Option<String>,
    /// Another one has its connections, as an earlier agent knew.
    pub relieved: bool,
    /// An earlier agent was about to send it its stop signal.
    pub told: bool,
}

/// The UID by which the instances of a pod count that serve on while it is restarted. No pod has one with a slash.
pub fn former_uid(uid: &str, attempt: u32) -> String {
    format!("{uid}/{attempt}")
}

/// The UID of the pod of which this is one, or a [`former_uid`].
pub fn pod_uid(uid: &str) -> &str {
    uid.split_once('/').map_or(uid, |(pod, _)| pod)
}

impl Instance {
    /// An instance that nothing is done with.
    pub fn new(record: ContainerRecord, ended: Option<Instant>) -> Self {
        Self {
            record,
            ended,
            kill: None,
            stopping: false,
            post_start: PostStart::None,
            hurried: false,
            condemned: false,
            stopped_for: None,
            retry_at: None,
            failures: 0,
            linked: false,
            former: None,
            relieved: false,
            told: false,
        }
    }

    /// The UID of what it belongs to: its pod, or what its pod was before it was restarted.
    pub fn uid(&self) -> &str {
        self.former.as_deref().unwrap_or(&self.record.name.uid)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.record.state.is_running()
    }

    /// Whether the agent is ending it.
    pub fn is_ending(&self) -> bool {
        self.stopping || self.kill.is_some()
    }

    /// Whether its `preStop` hook is kept with it.
    pub fn has_pre_stop(&self) -> bool {
        self.record.annotations.contains_key(labels::PRE_STOP)
    }

    /// Its place in the order in which a pod's containers are stopped: 0 for init and main containers, a sidecar the later
    /// the earlier it was declared. Kept with it for the time when the manifest is gone.
    pub fn stop_order(&self) -> usize {
        self.record.annotations.get(labels::STOP_ORDER).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The port that it shares with its successor.
    pub fn shared_port(&self) -> Option<u16> {
        self.record.annotations.get(labels::SHARED_PORT)?.parse().ok()
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i64> {
        match self.record.state {
            ContainerState::Exited { exit_code, .. } => Some(exit_code),
            _ => None,
        }
    }

    /// How long it ran, once it has ended.
    pub fn ran_for(&self) -> Option<Duration> {
        match self.record.state {
            ContainerState::Exited { started_at: Some(from), finished_at: Some(to), .. } => {
                to.duration_since(from).try_into().ok()
            }
            _ => None,
        }
    }

    /// Hash of what it was made from.
    pub fn hash(&self) -> Option<&str> {
        self.record.annotations.get(labels::CONTAINER_HASH).map(String::as_str)
    }

    /// The sandbox it was made for; empty for one without.
    pub fn sandbox(&self) -> &str {
        self.record.labels.get(labels::SANDBOX_ID).map_or("", String::as_str)
    }

    /// The grace period its manifest asked for, kept with it for the time when the manifest is gone.
    pub fn grace(&self) -> Duration {
        grace(self.record.annotations.get(labels::GRACE_PERIOD).and_then(|text| text.parse().ok()))
    }
}
