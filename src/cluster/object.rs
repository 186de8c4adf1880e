//! Objects as data: what is to be written to the API server, or printed.

use k8s_openapi::Resource;
use kube::core::{ApiResource, DynamicObject};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::yaml::{self, EmitError};

/// What stands in the place of a secret.
const WITHHELD: &str = "<withheld>";
/// The type of the Secrets whose only secret is the one of a bootstrap token.
const TOKEN_TYPE: &str = super::bootstrap_token::SECRET_TYPE;
/// What the API server writes into `metadata` by itself.
const SERVERS_OWN: &[&str] =
    &["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"];

/// What is done with an object that is there already.
///
/// Server-side apply would leave fields behind that a plain update by kubeadm once owned, and needs the objects' list
/// keys, which the API servers from 1.20 to 1.37 do not all know alike. Create, then update on what was read, means the
/// same on all of them.
#[derive(Debug, Clone, Copy)]
pub enum WriteMode {
    /// It is ours whole: made, or put in the place of what is there.
    Replace,
    /// Others write into it too: made, or merged into what is there.
    Merge,
    /// Made; where it is there, what is wanted takes over what stays of that, and is merged.
    Adapt(Adapt),
    /// Made, or left as it is.
    Keep,
    /// Never made: the patch, where the object is there, is what this makes of it and of what is wanted.
    Amend(Amend),
}

/// A merge patch out of what is there and what is wanted; None when nothing is to be done.
pub type Amend = fn(current: &Value, wanted: &Value) -> Option<Value>;

/// Puts what stays of what is there into what is wanted.
pub type Adapt = fn(current: &Value, wanted: &mut Value);

/// Kinds that belong to their writer alone; the others have fields that the API server or a controller fills in.
const OWN_KINDS: &[&str] = &["ConfigMap", "Secret", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];

/// An object to write. May hold secrets, hence a Debug that shows its name only.
#[derive(Clone)]
pub struct Object {
    /// Kind and group.
    pub resource: ApiResource,
    /// Whole, with `apiVersion` and `kind`.
    pub value: Value,
    /// What is done where it is there.
    pub mode: WriteMode,
    /// JSON pointer of a field that stays as it is where the object is there.
    pub kept: Option<&'static str>,
    /// Name of an object of the same kind and namespace, written before it, which takes it along when it goes.
    pub owner: Option<String>,
}

/// What an object is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `ConfigMap`.
    pub kind: String,
    /// None for objects of the whole cluster.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Object {
    /// `object`, to be made; where it is there, replaced if it is of a kind that is its writer's alone, else merged.
    pub fn new<K: Resource + Serialize>(object: &K) -> Self {
        let resource = ApiResource {
            group: K::GROUP.into(),
            version: K::VERSION.into(),
            api_version: K::API_VERSION.into(),
            kind: K::KIND.into(),
            plural: K::URL_PATH_SEGMENT.into(),
        };
        // These types are structs of texts, numbers and maps of them: there is none that JSON cannot hold.
        let value = without_nulls(serde_json::to_value(object).unwrap_or_default());
        let mode = if OWN_KINDS.contains(&K::KIND) { WriteMode::Replace } else { WriteMode::Merge };
        Self { resource, value, mode, kept: None, owner: None }
    }

    /// The same with another manner.
    pub fn with(self, mode: WriteMode) -> Self {
        Self { mode, ..self }
    }

    /// The same, but for a field (a JSON pointer) that another client owns once the object is there.
    pub fn keeping(self, field: &'static str) -> Self {
        Self { kept: Some(field), ..self }
    }

    /// The same, to go when `owner` goes, which is written first.
    pub fn owned_by(self, owner: &Object) -> Self {
        Self { owner: Some(owner.name().to_owned()), ..self }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`; None for objects of the whole cluster.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }

    /// What it is found by.
    pub fn key(&self) -> Key {
        let namespace = self.namespace().map(str::to_owned);
        Key { kind: self.resource.kind.clone(), namespace, name: self.name().to_owned() }
    }

    /// For the kube crate.
    pub(super) fn dynamic(&self, value: Value) -> Result<DynamicObject, serde_json::Error> {
        serde_json::from_value(value)
    }

    /// `kubeadm`'s word for what is done, and its name for the resource: `CREATE`, `configmaps`, `core/v1`.
    pub fn action(&self) -> (&'static str, &str, String) {
        let verb = if matches!(self.mode, WriteMode::Amend(_)) { "PATCH" } else { "CREATE" };
        let group = if self.resource.group.is_empty() { "core" } else { self.resource.group.as_str() };
        (verb, &self.resource.plural, format!("{group}/{}", self.resource.version))
    }

    /// The object as YAML, without secrets.
    ///
    /// # Errors
    /// None but those of writing YAML.
    pub fn shown(&self) -> Result<String, EmitError> {
        let mut value = self.value.clone();
        if self.resource.kind == "Secret" {
            let is_token = value["type"] == TOKEN_TYPE;
            let data = value.get_mut("data").and_then(Value::as_object_mut);
            let secrets = data.into_iter().flatten().filter(|(key, _)| !is_token || *key == "token-secret");
            secrets.for_each(|(_, secret)| *secret = Value::String(WITHHELD.into()));
        }
        yaml::to_string(&value)
    }

    /// What has to be sent so that `current`, as the API server has it, is as it is wanted; None when it is.
    pub(super) fn update(&self, current: &Value) -> Option<Update> {
        let mut wanted = self.value.clone();
        if let Some(pointer) = self.kept
            && let (Some(own), Some(there)) = (wanted.pointer_mut(pointer), current.pointer(pointer))
        {
            *own = there.clone();
        }
        match self.mode {
            WriteMode::Keep => None,
            WriteMode::Amend(amend) => amend(current, &wanted).map(|patch| Update::Patch(versioned(patch, current))),
            WriteMode::Adapt(adapt) => {
                adapt(current, &mut wanted);
                (!holds(current, &wanted)).then(|| Update::Patch(versioned(wanted, current)))
            }
            WriteMode::Merge => (!holds(current, &wanted)).then(|| Update::Patch(versioned(wanted, current))),
            WriteMode::Replace => {
                let (own, there) = (stripped(&wanted), stripped(current));
                (own != there).then(|| Update::Put(versioned(wanted, current)))
            }
        }
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({})", self.key())
    }
}

/// How what is there becomes what is wanted.
#[derive(Debug, PartialEq)]
pub(super) enum Update {
    /// The whole of it.
    Put(Value),
    /// A merge patch.
    Patch(Value),
}

/// `change`, refused where the object is no longer the one that was read.
fn versioned(mut change: Value, current: &Value) -> Value {
    change["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    change
}

/// The object as its writer sees it: without what the API server writes into `metadata`.
pub fn stripped(value: &Value) -> Value {
    let mut value = without_nulls(value.clone());
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| !SERVERS_OWN.contains(&key.as_str()));
    }
    value
}

/// Whether everything of `wanted` is in `current`; lists have to be of one length.
fn holds(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| current.get(key).is_some_and(|current| holds(current, wanted)))
        }
        (Value::Array(current), Value::Array(wanted)) => {
            current.len() == wanted.len() && current.iter().zip(wanted).all(|(current, wanted)| holds(current, wanted))
        }
        _ => current == wanted,
    }
}

/// Without fields that are null: the API server has none, and a merge patch would delete by them.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
    use serde_json::json;

    use super::*;

    fn config_map() -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "n"}, "data": {"k": "v"}})).unwrap()
    }

    fn there(mut value: Value) -> Value {
        value["metadata"]["resourceVersion"] = json!("7");
        value["metadata"]["uid"] = json!("u");
        value["metadata"]["creationTimestamp"] = json!("2026-01-02T15:04:05Z");
        value
    }

    #[test]
    fn an_object_knows_where_it_belongs() {
        let object = Object::new(&config_map());
        assert_eq!(object.key().to_string(), "ConfigMap n/a");
        assert_eq!(object.action(), ("CREATE", "configmaps", "core/v1".to_owned()));
        assert_eq!(format!("{object:?}"), "Object(ConfigMap n/a)");
    }

    #[test]
    fn what_is_ours_whole_is_put_and_what_is_as_wanted_is_left() {
        let object = Object::new(&config_map());
        let mut current = there(object.value.clone());
        assert_eq!(object.update(&current), None);
        current["data"]["other"] = json!("x");
        let mut put = object.value.clone();
        put["metadata"]["resourceVersion"] = json!("7");
        assert_eq!(object.update(&current), Some(Update::Put(put.clone())));
        let merged = object.clone().with(WriteMode::Merge);
        assert_eq!(merged.update(&current), None);
        current["data"]["k"] = json!("old");
        assert_eq!(merged.update(&current), Some(Update::Patch(put)));
        current["data"].as_object_mut().unwrap().remove("other");
        assert_eq!(object.clone().keeping("/data/k").update(&current), None);
        assert_eq!(object.with(WriteMode::Keep).update(&current), None);
    }

    #[test]
    fn defaults_that_the_server_fills_in_are_no_difference() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]},
        }))
        .unwrap();
        let object = Object::new(&service);
        let mut current = there(object.value.clone());
        current["spec"]["ports"][0]["targetPort"] = json!(53);
        current["spec"]["sessionAffinity"] = json!("None");
        assert_eq!(object.update(&current), None);
        current["spec"]["ports"] = json!([]);
        assert!(matches!(object.update(&current), Some(Update::Patch(_))));
    }

    #[test]
    fn a_secret_is_shown_without_what_is_secret() {
        let secret = |kind: &str| -> Secret {
            let data = json!({"token-id": "YWJjZGVm", "token-secret": "c2VjcmV0"});
            serde_json::from_value(json!({"metadata": {"name": "a"}, "type": kind, "data": data})).unwrap()
        };
        let token = Object::new(&secret(TOKEN_TYPE)).shown().unwrap();
        assert!(token.contains("token-id: YWJjZGVm") && token.contains("token-secret: <withheld>"), "{token}");
        let other = Object::new(&secret("Opaque")).shown().unwrap();
        assert!(!other.contains("YWJj") && !other.contains("c2Vj"), "{other}");
    }
}
