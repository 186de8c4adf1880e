//! Whose log is meant when a client asks for that of a container of a pod, in the kubelet's sense.

use bytes::Bytes;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ContainerStatus;

use crate::agent::board::Entry;
use crate::agent::control::log::{LogError, LogRequest};
use crate::runtime::{self, ContainerRuntime};

/// The log of the container that is meant.
///
/// # Errors
/// Every kind of [`LogError`]; what goes wrong later is an item of the stream.
pub async fn open(
    runtime: &dyn ContainerRuntime,
    pods: &[Entry],
    wanted: &LogRequest,
) -> Result<BoxStream<'static, runtime::Result<Bytes>>, LogError> {
    let id = locate(pods, wanted)?;
    // Once bytes are under way no client can be told any more that there are none.
    runtime.inspect(&id).await?;
    Ok(runtime.logs(&id, &wanted.options()).await?)
}

/// The runtime's id of the container whose log is meant: the present instance, the last one while its successor is
/// waited for, or, if asked for, the one before.
///
/// # Errors
/// Every kind of [`LogError`] but the runtime's.
fn locate(pods: &[Entry], wanted: &LogRequest) -> Result<String, LogError> {
    let (pod, container) = (format!("{}/{}", wanted.namespace, wanted.pod), wanted.container.clone());
    let is_meant = |one: &&Entry| one.report.namespace == wanted.namespace && one.report.name == wanted.pod;
    let Some(entry) = pods.iter().find(is_meant) else { return Err(LogError::NoPod { pod }) };
    let status = &entry.status;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let mut all = all.chain(&status.ephemeral_container_statuses).flatten();
    let Some(found) = all.find(|c| c.name == container) else { return Err(LogError::NoContainer { container, pod }) };
    let last = found.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let last = last.and_then(|ended| ended.container_id.as_deref());
    let chosen = match waiting(found) {
        _ if wanted.previous => last.ok_or(LogError::NoPrevious { container, pod }),
        Some(reason) => last.ok_or(LogError::Waiting { container, pod, reason }),
        None => found.container_id.as_deref().ok_or(LogError::NoContainer { container, pod }),
    };
    chosen.map(|reference| reference.rsplit('/').next().unwrap_or_default().to_owned())
}

/// Why a container does not run, if it waits.
fn waiting(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let words = [waiting.reason.clone(), waiting.message.clone()];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use serde_json::json;

    use super::*;
    use crate::agent::board;

    fn entry(containers: serde_json::Value) -> Entry {
        let status: PodStatus = serde_json::from_value(json!({ "containerStatuses": containers })).unwrap();
        Entry { status, ..board::tests::entry(true, 1) }
    }

    fn container(name: &str, state: serde_json::Value, last: Option<&str>) -> serde_json::Value {
        let last = last.map_or(json!({}), |id| json!({"terminated": {"containerID": id, "exitCode": 1}}));
        json!({
            "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": format!("docker://{name}-now"), "state": state, "lastState": last,
        })
    }

    fn asked(container: &str, previous: bool) -> LogRequest {
        let (namespace, pod) = ("default".to_owned(), "p-n".to_owned());
        LogRequest { namespace, pod, container: container.to_owned(), previous, ..LogRequest::default() }
    }

    #[test]
    fn the_present_instance_is_meant_unless_it_waits_or_the_one_before_is_asked_for() {
        let waits = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        let pods = [entry(json!([
            container("runs", json!({"running": {}}), Some("docker://runs-old")),
            container("first", json!({"running": {}}), None),
            container("crashes", waits.clone(), Some("docker://crashes-old")),
            container("new", waits, None),
        ]))];
        let found = |name: &str, previous: bool| locate(&pods, &asked(name, previous));
        assert_eq!(found("runs", false).unwrap(), "runs-now");
        assert_eq!(found("runs", true).unwrap(), "runs-old");
        assert_eq!(found("crashes", false).unwrap(), "crashes-old");
        assert!(matches!(found("first", true), Err(LogError::NoPrevious { .. })));
        let error = found("new", false).unwrap_err().to_string();
        assert!(error.ends_with("is waiting to start: CrashLoopBackOff: back-off 10s"), "{error}");
        assert!(matches!(found("none", false), Err(LogError::NoContainer { .. })));
        let mut pods = pods;
        let status: PodStatus = serde_json::from_value(
            json!({"ephemeralContainerStatuses": [container("debugger", json!({"running": {}}), None)]}),
        )
        .unwrap();
        pods[0].status.ephemeral_container_statuses = status.ephemeral_container_statuses;
        assert_eq!(locate(&pods, &asked("debugger", false)).unwrap(), "debugger-now");
        let other = LogRequest { pod: "q".into(), ..asked("runs", false) };
        assert!(matches!(locate(&pods, &other), Err(LogError::NoPod { .. })));
    }

    #[test]
    fn what_has_ended_is_not_followed() {
        assert!(LogRequest { follow: true, ..asked("a", false) }.options().follow);
        assert!(!LogRequest { follow: true, ..asked("a", true) }.options().follow);
    }
}
