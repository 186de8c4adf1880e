//! Fields that no Pod has. Kubernetes passes over them in silence, and so does the pod; but the author meant something.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// More than a user reads at once.
const REPORTED: usize = 10;

/// One sentence for each field of `value` that this build's `pod` has no place for.
pub(super) fn fields(value: &Value, pod: &Pod) -> Vec<String> {
    // What has a place comes out again; what comes out under another name or not at all had none.
    let Ok(known) = serde_json::to_value(pod) else { return vec![] };
    let mut found = Vec::new();
    walk(value, &known, &mut String::new(), &mut found);
    // Whatever their case, these two say what the object is.
    found.retain(|field| !["kind", "apiVersion"].iter().any(|name| field.eq_ignore_ascii_case(name)));
    found.into_iter().map(|field| format!("{field} is no field of a Pod and has no effect")).collect()
}

fn walk(written: &Value, known: &Value, path: &mut String, found: &mut Vec<String>) {
    let end = path.len();
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (key, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                if found.len() == REPORTED {
                    return;
                }
                if end > 0 {
                    path.push('.');
                }
                path.extend(key.chars().take(80));
                match known.get(key) {
                    Some(known) => walk(value, known, path, found),
                    None => found.push(path.clone()),
                }
                path.truncate(end);
            }
        }
        (Value::Array(written), Value::Array(known)) if written.len() == known.len() => {
            for (index, (written, known)) in written.iter().zip(known).enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(written, known, path, found);
                path.truncate(end);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pod_with;

    #[test]
    fn a_field_that_no_pod_has_is_named_with_its_path() {
        let pod =
            pod_with("hostNetwrok: true", "imagePolicy: Never\n    env: [{name: A, val: b}, {name: B, value: ''}]");
        let field = |name: &str| format!("{name} is no field of a Pod and has no effect");
        let expected = ["spec.containers[0].env[0].val", "spec.containers[0].imagePolicy", "spec.hostNetwrok"];
        assert_eq!(pod.warnings, expected.map(field));
    }

    #[test]
    fn whatever_a_pod_may_have_is_let_be() {
        let pod = pod_with(
            "nodeSelector: {}\n  volumes: [{name: v, emptyDir: {}}]\n  tolerations: []\n  priority: 0",
            "resources: {limits: {cpu: 1}}\n    ports: [{containerPort: 1}]\n    tty: null\n    command: []",
        );
        assert_eq!(pod.warnings, Vec::<String>::new());
    }
}
