//! downwardAPI volumes, and projected ones of that source.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Volume};

use super::atomic::{Content, Payload};
use crate::agent::downward::{self, Facts};
use crate::agent::pod::StaticPod;

const DEFAULT_MODE: i32 = 0o644;
/// What a group must be able to do with a file of its own (`SetVolumeOwnership` of a read-only volume).
const GROUP_READS: u32 = 0o440;

/// The files of a volume; None for one of another kind. The error names what cannot be had.
pub fn payload(pod: &StaticPod, volume: &Volume, facts: &Facts) -> Option<Result<Payload, String>> {
    let files: Vec<(&DownwardAPIVolumeFile, i32)> = if let Some(source) = &volume.downward_api {
        let default = source.default_mode.unwrap_or(DEFAULT_MODE);
        source.items.iter().flatten().map(|file| (file, default)).collect()
    } else {
        let source = volume.projected.as_ref()?;
        let default = source.default_mode.unwrap_or(DEFAULT_MODE);
        let sources = source.sources.iter().flatten();
        let items =
            sources.filter_map(|source| source.downward_api.as_ref()).flat_map(|api| api.items.iter().flatten());
        items.map(|file| (file, default)).collect()
    };
    let grouped = pod.spec.security_context.as_ref().is_some_and(|context| context.fs_group.is_some());
    let one = |(file, default): (&DownwardAPIVolumeFile, i32)| {
        let value = match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, facts),
            (_, Some(resource)) => downward::resource(pod, None, resource, facts),
            _ => None,
        };
        let text = value.ok_or_else(|| format!("{}: this field cannot be read here", file.path))?;
        let mode = u32::try_from(file.mode.unwrap_or(default)).unwrap_or(0o644) & 0o777;
        let mode = if grouped { mode | GROUP_READS } else { mode };
        Ok((file.path.clone(), Content { text, mode }))
    };
    Some(files.into_iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::read;

    fn payload_of(spec: &str) -> Result<Payload, String> {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{a: b}}}}\nspec:\n  {spec}\n  containers: [{{name: c, image: 'bb:1'}}]\n"
        );
        let pod = read(&text).unwrap();
        let volume = pod.spec.volumes.as_ref().unwrap()[0].clone();
        payload(&pod, &volume, &Facts { node_memory: 5 << 20, ..Facts::default() }).unwrap()
    }

    const ITEMS: &str = "[{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: d/memory, mode: 256, \
                         resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}]";

    #[test]
    fn files_have_the_fields_and_the_default_mode_unless_they_have_their_own() {
        for source in [
            format!("downwardAPI: {{defaultMode: 420, items: {ITEMS}}}"),
            format!("projected: {{sources: [{{downwardAPI: {{items: {ITEMS}}}}}]}}"),
        ] {
            let files = payload_of(&format!("volumes: [{{name: v, {source}}}]")).unwrap();
            let of = |path: &str| (files[path].text.as_str(), files[path].mode);
            assert_eq!((of("labels"), of("d/memory")), (("a=\"b\"", 0o644), ("5", 0o400)), "{source}");
        }
        let spec =
            format!("securityContext: {{fsGroup: 7}}\n  volumes: [{{name: v, downwardAPI: {{items: {ITEMS}}}}}]");
        assert_eq!(payload_of(&spec).unwrap()["d/memory"].mode, 0o440);
        let wrong = "volumes: [{name: v, downwardAPI: {items: [{path: x, resourceFieldRef: {containerName: other, resource: limits.cpu}}]}}]";
        assert!(payload_of(wrong).unwrap_err().starts_with("x: "));
    }
}
