//! What a worker reports of its pod, and what is reported before it has looked. Pure but for the moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::Plan;
use super::instance::pod_uid;
use super::order;
use super::status;
use super::view::{ContainerView, Finish, Instance, Observed, PodView, PostStart, Role, Slot};
use crate::agent::admission::Refusal;
use crate::agent::board::Entry;
use crate::agent::board::Gate;
use crate::agent::control::report::{ContainerReport, PodReport, State, TerminationReport};
use crate::agent::pod::phase::Phase;
use crate::agent::pod::resources;
use crate::agent::pod::{PodKey, StaticPod};
use crate::agent::probe::Health;
use crate::runtime::ContainerState;

/// The last words of ended containers, by id.
pub type LogTails = HashMap<String, LogTail>;

/// What an ended container has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTail {
    /// Its last log lines.
    pub log: Vec<String>,
    /// Its termination message.
    pub message: String,
    /// The end of its log, for a message where it wrote none.
    pub tail: String,
}

/// Everything a report is made from.
pub struct Facts<'a> {
    /// Namespace and name.
    pub key: &'a PodKey,
    /// The pod that is wanted, or that was until a moment ago.
    pub pod: Option<(&'a StaticPod, &'a PodView)>,
    /// Whether it is wanted.
    pub wanted: bool,
    /// What is there.
    pub seen: &'a Observed,
    /// What is remembered of its containers, by their names.
    pub slots: &'a BTreeMap<String, Slot>,
    /// What is done next.
    pub plan: &'a Plan,
    /// What ended containers have left.
    pub log_tails: &'a LogTails,
    /// The node's address.
    pub host_ip: Option<&'a str>,
    /// The runtime can mount read-only all the way down.
    pub recursive_read_only: bool,
    /// The moment.
    pub now: Timestamp,
}

/// Why a container waits, when there is no better reason.
const CREATING: &str = "ContainerCreating";

/// What is to be reported of a container, wherever it is reported.
pub(super) struct Shown<'a> {
    /// Its state.
    pub state: State<Exit<'a>>,
    /// Its newest instance that was ever started.
    pub current: Option<&'a Instance>,
    /// The one before; the newest itself while its successor is waited for.
    pub last: Option<Exit<'a>>,
    /// What its probes say of the newest.
    pub health: Option<&'a Health>,
    /// How often it was restarted.
    pub restarts: u32,
    /// It was there and was removed behind the agent's back.
    pub lost: bool,
}

/// The end of a container, as the runtime knows it.
#[derive(Clone, Copy)]
pub(super) struct Exit<'a> {
    /// What has ended; None of one that has ended well, and of which nothing is left.
    pub instance: Option<&'a Instance>,
    /// Exit code.
    pub exit_code: i64,
    /// Reason.
    pub reason: &'a str,
    /// The runtime's message.
    pub message: &'a str,
    /// When it was started, if ever.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl<'a> Exit<'a> {
    const COMPLETED: Self =
        Self { instance: None, exit_code: 0, reason: "Completed", message: "", started_at: None, finished_at: None };

    fn of(one: &'a Instance) -> Option<Self> {
        let ContainerState::Exited { exit_code, reason, message, started_at, finished_at } = &one.record.state else {
            return None;
        };
        let (exit_code, started_at, finished_at) = (*exit_code, *started_at, *finished_at);
        Some(Self { instance: Some(one), exit_code, reason, message, started_at, finished_at })
    }
}

/// The state of what is there.
pub(super) fn state_of(one: &Instance) -> State<Exit<'_>> {
    match (&one.record.state, Exit::of(one)) {
        (ContainerState::Running { started_at }, _) => State::Running { started_at: *started_at },
        (_, Some(exit)) => State::Terminated(exit),
        _ => State::waiting(CREATING, ""),
    }
}

impl Shown<'_> {
    /// It is being stopped.
    pub fn stopping(&self) -> bool {
        self.current.is_some_and(Instance::is_ending)
    }
}

/// The report of one pod.
pub fn pod(facts: &Facts<'_>) -> PodReport {
    let (uid, own) = (facts.uid(), facts.own_uid());
    let containers = facts.containers(&own);
    let all_of = |fine: fn(&ContainerReport) -> bool| {
        let mut lasting = containers.iter().filter(|c| !facts.is_passing(&c.name)).peekable();
        facts.wanted && !facts.seen.terminating.contains(&own) && lasting.peek().is_some() && lasting.all(fine)
    };
    let deleted = facts.pod.is_some_and(|(pod, _)| pod.deletion().is_some());
    let terminating = !facts.wanted || deleted;
    PodReport {
        name: facts.key.name.clone(),
        namespace: facts.key.namespace.clone(),
        file: facts.pod.and_then(|(pod, _)| file(pod)),
        file_hash: facts.pod.and_then(|(pod, _)| pod.file_hash.clone()),
        bound: facts.pod.is_some_and(|(pod, _)| pod.bound.is_some()),
        component: facts.pod.and_then(|(pod, _)| pod.component().map(str::to_owned)),
        phase: facts.phase(&containers),
        ready: all_of(|c| c.ready),
        healthy: all_of(|c| c.healthy),
        terminating,
        since: facts.now,
        message: facts.plan.message.clone(),
        successor: None,
        uid,
        containers,
    }
}

impl<'a> Facts<'a> {
    /// The UID reported: that of the pod, else (an orphan) of what is there.
    pub(super) fn uid(&self) -> String {
        self.pod.map_or_else(|| pod_uid(&self.own_uid()).to_owned(), |(pod, _)| pod.uid.clone())
    }

    /// That by which its instances count ([`Instance::uid`]).
    pub(super) fn own_uid(&self) -> String {
        let orphan = || self.seen.terminating.first().cloned().unwrap_or_default();
        self.pod.map_or_else(orphan, |(_, view)| view.uid.clone())
    }

    /// Whether the pod is what it should be without this container: an init container, or an ephemeral one.
    fn is_passing(&self, name: &str) -> bool {
        let passing = |container: &ContainerView| matches!(container.role, Role::Init | Role::Ephemeral);
        self.pod.is_some_and(|(_, view)| view.containers.iter().any(|c| passing(c) && c.name == name))
    }

    fn containers(&self, uid: &str) -> Vec<ContainerReport> {
        match self.pod {
            Some((pod, view)) => {
                let images = pod.every_container().map(|c| c.image.clone().unwrap_or_default());
                view.containers
                    .iter()
                    .zip(images)
                    .map(|(container, image)| self.container(uid, container, image))
                    .collect()
            }
            // The manifest is not known any more: what the labels say.
            None => {
                let instances = self.seen.instances.values();
                instances.filter(|one| one.uid() == uid && !one.record.is_sandbox).map(|one| self.orphan(one)).collect()
            }
        }
    }

    fn container(&self, uid: &str, container: &ContainerView, image: String) -> ContainerReport {
        let shown = self.shown(uid, container);
        ContainerReport {
            name: container.name.clone(),
            init: container.role != Role::Main,
            image,
            id: shown.current.map(|one| one.record.id.clone()),
            last_termination: shown.last.map(|exit| self.termination(exit)),
            started: shown.health.is_some_and(|health| health.started),
            ready: shown.health.is_some_and(|health| health.ready && !shown.stopping()),
            healthy: shown.health.is_some_and(|health| health.healthy && !shown.stopping()),
            restarts: shown.restarts,
            probe_message: shown.health.and_then(|health| health.message.clone()),
            state: shown.state.map(|exit| self.termination(exit)),
        }
    }

    /// What is to be reported of a container.
    pub(super) fn shown(&self, uid: &str, container: &'a ContainerView) -> Shown<'a> {
        let mut instances: Vec<&'a Instance> = self
            .seen
            .instances
            .values()
            .filter(|one| one.uid() == uid && one.record.name.container == container.name)
            .filter(|one| !one.record.is_sandbox && one.record.state != ContainerState::Created)
            .collect();
        instances.sort_by_key(|one| (one.record.name.attempt, one.record.created_at));
        let current = instances.pop();
        let state = match (current, self.plan.waiting.get(&container.name)) {
            (Some(one), _) if one.is_running() && !matches!(one.post_start, PostStart::Failed(_)) => state_of(one),
            (_, Some(waiting)) => State::waiting(&*waiting.reason, &*waiting.message),
            (Some(one), None) => state_of(one),
            (None, None) if self.plan.completed.contains(&container.name) => State::Terminated(Exit::COMPLETED),
            (None, None) => State::waiting(self.pod.map_or(CREATING, |(_, view)| view.initial_reason()), ""),
        };
        // The instance that ended is the last one as soon as its container waits to run again.
        let last = if matches!(state, State::Waiting { .. }) { current } else { instances.pop() };
        let last = last.and_then(Exit::of);
        let slot = self.slots.get(&container.name);
        let health = slot.and_then(|slot| slot.health.as_ref());
        let health = health.filter(|h| current.is_some_and(|one| one.is_running() && one.record.id == h.id));
        // No more is known of a container that was removed by hand than how many came before the next one.
        let gone = slot.map_or(0, |slot| slot.next_attempt);
        let restarts = current.map_or(gone.saturating_sub(1), |one| one.record.name.attempt);
        let lost = current.is_none() && gone > 0 && !matches!(state, State::Terminated(_));
        Shown { state, current, last, health, restarts, lost }
    }

    fn orphan(&self, one: &Instance) -> ContainerReport {
        ContainerReport {
            name: one.record.name.container.clone(),
            init: false,
            image: one.record.image.clone(),
            id: Some(one.record.id.clone()),
            state: state_of(one).map(|exit| self.termination(exit)),
            last_termination: None,
            started: false,
            ready: false,
            healthy: false,
            restarts: one.record.name.attempt,
            probe_message: None,
        }
    }

    fn termination(&self, exit: Exit<'_>) -> TerminationReport {
        let tail = exit.instance.and_then(|one| self.log_tails.get(&one.record.id)).cloned().unwrap_or_default();
        let stopped_for = exit.instance.and_then(|one| one.stopped_for.as_ref());
        let message = match (stopped_for, tail.message) {
            (Some(why), said) if said.is_empty() => why.clone(),
            (Some(why), said) => format!("{why}; it said: {said}"),
            (None, said) if said.is_empty() => exit.message.to_owned(),
            (None, said) => said,
        };
        TerminationReport {
            exit_code: exit.exit_code,
            reason: exit.reason.to_owned(),
            message,
            finished_at: exit.finished_at,
            log: tail.log,
        }
    }

    /// The API's phase (`getPhase`): Pending until every main container has run once.
    pub(super) fn phase(&self, containers: &[ContainerReport]) -> Phase {
        match self.plan.finished {
            Some(Finish::Succeeded) => return Phase::Succeeded,
            Some(Finish::Failed) => return Phase::Failed,
            None => {}
        }
        let mut mains = containers.iter().filter(|c| !c.init);
        if mains.all(|c| c.id.is_some()) { Phase::Running } else { Phase::Pending }
    }
}

fn file(pod: &StaticPod) -> Option<String> {
    pod.file.as_ref().map(|path| path.display().to_string())
}

/// What is reported of a pod before its worker has looked at it, so that it is missing from no report.
pub fn first_entry(pod: &Arc<StaticPod>, host_ip: Option<&str>) -> Entry {
    let blank = orphan_entry(&pod.key, pod.uid.clone());
    let report = PodReport {
        file: file(pod),
        file_hash: pod.file_hash.clone(),
        bound: pod.bound.is_some(),
        component: pod.component().map(str::to_owned),
        terminating: false,
        ..blank.report
    };
    let gate = Gate { healthy: false, crashed: false };
    let gate = order::component(pod).map(|component| (component.to_owned(), gate));
    let status = status::first(pod, host_ip, Timestamp::now());
    let blank = Entry { report, gate, status, ..blank };
    Entry { pod: Some(Arc::clone(pod)), ..blank }
}

/// What is reported of a pod that the node does not run.
pub fn refused_entry(pod: &Arc<StaticPod>, refusal: &Refusal, now: Timestamp) -> Entry {
    let first = first_entry(pod, None);
    let message = refusal.status_message();
    let waits = |container: ContainerReport| ContainerReport {
        state: State::waiting(&*refusal.reason, &*message),
        ..container
    };
    let containers = first_containers(pod).map(waits).collect();
    let report =
        PodReport { phase: Phase::Failed, since: now, message: Some(message.clone()), containers, ..first.report };
    let status = PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(refusal.reason.clone()),
        message: Some(message),
        qos_class: Some(resources::qos_class(&pod.spec).to_string()),
        start_time: Some(Time(now)),
        ..PodStatus::default()
    };
    Entry { report, gate: None, status, looked: true, ..first }
}

/// What is reported while `new` is tried beside the pod of `old`, which serves.
pub fn beside(old: Entry, new: PodReport) -> Entry {
    let successor = PodReport { ready: false, healthy: false, ..new };
    let report = PodReport { successor: Some(Box::new(successor)), ..old.report };
    Entry { report, succeeds: false, predecessors: BTreeMap::new(), ..old }
}

/// The containers of a pod of which nothing is there.
fn first_containers(pod: &StaticPod) -> impl Iterator<Item = ContainerReport> {
    pod.containers().map(|(init, container)| ContainerReport {
        name: container.name.clone(),
        init,
        image: container.image.clone().unwrap_or_default(),
        id: None,
        state: State::waiting(CREATING, ""),
        last_termination: None,
        started: false,
        ready: false,
        healthy: false,
        restarts: 0,
        probe_message: None,
    })
}

/// What is reported of containers that no manifest asks for, before their worker has looked at them.
pub fn orphan_entry(key: &PodKey, uid: String) -> Entry {
    let report = PodReport {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        uid,
        file: None,
        file_hash: None,
        bound: false,
        component: None,
        phase: Phase::Pending,
        ready: false,
        healthy: false,
        terminating: true,
        since: Timestamp::now(),
        message: None,
        containers: vec![],
        successor: None,
    };
    let (status, predecessors) = (PodStatus::default(), BTreeMap::new());
    Entry { report, gate: None, pod: None, status, looked: false, succeeds: false, predecessors }
}
