//! Strategic merge patches, Kubernetes' own kind: objects merge field by field, and lists that hold named things merge
//! by their key rather than being replaced.
//!
//! What comes out is what `k8s.io/apimachinery/pkg/util/strategicpatch` makes of it, the order of lists included.

mod order;

use serde_json::{Map, Value};

use order::arrange;
pub(in crate::manifests) use order::same;

/// Which lists merge, by the path of their fields from the root, and the field that tells their items apart; lists of
/// texts have none.
pub(super) type Lists = &'static [(&'static [&'static str], &'static str)];

/// A type without such lists: KubeletConfiguration.
pub(super) const NO_LISTS: Lists = &[];

/// The key of lists whose items are distinguished by their values.
const ITSELF: &str = "";

/// The lists of a Pod that the API marks as merged. Containers' own lists are looked up below `containers`, whichever
/// of the three kinds of container they are in.
pub(super) const POD_LISTS: Lists = &[
    (&["metadata", "finalizers"], ITSELF),
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
    (&["status", "conditions"], "type"),
    (&["status", "hostIPs"], "ip"),
    (&["status", "podIPs"], "ip"),
    (&["status", "resourceClaimStatuses"], "name"),
];

/// The same of the Pod in a Deployment or a DaemonSet.
pub(super) const WORKLOAD_LISTS: Lists = &[
    (&["metadata", "finalizers"], ITSELF),
    (&["metadata", "ownerReferences"], "uid"),
    (&["spec", "template", "metadata", "finalizers"], ITSELF),
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
    (&["status", "conditions"], "type"),
];

/// What the directives of a patch are called; the name of a list follows the last two.
const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

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
    /// A directive that there is not.
    #[error(
        "{path}: there is no directive {directive}; there are $patch, $retainKeys, $setElementOrder/LIST and \
         $deleteFromPrimitiveList/LIST"
    )]
    Unsupported {
        /// Where.
        path: String,
        /// Which.
        directive: String,
    },
    /// A directive that wants a list and has none.
    #[error("{path}: {directive} is no list")]
    NoList {
        /// Where.
        path: String,
        /// Which.
        directive: String,
    },
    /// `$retainKeys` without a field that the patch sets.
    #[error("{path}: the patch sets {field}, which its $retainKeys does not name")]
    NotRetained {
        /// Where.
        path: String,
        /// The field.
        field: String,
    },
    /// Items of the patch in another order than `$setElementOrder` says, or not named there.
    #[error("{path}: the patch has items that its $setElementOrder does not name, or in another order")]
    Order {
        /// The list.
        path: String,
    },
    /// The patch is a list or a scalar.
    #[error("a strategic merge patch is an object")]
    NotAnObject,
}

/// Merges `patch` into `base`; null changes nothing.
///
/// # Errors
/// A patch that is no object, an item without its key, directives that are wrong or unknown.
pub(super) fn merge(base: &mut Value, patch: &Value, lists: Lists) -> Result<(), StrategicError> {
    match patch {
        Value::Null => Ok(()),
        Value::Object(patch) => Merger { lists }.object(base, patch, &mut Vec::new()),
        _ => Err(StrategicError::NotAnObject),
    }
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
                *base = Value::Object(bare_fields(patch));
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
        retain(fields, patch, path)?;
        for (name, value) in patch {
            if let Some(list) = name.strip_prefix(DELETE_FROM) {
                delete_from(fields, list, value, path)?;
            }
        }
        let ordered = self.ordered(fields, patch, path)?;
        for (name, value) in patch.iter().filter(|(name, _)| !ordered.contains(&name.as_str())) {
            let is_known = [PATCH, RETAIN_KEYS].contains(&name.as_str())
                || [SET_ORDER, DELETE_FROM].iter().any(|prefix| name.starts_with(prefix));
            match name.starts_with('$') {
                true if is_known => {}
                true => return Err(StrategicError::Unsupported { path: text(path), directive: name.clone() }),
                false => {
                    path.push(name);
                    self.field(fields, name, value, path)?;
                    path.pop();
                }
            }
        }
        Ok(())
    }

    fn field<'a>(
        &self,
        fields: &mut Map<String, Value>,
        name: &str,
        value: &'a Value,
        path: &mut Vec<&'a str>,
    ) -> Result<(), StrategicError> {
        match (fields.get_mut(name), value) {
            (Some(old @ Value::Object(_)), Value::Object(inner)) => return self.object(old, inner, path),
            (Some(Value::Array(old)), Value::Array(items)) => {
                *old = match self.key(path) {
                    Some(key) => self.list(std::mem::take(old), items, key, path)?,
                    None => items.iter().map(bare).collect(),
                };
                return Ok(());
            }
            _ => {}
        }
        match taken(value).filter(|_| !value.is_null()) {
            Some(new) => drop(fields.insert(name.to_owned(), new)),
            None => drop(fields.remove(name)),
        }
        Ok(())
    }

    /// Merges the items of a list by `key`. Of several items with one key the first is patched. What is new comes where the
    /// API server puts it: in the patch's order, and before items that only the base has.
    fn list<'a>(
        &self,
        mut old: Vec<Value>,
        patch: &'a [Value],
        key: &'static str,
        path: &mut Vec<&'a str>,
    ) -> Result<Vec<Value>, StrategicError> {
        if key == ITSELF {
            let mut merged = old.clone();
            patch.iter().for_each(|item| match merged.contains(item) {
                true => {}
                false => merged.push(item.clone()),
            });
            return Ok(arrange(merged, patch, &old, key));
        }
        let no_key = |path: &[&str]| StrategicError::NoKey { path: text(path), key };
        let (mut named, mut replace) = (Vec::new(), false);
        for item in patch {
            let Value::Object(fields) = item else { return Err(no_key(path)) };
            match directive(fields, path)? {
                Directive::Merge => named.push(item),
                Directive::Replace => replace = true,
                Directive::Delete => {
                    let id = fields.get(key).ok_or_else(|| no_key(path))?;
                    old.retain(|item| !item.get(key).is_some_and(|has| same(has, id)));
                }
            }
        }
        if replace {
            let new: Vec<Value> = named.into_iter().map(bare).collect();
            return Ok(arrange(new.clone(), &[], &new, key));
        }
        let mut merged = old.clone();
        for item in &named {
            let Value::Object(fields) = item else { continue };
            let id = fields.get(key).ok_or_else(|| no_key(path))?;
            match merged.iter_mut().find(|item| item.get(key).is_some_and(|has| same(has, id))) {
                Some(first) => self.object(first, fields, path)?,
                None => merged.push(bare(item)),
            }
        }
        let order: Vec<Value> = named.into_iter().cloned().collect();
        Ok(arrange(merged, &order, &old, key))
    }

    /// Merges the lists whose order the patch gives, and returns their names.
    fn ordered<'a>(
        &self,
        fields: &mut Map<String, Value>,
        patch: &'a Map<String, Value>,
        path: &mut Vec<&'a str>,
    ) -> Result<Vec<&'a str>, StrategicError> {
        let mut done = Vec::new();
        for (directive, order) in patch {
            let Some(name) = directive.strip_prefix(SET_ORDER) else { continue };
            let no_list = |path: &[&str]| StrategicError::NoList { path: text(path), directive: directive.clone() };
            let Value::Array(order) = order else { return Err(no_list(path)) };
            path.push(name);
            let (old, new) = (fields.get(name), patch.get(name));
            if [old, new].into_iter().flatten().any(|value| !value.is_array()) {
                return Err(no_list(path));
            }
            let old = old.and_then(Value::as_array).cloned();
            let new = new.and_then(Value::as_array);
            if let Some(key) = self.key(path) {
                let server = old.clone().unwrap_or_default();
                if !order::agrees(new.map_or(&[], Vec::as_slice), order, key) {
                    return Err(StrategicError::Order { path: text(path) });
                }
                let merged = match (old, new) {
                    (Some(old), Some(new)) => Some(self.list(old, new, key, path)?),
                    (None, Some(new)) => Some(new.iter().filter_map(taken).collect()),
                    (old, None) => old,
                };
                if let Some(merged) = merged {
                    fields.insert(name.to_owned(), Value::Array(arrange(merged, order, &server, key)));
                }
                done.push(name);
            }
            path.pop();
        }
        Ok(done)
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

/// Drops what `$retainKeys` does not name.
fn retain(fields: &mut Map<String, Value>, patch: &Map<String, Value>, path: &[&str]) -> Result<(), StrategicError> {
    let kept = match patch.get(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(kept)) => kept,
        Some(_) => return Err(StrategicError::NoList { path: text(path), directive: RETAIN_KEYS.to_owned() }),
    };
    let is_kept = |name: &str| kept.iter().any(|kept| kept == name);
    let set = patch.iter().find(|(name, value)| !name.starts_with('$') && !value.is_null() && !is_kept(name));
    if let Some((field, _)) = set {
        return Err(StrategicError::NotRetained { path: text(path), field: field.clone() });
    }
    fields.retain(|name, _| is_kept(name));
    Ok(())
}

/// Takes the items of `value` out of the list of texts `list`.
fn delete_from(
    fields: &mut Map<String, Value>,
    list: &str,
    value: &Value,
    path: &[&str],
) -> Result<(), StrategicError> {
    let Value::Array(items) = value else {
        return Err(StrategicError::NoList { path: text(path), directive: format!("{DELETE_FROM}{list}") });
    };
    if let Some(Value::Array(old)) = fields.get_mut(list) {
        old.retain(|item| !items.iter().any(|gone| same(gone, item)));
    }
    Ok(())
}

fn directive(fields: &Map<String, Value>, path: &[&str]) -> Result<Directive, StrategicError> {
    match fields.get(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(word)) if word == "merge" => Ok(Directive::Merge),
        Some(Value::String(word)) if word == "replace" => Ok(Directive::Replace),
        Some(Value::String(word)) if word == "delete" => Ok(Directive::Delete),
        Some(other) => Err(StrategicError::Directive { path: text(path), directive: other.to_string() }),
    }
}

/// What becomes of a value where there was none of its kind: [`bare`], and without what is marked to be deleted or
/// replaced, for there is nothing.
fn taken(value: &Value) -> Option<Value> {
    match value {
        Value::Object(fields) => match fields.get(PATCH) {
            Some(word) if word != "merge" => None,
            _ => Some(Value::Object(
                plain(fields).filter_map(|(name, value)| Some((name.clone(), taken(value)?))).collect(),
            )),
        },
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(taken).collect())),
        scalar => Some(scalar.clone()),
    }
}

/// A value that is put in whole, as a new item of a list is: without directives and nulls, which no object keeps.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(bare_fields(fields)),
        Value::Array(items) => Value::Array(items.iter().map(bare).collect()),
        scalar => scalar.clone(),
    }
}

fn bare_fields(fields: &Map<String, Value>) -> Map<String, Value> {
    plain(fields).map(|(name, value)| (name.clone(), bare(value))).collect()
}

fn plain(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    fields.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null())
}

fn text(path: &[&str]) -> String {
    if path.is_empty() { "the patch".to_owned() } else { path.join(".") }
}

#[cfg(test)]
mod tests;
