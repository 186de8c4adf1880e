//! What two configurations say differently.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::flags::FLAGS;
use super::print::{cluster_configuration, init_configuration};
use super::spec::ClusterSpec;

/// Fields that are about a run and not about what it makes; tokens and keys are among them.
const OF_A_RUN: &[&str] = &[
    "bootstrapTokens",
    "certificateKey",
    "nodeRegistration.ignorePreflightErrors",
    "skipPhases",
    "timeouts",
    "apiVersion",
    "kind",
];

/// The fields in which `new` differs from `old`, as they are called in their documents and by their flags, each with both
/// values.
pub fn differences(old: &ClusterSpec, new: &ClusterSpec) -> Vec<String> {
    let documents: [fn(&ClusterSpec) -> Value; 5] = [
        cluster_configuration,
        init_configuration,
        |spec| serde_json::to_value(&spec.kubeboot).unwrap_or_default(),
        |spec| Value::Object(Map::from_iter([("KubeletConfiguration".to_owned(), spec.kubelet.clone())])),
        |spec| Value::Object(Map::from_iter([("KubeProxyConfiguration".to_owned(), spec.kube_proxy.clone())])),
    ];
    let mut found = Vec::new();
    for document in documents {
        walk("", &document(old), &document(new), &mut found);
    }
    found
}

fn walk(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new || OF_A_RUN.contains(&path) {
        return;
    }
    // An object that is not there has no field that is.
    let none = Map::new();
    let pair = match (old, new) {
        (Value::Object(before), Value::Object(after)) => Some((before, after)),
        (Value::Object(before), Value::Null) => Some((before, &none)),
        (Value::Null, Value::Object(after)) => Some((&none, after)),
        _ => None,
    };
    let Some((before, after)) = pair else {
        let flag = FLAGS.iter().find(|row| row.field == path).map(|row| format!(" ({})", row.flag));
        let shown = |value: &Value| match value {
            Value::Null => "not set".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        found.push(format!("{path}{} is {} and was {}", flag.unwrap_or_default(), shown(new), shown(old)));
        return;
    };
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let value = |of: &Map<String, Value>| of.get(name).cloned().unwrap_or_default();
        walk(&path, &value(before), &value(after), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn every_field_that_differs_is_named_with_its_flag_and_both_values() {
        let old = spec();
        assert_eq!(differences(&old, &old), Vec::<String>::new());
        let mut new = spec();
        new.cluster_name = "other".into();
        new.node.bind_port = 7443;
        new.patches_dir = Some("/patches".into());
        new.kubelet = serde_json::json!({"maxPods": 7});
        new.bootstrap_tokens.clear();
        new.skip_phases = vec!["addon".into()];
        let expected = [
            format!("clusterName is other and was {}", old.cluster_name),
            format!("localAPIEndpoint.bindPort (--apiserver-bind-port) is 7443 and was {}", old.node.bind_port),
            "patches.directory (--patches) is /patches and was not set".to_owned(),
            "KubeletConfiguration.maxPods is 7 and was not set".to_owned(),
        ];
        assert_eq!(differences(&old, &new), expected);
    }
}
