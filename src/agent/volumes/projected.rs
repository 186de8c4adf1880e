//! Volumes whose files the agent writes: downwardAPI, configMap, secret, and projected ones of such sources.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::Inputs;
use super::atomic::{Content, Payload};
use crate::agent::objects::{Kind, Object, token_key};
use crate::agent::pod::StaticPod;
use crate::agent::pod::downward;

const DEFAULT_MODE: i32 = 0o644;
/// A token is for the user of the pod alone, where it has one.
const TOKEN_MODE: u32 = 0o600;
/// What a group must be able to do with a file of its own (`SetVolumeOwnership` of a read-only volume).
const GROUP_READS: u32 = 0o440;

/// The files of a volume; None for one of another kind. The error names what cannot be had.
pub fn payload(pod: &StaticPod, volume: &Volume, inputs: &Inputs<'_>) -> Option<Result<Payload, String>> {
    let writer = |default: Option<i32>, user: Option<i64>| Writer {
        pod,
        inputs,
        default: default.unwrap_or(DEFAULT_MODE),
        user,
        files: Payload::new(),
    };
    if let Some(source) = &volume.downward_api {
        let writer = writer(source.default_mode, None);
        return Some(writer.finish(|files| files.downward(source.items.as_deref())));
    }
    if let Some(map) = &volume.config_map {
        let (items, name) = (map.items.as_deref(), map.name.as_str());
        let writer = writer(map.default_mode, map.default_user);
        return Some(writer.finish(|files| files.object(Kind::ConfigMap, name, items, map.optional)));
    }
    if let Some(secret) = &volume.secret {
        let (items, name) = (secret.items.as_deref(), secret.secret_name.as_deref().unwrap_or_default());
        let writer = writer(secret.default_mode, secret.default_user);
        return Some(writer.finish(|files| files.object(Kind::Secret, name, items, secret.optional)));
    }
    let source = volume.projected.as_ref()?;
    let writer = writer(source.default_mode, source.default_user);
    Some(writer.finish(|files| source.sources.iter().flatten().try_for_each(|one| files.source(one))))
}

/// Whether the files of a volume are secret: they are kept in memory.
pub fn is_secret(volume: &Volume) -> bool {
    let secret = |projected: &ProjectedVolumeSource| {
        let mut sources = projected.sources.iter().flatten();
        sources.any(|source| source.secret.is_some() || source.service_account_token.is_some())
    };
    volume.secret.is_some() || volume.projected.as_ref().is_some_and(secret)
}

struct Writer<'a> {
    pod: &'a StaticPod,
    inputs: &'a Inputs<'a>,
    default: i32,
    user: Option<i64>,
    files: Payload,
}

impl Writer<'_> {
    fn finish(mut self, fill: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<Payload, String> {
        fill(&mut self).map(|()| self.files)
    }

    fn source(&mut self, source: &VolumeProjection) -> Result<(), String> {
        if let Some(map) = &source.config_map {
            self.object(Kind::ConfigMap, &map.name, map.items.as_deref(), map.optional)?;
        }
        if let Some(secret) = &source.secret {
            self.object(Kind::Secret, &secret.name, secret.items.as_deref(), secret.optional)?;
        }
        if let Some(token) = &source.service_account_token {
            self.token(token)?;
        }
        match &source.downward_api {
            Some(api) => self.downward(api.items.as_deref()),
            None => Ok(()),
        }
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>) -> Result<(), String> {
        for file in items.into_iter().flatten() {
            let value = match (&file.field_ref, &file.resource_field_ref) {
                (Some(field), _) => downward::field(self.pod, &field.field_path, self.inputs.facts),
                (_, Some(resource)) => downward::resource(self.pod, None, resource, self.inputs.facts),
                _ => None,
            };
            let text = value.ok_or_else(|| format!("{}: this field cannot be read here", file.path))?;
            self.add(&file.path, text.into_bytes(), file.mode, None)?;
        }
        Ok(())
    }

    fn object(
        &mut self,
        kind: Kind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), String> {
        let inputs = self.inputs;
        let Some(object) = inputs.objects.get_optional(kind, name, optional)? else { return Ok(()) };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return object.files().try_for_each(|(key, bytes)| self.add(key, bytes.clone(), None, None));
        };
        for item in items {
            match value(object, item) {
                Some(bytes) => self.add(&item.path, bytes, item.mode, item.user)?,
                None if optional.unwrap_or(false) => {}
                None => return Err(format!("{kind} {name:?} has no key {:?}", item.key)),
            }
        }
        Ok(())
    }

    /// A token belongs to its pod's user where all containers have the same one (`FsUserFrom`).
    fn token(&mut self, of: &ServiceAccountTokenProjection) -> Result<(), String> {
        let (objects, key) = (self.inputs.objects, token_key(of));
        let missing = || match objects.refused.get(&key) {
            Some(why) => format!("{}: {why}", of.path),
            None => format!("{}: the token of the pod's service account is missing", of.path),
        };
        let token = objects.tokens.get(&key).ok_or_else(missing)?;
        let (user, bytes) = (of.user.or(self.user).or_else(|| user_of(self.pod)), token.as_bytes().to_vec());
        self.add(&of.path, bytes, None, user)?;
        let mode = if self.grouped() { TOKEN_MODE | GROUP_READS } else { TOKEN_MODE };
        if (user.is_some() || self.grouped())
            && let Some(file) = self.files.get_mut(&of.path)
        {
            file.mode = mode;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>, mode: Option<i32>, user: Option<i64>) -> Result<(), String> {
        // The API server has checked this; a file outside of its volume would be the agent's doing all the same.
        if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!("{path:?} leads out of the volume"));
        }
        let mode = u32::try_from(mode.unwrap_or(self.default)).unwrap_or(0o644) & 0o777;
        let mode = if self.grouped() { mode | GROUP_READS } else { mode };
        let owner = user.or(self.user).and_then(|user| u32::try_from(user).ok());
        self.files.insert(path.to_owned(), Content { bytes, mode, owner });
        Ok(())
    }

    fn grouped(&self) -> bool {
        self.pod.spec.security_context.as_ref().is_some_and(|context| context.fs_group.is_some())
    }
}

fn value(object: &Object, item: &KeyToPath) -> Option<Vec<u8>> {
    object.file(&item.key).cloned()
}

/// The user that all containers of a pod run as, if their manifest says so and it is one.
fn user_of(pod: &StaticPod) -> Option<i64> {
    let whole = pod.spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let own = pod.containers().map(|(_, one)| one.security_context.as_ref().and_then(|c| c.run_as_user).or(whole));
    let users: Vec<Option<i64>> = own.collect();
    let first = users.first().copied().flatten()?;
    users.iter().all(|user| *user == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::agent::objects::Objects;
    use crate::agent::pod::bound_tests::bound;
    use crate::agent::pod::downward::Facts;
    use crate::agent::pod::tests::read;

    fn payload_of(spec: &str) -> Result<Payload, String> {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{a: b}}}}\nspec:\n  {spec}\n  containers: [{{name: c, image: 'bb:1'}}]\n"
        );
        files_of(&read(&text).unwrap(), &Objects::default())
    }

    fn files_of(pod: &StaticPod, objects: &Objects) -> Result<Payload, String> {
        let volume = pod.spec.volumes.as_ref().unwrap()[0].clone();
        let facts = Facts { node_memory: 5 << 20, ..Facts::default() };
        payload(pod, &volume, &Inputs { facts: &facts, objects }).unwrap()
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
            let of = |path: &str| (files[path].bytes.as_slice(), files[path].mode);
            assert_eq!((of("labels"), of("d/memory")), ((b"a=\"b\"".as_slice(), 0o644), (b"5".as_slice(), 0o400)));
        }
        let spec =
            format!("securityContext: {{fsGroup: 7}}\n  volumes: [{{name: v, downwardAPI: {{items: {ITEMS}}}}}]");
        assert_eq!(payload_of(&spec).unwrap()["d/memory"].mode, 0o440);
        let wrong = "volumes: [{name: v, downwardAPI: {items: [{path: x, resourceFieldRef: {containerName: other, resource: limits.cpu}}]}}]";
        assert!(payload_of(wrong).unwrap_err().starts_with("x: "));
    }

    fn objects() -> Objects {
        let object = |data: &[(&str, &str)]| {
            let data = data.iter().map(|(key, text)| ((*key).to_owned(), text.as_bytes().to_vec())).collect();
            Arc::new(Object { data, ..Object::default() })
        };
        let found = [
            ((Kind::ConfigMap, "m".to_owned()), object(&[("a", "1"), ("b", "2")])),
            ((Kind::Secret, "s".to_owned()), object(&[("k", "hidden")])),
        ];
        let tokens = [(("x".to_owned(), 600), Arc::from("jwt"))];
        Objects { found: found.into(), tokens: tokens.into(), ..Objects::default() }
    }

    /// The files of a volume, `path=text mode owner` each, or what is wrong.
    fn shown(volume: Value, security: Value) -> Result<Vec<String>, String> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod = bound(json!({"volumes": [volume], "securityContext": security}), json!({}));
        let files = files_of(&pod, &objects())?;
        let one = |(path, file): (&String, &Content)| {
            format!("{path}={} {:o} {:?}", String::from_utf8_lossy(&file.bytes), file.mode, file.owner)
        };
        Ok(files.iter().map(one).collect())
    }

    #[test]
    fn config_maps_and_secrets_are_files_by_key_or_by_item() {
        let plain = |volume: Value| shown(volume, json!({}));
        let map = |rest: Value| {
            let mut map = json!({"name": "m"});
            map.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            plain(json!({"configMap": map}))
        };
        assert_eq!(map(json!({})).unwrap(), ["a=1 644 None", "b=2 644 None"]);
        let items =
            json!({"defaultMode": 416, "items": [{"key": "b", "path": "d/x"}, {"key": "a", "path": "y", "mode": 256}]});
        assert_eq!(map(items).unwrap(), ["d/x=2 640 None", "y=1 400 None"]);
        let absent = json!([{"key": "z", "path": "z"}]);
        assert_eq!(map(json!({"items": absent})).unwrap_err(), "configmap \"m\" has no key \"z\"");
        assert_eq!(map(json!({"items": absent, "optional": true})).unwrap(), Vec::<String>::new());
        assert!(map(json!({"items": [{"key": "a", "path": "../a"}]})).unwrap_err().contains("leads out"));
        let secret = |name: &str| plain(json!({"secret": {"secretName": name, "defaultMode": 256}}));
        assert_eq!(secret("s").unwrap(), ["k=hidden 400 None"]);
        assert_eq!(secret("none").unwrap_err(), "secret \"none\" not found");
        let may = json!({"secret": {"secretName": "none", "optional": true}});
        assert_eq!(plain(may).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn sources_are_put_together_and_a_token_is_the_users_alone() {
        let token = json!({"serviceAccountToken": {"path": "token", "audience": "x", "expirationSeconds": 600}});
        let volume = json!({"projected": {"sources": [token, {"configMap": {"name": "m", "items": [{"key": "a",
            "path": "ca"}]}}, {"secret": {"name": "s"}}]}});
        let of = |security: Value| shown(volume.clone(), security).unwrap();
        assert_eq!(of(json!({})), ["ca=1 644 None", "k=hidden 644 None", "token=jwt 644 None"]);
        assert_eq!(of(json!({"runAsUser": 7}))[2], "token=jwt 600 Some(7)");
        assert_eq!(of(json!({"fsGroup": 8}))[2], "token=jwt 640 None");
        let other = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
        assert!(shown(other, json!({})).unwrap_err().contains("is missing"));
    }

    #[test]
    fn secrets_and_tokens_are_kept_in_memory() {
        for (volume, expected) in [
            (json!({"secret": {"secretName": "s"}}), true),
            (json!({"configMap": {"name": "m"}}), false),
            (json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}), true),
            (json!({"projected": {"sources": [{"configMap": {"name": "m"}}]}}), false),
        ] {
            let mut volume = volume;
            volume["name"] = json!("v");
            assert_eq!(is_secret(&serde_json::from_value(volume.clone()).unwrap()), expected, "{volume}");
        }
    }
}
