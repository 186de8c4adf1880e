//! Marking the Node of this machine as one of the control plane's.
//!
//! The agent registers the Node soon after the API server answers; marking waits for that. The marks are the
//! administrator's to set: a node may not give itself the label of a control plane, so a Node that was deleted and came
//! back is without them until `kubeboot init phase mark-control-plane` is run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::object::{Object, WriteMode};
use crate::config::spec::ClusterSpec;
use crate::release::kubeadm_row;

/// Keeps load balancers of services away.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The labels and taints of a control-plane node, for where the Node is registered.
pub fn mark(spec: &ClusterSpec) -> Object {
    let row = kubeadm_row(&spec.kubernetes_version);
    let keys = row.control_plane_labels.iter().chain([&EXCLUDE]);
    let taint = |key: &&str| Taint { key: (*key).into(), effect: "NoSchedule".into(), ..Taint::default() };
    let taints = spec.node.taints.clone().unwrap_or_else(|| row.control_plane_taints.iter().map(taint).collect());
    let node = Node {
        metadata: ObjectMeta {
            name: Some(spec.node.name.clone()),
            labels: Some(keys.map(|key| ((*key).to_owned(), String::new())).collect::<BTreeMap<_, _>>()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: Some(taints).filter(|taints| !taints.is_empty()), ..NodeSpec::default() }),
        status: None,
    };
    Object::new(&node).with(WriteMode::Amend(amend))
}

/// By this annotation kubeadm finds the node's runtime again, up to the release that keeps it in a file.
const CRI_SOCKET: &str = "kubeadm.alpha.kubernetes.io/cri-socket";

/// The annotation of the Node that names its runtime's socket; None where its kubeadm needs none.
pub fn cri_socket(spec: &ClusterSpec) -> Option<Object> {
    let socket = crate::kubelet::files::socket(&spec.node).to_owned();
    let annotations = BTreeMap::from([(CRI_SOCKET.to_owned(), socket)]);
    let node = Node {
        metadata: ObjectMeta {
            name: Some(spec.node.name.clone()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    kubeadm_row(&spec.kubernetes_version)
        .annotates_cri_socket
        .then(|| Object::new(&node).with(WriteMode::Amend(annotate)))
}

/// Annotations are set.
fn annotate(current: &Value, wanted: &Value) -> Option<Value> {
    let (there, annotations) = (&current["metadata"]["annotations"], &wanted["metadata"]["annotations"]);
    let mut all = annotations.as_object().into_iter().flatten();
    let annotated = all.all(|(key, value)| there.get(key) == Some(value));
    (!annotated).then(|| json!({ "metadata": { "annotations": annotations } }))
}

/// Labels are set; taints are added to those that are there.
fn amend(current: &Value, wanted: &Value) -> Option<Value> {
    let list = |node: &Value| node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let same = |one: &Value, other: &Value| one["key"] == other["key"] && one["effect"] == other["effect"];
    let (there, labels) = (list(current), &wanted["metadata"]["labels"]);
    let missing: Vec<_> = list(wanted).into_iter().filter(|new| !there.iter().any(|old| same(old, new))).collect();
    let labelled = labels
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| current["metadata"]["labels"].get(key) == Some(value));
    if missing.is_empty() && labelled {
        return None;
    }
    let mut patch = json!({ "metadata": { "labels": labels } });
    if !missing.is_empty() {
        let taints = [there, missing].concat();
        patch["spec"] = json!({ "taints": taints });
    }
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

    #[test]
    fn a_node_gets_what_it_lacks_and_keeps_its_own() {
        let object = mark(&spec());
        let taint = json!({"key": CONTROL_PLANE, "effect": "NoSchedule"});
        let own = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
        let current = json!({"metadata": {"labels": {"zone": "a"}}, "spec": {"taints": [own]}});
        let patch = amend(&current, &object.value).unwrap();
        assert_eq!(patch["metadata"]["labels"], json!({ CONTROL_PLANE: "", EXCLUDE: "" }));
        assert_eq!(patch["spec"]["taints"], json!([own, taint]));
        let current = json!({"metadata": {"labels": {CONTROL_PLANE: "", EXCLUDE: ""}}, "spec": {"taints": [taint]}});
        assert_eq!(amend(&current, &object.value), None);
    }

    #[test]
    fn the_runtimes_socket_is_an_annotation_where_kubeadm_looks_for_one() {
        let mut spec = spec();
        spec.kubernetes_version = "v1.34.0".parse().unwrap();
        assert!(cri_socket(&spec).is_none());
        spec.kubernetes_version = "v1.20.2".parse().unwrap();
        spec.node.cri_socket = Some("unix:///run/c.sock".into());
        let wanted = cri_socket(&spec).unwrap().value;
        let patch = annotate(&json!({"metadata": {"annotations": {"mine": "1"}}}), &wanted).unwrap();
        assert_eq!(patch, json!({"metadata": {"annotations": {CRI_SOCKET: "unix:///run/c.sock"}}}));
        assert_eq!(annotate(&patch, &wanted), None);
    }

    #[test]
    fn no_taints_are_none_and_old_releases_have_the_old_names() {
        let mut spec = spec();
        spec.node.taints = Some(vec![]);
        let wanted = mark(&spec).value;
        let patch = amend(&json!({"metadata": {}}), &wanted).unwrap();
        assert_eq!(patch.get("spec"), None);
        spec.kubernetes_version = "v1.20.2".parse().unwrap();
        spec.node.taints = None;
        let wanted = mark(&spec).value;
        assert_eq!(wanted["spec"]["taints"][0]["key"], "node-role.kubernetes.io/master");
    }
}
