//! Config maps and secrets that a pod refers to, as they were when last asked for. Pure.
//!
//! Nothing here has Debug: what is in secrets must get into no log.

pub mod services;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Secret, ServiceAccountTokenProjection, Volume};

use crate::agent::pod::StaticPod;

/// A kind of object with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// ConfigMap.
    ConfigMap,
    /// Secret.
    Secret,
}

/// The word of the kubelet's messages.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        })
    }
}

/// Kind and name, in the pod's namespace.
pub type Key = (Kind, String);

/// What a config map or secret holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// Its data, of which variables are taken.
    pub data: BTreeMap<String, Vec<u8>>,
    /// A config map's `binaryData`, which only volumes show.
    pub binary: BTreeMap<String, Vec<u8>>,
    /// It never changes again.
    pub immutable: bool,
    /// A secret's type.
    pub kind: String,
}

impl Object {
    /// All that a volume shows of it: what is text and what is not.
    pub fn files(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.data.iter().chain(&self.binary)
    }

    /// One of its files.
    pub fn file(&self, key: &str) -> Option<&Vec<u8>> {
        self.data.get(key).or_else(|| self.binary.get(key))
    }
}

impl From<ConfigMap> for Object {
    fn from(map: ConfigMap) -> Self {
        Self {
            data: map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes())).collect(),
            binary: map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect(),
            immutable: map.immutable.unwrap_or(false),
            kind: String::new(),
        }
    }
}

impl From<Secret> for Object {
    fn from(secret: Secret) -> Self {
        let data = secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0));
        Self {
            data: data.collect(),
            binary: BTreeMap::new(),
            immutable: secret.immutable.unwrap_or(false),
            kind: secret.type_.unwrap_or_default(),
        }
    }
}

/// Which token of a service account: for whom, and how many seconds it holds.
pub type TokenKey = (String, i64);

/// Everything a pod was given to read.
#[derive(Clone, Default)]
pub struct Objects {
    /// Those that are there.
    pub found: BTreeMap<Key, Arc<Object>>,
    /// Those of which it is not known whether they are there, and why not. They hold nothing else up.
    pub unread: BTreeMap<Key, String>,
    /// Why a token cannot be had.
    pub refused: BTreeMap<TokenKey, String>,
    /// Tokens of the pod's service account.
    pub tokens: BTreeMap<TokenKey, Arc<str>>,
    /// The variables of services.
    pub services: Vec<(String, String)>,
}

impl Objects {
    /// An object; the error is the kubelet's word for one that is not there.
    pub fn get(&self, kind: Kind, name: &str) -> Result<&Object, String> {
        self.get_optional(kind, name, Some(false))?.ok_or_else(|| format!("{kind} {name:?} not found"))
    }

    /// The same of one that may be missing: None where it is, and may be. One that cannot be read is not missing.
    pub fn get_optional(&self, kind: Kind, name: &str, optional: Option<bool>) -> Result<Option<&Object>, String> {
        let key = (kind, name.to_owned());
        match (self.found.get(&key), self.unread.get(&key)) {
            (Some(object), _) => Ok(Some(object)),
            (None, Some(why)) => Err(format!("{kind} {name:?} cannot be read: {why}")),
            (None, None) if optional.unwrap_or(false) => Ok(None),
            (None, None) => Err(format!("{kind} {name:?} not found")),
        }
    }
}

/// What a token projection asks for.
pub fn token_key(of: &ServiceAccountTokenProjection) -> TokenKey {
    (of.audience.clone().unwrap_or_default(), of.expiration_seconds.unwrap_or(3600))
}

/// What a pod refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Config maps and secrets.
    pub objects: BTreeSet<Key>,
    /// Tokens.
    pub tokens: BTreeSet<TokenKey>,
}

/// What the volumes of a pod and, if `container` is given, its environment refer to.
pub fn references(pod: &StaticPod, container: Option<&str>) -> References {
    let mut all = References::default();
    pod.spec.volumes.iter().flatten().for_each(|volume| all.add_volume(volume));
    if let Some(one) = container.and_then(|name| pod.container(name)) {
        all.add_environment(one);
    }
    all
}

/// Whether a pod has volumes whose files follow what the API server says.
pub fn has_files(pod: &StaticPod) -> bool {
    let follows = |volume: &Volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    };
    pod.spec.volumes.iter().flatten().any(follows)
}

impl References {
    fn add(&mut self, kind: Kind, name: &str) {
        self.objects.insert((kind, name.to_owned()));
    }

    fn add_volume(&mut self, volume: &Volume) {
        if let Some(map) = &volume.config_map {
            self.add(Kind::ConfigMap, &map.name);
        }
        if let Some(secret) = &volume.secret {
            self.add(Kind::Secret, secret.secret_name.as_deref().unwrap_or_default());
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(map) = &source.config_map {
                self.add(Kind::ConfigMap, &map.name);
            }
            if let Some(secret) = &source.secret {
                self.add(Kind::Secret, &secret.name);
            }
            self.tokens.extend(source.service_account_token.as_ref().map(token_key));
        }
    }

    fn add_environment(&mut self, container: &Container) {
        for from in container.env_from.iter().flatten() {
            if let Some(map) = &from.config_map_ref {
                self.add(Kind::ConfigMap, &map.name);
            }
            if let Some(secret) = &from.secret_ref {
                self.add(Kind::Secret, &secret.name);
            }
        }
        for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            if let Some(key) = &from.config_map_key_ref {
                self.add(Kind::ConfigMap, &key.name);
            }
            if let Some(key) = &from.secret_key_ref {
                self.add(Kind::Secret, &key.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::pod::bound_tests::bound;

    #[test]
    fn volumes_and_the_environment_of_one_container_are_referred_to() {
        let spec = json!({
            "volumes": [
                {"name": "a", "configMap": {"name": "files"}}, {"name": "b", "secret": {"secretName": "keys"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "more"}}, {"configMap": {"name": "ca"}},
                    {"serviceAccountToken": {"path": "t", "audience": "x"}}]}}, {"name": "e", "emptyDir": {}}],
            "containers": [
                {"name": "one", "envFrom": [{"configMapRef": {"name": "env"}}, {"secretRef": {"name": "env"}}]},
                {"name": "two", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "value", "key": "k"}}}]}]});
        let pod = bound(spec, json!({}));
        let of = |container: Option<&str>| {
            let all = references(&pod, container);
            let names: Vec<_> = all.objects.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
            (names.join(", "), all.tokens.into_iter().next().unwrap())
        };
        let token = ("x".to_owned(), 3600);
        assert_eq!(of(None), ("configmap ca, configmap files, secret keys, secret more".to_owned(), token.clone()));
        let one = "configmap ca, configmap env, configmap files, secret env, secret keys, secret more";
        assert_eq!(of(Some("one")).0, one);
        assert!(of(Some("two")).0.contains("configmap value") && of(Some("two")).0.contains("secret key,"));
        assert!(has_files(&pod) && !has_files(&bound(json!({}), json!({}))));
    }

    #[test]
    fn text_of_a_config_map_is_its_data_and_bytes_are_files_as_well() {
        let map = json!({"data": {"a": "1"}, "binaryData": {"b": "AP8="}, "immutable": true});
        let object = Object::from(serde_json::from_value::<ConfigMap>(map).unwrap());
        let files: Vec<_> = object.files().map(|(key, bytes)| (key.as_str(), bytes.as_slice())).collect();
        assert_eq!(files, [("a", b"1".as_slice()), ("b", &[0, 255])]);
        assert_eq!((object.file("a"), object.file("b")), (Some(&b"1".to_vec()), Some(&vec![0, 255])));
        assert!(object.data.contains_key("a") && !object.data.contains_key("b"));
        assert!(object.immutable);
        let objects = Objects::default();
        assert_eq!(objects.get(Kind::Secret, "s").err().unwrap(), "secret \"s\" not found");
        assert!(objects.get_optional(Kind::Secret, "s", Some(true)).unwrap_or_else(|e| panic!("{e}")).is_none());
        assert!(objects.get_optional(Kind::Secret, "s", None).is_err());
    }
}
