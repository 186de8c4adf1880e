//! A pod's status as the API has it, made from what a worker knows. Pure: no clock, no runtime.
//!
//! [`status`] says what is so now; [`keep`] gives it the moments at which it became so, which only the status before
//! can tell.

mod conditions;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodIP, PodSpec, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pod::phase::Phase;
use super::pod::resources;

/// Bytes that the termination messages of a pod share (the kubelet's `MaxPodTerminationMessageLogLength`).
const MESSAGES_LIMIT: usize = 12 * 1024;
/// Exit code of a container whose end is not known.
const LOST_EXIT_CODE: i64 = 137;

/// What is known of a pod.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// Its spec with defaults; None for a pod whose manifest is lost.
    pub spec: Option<&'a PodSpec>,
    /// Phase.
    pub phase: Phase,
    /// Its containers, init containers first, each kind in the spec's order.
    pub containers: Vec<ContainerFacts>,
    /// What its containers share is there: they can be started.
    pub sandbox_ready: bool,
    /// The node's address.
    pub host_ip: Option<&'a str>,
    /// The pod's own; None in the host's network.
    pub pod_ip: Option<&'a str>,
    /// Why the pod as a whole has failed, and more words (`DeadlineExceeded`).
    pub failure: Option<(&'a str, &'a str)>,
    /// Conditions of others that hold, which readiness gates name.
    pub conditions: &'a [String],
    /// When it was begun with.
    pub start_time: Timestamp,
    /// The moment, for conditions that have just changed.
    pub now: Timestamp,
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerFacts {
    /// Name.
    pub name: String,
    /// An init container, sidecars among them.
    pub init: bool,
    /// An init container that runs beside the main ones.
    pub sidecar: bool,
    /// Image that the current instance was made of, as the runtime names it; as the manifest does before there is one.
    pub image: String,
    /// What the runtime made of it; empty before there is a container.
    pub image_id: String,
    /// The current instance, as the API names it: `docker://ID`.
    pub id: Option<String>,
    /// State.
    pub state: State,
    /// How the instance before ended.
    pub last: Option<Ended>,
    /// Ready by its probes.
    pub ready: bool,
    /// Runs, and its startup probe has passed.
    pub started: bool,
    /// How often it was restarted.
    pub restarts: u32,
    /// What is mounted in it.
    pub mounts: Vec<VolumeMountStatus>,
    /// What it was given; None before there is an instance.
    pub resources: Option<ResourceRequirements>,
    /// What it is to have of what it asks for; the same.
    pub allocated: Option<BTreeMap<String, Quantity>>,
    /// Whom it runs as, where the runtime says that.
    pub user: Option<LinuxContainerUser>,
}

/// State of a container, with what the API wants to know of its end.
pub type State = crate::agent::control::report::State<Ended>;

/// How an instance of a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The instance as the API names it, if there was one.
    pub id: Option<String>,
    /// Exit code.
    pub exit_code: i64,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// Its termination message.
    pub message: String,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Ended {
    /// The end of what is not there, in a pod that has ended.
    fn unlocated() -> Self {
        Self { message: "The container could not be located when the pod was terminated".to_owned(), ..Self::lost() }
    }

    /// The end of an instance that was removed behind the agent's back.
    pub fn lost() -> Self {
        Self {
            id: None,
            exit_code: LOST_EXIT_CODE,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "the container was removed by somebody else".to_owned(),
            started_at: None,
            finished_at: None,
        }
    }
}

impl ContainerFacts {
    /// Ready in the API's sense: an init container that is no sidecar is when it has done its work.
    fn is_ready(&self) -> bool {
        match &self.state {
            State::Terminated(ended) if self.init && !self.sidecar => ended.exit_code == 0,
            _ => self.ready && (!self.init || self.sidecar),
        }
    }

    /// It runs or has run.
    fn has_run(&self) -> bool {
        !matches!(self.state, State::Waiting { .. }) || self.last.is_some()
    }

    fn status(&self, message_limit: usize) -> ContainerStatus {
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            container_id: self.id.clone(),
            ready: self.is_ready(),
            started: Some(self.started),
            restart_count: i32::try_from(self.restarts).unwrap_or(i32::MAX),
            state: Some(state(&self.state, message_limit)),
            last_state: Some(self.last.as_ref().map(|ended| terminated(ended, message_limit)).unwrap_or_default()),
            volume_mounts: Some(self.mounts.clone()).filter(|mounts| !mounts.is_empty()),
            allocated_resources: self.allocated.clone(),
            resources: self.resources.clone(),
            user: self.user.clone().map(|user| ContainerUser { linux: Some(user) }),
            ..ContainerStatus::default()
        }
    }
}

/// The status of a pod that has just become what it is: every condition changed now.
pub fn status(known: &Known<'_>) -> PodStatus {
    let limit = MESSAGES_LIMIT.checked_div(known.containers.len()).unwrap_or(MESSAGES_LIMIT);
    let of = |init: bool| known.containers.iter().filter(move |c| c.init == init).map(|c| c.status(limit));
    let mut main: Vec<_> = of(false).collect();
    main.sort_by(|a, b| a.name.cmp(&b.name));
    let init: Vec<_> = of(true).collect();
    let host_network = known.spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let pod_ip = if host_network { known.host_ip } else { known.pod_ip };
    let resources = known.spec.map(resources::effective);
    PodStatus {
        phase: Some(format!("{:?}", known.phase)),
        allocated_resources: resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources,
        conditions: Some(conditions::all(known)),
        container_statuses: Some(main),
        init_container_statuses: Some(init).filter(|list| !list.is_empty()),
        host_ip: known.host_ip.map(str::to_owned),
        host_ips: known.host_ip.map(|ip| vec![HostIP { ip: ip.to_owned() }]),
        pod_ip: pod_ip.map(str::to_owned),
        pod_ips: pod_ip.map(|ip| vec![PodIP { ip: ip.to_owned() }]),
        qos_class: known.spec.map(|spec| resources::qos_class(spec).to_string()),
        reason: known.failure.map(|(reason, _)| reason.to_owned()),
        message: known.failure.map(|(_, message)| message.to_owned()),
        start_time: Some(Time(known.start_time)),
        ..PodStatus::default()
    }
}

/// The status of an ephemeral container: it is never ready, and one of which nothing is left has ended.
pub fn ephemeral(known: ContainerFacts) -> ContainerStatus {
    let lost = known.id.is_none().then(|| known.last.clone()).flatten();
    let state = lost.map_or(known.state.clone(), State::Terminated);
    let status = ContainerFacts { state, last: None, ..known }.status(MESSAGES_LIMIT);
    ContainerStatus { ready: false, started: None, ..status }
}

/// The containers of a pod of which nothing runs any more. As in the kubelet (`TerminatePod`), one that was to run and of
/// which no end is known has failed.
pub fn all_ended(mut containers: Vec<ContainerFacts>) -> Vec<ContainerFacts> {
    let is_well = |ended: &Ended| ended.exit_code == 0;
    let done = |one: &ContainerFacts| match &one.state {
        State::Terminated(ended) => is_well(ended),
        _ => one.last.as_ref().is_some_and(is_well),
    };
    let last_init = containers.iter().rfind(|one| one.init);
    let initialized = last_init.is_none_or(|one| if one.sidecar { one.started } else { done(one) })
        || containers.iter().any(|one| !one.init && one.has_run());
    // Init containers behind the last that was started were never to run; the first was.
    let inits = containers.iter().filter(|one| one.init).collect::<Vec<_>>();
    let begun = inits.iter().rposition(|one| one.has_run()).unwrap_or_default();
    let name = inits.get(begun).map(|one| one.name.clone());
    let mut before_last = name.is_some();
    for one in &mut containers {
        let counts = if one.init { before_last } else { initialized };
        before_last &= name.as_ref() != Some(&one.name);
        if counts && !matches!(one.state, State::Terminated(_)) {
            one.state = State::Terminated(Ended::unlocated());
        }
    }
    containers
}

/// Whether a pod with this status has ended.
pub fn is_final(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Takes over what the API server knows of the end of a pod that has ended: a later look may know less of it, when its
/// containers are gone.
pub fn keep_end(status: &mut PodStatus, before: &PodStatus) {
    if !is_final(before) {
        return;
    }
    status.phase.clone_from(&before.phase);
    status.reason = before.reason.clone().or(status.reason.take());
    status.message = before.message.clone().or(status.message.take());
    keep_ends(status, before);
}

/// Takes over how containers had ended before, where that is not known any more.
pub fn keep_ends(status: &mut PodStatus, before: &PodStatus) {
    let now =
        [&mut status.container_statuses, &mut status.init_container_statuses, &mut status.ephemeral_container_statuses];
    let before = [&before.container_statuses, &before.init_container_statuses, &before.ephemeral_container_statuses];
    for (now, before) in now.into_iter().zip(before) {
        for one in now.iter_mut().flatten() {
            let same = before.iter().flatten().find(|before| before.name == one.name);
            if let Some(before) = same.filter(|before| end(before).is_some()) {
                keep_end_of(one, before);
            }
        }
    }
}

fn end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

/// The same of a container whose end was known `before`.
fn keep_end_of(now: &mut ContainerStatus, before: &ContainerStatus) {
    if end(now).is_none() || now.container_id.is_none() {
        *now = before.clone();
        return;
    }
    let message = end(before).filter(|_| now.container_id == before.container_id).and_then(|end| end.message.clone());
    if let Some(ended) = now.state.as_mut().and_then(|state| state.terminated.as_mut()) {
        ended.message = ended.message.take().or(message);
    }
}

/// Takes over from the status before, of the same pod, when it started, since when its conditions are what they are, and
/// its addresses, which a sandbox that has ended does not say any more.
pub fn keep(status: &mut PodStatus, before: &PodStatus) {
    if status.pod_ip.is_none() {
        status.pod_ip.clone_from(&before.pod_ip);
        status.pod_ips.clone_from(&before.pod_ips);
    }
    status.start_time = [before.start_time.clone(), status.start_time.take()].into_iter().flatten().min();
    for condition in status.conditions.iter_mut().flatten() {
        let same = before.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
        if let Some(same) = same.filter(|c| c.status == condition.status) {
            condition.last_transition_time.clone_from(&same.last_transition_time);
        }
    }
}

fn state(state: &State, message_limit: usize) -> ContainerState {
    match state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: said(reason), message: said(message) }),
            ..ContainerState::default()
        },
        State::Running { started_at } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*started_at)) }),
            ..ContainerState::default()
        },
        State::Terminated(ended) => terminated(ended, message_limit),
    }
}

fn terminated(ended: &Ended, message_limit: usize) -> ContainerState {
    // What was made and never started has, as runtimes say it, begun in 1970.
    let moment = |at: Option<Timestamp>| at.or(ended.id.as_ref().map(|_| Timestamp::UNIX_EPOCH)).map(Time);
    let terminated = ContainerStateTerminated {
        container_id: ended.id.clone(),
        exit_code: i32::try_from(ended.exit_code).unwrap_or(i32::MAX),
        reason: said(&ended.reason),
        message: said(cut(&ended.message, message_limit)),
        started_at: moment(ended.started_at),
        finished_at: moment(ended.finished_at),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn said(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// The first `limit` bytes, less where a character would be torn.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
