//! `nodeSelector` and required node affinity against a node's labels and name
//! (`component-helpers/scheduling/corev1/nodeaffinity`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// Whether a node with these labels and this name is one that the pod may be on.
pub fn fits(pod: &PodSpec, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let selected = pod.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let node = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let one_holds = |terms: &[NodeSelectorTerm]| terms.iter().any(|term| holds(term, labels, name));
    selected && required.is_none_or(|selector| one_holds(&selector.node_selector_terms))
}

/// A term without anything in it holds nowhere.
fn holds(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |one: &NodeSelectorRequirement| meets(one, labels.get(&one.key).map(String::as_str));
    let field = |one: &NodeSelectorRequirement| is_field(one, name);
    (!expressions.is_empty() || !fields.is_empty()) && expressions.iter().all(label) && fields.iter().all(field)
}

/// Of a node's fields there is one, and it is compared with one value. A field that there is not is empty.
fn is_field(requirement: &NodeSelectorRequirement, name: &str) -> bool {
    let Some([value]) = requirement.values.as_deref() else { return false };
    let found = if requirement.key == "metadata.name" { name } else { "" };
    match requirement.operator.as_str() {
        "In" => found == value,
        "NotIn" => found != value,
        _ => false,
    }
}

/// What is malformed (a list of values where there must be none, or none where there must be some) holds nowhere.
fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_one = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = || {
        let [bound] = values else { return None };
        Some(value?.parse::<i64>().ok()?.cmp(&bound.parse::<i64>().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => is_one,
        "NotIn" => !is_one && !values.is_empty(),
        "Exists" => value.is_some() && values.is_empty(),
        "DoesNotExist" => value.is_none() && values.is_empty(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn on_node1(spec: Value) -> bool {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let labels = [("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())].into();
        fits(&serde_json::from_value(spec).unwrap(), &labels, "node1")
    }

    fn terms(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn requirements_hold_as_the_scheduler_reads_them() {
        for (key, operator, values, expected) in [
            ("zone", "In", json!(["a", "b"]), true),
            ("zone", "In", json!(["b"]), false),
            ("zone", "NotIn", json!(["b"]), true),
            ("none", "NotIn", json!(["b"]), true),
            ("zone", "Exists", json!([]), true),
            ("none", "Exists", json!([]), false),
            ("none", "DoesNotExist", json!([]), true),
            ("cores", "Gt", json!(["4"]), true),
            ("cores", "Lt", json!(["4"]), false),
            ("zone", "Gt", json!(["4"]), false),
            ("cores", "Gt", json!(["4", "5"]), false),
            ("cores", "Gt", json!(["four"]), false),
            ("none", "Lt", json!(["4"]), false),
            ("zone", "Like", json!(["a"]), false),
            ("none", "NotIn", json!([]), false),
            ("zone", "Exists", json!(["a"]), false),
            ("none", "DoesNotExist", json!(["a"]), false),
        ] {
            let term = json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
            assert_eq!(on_node1(terms(term)), expected, "{key} {operator} {values}");
        }
    }

    #[test]
    fn one_term_is_enough_and_a_daemon_sets_names_the_node() {
        let named = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        assert!(on_node1(terms(json!([named("node1")]))));
        assert!(!on_node1(terms(json!([named("node2")]))));
        assert!(on_node1(terms(json!([named("node2"), named("node1")]))));
        assert!(!on_node1(terms(json!([{}]))));
        assert!(!on_node1(terms(json!([]))));
        let field = |operator: &str, values: Value| {
            on_node1(terms(
                json!([{"matchFields": [{"key": "metadata.name", "operator": operator, "values": values}]}]),
            ))
        };
        assert!(field("NotIn", json!(["node2"])) && !field("NotIn", json!(["node1"])));
        assert!(!field("Exists", json!([])) && !field("In", json!(["node1", "node2"])), "fields have one value");
        assert!(on_node1(json!({})) && on_node1(json!({"nodeSelector": {"zone": "a"}})));
        assert!(!on_node1(json!({"nodeSelector": {"zone": "b"}})));
    }
}
