//! What a worker knows: the pod it is to run, as the plan needs it, and what it has observed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::pod::StaticPod;
use crate::agent::probe::Health;
use crate::runtime::{ContainerRecord, ContainerState, labels};

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the main ones, started before them.
    Sidecar,
    /// A main container.
    Main,
}

/// `restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// `Always`.
    Always,
    /// `OnFailure`.
    OnFailure,
    /// `Never`.
    Never,
}

impl Restart {
    fn of(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with this code is started again.
    pub fn again(self, exit_code: i64) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// How a pod has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// All main containers ended with 0.
    Succeeded,
    /// One did not, or an init container failed.
    Failed,
}

/// One container of the pod that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Restart policy that holds for it.
    pub restart: Restart,
    /// Hash of what it is made from.
    pub hash: String,
}

/// The pod that is wanted, as far as the plan is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// UID.
    pub uid: String,
    /// Whether it needs a sandbox.
    pub needs_sandbox: bool,
    /// Its grace period.
    pub grace: Duration,
    /// Init containers and sidecars in order, then the main ones.
    pub containers: Vec<ContainerView>,
}

impl PodView {
    /// The view of a pod.
    pub fn of(pod: &StaticPod) -> Self {
        let policy = Restart::of(pod.spec.restart_policy.as_deref());
        let containers = pod.containers().map(|(init, container)| {
            let sidecar = init && container.restart_policy.as_deref() == Some("Always");
            let (role, restart) = match (init, sidecar) {
                (_, true) => (Role::Sidecar, Restart::Always),
                // An init container that succeeded is done whatever the policy says.
                (true, _) if policy == Restart::Always => (Role::Init, Restart::OnFailure),
                (true, _) => (Role::Init, policy),
                (false, _) => (Role::Main, policy),
            };
            ContainerView { name: container.name.clone(), role, restart, hash: pod.container_hash(&container.name) }
        });
        Self {
            uid: pod.uid.clone(),
            needs_sandbox: pod.needs_sandbox(),
            grace: grace(pod.spec.termination_grace_period_seconds),
            containers: containers.collect(),
        }
    }

    /// Containers of one role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &ContainerView> {
        self.containers.iter().filter(move |container| container.role == role)
    }

    /// Why a container that was never started waits, when there is no better reason.
    pub fn initial_reason(&self) -> &'static str {
        let plain = self.containers.iter().all(|container| container.role == Role::Main);
        if plain { "ContainerCreating" } else { "PodInitializing" }
    }
}

fn grace(seconds: Option<i64>) -> Duration {
    Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30))
}

/// A container (or sandbox) as the runtime had it when last asked, and what the agent is doing with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The runtime's record.
    pub record: ContainerRecord,
    /// When it ended, on the agent's clock.
    pub ended: Option<Instant>,
    /// A stop is under way.
    pub stopping: bool,
    /// Its grace was ended.
    pub hurried: bool,
    /// Why the agent stopped it, for who asks how it ended.
    pub stopped_for: Option<String>,
    /// A call about it failed; it is not tried again before.
    pub retry_at: Option<Instant>,
    /// Calls about it that failed in a row.
    pub failures: u32,
    /// Its log has been linked.
    pub linked: bool,
}

impl Instance {
    /// An instance nobody does anything with.
    pub fn new(record: ContainerRecord, ended: Option<Instant>) -> Self {
        Self {
            record,
            ended,
            stopping: false,
            hurried: false,
            stopped_for: None,
            retry_at: None,
            failures: 0,
            linked: false,
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.record.state.is_running()
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

/// How far an image is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pull {
    /// Nobody pulls it.
    #[default]
    Idle,
    /// It is being pulled.
    Running {
        /// Its reference.
        image: String,
    },
    /// The pull failed, or may not be tried.
    Failed {
        /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, ...
        reason: &'static str,
        /// Why.
        message: String,
        /// When it is tried again.
        until: Instant,
        /// Failures in a row.
        tries: u32,
    },
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `CreateContainerError`, `CreateContainerConfigError`, ...
    pub reason: &'static str,
    /// Why.
    pub message: String,
    /// When it is tried again.
    pub until: Instant,
    /// Failures in a row.
    pub tries: u32,
}

/// What the worker remembers of one container (the sandbox is `POD`) beyond its instances.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slot {
    /// Starts in a row that the back-off counts.
    pub tries: u32,
    /// No instance has a lower attempt than this from now on: what was removed by hand is counted all the same.
    pub next_attempt: u32,
    /// Its image.
    pub pull: Pull,
    /// A pull has ended well and its container was not made yet.
    pub pulled: bool,
    /// Pulls that failed in a row before the present one.
    pub pull_tries: u32,
    /// The last step that failed.
    pub fault: Option<Fault>,
    /// What its probes say.
    pub health: Option<Health>,
}

/// A container is held back by the start order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What for.
    pub message: String,
    /// No longer than this.
    pub until: Instant,
}

/// Everything a worker knows about what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Containers and sandboxes of this namespace and name, of every UID, by id.
    pub instances: BTreeMap<String, Instance>,
    /// UIDs that are being taken down; none of them comes back before it is gone.
    pub terminating: BTreeSet<String>,
    /// Those among them that serve nobody any more, beside which a successor may start.
    pub drained: BTreeSet<String>,
    /// By container name.
    pub slots: BTreeMap<String, Slot>,
    /// The start order holds the pod back.
    pub hold: Option<Hold>,
    /// Cap of the crash back-off.
    pub max_backoff: Duration,
}

impl Observed {
    /// Whether a predecessor is in the way of the pod of `wanted`. That pod itself is, while it is being taken down: it was
    /// given up and is wanted again.
    pub fn is_blocked(&self, wanted: &str) -> bool {
        self.terminating.iter().any(|uid| uid == wanted || !self.drained.contains(uid))
    }

    /// Nothing seen yet.
    pub fn new(max_backoff: Duration) -> Self {
        Self {
            instances: BTreeMap::new(),
            terminating: BTreeSet::new(),
            drained: BTreeSet::new(),
            slots: BTreeMap::new(),
            hold: None,
            max_backoff,
        }
    }
}
