//! What Kubernetes refuses in volumes that the downward API fills, and in the mounts of containers.

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, Volume, VolumeMount};

use super::{Problems, climbs};

/// Fields of a pod that a file can have, besides single labels and annotations.
const FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The source of a volume.
pub(super) fn source(field: &str, volume: &Volume, problems: &mut Problems) {
    if let Some(api) = &volume.downward_api {
        files(&format!("{field}.downwardAPI"), api.items.as_deref(), api.default_mode, problems);
    }
    let Some(projected) = &volume.projected else { return };
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let field = format!("{field}.projected.sources[{index}]");
        match &source.downward_api {
            Some(api) => files(&field, api.items.as_deref(), projected.default_mode, problems),
            None => problems.add(&field, "a static pod may not reference API objects: only downwardAPI is possible"),
        }
    }
}

fn files(field: &str, items: Option<&[DownwardAPIVolumeFile]>, default_mode: Option<i32>, problems: &mut Problems) {
    let wrong = |mode: &Option<i32>| mode.is_some_and(|mode| !(0..=0o777).contains(&mode));
    problems.refuse(wrong(&default_mode), field, "defaultMode must be 0 to 0777 (511)");
    for (index, file) in items.iter().copied().flatten().enumerate() {
        let field = format!("{field}.items[{index}]");
        let path = &file.path;
        let leaves = path.is_empty() || path.starts_with('/') || path.starts_with("..") || climbs(path);
        problems.refuse(leaves, &field, "path must be relative, without '..'");
        problems.refuse(wrong(&file.mode), &field, "mode must be 0 to 0777 (511)");
        match (&file.field_ref, &file.resource_field_ref) {
            (Some(of), None) => {
                let known = FIELDS.contains(&of.field_path.as_str());
                let keyed = ["metadata.labels['", "metadata.annotations['"];
                let keyed = keyed.iter().any(|start| of.field_path.starts_with(start)) && of.field_path.ends_with("']");
                problems.refuse(!known && !keyed, &field, "a file cannot have this fieldPath");
            }
            (None, Some(of)) => {
                let unnamed = of.container_name.as_deref().unwrap_or_default().is_empty();
                problems.refuse(unnamed, &field, "resourceFieldRef needs a containerName");
            }
            _ => problems.add(&field, "must have exactly one of fieldRef, resourceFieldRef"),
        }
    }
}

/// A mount's sub-path and propagation.
pub(super) fn mount(field: &str, mount: &VolumeMount, container: &Container, problems: &mut Problems) {
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    let named = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let both = named(&mount.sub_path) && !expression.is_empty();
    problems.refuse(both, field, "subPath and subPathExpr cannot be combined");
    let leaves = expression.starts_with('/') || climbs(expression);
    problems.refuse(leaves, &format!("{field}.subPathExpr"), "must be relative, without '..'");
    let privileged = container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false);
    let propagation = mount.mount_propagation.as_deref().unwrap_or("None");
    let bare = propagation == "Bidirectional" && !privileged;
    problems.refuse(bare, &format!("{field}.mountPropagation"), "Bidirectional needs a privileged container");
    let Some(recursive) = mount.recursive_read_only.as_deref() else { return };
    let field = format!("{field}.recursiveReadOnly");
    problems.one_of(&field, Some(recursive), &["Disabled", "IfPossible", "Enabled"]);
    let wanted = recursive != "Disabled";
    problems.refuse(wanted && !mount.read_only.unwrap_or(false), &field, "needs readOnly: true");
    problems.refuse(wanted && propagation != "None", &field, "cannot be combined with mountPropagation");
}

#[cfg(test)]
mod tests {
    use crate::agent::pod::tests::read;

    fn problems(volume: &str, mount: &str) -> String {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  volumes: [{{name: v, {volume}}}]\n  \
             containers: [{{name: c, image: 'bb:1', volumeMounts: [{{name: v, mountPath: /v{mount}}}]}}]\n"
        );
        read(&text).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn files_of_the_downward_api_are_checked_as_the_api_server_checks_them() {
        let of = |item: &str| problems(&format!("downwardAPI: {{items: [{{{item}}}]}}"), "");
        let name = "fieldRef: {fieldPath: metadata.name}";
        for (item, problem) in [
            (format!("path: a/b, mode: 256, {name}"), ""),
            ("path: l, fieldRef: {fieldPath: \"metadata.labels['x']\"}".to_owned(), ""),
            (format!("path: ../x, {name}"), "without '..'"),
            (format!("path: /x, {name}"), "without '..'"),
            (format!("path: x, mode: 512, {name}"), "mode must be"),
            ("path: x, fieldRef: {fieldPath: status.podIP}".to_owned(), "cannot have this fieldPath"),
            ("path: x, resourceFieldRef: {resource: limits.cpu}".to_owned(), "containerName"),
            ("path: x".to_owned(), "exactly one of"),
        ] {
            let found = of(&item);
            assert!(found.is_empty() == problem.is_empty() && found.contains(problem), "{item}: {found}");
        }
        let token = problems("projected: {sources: [{serviceAccountToken: {path: token}}]}", "");
        assert!(token.contains("projected.sources[0]: a static pod may not reference API objects"), "{token}");
        assert_eq!(problems("nfs: {server: s, path: /}", ""), "", "its mount fails, later");
    }

    #[test]
    fn mounts_are_checked_as_the_api_server_checks_them() {
        for (mount, problem) in [
            (", subPathExpr: $(A)", ""),
            (", subPath: a, subPathExpr: $(A)", "cannot be combined"),
            (", subPathExpr: ../$(A)", "without '..'"),
            (", mountPropagation: Bidirectional", "privileged"),
            (", readOnly: true, recursiveReadOnly: IfPossible", ""),
            (", recursiveReadOnly: IfPossible", "needs readOnly"),
        ] {
            let found = problems("emptyDir: {}", mount);
            assert!(found.is_empty() == problem.is_empty() && found.contains(problem), "{mount}: {found}");
        }
    }
}
