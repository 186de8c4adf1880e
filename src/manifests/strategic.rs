//! Strategic merge patches, Kubernetes' own kind: objects merge field by field, and lists that hold named things merge
//! by their key rather than being replaced.

use serde_json::{Map, Value};

/// Which lists merge, by the path of their fields from the root, and the field that tells their items apart.
pub(super) type Lists = &'static [(&'static [&'static str], &'static str)];

/// A type without such lists: KubeletConfiguration.
pub(super) const NO_LISTS: Lists = &[];

/// The lists of a Pod that the API marks as merged. Containers' own lists are looked up below `containers`, whichever
/// of the three kinds of container they are in.
pub(super) const POD_LISTS: Lists = &[
    (&["metadata", "ownerReferences"], "uid"),
    (&["spec", "containers"], "name"),
    (&["spec", "containers", "env"], "name"),
    (&["spec", "containers", "ports"], "containerPort"),
    (&["spec", "containers", "volumeDevices"], "devicePath"),
    (&["spec", "containers", "volumeMounts"], "mountPath"),
    (&["spec", "hostAliases"], "ip"),
    (&["spec", "imagePullSecrets"], "name"),
    (&["spec", "resourceClaims"], "name"),
    (&["spec", "schedulingGates"], "name"),
    (&["spec", "topologySpreadConstraints"], "topologyKey"),
    (&["spec", "volumes"], "name"),
];

/// The same of the Pod in a Deployment.
pub(super) const WORKLOAD_LISTS: Lists = &[
    (&["metadata", "ownerReferences"], "uid"),
    (&["spec", "template", "metadata", "ownerReferences"], "uid"),
    (&["spec", "template", "spec", "containers"], "name"),
    (&["spec", "template", "spec", "containers", "env"], "name"),
    (&["spec", "template", "spec", "containers", "ports"], "containerPort"),
    (&["spec", "template", "spec", "containers", "volumeDevices"], "devicePath"),
    (&["spec", "template", "spec", "containers", "volumeMounts"], "mountPath"),
    (&["spec", "template", "spec", "hostAliases"], "ip"),
    (&["spec", "template", "spec", "imagePullSecrets"], "name"),
    (&["spec", "template", "spec", "resourceClaims"], "name"),
    (&["spec", "template", "spec", "schedulingGates"], "name"),
    (&["spec", "template", "spec", "topologySpreadConstraints"], "topologyKey"),
    (&["spec", "template", "spec", "volumes"], "name"),
];

/// A patch that cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    /// An item of a merged list without its key.
    #[error("an item of {path} has no {key}, by which items of that list are told apart")]
    NoKey {
        /// The list.
        path: String,
        /// The missing field.
        key: &'static str,
    },
    /// `$patch` with another word than those there are.
    #[error("{path}: $patch is {directive}; it may be replace, merge or delete")]
    Directive {
        /// Where.
        path: String,
        /// What it is.
        directive: String,
    },
    /// A directive that only generated patches have.
    #[error("{path}: {directive} is not supported in a patch file")]
    Unsupported {
        /// Where.
        path: String,
        /// Which.
        directive: String,
    },
    /// The patch is a list or a scalar.
    #[error("a strategic merge patch is an object")]
    NotAnObject,
}

/// Merges `patch` into `base`.
///
/// # Errors
/// A patch that is no object, an item without its key, directives that are wrong or unknown.
pub(super) fn merge(base: &mut Value, patch: &Value, lists: Lists) -> Result<(), StrategicError> {
    let Value::Object(patch) = patch else { return Err(StrategicError::NotAnObject) };
    let merger = Merger { lists };
    let mut path = Vec::new();
    merger.object(base, patch, &mut path)
}

/// What `$patch` says about the object it is in.
enum Directive {
    Merge,
    Replace,
    Delete,
}

struct Merger {
    lists: Lists,
}

impl Merger {
    fn object<'a>(
        &self,
        base: &mut Value,
        patch: &'a Map<String, Value>,
        path: &mut Vec<&'a str>,
    ) -> Result<(), StrategicError> {
        match directive(patch, path)? {
            Directive::Merge => {}
            Directive::Replace => {
                *base = Value::Object(without_directives(patch));
                return Ok(());
            }
            Directive::Delete => {
                *base = Value::Object(Map::new());
                return Ok(());
            }
        }
        if !base.is_object() {
            *base = Value::Object(Map::new());
        }
        let Value::Object(fields) = base else { return Ok(()) };
        if let Some(Value::Array(retained)) = patch.get("$retainKeys") {
            fields.retain(|name, _| retained.iter().any(|kept| kept == name));
        }
        for (name, value) in patch {
            path.push(name);
            match value {
                _ if name == "$patch" || name == "$retainKeys" => {}
                _ if name.starts_with('$') => {
                    return Err(StrategicError::Unsupported { path: text(path), directive: name.clone() });
                }
                Value::Null => drop(fields.remove(name)),
                Value::Object(inner) => self.object(fields.entry(name).or_insert(Value::Null), inner, path)?,
                Value::Array(items) => match self.key(path) {
                    Some(key) => self.list(fields.entry(name).or_insert(Value::Null), items, key, path)?,
                    None => drop(fields.insert(name.clone(), value.clone())),
                },
                scalar => drop(fields.insert(name.clone(), scalar.clone())),
            }
            path.pop();
        }
        Ok(())
    }

    /// Merges the items of a list by `key`. What is new comes where the API server puts it: in the patch's order, and
    /// before items that only the base has.
    fn list<'a>(
        &self,
        base: &mut Value,
        patch: &'a [Value],
        key: &'static str,
        path: &mut Vec<&'a str>,
    ) -> Result<(), StrategicError> {
        let old = match base.take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let mut merged: Vec<Value> = Vec::new();
        let mut gone: Vec<&Value> = Vec::new();
        let mut replace_all = false;
        for item in patch {
            let Value::Object(fields) = item else { return Err(StrategicError::NoKey { path: text(path), key }) };
            let directive = directive(fields, path)?;
            if matches!(directive, Directive::Replace) && without_directives(fields).is_empty() {
                replace_all = true;
                continue;
            }
            let Some(id) = fields.get(key) else { return Err(StrategicError::NoKey { path: text(path), key }) };
            match directive {
                Directive::Delete => gone.push(id),
                Directive::Replace => {
                    replace_all = true;
                    merged.push(Value::Object(without_directives(fields)));
                }
                Directive::Merge => {
                    let place = merged.iter().position(|item| item.get(key) == Some(id));
                    let index = place.unwrap_or_else(|| {
                        let from = old.iter().find(|item| item.get(key) == Some(id)).filter(|_| !replace_all);
                        merged.push(from.cloned().unwrap_or(Value::Null));
                        merged.len() - 1
                    });
                    self.object(&mut merged[index], fields, path)?;
                }
            }
        }
        if !replace_all {
            insert_untouched(&mut merged, &old, &gone, key);
        }
        *base = Value::Array(merged);
        Ok(())
    }

    /// The key of the list at `path`, if it is one that merges.
    fn key(&self, path: &[&str]) -> Option<&'static str> {
        let same = |known: &[&str]| {
            known.len() == path.len()
                && known.iter().zip(path).all(|(known, field)| match *field {
                    "initContainers" | "ephemeralContainers" => *known == "containers",
                    field => *known == field,
                })
        };
        self.lists.iter().find(|(known, _)| same(known)).map(|(_, key)| *key)
    }
}

/// Puts the items of `old` that the patch did not name back among `merged`, each before the first item that stood
/// behind it, else at the end.
fn insert_untouched(merged: &mut Vec<Value>, old: &[Value], gone: &[&Value], key: &str) {
    let place = |item: &Value| old.iter().position(|other| other.get(key) == item.get(key));
    let touched: Vec<Value> = merged.iter().filter_map(|item| item.get(key)).cloned().collect();
    let mut from = 0;
    for (index, item) in old.iter().enumerate() {
        let named = item.get(key).is_some_and(|id| touched.contains(id) || gone.contains(&id));
        if named {
            continue;
        }
        let at = (from..merged.len()).find(|at| place(&merged[*at]).is_some_and(|other| other > index));
        let at = at.unwrap_or(merged.len());
        merged.insert(at, item.clone());
        from = at + 1;
    }
}

fn directive(fields: &Map<String, Value>, path: &[&str]) -> Result<Directive, StrategicError> {
    match fields.get("$patch") {
        None => Ok(Directive::Merge),
        Some(Value::String(word)) if word == "merge" => Ok(Directive::Merge),
        Some(Value::String(word)) if word == "replace" => Ok(Directive::Replace),
        Some(Value::String(word)) if word == "delete" => Ok(Directive::Delete),
        Some(other) => Err(StrategicError::Directive { path: text(path), directive: other.to_string() }),
    }
}

fn without_directives(fields: &Map<String, Value>) -> Map<String, Value> {
    fields
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn text(path: &[&str]) -> String {
    if path.is_empty() { "the patch".to_owned() } else { path.join(".") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({"spec": {
            "hostNetwork": true,
            "containers": [{
                "name": "a", "image": "x", "command": ["a", "--one"],
                "env": [{"name": "E", "value": "1"}],
                "ports": [{"containerPort": 1, "name": "p"}],
                "volumeMounts": [{"mountPath": "/m", "name": "v", "readOnly": true}],
            }],
            "volumes": [{"name": "v", "hostPath": {"path": "/v"}}, {"name": "w", "emptyDir": {}}],
            "tolerations": [{"key": "k"}],
        }})
    }

    fn merged(patch: Value) -> Value {
        let mut value = base();
        merge(&mut value, &patch, POD_LISTS).unwrap();
        value["spec"].take()
    }

    fn names(list: &Value) -> Vec<&str> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn named_things_merge_by_their_key_and_plain_lists_are_replaced() {
        let spec = merged(json!({"spec": {
            "containers": [{
                "name": "a", "command": ["a", "--two"],
                "env": [{"name": "E", "value": "2"}],
                "ports": [{"containerPort": 1, "hostPort": 9}],
                "volumeMounts": [{"mountPath": "/m", "readOnly": false}],
            }],
            "tolerations": [{"operator": "Exists"}],
        }}));
        let container = &spec["containers"][0];
        assert_eq!(container["image"], "x");
        assert_eq!(container["command"], json!(["a", "--two"]));
        assert_eq!(container["env"], json!([{"name": "E", "value": "2"}]));
        assert_eq!(container["ports"], json!([{"containerPort": 1, "name": "p", "hostPort": 9}]));
        assert_eq!(container["volumeMounts"], json!([{"mountPath": "/m", "name": "v", "readOnly": false}]));
        assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    }

    #[test]
    fn what_a_patch_adds_comes_before_what_only_the_pod_has() {
        let spec = merged(json!({"spec": {
            "containers": [{"name": "sidecar"}],
            "volumes": [{"name": "n"}, {"name": "w"}],
        }}));
        assert_eq!(names(&spec["containers"]), ["sidecar", "a"]);
        assert_eq!(names(&spec["volumes"]), ["n", "v", "w"]);
    }

    #[test]
    fn null_removes_a_field_and_patch_delete_an_item() {
        let spec = merged(json!({"spec": {
            "hostNetwork": null,
            "containers": [{"name": "a", "image": null, "env": [{"name": "E", "$patch": "delete"}]}],
            "volumes": [{"name": "v", "$patch": "delete"}, {"name": "none", "$patch": "delete"}],
        }}));
        assert_eq!(spec.get("hostNetwork"), None);
        assert_eq!(spec["containers"][0].get("image"), None);
        assert_eq!(spec["containers"][0]["env"], json!([]));
        assert_eq!(names(&spec["volumes"]), ["w"]);
    }

    #[test]
    fn patch_replace_takes_the_place_of_a_whole_list_or_object() {
        let spec = merged(json!({"spec": {
            "volumes": [{"$patch": "replace"}, {"name": "n", "emptyDir": {}}],
            "containers": [{"name": "a", "resources": {"$patch": "replace", "limits": {"cpu": "1"}}}],
        }}));
        assert_eq!(spec["volumes"], json!([{"name": "n", "emptyDir": {}}]));
        assert_eq!(spec["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
    }

    #[test]
    fn retained_keys_drop_the_other_source_of_a_volume() {
        let spec = merged(json!({"spec": {"volumes": [
            {"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}},
        ]}}));
        assert_eq!(spec["volumes"][0], json!({"name": "v", "emptyDir": {}}));
    }

    #[test]
    fn init_containers_merge_as_containers_do() {
        let patch = json!({"spec": {"initContainers": [{"name": "i", "env": [{"name": "A", "value": "1"}]}]}});
        let mut value = base();
        merge(&mut value, &patch, POD_LISTS).unwrap();
        let more = json!({"spec": {"initContainers": [{"name": "i", "env": [{"name": "B", "value": "2"}]}]}});
        merge(&mut value, &more, POD_LISTS).unwrap();
        assert_eq!(names(&value["spec"]["initContainers"][0]["env"]), ["B", "A"]);
    }

    #[test]
    fn impossible_patches_are_refused() {
        let error = |patch: Value| merge(&mut base(), &patch, POD_LISTS).unwrap_err();
        assert_eq!(error(json!([])), StrategicError::NotAnObject);
        let no_key = error(json!({"spec": {"containers": [{"image": "y"}]}}));
        assert_eq!(no_key, StrategicError::NoKey { path: "spec.containers".into(), key: "name" });
        assert!(matches!(error(json!({"spec": {"$patch": "drop"}})), StrategicError::Directive { .. }));
        let order = json!({"spec": {"$setElementOrder/containers": []}});
        assert!(matches!(error(order), StrategicError::Unsupported { .. }));
    }

    #[test]
    fn without_a_table_every_list_is_replaced() {
        let mut value = json!({"spec": {"containers": [{"name": "a"}]}});
        merge(&mut value, &json!({"spec": {"containers": [{"name": "b"}]}}), NO_LISTS).unwrap();
        assert_eq!(value, json!({"spec": {"containers": [{"name": "b"}]}}));
    }
}
