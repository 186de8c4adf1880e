//! Environment, command and arguments of a container: `$(VAR)` expansion and the downward API.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, FileKeySelector};

use super::downward;
pub use super::downward::Facts;
use super::pod::StaticPod;

/// Reads the key of a file in a volume; None where it is not there.
pub type ReadKey<'a> = &'a dyn Fn(&FileKeySelector) -> Result<Option<String>, String>;

/// The environment in order. A value sees the variables defined before it.
///
/// An error names the variable whose field cannot be had.
pub fn environment(pod: &StaticPod, container: &Container, facts: &Facts) -> Result<Vec<(String, String)>, String> {
    environment_with(pod, container, facts, &|_| Err("files are not read here".to_owned()))
}

/// The same with what `read` says of files.
pub fn environment_with(
    pod: &StaticPod,
    container: &Container,
    facts: &Facts,
    read: ReadKey<'_>,
) -> Result<Vec<(String, String)>, String> {
    let mut result: Vec<(String, String)> = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &seen)),
            Some(from) => {
                let value = value_from(pod, container, from, facts, read);
                value.map_err(|problem| format!("env {}: {problem}", variable.name))?
            }
        };
        let Some(value) = value else { continue };
        // A later definition of the same name takes the place of the earlier one.
        result.retain(|(name, _)| *name != variable.name);
        seen.insert(variable.name.clone(), value.clone());
        result.push((variable.name.clone(), value));
    }
    Ok(result)
}

/// None for a variable that may be missing, and is.
fn value_from(
    pod: &StaticPod,
    container: &Container,
    from: &EnvVarSource,
    facts: &Facts,
    read: ReadKey<'_>,
) -> Result<Option<String>, String> {
    if let Some(file) = &from.file_key_ref {
        let value = read(file)?;
        let missing = value.is_none() && !file.optional.unwrap_or(false);
        return if missing { Err(format!("there is no {} in {}", file.key, file.path)) } else { Ok(value) };
    }
    let value = match (&from.field_ref, &from.resource_field_ref) {
        (Some(field), _) => downward::field(pod, &field.field_path, facts),
        (_, Some(resource)) => downward::resource(pod, Some(container), resource, facts),
        _ => None,
    };
    value.map(Some).ok_or_else(|| "this field cannot be read here".to_owned())
}

/// Command or arguments, which see the whole environment.
pub fn expand_all(words: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let known: HashMap<String, String> = env.iter().cloned().collect();
    words.into_iter().flatten().map(|word| expand(word, &known)).collect()
}

/// Replaces `$(NAME)` by its value; `$$` is a `$` that expands nothing, unknown names and lone `$` stay as they are.
pub fn expand(text: &str, known: &HashMap<String, String>) -> String {
    expand_with(text, &mut |name| known.get(name).cloned())
}

/// The same with what `value` says of a name.
pub fn expand_with(text: &str, value: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::{pod, pod_with};

    #[test]
    fn references_expand_as_the_kubelet_expands_them() {
        let known = HashMap::from([("A".to_owned(), "val".to_owned()), ("E".to_owned(), String::new())]);
        for (text, expected) in [
            ("$(A) $(B) $$(A)", "val $(B) $(A)"),
            ("a$b", "a$b"),
            ("$", "$"),
            ("$$", "$"),
            ("$(A", "$(A"),
            ("x$(E)y", "xy"),
            ("$()", "$()"),
            ("$$$(A)", "$val"),
            ("é$(A)é", "évalé"),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn a_value_sees_only_earlier_variables_and_the_arguments_see_all() {
        let pod = pod("env: [{name: A, value: '$(B)'}, {name: B, value: b}, {name: C, value: '$(B)c'},\
             {name: NN, valueFrom: {fieldRef: {fieldPath: metadata.name}}},\
             {name: L, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['x']\"}}},\
             {name: M, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]");
        let facts = Facts { node_memory: 4 << 20, ..Facts::default() };
        let env = environment(&pod, &pod.spec.containers[0], &facts).unwrap();
        let pairs: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "$(B)"), ("B", "b"), ("C", "bc"), ("NN", "p-node1"), ("L", ""), ("M", "4")]);
        assert_eq!(expand_all(Some(&vec!["$(A)-$(C)".into()]), &env), ["$(B)-bc"]);
    }

    #[test]
    fn a_field_that_is_not_known_yet_names_its_variable() {
        let pod = pod("env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]");
        let error = environment(&pod, &pod.spec.containers[0], &Facts::default()).unwrap_err();
        assert!(error.starts_with("env IP: "), "{error}");
    }

    #[test]
    fn a_key_of_a_file_may_be_missing_only_where_the_manifest_says_so() {
        let of = |optional: bool, read: ReadKey<'_>| {
            let text = format!(
                "env: [{{name: A, valueFrom: {{fileKeyRef: {{volumeName: v, path: f, key: k, optional: {optional}}}}}}}]"
            );
            let pod = pod_with("volumes: [{name: v, emptyDir: {}}]", &text);
            environment_with(&pod, &pod.spec.containers[0], &Facts::default(), read)
        };
        assert_eq!(of(false, &|_| Ok(Some("x".into()))), Ok(vec![("A".to_owned(), "x".to_owned())]));
        assert_eq!(of(true, &|_| Ok(None)), Ok(vec![]));
        assert_eq!(of(false, &|_| Ok(None)), Err("env A: there is no k in f".to_owned()));
        assert_eq!(of(true, &|_| Err("bad".into())), Err("env A: bad".to_owned()));
    }
}
