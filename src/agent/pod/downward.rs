//! The downward API: what a pod can learn of itself and of its node, in its environment and in files.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use super::StaticPod;
use super::resources::{self, amount};

/// What the downward API knows of the node and the pod's place on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node's address.
    pub host_ip: Option<String>,
    /// The pod's address; the node's under the host's network.
    pub pod_ip: Option<String>,
    /// What pods may use of the node's memory, in bytes, which an unset limit reads as.
    pub node_memory: i64,
    /// The same of its processors, in thousandths.
    pub node_cpu_millis: i64,
    /// The same of the bytes of its file system.
    pub node_storage: i64,
}

/// The value of a `fieldRef`; None where it cannot be had, or not yet. Labels and annotations as a whole are for files
/// only, addresses for the environment only, as validation sees to.
pub fn field(pod: &StaticPod, path: &str, facts: &Facts) -> Option<String> {
    let (labels, annotations) = (&pod.metadata.labels, &pod.metadata.annotations);
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => labels,
            "metadata.annotations" => annotations,
            _ => return None,
        };
        return Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => Some(pod.key.name.clone()),
        "metadata.namespace" => Some(pod.key.namespace.clone()),
        "metadata.uid" => Some(pod.uid.clone()),
        "metadata.labels" => Some(lines(labels.as_ref())),
        "metadata.annotations" => Some(lines(annotations.as_ref())),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => Some(pod.spec.service_account_name.clone().unwrap_or_default()),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        _ => None,
    }
}

/// A map as the API writes it into a file: one `key="value"` a line, sorted, the value quoted as Go quotes it.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef`: a request (0 without one) or a limit (the pod's, else the node's, without one), divided and
/// rounded up. `own` is the container it is about unless it names another.
pub fn resource(pod: &StaticPod, own: Option<&Container>, of: &ResourceFieldSelector, facts: &Facts) -> Option<String> {
    let container = match of.container_name.as_deref() {
        Some(name) if !name.is_empty() => pod.containers().map(|(_, c)| c).find(|c| c.name == name)?,
        _ => own?,
    };
    let (list, resource) = of.resource.split_once('.')?;
    let is_limit = match list {
        "limits" => true,
        "requests" => false,
        _ => return None,
    };
    let (unit, whole): (resources::Unit, i64) = match resource {
        "cpu" => (resources::millis, facts.node_cpu_millis),
        "memory" => (resources::bytes, facts.node_memory),
        "ephemeral-storage" => (resources::bytes, facts.node_storage),
        pages if pages.starts_with("hugepages-") => (resources::bytes, 0),
        _ => return None,
    };
    let value = match is_limit {
        true => resources::limit(&pod.spec, container, resource, unit),
        false => amount(container, false, resource, unit),
    };
    let value = if is_limit && value == 0 { whole } else { value };
    let default = if resource == "cpu" { 1000 } else { 1 };
    let divisor = match of.divisor.as_ref().and_then(unit) {
        Some(divisor) if divisor > 0 => divisor,
        _ => default,
    };
    Some(value.saturating_add(divisor.saturating_sub(1)).div_euclid(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::{pod, read};

    #[test]
    fn labels_and_annotations_are_sorted_lines_quoted_as_go_quotes() {
        let pod = read(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {b: '2', a: x}, annotations: {a: \"x\\\"\\n\\\\é\\x01\"}}\n\
             spec: {containers: [{name: c, image: 'bb:1'}]}\n",
        )
        .unwrap();
        let of = |path: &str| field(&pod, path, &Facts::default());
        assert_eq!(of("metadata.labels").unwrap(), "a=\"x\"\nb=\"2\"");
        assert!(of("metadata.annotations").unwrap().starts_with("a=\"x\\\"\\n\\\\é\\x01\"\n"));
        assert_eq!(of("metadata.labels['b']").unwrap(), "2");
        assert_eq!(of("metadata.labels['none']").unwrap(), "");
        assert_eq!(of("metadata.uid").unwrap(), pod.uid);
        assert_eq!(of("spec.hostname"), None);
        assert!(of("metadata.annotations").unwrap().contains("kubernetes.io/config.source=\"file\""));
    }

    #[test]
    fn resources_are_divided_and_rounded_up_and_an_unset_limit_is_the_nodes() {
        let pod = pod("resources: {limits: {cpu: 1500m, memory: 100Mi}, requests: {cpu: 250m}}");
        let facts = Facts { node_memory: 8 << 30, node_cpu_millis: 4000, node_storage: 10 << 30, ..Facts::default() };
        for (resource, divisor, expected) in [
            ("limits.cpu", None, Some("2")),
            ("limits.cpu", Some("1m"), Some("1500")),
            ("requests.cpu", None, Some("1")),
            ("requests.cpu", Some("100m"), Some("3")),
            ("limits.memory", None, Some("104857600")),
            ("limits.memory", Some("1Mi"), Some("100")),
            ("limits.memory", Some("1Gi"), Some("1")),
            ("requests.memory", Some("0"), Some("104857600")),
            ("limits.ephemeral-storage", Some("1Gi"), Some("10")),
            ("requests.ephemeral-storage", None, Some("0")),
            ("limits.hugepages-2Mi", None, Some("0")),
            ("limits.gpu", None, None),
            ("other.cpu", None, None),
        ] {
            let of = ResourceFieldSelector {
                resource: resource.into(),
                divisor: divisor.map(|d: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into())),
                container_name: Some("c".into()),
            };
            assert_eq!(super::resource(&pod, None, &of, &facts).as_deref(), expected, "{resource} {divisor:?}");
        }
    }
}
