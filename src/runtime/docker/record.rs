//! What Docker answers, in the trait's terms.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerState as ApiState, ContainerStateStatusEnum as Status, EndpointSettings,
    EventMessage, ImageInspect,
};
use jiff::Timestamp;

use super::spec::ANNOTATION_PREFIX;
use crate::runtime::*;

/// What `docker inspect` says, as a record. A container that is not a pod's gets an identity of empty words.
pub fn container(inspected: &ContainerInspectResponse) -> ContainerRecord {
    let config = inspected.config.as_ref();
    let (annotations, labels) = split_labels(config.and_then(|config| config.labels.as_ref()));
    let name = name(inspected.name.as_deref().unwrap_or_default(), &labels, &annotations);
    let state = inspected.state.as_ref();
    ContainerRecord {
        id: inspected.id.clone().unwrap_or_default(),
        runtime: "docker",
        is_sandbox: is_sandbox(&labels, &name),
        name,
        image: config.and_then(|config| config.image.clone()).unwrap_or_default(),
        image_id: inspected.image.clone().unwrap_or_default(),
        state: state.map_or(ContainerState::Created, self::state),
        created_at: inspected.created.as_deref().and_then(timestamp),
        ip: address(inspected.network_settings.as_ref().and_then(|network| network.networks.as_ref())),
        // It says whom it was asked for, not what groups that came to.
        user: None,
        labels,
        annotations,
    }
}

/// Docker's labels hold annotations too, behind a prefix.
fn split_labels(labels: Option<&HashMap<String, String>>) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut split = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in labels.into_iter().flatten() {
        match key.strip_prefix(ANNOTATION_PREFIX) {
            Some(key) => split.0.insert(key.to_owned(), value.clone()),
            None => split.1.insert(key.clone(), value.clone()),
        };
    }
    split
}

/// Labels first: a name may carry a suffix that evades a conflict.
fn name(name: &str, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> ContainerName {
    let parts: Vec<&str> = name.trim_start_matches('/').split('_').collect();
    let part = |label: &str, index: usize| {
        let from_name = || parts.get(index).filter(|_| parts.first() == Some(&"k8s"));
        labels.get(label).map(String::as_str).or_else(|| from_name().copied()).unwrap_or_default().to_owned()
    };
    let attempt = annotations.get(labels::RESTART_COUNT).map(String::as_str).or_else(|| parts.get(5).copied());
    ContainerName {
        container: part(labels::CONTAINER_NAME, 1),
        pod: part(labels::POD_NAME, 2),
        namespace: part(labels::POD_NAMESPACE, 3),
        uid: part(labels::POD_UID, 4),
        attempt: attempt.and_then(|attempt| attempt.parse().ok()).unwrap_or_default(),
    }
}

fn is_sandbox(labels: &BTreeMap<String, String>, name: &ContainerName) -> bool {
    labels.get(labels::DOCKER_TYPE).map_or(name.container == "POD", |kind| kind == "podsandbox")
}

/// Exit code of what could not be run, where the engine says none (Docker's for most such failures).
const CANNOT_RUN: i64 = 128;

/// States in which a process is there, and that podman (4.3) does not call running: one that is being stopped, for as long as its
/// grace, and one that is paused. Docker calls both running.
const RUNS_ON: [Status; 2] = [Status::STOPPING, Status::PAUSED];

/// dockershim's reading: what has an end has exited; what failed without a start could not be run; the rest is created.
/// podman has code 0 for a container whose start failed: what never started has not ended well, whatever its code.
pub fn state(state: &ApiState) -> ContainerState {
    let moment = |text: &Option<String>| text.as_deref().and_then(timestamp);
    let (started_at, finished_at) = (moment(&state.started_at), moment(&state.finished_at));
    let never_started = started_at.is_none() && finished_at.is_some();
    let exit_code = state.exit_code.filter(|code| *code != 0 || !never_started);
    let exit_code = exit_code.unwrap_or(if never_started { CANNOT_RUN } else { 0 });
    if state.running == Some(true) || state.status.is_some_and(|status| RUNS_ON.contains(&status)) {
        return ContainerState::Running { started_at: started_at.unwrap_or_default() };
    }
    // Docker notes the start after containerd has reported it: what ends at once seems to have ended before.
    let finished_at = finished_at.max(started_at.filter(|_| finished_at.is_some()));
    let reason = match (finished_at, exit_code) {
        (Some(_), _) if state.oom_killed == Some(true) => "OOMKilled",
        (Some(_), _) if never_started => "StartError",
        (Some(_), 0) => "Completed",
        (Some(_), _) => "Error",
        (None, 0) => return ContainerState::Created,
        (None, _) => "StartError",
    };
    let message = state.error.clone().unwrap_or_default();
    ContainerState::Exited { exit_code, reason: reason.to_owned(), message, started_at, finished_at }
}

/// Docker writes the year 1 for "never".
pub fn timestamp(text: &str) -> Option<Timestamp> {
    (!text.starts_with("0001-01-01")).then(|| text.parse().ok())?
}

/// The address a container has among its networks.
pub fn address(networks: Option<&HashMap<String, EndpointSettings>>) -> Option<String> {
    networks?.values().find_map(|network| network.ip_address.clone().filter(|ip| !ip.is_empty()))
}

/// An event of a container, None for one that was not asked for.
pub fn event(message: EventMessage) -> Option<RuntimeEvent> {
    let kind = match message.action.as_deref()? {
        "start" => RuntimeEventKind::Started,
        "die" | "died" => RuntimeEventKind::Exited,
        "destroy" | "remove" => RuntimeEventKind::Removed,
        _ => return None,
    };
    let actor = message.actor?;
    let pod_uid = actor.attributes.and_then(|mut labels| labels.remove(labels::POD_UID)).unwrap_or_default();
    Some(RuntimeEvent { id: actor.id?, pod_uid, kind })
}

/// An image in a list.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    repo_digests: Option<Vec<String>>,
    repo_tags: Option<Vec<String>>,
    size: Option<u64>,
}

impl Image {
    /// None where no one can name it.
    pub fn named(self) -> Option<StoredImage> {
        let names = self.repo_digests.into_iter().chain(self.repo_tags).flatten();
        let names: Vec<String> = names.filter(|name| !name.contains("<none>")).collect();
        (!names.is_empty()).then(|| StoredImage { names, size: self.size.unwrap_or(0) })
    }
}

/// An image.
pub fn image(inspected: ImageInspect) -> ImageRecord {
    ImageRecord {
        id: inspected.id.unwrap_or_default(),
        tags: inspected.repo_tags.unwrap_or_default(),
        size: inspected.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        user: inspected.config.and_then(|config| config.user).unwrap_or_default(),
    }
}
