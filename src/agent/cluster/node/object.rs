//! The Node itself: how it is made, and what is mended of one that is there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use kube::api::ObjectMeta;
use serde_json::{Map, Value, json};

use super::machine::architecture;
use crate::agent::options::NodeOptions;

/// That volumes are attached by the cluster's controller, as a kubelet says by default.
const ATTACH_DETACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// The labels that a Node is made with: a kubelet's own and those it is given, which go before.
pub(super) fn initial_labels(name: &str, options: &NodeOptions) -> BTreeMap<String, String> {
    let mut labels = own_labels(name, options);
    labels.extend(options.labels.clone());
    labels
}

/// The labels that every kubelet gives its Node, with the values it is given where it is given some.
fn own_labels(name: &str, options: &NodeOptions) -> BTreeMap<String, String> {
    let labels = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ];
    let reported = |key: &str| options.labels.get(key).cloned();
    labels.into_iter().map(|(key, value)| (key.to_owned(), reported(key).unwrap_or_else(|| value.to_owned()))).collect()
}

/// The Node to make. What it says beyond a kubelet's own labels is for the operator: a node may give itself neither the
/// label nor the taint of a control plane (`NodeRestriction` refuses the one now, and any other taint later).
pub fn node(name: &str, options: &NodeOptions, status: NodeStatus) -> Node {
    let labels = initial_labels(name, options);
    let taint = |taint: &crate::agent::options::NodeTaint| Taint {
        key: taint.key.clone(),
        value: Some(taint.value.clone()).filter(|value| !value.is_empty()),
        effect: taint.effect.clone(),
        time_added: None,
    };
    let taints: Vec<Taint> = options.taints.iter().map(taint).collect();
    let spec = NodeSpec {
        provider_id: options.provider_id.clone(),
        taints: Some(taints).filter(|taints| !taints.is_empty()),
        ..NodeSpec::default()
    };
    Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(ATTACH_DETACH.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: Some(status),
    }
}

/// What a Node that is there lacks of a kubelet's own labels and annotation, as a merge patch; None where it has them.
/// Labels of `--node-labels` are for the making of a Node: later they are the administrator's, as with a kubelet.
pub fn amended(current: &Node, name: &str, options: &NodeOptions) -> Option<Value> {
    let lacking = |there: &Option<BTreeMap<String, String>>, wanted: BTreeMap<String, String>| -> Map<String, Value> {
        let has = |key: &String, value: &String| there.as_ref().and_then(|there| there.get(key)) == Some(value);
        wanted.into_iter().filter(|(key, value)| !has(key, value)).map(|(key, value)| (key, json!(value))).collect()
    };
    let labels = lacking(&current.metadata.labels, own_labels(name, options));
    let attach = BTreeMap::from([(ATTACH_DETACH.to_owned(), "true".to_owned())]);
    let annotations = lacking(&current.metadata.annotations, attach);
    if labels.is_empty() && annotations.is_empty() {
        return None;
    }
    Some(json!({ "metadata": { "labels": labels, "annotations": annotations } }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::options::AgentOptions;

    #[test]
    fn a_node_is_made_with_its_own_labels_and_those_it_is_told_which_go_before() {
        let mut options = AgentOptions::new("cp1").node;
        options.labels = BTreeMap::from([
            ("zone".to_owned(), "a".to_owned()),
            ("kubernetes.io/hostname".to_owned(), "other".to_owned()),
        ]);
        options.provider_id = Some("x://1".into());
        let made = node("cp1", &options, NodeStatus::default());
        let labels = made.metadata.labels.clone().unwrap();
        assert_eq!((labels["zone"].as_str(), labels["kubernetes.io/hostname"].as_str()), ("a", "other"));
        assert_eq!(labels["beta.kubernetes.io/os"], "linux");
        assert_eq!(made.metadata.annotations.clone().unwrap()[ATTACH_DETACH], "true");
        assert_eq!(made.spec.clone().unwrap().taints, None);
        assert_eq!(amended(&made, "cp1", &options), None);
    }

    #[test]
    fn a_node_that_is_there_gets_what_it_lacks_and_no_more() {
        let options = AgentOptions::new("cp1").node;
        let mut there = node("cp1", &options, NodeStatus::default());
        let labels = there.metadata.labels.as_mut().unwrap();
        labels.insert("kubernetes.io/os".into(), "windows".into());
        labels.insert("mine".into(), "1".into());
        let patch = amended(&there, "cp1", &options).unwrap();
        assert_eq!(patch, json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}, "annotations": {}}}));
    }
}
