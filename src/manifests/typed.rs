//! From a template's output, or a patched object, to its type, with nothing lost on the way.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A value that is not of the type it should be.
#[derive(Debug, thiserror::Error)]
pub enum NotTyped {
    /// A field of another type than it has there.
    #[error("not of its type")]
    Shape(#[source] serde_json::Error),
    /// A field that the type does not have, with its path.
    #[error("{0} is no field of it")]
    UnknownField(String),
}

/// `value` as a `T`. Unlike the types themselves this refuses fields that they do not have, and takes `cpu: 2` in the
/// pod at the JSON pointer `pod`.
///
/// # Errors
/// See [`NotTyped`].
pub fn decode<T: Serialize + DeserializeOwned>(mut value: Value, pod: &str) -> Result<T, NotTyped> {
    write_quantities_as_text(&mut value, pod);
    let typed: T = serde_json::from_value(value.clone()).map_err(NotTyped::Shape)?;
    let known = serde_json::to_value(&typed).map_err(NotTyped::Shape)?;
    match lost_field(&value, &known) {
        None => Ok(typed),
        Some(field) => Err(NotTyped::UnknownField(field.trim_start_matches('.').to_owned())),
    }
}

/// Quantities may be written as bare numbers, which Kubernetes reads, but the type is a text.
fn write_quantities_as_text(value: &mut Value, pod: &str) {
    for list in ["containers", "initContainers"] {
        let containers = value.pointer_mut(&format!("{pod}/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for kind in ["requests", "limits"] {
                let quantities = container.pointer_mut(&format!("/resources/{kind}")).and_then(Value::as_object_mut);
                for quantity in
                    quantities.into_iter().flat_map(|map| map.values_mut()).filter(|value| value.is_number())
                {
                    *quantity = Value::String(quantity.to_string());
                }
            }
        }
    }
}

/// The first field that `before` has and `after` has not; empty values count as not there.
fn lost_field(before: &Value, after: &Value) -> Option<String> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.iter().find_map(|(name, value)| match after.get(name) {
                Some(kept) => lost_field(value, kept).map(|rest| format!(".{name}{rest}")),
                None => (!is_empty(value)).then(|| format!(".{name}")),
            })
        }
        (Value::Array(before), Value::Array(after)) => before
            .iter()
            .zip(after)
            .enumerate()
            .find_map(|(index, (value, kept))| lost_field(value, kept).map(|rest| format!("[{index}]{rest}"))),
        _ => None,
    }
}
