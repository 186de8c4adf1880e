//! What a worker knows: the pod it is to run, as the plan needs it, and what it has observed.

use super::order::{self, Hold};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use super::instance::{Instance, Kill, PostStart};
pub use super::policy::{Policy, Restart};
use crate::agent::pod::StaticPod;
use crate::agent::pod::phase::Phase;
use crate::agent::pod::surge::{self, Surge};
use crate::agent::probe::{Health, Probes};
use crate::host::clock::{self, Instant};

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the main ones, started before them.
    Sidecar,
    /// A main container.
    Main,
    /// Put into a running pod to look at it (`kubectl debug`): started once, and never again.
    Ephemeral,
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
    /// Its probes.
    pub probes: Arc<Probes>,
}

/// The pod that is wanted, as far as the plan is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// UID.
    pub uid: String,
    /// Whether it needs a sandbox.
    pub needs_sandbox: bool,
    /// Whether the containers in a sandbox go with it.
    pub sandbox_keeps: bool,
    /// Hash of what its sandbox is made from; only where a change of that does not change the UID.
    pub sandbox_hash: Option<String>,
    /// Its grace period.
    pub grace: Duration,
    /// `activeDeadlineSeconds`.
    pub deadline: Option<Duration>,
    /// How long its containers may still take, of a pod that is deleted: the API server gave it, and takes it back.
    pub deletion: Option<Duration>,
    /// The port that it shares with its successor, or its predecessor, so that neither waits for the other.
    pub shares: Option<u16>,
    /// It is made before the one it replaces ends.
    pub ahead: bool,
    /// How it has ended, of a pod of the API server's that has: nothing of it is started again.
    pub ended: Option<Finish>,
    /// Init containers and sidecars in order, then the main ones, then the ephemeral ones.
    pub containers: Vec<ContainerView>,
}

impl PodView {
    /// The view of a pod. Under some runtimes every pod needs a sandbox.
    pub fn of(pod: &StaticPod, always_sandbox: bool) -> Self {
        let policy = Policy::of(pod.spec.restart_policy.as_deref());
        let containers = pod.containers().map(|(init, container)| {
            let sidecar = init && container.restart_policy.as_deref() == Some("Always");
            let (role, restart) = match (init, sidecar) {
                (_, true) => (Role::Sidecar, Restart::plain(Policy::Always)),
                (true, _) => (Role::Init, Restart::of(policy, container, true)),
                (false, _) => (Role::Main, Restart::of(policy, container, false)),
            };
            let (name, hash) = (container.name.clone(), pod.container_hash(&container.name));
            ContainerView { name, role, restart, hash, probes: Arc::new(Probes::of(container).0) }
        });
        let ephemeral = pod.ephemeral.iter().map(|container| ContainerView {
            name: container.name.clone(),
            role: Role::Ephemeral,
            restart: Restart::plain(Policy::Never),
            hash: pod.container_hash(&container.name),
            probes: Arc::default(),
        });
        Self {
            uid: pod.uid.clone(),
            needs_sandbox: always_sandbox || pod.needs_sandbox(),
            sandbox_keeps: always_sandbox,
            sandbox_hash: pod.shared_hash(),
            grace: grace(pod.spec.termination_grace_period_seconds),
            deadline: pod.spec.active_deadline_seconds.filter(|s| *s >= 0).map(clock::seconds),
            deletion: pod.deletion(),
            shares: match surge::of(pod) {
                Surge::Port(port) => Some(port),
                Surge::None | Surge::Impossible(_) => None,
            },
            ahead: order::is_made_ahead(pod),
            ended: pod.ended().map(|phase| match phase {
                Phase::Succeeded => Finish::Succeeded,
                _ => Finish::Failed,
            }),
            containers: containers.chain(ephemeral).collect(),
        }
    }

    /// Whether a sandbox is as this pod's should be.
    pub fn fits(&self, sandbox: &Instance) -> bool {
        self.sandbox_hash.is_none() || self.sandbox_hash.as_deref() == sandbox.hash()
    }

    /// Containers of one role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &ContainerView> {
        self.containers.iter().filter(move |container| container.role == role)
    }

    /// Why a container that was never started waits, when there is no better reason.
    pub fn initial_reason(&self) -> &'static str {
        let plain = self.containers.iter().all(|container| matches!(container.role, Role::Main | Role::Ephemeral));
        if plain { "ContainerCreating" } else { "PodInitializing" }
    }
}

/// The API's grace period of a pod that names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A grace period, by default the API's.
pub fn grace(seconds: Option<i64>) -> Duration {
    seconds.map_or(DEFAULT_GRACE, clock::seconds)
}

/// How far an image is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pull {
    /// It is not being pulled.
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
        /// The same once it counts as waiting.
        backed_off: String,
        /// When it is tried again.
        until: Instant,
        /// From when on it counts as waiting (`ImagePullBackOff`) rather than failed; None if it never does.
        reported: Option<Instant>,
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

/// Everything a worker knows about what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Containers and sandboxes of this namespace and name, of every UID, by id.
    pub instances: BTreeMap<String, Instance>,
    /// UIDs that are being taken down; none of them comes back before it is gone.
    pub terminating: BTreeSet<String>,
    /// Those among them that serve no client any more, beside which a successor may start.
    pub drained: BTreeSet<String>,
    /// Those that have never served a client, and are given no time to drain.
    pub abandoned: BTreeSet<String>,
    /// The wanted pod is to be started beside another one, and cannot yet.
    pub waits_for_surge: bool,
    /// The wanted pod is to be made before the one in its place ends, which is not asked to yet.
    pub waits_to_be_made: bool,
    /// By container name.
    pub slots: BTreeMap<String, Slot>,
    /// When the wanted pod began: its first container was made, or it was first wanted.
    pub started: Option<Instant>,
    /// The start order holds the pod back.
    pub hold: Option<Hold>,
    /// Cap of the crash back-off.
    pub max_backoff: Duration,
}

impl Observed {
    /// Whether a predecessor is in the way of the pod that is wanted. That pod itself is, while it is being taken down: it was
    /// given up and is wanted again. What has ended is in the way of one that was made ahead no more, and of any other until
    /// it is removed.
    pub fn is_blocked(&self, wanted: &PodView) -> bool {
        let is_in_the_way = |uid: &String| !self.drained.contains(uid) && (!wanted.ahead || self.runs(uid));
        let mut terminating = self.terminating.iter();
        self.waits_for_surge || self.waits_to_be_made || terminating.any(|uid| *uid == wanted.uid || is_in_the_way(uid))
    }

    /// Whether containers of a predecessor of the pod of `wanted` have not ended yet.
    pub fn runs_other_than(&self, wanted: &str) -> bool {
        self.instances.values().any(|one| one.is_running() && one.uid() != wanted)
    }

    /// Whether containers of the pod of this UID have not ended yet.
    pub fn runs(&self, uid: &str) -> bool {
        self.instances.values().any(|one| one.is_running() && !one.record.is_sandbox && one.uid() == uid)
    }

    /// Nothing seen yet.
    pub fn new(max_backoff: Duration) -> Self {
        Self {
            instances: BTreeMap::new(),
            terminating: BTreeSet::new(),
            drained: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            waits_for_surge: false,
            waits_to_be_made: false,
            slots: BTreeMap::new(),
            started: None,
            hold: None,
            max_backoff,
        }
    }
}
