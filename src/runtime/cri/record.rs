//! What a CRI runtime answers, in the trait's terms.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::proto;
use crate::runtime::*;

/// The kubelet's name for a sandbox among the containers.
const SANDBOX: &str = "POD";

/// A container of the sandbox `sandbox`.
pub fn container(runtime: &'static str, status: proto::ContainerStatus, sandbox: &str) -> ContainerRecord {
    let metadata = status.metadata.clone().unwrap_or_default();
    let state = container_state(&status);
    let mut labels = status.labels;
    let name = ContainerName {
        pod: word(&labels, labels::POD_NAME),
        namespace: word(&labels, labels::POD_NAMESPACE),
        uid: word(&labels, labels::POD_UID),
        attempt: attempt(&status.annotations, metadata.attempt),
        container: metadata.name,
    };
    labels.insert(labels::SANDBOX_ID.to_owned(), sandbox.to_owned());
    labels.insert(labels::DOCKER_TYPE.to_owned(), "container".to_owned());
    if !status.log_path.is_empty() {
        labels.insert(labels::LOG_PATH.to_owned(), status.log_path);
    }
    ContainerRecord {
        id: status.id,
        runtime,
        name,
        is_sandbox: false,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_id: status.image_ref,
        state,
        created_at: timestamp(status.created_at),
        ip: None,
        user: status.user.and_then(|user| user.linux).map(user),
        labels,
        annotations: status.annotations,
    }
}

/// A sandbox. The API does not say when one ended: that is `seen`, when it was first seen so.
pub fn sandbox(runtime: &'static str, status: proto::PodSandboxStatus, seen: Timestamp) -> ContainerRecord {
    let metadata = status.metadata.unwrap_or_default();
    let started_at = timestamp(status.created_at);
    let state = match status.state {
        0 => ContainerState::Running { started_at: started_at.unwrap_or_default() },
        _ => ContainerState::Exited {
            exit_code: 0,
            reason: "Completed".to_owned(),
            message: String::new(),
            started_at,
            finished_at: Some(seen),
        },
    };
    let mut labels = status.labels;
    labels.insert(labels::DOCKER_TYPE.to_owned(), "podsandbox".to_owned());
    labels.insert(labels::CONTAINER_NAME.to_owned(), SANDBOX.to_owned());
    ContainerRecord {
        id: status.id,
        runtime,
        name: ContainerName {
            pod: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            container: SANDBOX.to_owned(),
            attempt: metadata.attempt,
        },
        is_sandbox: true,
        image: String::new(),
        image_id: String::new(),
        ip: status.network.map(|network| network.ip).filter(|ip| !ip.is_empty() && state.is_running()),
        state,
        user: None,
        created_at: started_at,
        labels,
        annotations: status.annotations,
    }
}

fn user(user: proto::LinuxContainerUser) -> ContainerUser {
    ContainerUser { uid: user.uid, gid: user.gid, groups: user.supplemental_groups }
}

/// The restart count; the runtime's own number may have had to evade another container's.
fn attempt(annotations: &BTreeMap<String, String>, number: u32) -> u32 {
    annotations.get(labels::RESTART_COUNT).and_then(|text| text.parse().ok()).unwrap_or(number)
}

fn word(labels: &BTreeMap<String, String>, label: &str) -> String {
    labels.get(label).cloned().unwrap_or_default()
}

/// Nanoseconds since 1970.
pub fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok())?
}

fn container_state(status: &proto::ContainerStatus) -> ContainerState {
    let (started_at, finished_at) = (timestamp(status.started_at), timestamp(status.finished_at));
    match status.state() {
        proto::ContainerState::Created => ContainerState::Created,
        proto::ContainerState::Running => ContainerState::Running { started_at: started_at.unwrap_or_default() },
        proto::ContainerState::Exited | proto::ContainerState::Unknown => ContainerState::Exited {
            exit_code: exit_code(status),
            reason: reason(status),
            message: status.message.clone(),
            started_at,
            // The start is noted after the runtime has reported it: what ends at once seems to have ended before.
            finished_at: finished_at.max(started_at.filter(|_| finished_at.is_some())),
        },
    }
}

/// Exit code of what the runtime has lost, where it says none: containerd's own.
const LOST: i64 = 255;

/// What is not known any more has not ended well, whatever its code.
fn exit_code(status: &proto::ContainerStatus) -> i64 {
    match status.exit_code {
        0 if status.state() == proto::ContainerState::Unknown => LOST,
        code => code.into(),
    }
}

/// The runtime's own word, where it says one.
fn reason(status: &proto::ContainerStatus) -> String {
    match (status.reason.as_str(), status.exit_code) {
        ("" | "Completed", 0) if status.state() == proto::ContainerState::Unknown => "Unknown",
        ("", 0) => "Completed",
        ("", _) => "Error",
        (said, _) => said,
    }
    .to_owned()
}

/// Whether a record still holds of a container that is listed in this state.
pub fn holds(record: &ContainerRecord, state: proto::ContainerState) -> bool {
    match record.state {
        ContainerState::Created => state == proto::ContainerState::Created,
        ContainerState::Running { .. } => state == proto::ContainerState::Running,
        ContainerState::Exited { .. } => {
            matches!(state, proto::ContainerState::Exited | proto::ContainerState::Unknown)
        }
    }
}

/// An image.
pub fn image(image: proto::Image) -> ImageRecord {
    let user = image.uid.map(|uid| uid.value.to_string()).filter(|uid| uid != "0" || image.username.is_empty());
    ImageRecord { id: image.id, tags: image.repo_tags, size: image.size, user: user.unwrap_or(image.username) }
}

/// An image in a list; None where no one can name it.
pub fn stored_image(image: proto::Image) -> Option<StoredImage> {
    let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).collect();
    (!names.is_empty()).then_some(StoredImage { names, size: image.size })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn whom_a_container_runs_as_is_read_where_the_runtime_says_it() {
        // Field 18: a user whose field 1 has uid 1000, gid 3000 and the groups 3000 and 4000.
        let wire = [0x92, 1, 14, 0x0a, 12, 8, 0xe8, 7, 16, 0xb8, 0x17, 0x1a, 4, 0xb8, 0x17, 0xa0, 0x1f];
        let status = proto::ContainerStatus::decode(wire.as_slice()).unwrap();
        let expected = ContainerUser { uid: 1000, gid: 3000, groups: vec![3000, 4000] };
        assert_eq!(container("containerd", status, "s").user, Some(expected));
        assert_eq!(container("containerd", proto::ContainerStatus::default(), "s").user, None);
    }

    #[test]
    fn what_the_runtime_has_lost_or_could_not_run_has_not_ended_well() {
        let read = |state: proto::ContainerState, exit_code: i32, reason: &str| {
            let reason = reason.to_owned();
            let status =
                proto::ContainerStatus { state: state.into(), exit_code, reason, finished_at: 1, ..Default::default() };
            match container("containerd", status, "s").state {
                ContainerState::Exited { exit_code, reason, .. } => (exit_code, reason),
                other => panic!("{other:?}"),
            }
        };
        use proto::ContainerState::{Exited, Unknown};
        for (state, code, reason, expected) in [
            (Exited, 0, "Completed", (0, "Completed")),
            (Exited, 0, "", (0, "Completed")),
            (Exited, 128, "StartError", (128, "StartError")),
            (Unknown, 255, "Unknown", (255, "Unknown")),
            (Unknown, 0, "", (255, "Unknown")),
        ] {
            assert_eq!(read(state, code, reason), (expected.0, expected.1.to_owned()), "{state:?} {code} {reason}");
        }
    }
}
