//! A manifest as bytes: its image, and the same with another image.

use std::path::Path;

use serde_json::Value;

use super::UpgradeError;
use crate::etcd::Minor;
use crate::yaml;

/// The manifest as a value, read as leniently as the agent reads it; none of its formatting matters for a comparison.
pub fn parse(path: &Path, content: &[u8]) -> Result<Value, UpgradeError> {
    let fail = |reason: String| UpgradeError::Manifest { path: path.to_owned(), reason };
    let text = std::str::from_utf8(content).map_err(|e| fail(e.to_string()))?;
    let value = yaml::to_value_lenient(text).map_err(|e| fail(e.to_string()))?;
    match value.pointer("/spec/containers/0/image") {
        Some(Value::String(_)) => Ok(value),
        _ => Err(fail("spec.containers[0].image is missing".into())),
    }
}

/// What a manifest means: kubeadm does not write that a probe begins without a delay, but older ones a time of creation that is
/// null and a status that is empty.
pub fn meaning(manifest: &Value) -> Value {
    let mut meant = manifest.clone();
    drop_nulls(&mut meant);
    if let Some(pod) = meant.as_object_mut() {
        pod.retain(|field, value| field != "status" || value.as_object().is_none_or(|status| !status.is_empty()));
    }
    for list in ["/spec/initContainers", "/spec/containers"] {
        for container in meant.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) else { continue };
                probe.retain(|field, value| field != "initialDelaySeconds" || *value != 0);
            }
        }
    }
    meant
}

/// Takes the fields out that are null, which is as if they were not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(all) => all.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The image of the first container: a control-plane manifest has one.
pub fn image(manifest: &Value) -> &str {
    manifest.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default()
}

/// The version in an image's tag: `3.6.8-0` of `registry.k8s.io/etcd:3.6.8-0`. None where the tag is no version.
pub fn image_version(image: &str) -> Option<String> {
    let (_, tag) = image.rsplit_once(':')?;
    Minor::of(tag).map(|_| tag.to_owned())
}

/// The manifest's text with another image and nothing else changed.
pub fn with_image(path: &Path, content: &[u8], image: &str) -> Result<Vec<u8>, UpgradeError> {
    let mut value = parse(path, content)?;
    if let Some(old) = value.pointer_mut("/spec/containers/0/image") {
        *old = Value::String(image.to_owned());
    }
    let text =
        yaml::to_string(&value).map_err(|e| UpgradeError::Manifest { path: path.to_owned(), reason: e.to_string() })?;
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] = b"# ours\nkind: Pod\nspec:\n  containers:\n  - name: a\n    image: r/a:v1\n";

    #[test]
    fn a_probe_without_a_delay_is_the_same_whether_that_is_written_or_not() {
        let of = |fields: &str| {
            let text = format!("spec: {{containers: [{{image: a, readinessProbe: {{periodSeconds: 1{fields}}}}}]}}");
            meaning(&parse(Path::new("/m/a.yaml"), text.as_bytes()).unwrap())
        };
        assert_eq!(of(""), of(", initialDelaySeconds: 0"));
        assert_ne!(of(""), of(", initialDelaySeconds: 10"));
        assert_ne!(of(""), of(", timeoutSeconds: 0"));
    }

    #[test]
    fn what_kubeadm_writes_of_a_pod_that_is_not_yet_changes_nothing() {
        let of = |metadata: &str, rest: &str| {
            let text = format!("metadata: {{name: etcd{metadata}}}\nspec: {{containers: [{{image: a}}]}}\n{rest}");
            meaning(&parse(Path::new("/m/etcd.yaml"), text.as_bytes()).unwrap())
        };
        assert_eq!(of("", ""), of(", creationTimestamp: null", "status: {}\n"));
        assert_ne!(of("", ""), of(", creationTimestamp: 2026-11-30T00:00:00Z", ""));
        assert_ne!(of("", ""), of("", "status: {phase: Running}\n"));
        let volume = |text: &str| of("", &format!("volumes: [{{name: a, emptyDir: {text}}}]\n"));
        assert_ne!(volume("{}"), volume("null"), "only what is empty at the top means nothing");
    }

    #[test]
    fn a_manifest_that_the_agent_runs_can_be_upgraded() {
        let path = Path::new("/m/a.yaml");
        let text =
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    image: r/a:v0\n    image: r/a:v1\n---\nno: [yaml\n";
        assert_eq!(image(&parse(path, text.as_bytes()).unwrap()), "r/a:v1");
        let new = with_image(path, text.as_bytes(), "r/a:v2").unwrap();
        assert_eq!(image(&parse(path, &new).unwrap()), "r/a:v2");
    }

    #[test]
    fn another_image_is_the_only_difference() {
        let path = Path::new("/m/a.yaml");
        let new = with_image(path, POD, "r/a:v2").unwrap();
        let mut expected = parse(path, POD).unwrap();
        expected["spec"]["containers"][0]["image"] = "r/a:v2".into();
        assert_eq!(parse(path, &new).unwrap(), expected);
        assert_eq!(image(&expected), "r/a:v2");
    }

    #[test]
    fn an_images_tag_may_be_a_version() {
        assert_eq!(image_version("host:5000/etcd:3.6.8-0").unwrap(), "3.6.8-0");
        assert_eq!(
            [image_version("r/etcd:mine"), image_version("r/etcd"), image_version("r/x:v1")],
            [None, None, None]
        );
    }

    #[test]
    fn a_file_without_containers_is_named() {
        let error = parse(Path::new("/m/a.yaml"), b"kind: Pod\n").unwrap_err();
        assert!(error.to_string().starts_with("/m/a.yaml is not a Pod manifest"), "{error}");
    }
}
