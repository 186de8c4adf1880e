//! Pods that the API server has bound to this node: the object is complete, checked and defaulted already.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{CONFIG_SEEN, CONFIG_SOURCE, PodKey, StaticPod};
use crate::agent::pod::phase::Phase;
use crate::host::clock;

/// The value of [`CONFIG_SOURCE`] of such a pod, as the kubelet has it.
pub const API_SOURCE: &str = "api";
/// Marks the API server's copy of a static pod.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// What the API server says of a pod beyond what it consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// It is deleted: so long its containers may take to end.
    pub deletion: Option<Duration>,
    /// It has ended (`Succeeded` or `Failed`), and nothing of it is started again.
    pub ended: Option<Phase>,
    /// The node had begun with it before: it was admitted then.
    pub started: bool,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// Conditions of others that hold, for readiness gates.
    pub conditions: Vec<String>,
}

impl StaticPod {
    /// A pod as the API server has it.
    ///
    /// Its containers are hashed by name and image alone, which are all that may change in them, as by the kubelet
    /// (`HashContainer`): an API server with new defaults must restart nothing.
    pub fn from_api(pod: Pod, seen: Timestamp) -> Self {
        let Pod { metadata: found, spec, status } = pod;
        let (mut spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        if let Some(grace) = spec.termination_grace_period_seconds.as_mut().filter(|grace| **grace < 0) {
            *grace = 1;
        }
        let key = PodKey {
            namespace: found.namespace.clone().unwrap_or_default(),
            name: found.name.clone().unwrap_or_default(),
        };
        let uid = found.uid.clone().unwrap_or_default();
        let deletion = found
            .deletion_timestamp
            .is_some()
            // As the kubelet has it, whatever the object says: at least a second.
            .then(|| clock::seconds(found.deletion_grace_period_seconds.unwrap_or(0).max(1)));
        let ended = match status.phase.as_deref() {
            Some("Succeeded") => Some(Phase::Succeeded),
            Some("Failed") => Some(Phase::Failed),
            _ => None,
        };
        let gates: Vec<&String> = spec.readiness_gates.iter().flatten().map(|gate| &gate.condition_type).collect();
        let conditions = status.conditions.iter().flatten().filter(|one| one.status == "True");
        let conditions = conditions.filter(|one| gates.contains(&&one.type_)).map(|one| one.type_.clone()).collect();
        let generation = found.generation;
        // What was refused says when, and nothing of containers.
        let refused = ended.is_some() && status.container_statuses.as_ref().is_none_or(Vec::is_empty);
        let started = status.start_time.is_some() && !refused;
        let bound = Bound { deletion, ended, started, generation, conditions };
        // What the agent has no use for (`managedFields` above all) would only take memory.
        let mut metadata = ObjectMeta {
            name: found.name,
            namespace: found.namespace,
            uid: found.uid,
            labels: found.labels,
            annotations: found.annotations,
            creation_timestamp: found.creation_timestamp,
            deletion_timestamp: found.deletion_timestamp,
            deletion_grace_period_seconds: found.deletion_grace_period_seconds,
            owner_references: found.owner_references,
            generation: found.generation,
            ..ObjectMeta::default()
        };
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(CONFIG_SOURCE.to_owned(), API_SOURCE.to_owned());
        annotations.insert(CONFIG_SEEN.to_owned(), format!("{seen:.9}"));
        let ephemeral = ephemeral(&spec);
        let manifest = brief(&spec, &ephemeral);
        Self {
            key,
            uid,
            metadata,
            spec,
            ephemeral,
            manifest,
            file: None,
            file_hash: None,
            warnings: vec![],
            bound: Some(Box::new(bound)),
        }
    }

    /// The label `component`, which marks pods of a control plane: those that were put on the node by hand, whatever the
    /// labels of a bound one say.
    pub fn component(&self) -> Option<&str> {
        self.label("component").filter(|_| self.bound.is_none())
    }

    /// How long its containers may still take, of a pod that is deleted.
    pub fn deletion(&self) -> Option<Duration> {
        self.bound.as_ref()?.deletion
    }

    /// When it was created, of a pod that the API server gave the node.
    pub fn created(&self) -> Option<Timestamp> {
        self.bound.as_ref()?;
        self.metadata.creation_timestamp.as_ref().map(|created| created.0)
    }

    /// How it has ended, of a pod that ended before this agent looked at it.
    pub fn ended(&self) -> Option<Phase> {
        self.bound.as_ref()?.ended
    }
}

/// What containers are made from, as far as that may change.
fn brief(spec: &PodSpec, ephemeral: &[Container]) -> Value {
    let of = |list: &[Container]| -> Value {
        list.iter().map(|container| json!({"name": container.name, "image": container.image})).collect()
    };
    let init = of(spec.init_containers.as_deref().unwrap_or_default());
    json!({"spec": {"containers": of(&spec.containers), "initContainers": init, "ephemeralContainers": of(ephemeral)}})
}

/// The ephemeral containers of a pod, which have the fields of any other, and one more.
pub fn ephemeral(spec: &PodSpec) -> Vec<Container> {
    let as_other = |one: &EphemeralContainer| serde_json::to_value(one).and_then(serde_json::from_value).ok();
    spec.ephemeral_containers.iter().flatten().filter_map(as_other).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pod `p` of the namespace `ns` with this spec and status, both JSON, and the UID `u`.
    pub(crate) fn bound(spec: Value, status: Value) -> StaticPod {
        bound_with(json!({}), spec, status)
    }

    /// The same with further metadata.
    pub(crate) fn bound_with(metadata: Value, spec: Value, status: Value) -> StaticPod {
        StaticPod::from_api(object(metadata, spec, status), Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn object(metadata: Value, mut spec: Value, status: Value) -> Pod {
        let mut all = json!({"name": "p", "namespace": "ns", "uid": "u"});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c", "image": "x:1"}]);
        }
        serde_json::from_value(json!({"metadata": all, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn a_pod_keeps_its_name_and_uid_and_is_known_by_its_annotation() {
        let pod = bound_with(json!({"managedFields": [{"manager": "x"}]}), json!({}), json!({}));
        assert_eq!((pod.key.to_string().as_str(), pod.uid.as_str()), ("ns/p", "u"));
        assert_eq!(pod.metadata.annotations.as_ref().unwrap()[CONFIG_SOURCE], "api");
        assert_eq!(pod.metadata.managed_fields, None);
        let state = pod.bound.as_deref().unwrap();
        assert_eq!(state, &Bound::default());
    }

    #[test]
    fn deletion_end_and_conditions_are_read() {
        let metadata = json!({"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7});
        let spec = json!({"readinessGates": [{"conditionType": "a/b"}]});
        let status = json!({"phase": "Failed", "startTime": "2024-01-01T00:00:00Z", "conditions": [
            {"type": "a/b", "status": "True"}, {"type": "Ready", "status": "True"}]});
        let pod = bound_with(metadata, spec, status);
        assert_eq!((pod.deletion(), pod.ended()), (Some(Duration::from_secs(7)), Some(Phase::Failed)));
        assert_eq!(pod.bound.unwrap().conditions, ["a/b"]);
    }

    #[test]
    fn grace_periods_of_an_old_object_are_a_second_at_least() {
        let metadata =
            |grace: i64| json!({"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace});
        for (grace, expected) in [(-5, 1), (0, 1), (1, 1), (9, 9)] {
            let pod = bound_with(metadata(grace), json!({"terminationGracePeriodSeconds": grace}), json!({}));
            assert_eq!(pod.deletion(), Some(Duration::from_secs(expected)), "{grace}");
            let own = pod.spec.termination_grace_period_seconds;
            assert_eq!(own, Some(if grace < 0 { 1 } else { grace }));
        }
    }

    #[test]
    fn only_name_and_image_of_a_container_are_what_it_is_made_from() {
        let of = |container: Value| bound(json!({"containers": [container]}), json!({})).container_hash("c");
        let plain = of(json!({"name": "c", "image": "x:1"}));
        assert_eq!(of(json!({"name": "c", "image": "x:1", "tty": true})), plain);
        assert_ne!(of(json!({"name": "c", "image": "x:2"})), plain);
        let pod = bound(json!({}), json!({}));
        assert_eq!(pod.shared_hash(), None, "nothing it shares can change");
    }

    #[test]
    fn ephemeral_containers_are_containers_with_a_target() {
        let debuggers = json!([{"name": "debugger", "image": "y:1", "stdin": true, "targetContainerName": "c"},
            {"name": "alone", "image": "y:1"}]);
        let pod = bound(json!({"ephemeralContainers": debuggers}), json!({}));
        let found = pod.container("debugger").unwrap();
        assert_eq!((found.image.as_deref(), found.stdin), (Some("y:1"), Some(true)));
        assert_eq!((pod.target_of("debugger"), pod.target_of("alone"), pod.target_of("c")), (Some("c"), None, None));
        assert_eq!((pod.containers().count(), pod.every_container().count()), (1, 3));
        assert_ne!(pod.container_hash("debugger"), pod.container_hash("none"));
    }

    #[test]
    fn labels_make_no_bound_pod_a_component() {
        let pod = bound_with(json!({"labels": {"component": "kube-apiserver"}}), json!({}), json!({}));
        assert_eq!((pod.component(), pod.label("component")), (None, Some("kube-apiserver")));
    }
}
