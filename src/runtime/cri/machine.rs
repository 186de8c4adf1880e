//! What only the runtime knows of this machine: whether pods get a network, and which process a container is.

use serde_json::Value;

use super::{Cri, proto};
use crate::runtime::*;

/// The condition of a runtime's status that is about pods' networks.
const NETWORK: &str = "NetworkReady";
/// Under what runtimes keep what they say of a container in their own words.
const INFO: &str = "info";

impl Cri {
    /// As the runtime's network plugin is.
    pub(super) async fn network_of_pods(&self) -> Result<PodNetwork> {
        let question = proto::RuntimeStatusRequest { verbose: false };
        let answer = self.call::<_, proto::RuntimeStatusResponse>("Status", question).await;
        let answer = answer.map_err(|status| self.error("ask for the runtime's status", "the runtime", status))?;
        Ok(network(answer.status.unwrap_or_default()))
    }

    /// Those of the handler that pods without a runtime class have. Runtimes that say nothing of it can neither.
    pub(super) async fn get_features(&self) -> Result<RuntimeFeatures> {
        let question = proto::RuntimeStatusRequest { verbose: false };
        let answer = self.call::<_, proto::RuntimeStatusResponse>("Status", question).await;
        let answer = answer.map_err(|status| self.error("ask for the runtime's features", "the runtime", status))?;
        Ok(features(answer.runtime_handlers))
    }

    /// The main process of a container. The API does not say it; containerd and CRI-O do, in their own words.
    pub(super) async fn main_process(&self, id: &str) -> Result<Process> {
        let question = proto::StatusRequest { id: id.to_owned(), verbose: true };
        let answer = self.call::<_, proto::ContainerStatusResponse>("ContainerStatus", question).await;
        let answer = answer
            .map_err(|status| self.error(&format!("inspect container {id}"), &format!("container {id}"), status))?;
        Ok(process(&answer))
    }
}

/// A runtime that does not say anything of it is asked for a pod's network and answers then.
fn network(status: proto::RuntimeStatus) -> PodNetwork {
    match status.conditions.into_iter().find(|one| one.kind == NETWORK) {
        Some(one) if !one.is => PodNetwork::NotReady { reason: one.reason, message: one.message },
        _ => PodNetwork::Ready,
    }
}

fn features(handlers: Vec<proto::RuntimeHandler>) -> RuntimeFeatures {
    let default = handlers.into_iter().find(|handler| handler.name.is_empty());
    let features = default.and_then(|handler| handler.features).unwrap_or_default();
    RuntimeFeatures {
        user_namespaces: features.user_namespaces,
        recursive_read_only: features.recursive_read_only_mounts,
    }
}

/// A container that has ended has no process, whatever number it had.
fn process(answer: &proto::ContainerStatusResponse) -> Process {
    let runs = answer.status.as_ref().is_some_and(|status| status.state() == proto::ContainerState::Running);
    let info: Value = answer.info.get(INFO).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0 && runs);
    Process { pid, network_namespace: None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_network_is_ready_unless_the_runtime_says_why_it_is_not() {
        let status = |is| {
            let condition = |kind: &str, is| proto::RuntimeCondition {
                kind: kind.to_owned(),
                is,
                reason: "NetworkPluginNotReady".to_owned(),
                message: "cni plugin not initialized".to_owned(),
            };
            proto::RuntimeStatus { conditions: vec![condition("RuntimeReady", false), condition(NETWORK, is)] }
        };
        assert_eq!(network(status(true)), PodNetwork::Ready);
        let not = PodNetwork::NotReady {
            reason: "NetworkPluginNotReady".to_owned(),
            message: "cni plugin not initialized".to_owned(),
        };
        assert_eq!(network(status(false)), not);
    }

    #[test]
    fn features_are_those_of_the_handler_without_a_name() {
        let handler = |name: &str, user_namespaces| proto::RuntimeHandler {
            name: name.to_owned(),
            features: Some(proto::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces }),
        };
        let found = features(vec![handler("kata", false), handler("", true)]);
        assert_eq!(found, RuntimeFeatures { user_namespaces: true, recursive_read_only: true });
        assert_eq!(features(vec![handler("kata", true)]), RuntimeFeatures::default());
        assert_eq!(features(vec![]), RuntimeFeatures::default(), "an older runtime");
    }

    #[test]
    fn a_running_container_has_the_process_that_the_runtime_names() {
        let said = |state: proto::ContainerState, info: &str| {
            let status = proto::ContainerStatus { state: state.into(), ..Default::default() };
            let info = BTreeMap::from([(INFO.to_owned(), info.to_owned())]);
            process(&proto::ContainerStatusResponse { status: Some(status), info }).pid
        };
        assert_eq!(said(proto::ContainerState::Running, r#"{"sandboxID": "s", "pid": 4711}"#), Some(4711));
        assert_eq!(said(proto::ContainerState::Exited, r#"{"pid": 4711}"#), None, "the number may be another's");
        for info in [r#"{"pid": 0}"#, r#"{"pid": 99999999999}"#, "{}", "no JSON"] {
            assert_eq!(said(proto::ContainerState::Running, info), None, "{info}");
        }
    }
}
