//! JSON patches (RFC 6902) as kubeadm's library takes them, which is more than the standard allows: indices counted from
//! the end and with leading zeros, a `replace` of a field that is not there, a `test` of one against null, and numbers
//! that are compared by value.

use serde_json::{Map, Value};

use super::strategic::same;

/// One operation, as far as it can be read without the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operation {
    Add(String, Value),
    Remove(String),
    Replace(String, Value),
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test(String, Value),
}

/// A list of operations that cannot be read or applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// The patch is no list of objects.
    #[error("it is no list of operations with op and path")]
    NotAList,
    /// An operation that there is not.
    #[error("operation {index}: there is no op {op:?}; there are add, remove, replace, move, copy and test")]
    Unknown {
        /// Which operation, from 1.
        index: usize,
        /// What it says.
        op: String,
    },
    /// A field that is missing, or no text.
    #[error("operation {index}: it has no {field}, or one that is no text")]
    Lacks {
        /// Which operation, from 1.
        index: usize,
        /// The field.
        field: &'static str,
    },
    /// A pointer to nothing.
    #[error("operation {index}: {path:?} {problem}")]
    Pointer {
        /// Which operation, from 1.
        index: usize,
        /// The pointer.
        path: String,
        /// What is wrong with it; reads on after it.
        problem: &'static str,
    },
    /// A test that failed.
    #[error("operation {index}: the test of {path:?} failed")]
    Test {
        /// Which operation, from 1.
        index: usize,
        /// What was tested.
        path: String,
    },
}

/// Applies `patch` to `document`, which stays as it was where that fails; null has no operations.
///
/// # Errors
/// A patch that is no list of operations, and the first operation that fails.
pub(super) fn apply(document: &mut Value, patch: &Value) -> Result<(), JsonPatchError> {
    let operations = match patch {
        Value::Null => return Ok(()),
        Value::Array(operations) => operations,
        _ => return Err(JsonPatchError::NotAList),
    };
    let mut new = document.clone();
    for (at, operation) in operations.iter().enumerate() {
        let index = at + 1;
        let fields = operation.as_object().ok_or(JsonPatchError::NotAList)?;
        let operation = Operation::read(fields, index)?;
        let path = operation.path().to_owned();
        operation.run(&mut new).map_err(|problem| match problem {
            Fault::Test => JsonPatchError::Test { index, path },
            Fault::Pointer(path, problem) => JsonPatchError::Pointer { index, path, problem },
        })?;
    }
    *document = new;
    Ok(())
}

/// Why an operation failed.
enum Fault {
    Test,
    Pointer(String, &'static str),
}

impl Operation {
    fn read(fields: &Map<String, Value>, index: usize) -> Result<Self, JsonPatchError> {
        let text = |field: &'static str| {
            let text = fields.get(field).and_then(Value::as_str).map(str::to_owned);
            text.ok_or(JsonPatchError::Lacks { index, field })
        };
        let value = || fields.get("value").cloned().unwrap_or(Value::Null);
        let op = text("op")?;
        Ok(match op.as_str() {
            "add" => Self::Add(text("path")?, value()),
            "remove" => Self::Remove(text("path")?),
            "replace" => Self::Replace(text("path")?, value()),
            "move" => Self::Move { from: text("from")?, path: text("path")? },
            "copy" => Self::Copy { from: text("from")?, path: text("path")? },
            "test" => Self::Test(text("path")?, value()),
            _ => return Err(JsonPatchError::Unknown { index, op }),
        })
    }

    fn path(&self) -> &str {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Replace(path, _) | Self::Test(path, _) => path,
            Self::Move { path, .. } | Self::Copy { path, .. } => path,
        }
    }

    fn run(self, document: &mut Value) -> Result<(), Fault> {
        match self {
            Self::Add(path, value) => at(document, &path, |place| place.add(value)),
            Self::Remove(path) => at(document, &path, |place| place.remove()).map(drop),
            Self::Replace(path, value) if path.is_empty() => {
                *document = value;
                Ok(())
            }
            Self::Replace(path, value) => at(document, &path, |place| place.replace(value)),
            Self::Move { from, path } => {
                let value = at(document, &from, |place| place.remove())?;
                at(document, &path, |place| place.add(value))
            }
            Self::Copy { from, path } => {
                let value = at(document, &from, |place| place.get())?;
                at(document, &path, |place| place.add(value))
            }
            Self::Test(path, value) => {
                let found = if path.is_empty() { document.clone() } else { at(document, &path, |place| place.get())? };
                if equal(&found, &value) { Ok(()) } else { Err(Fault::Test) }
            }
        }
    }
}

const NOTHING: &str = "leads to nothing";
const NO_ITEM: &str = "is no item of its list";

/// Does something at the place that `path` points to.
fn at<T>(document: &mut Value, path: &str, run: impl FnOnce(Place<'_>) -> Result<T, &'static str>) -> Result<T, Fault> {
    Place::find(document, path).and_then(run).map_err(|problem| Fault::Pointer(path.to_owned(), problem))
}

/// A field or an item, there or not, of an object or a list that is there.
enum Place<'a> {
    Field(&'a mut Map<String, Value>, String),
    Item(&'a mut Vec<Value>, String),
}

impl<'a> Place<'a> {
    fn find(document: &'a mut Value, path: &str) -> Result<Self, &'static str> {
        let rest = path.strip_prefix('/').ok_or("does not begin with a slash")?;
        let mut parts: Vec<String> = rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        let last = parts.pop().unwrap_or_default();
        let mut value = document;
        for part in &parts {
            let next = match value {
                Value::Object(fields) => fields.get_mut(part),
                Value::Array(items) => item(part, items.len()).and_then(|at| items.get_mut(at)),
                _ => None,
            };
            value = next.ok_or(NOTHING)?;
        }
        match value {
            Value::Object(fields) => Ok(Self::Field(fields, last)),
            Value::Array(items) => Ok(Self::Item(items, last)),
            _ => Err(NOTHING),
        }
    }

    /// Null for a field that is not there.
    fn get(self) -> Result<Value, &'static str> {
        match self {
            Self::Field(fields, name) => Ok(fields.get(&name).cloned().unwrap_or(Value::Null)),
            Self::Item(items, index) => item(&index, items.len()).and_then(|at| items.get(at)).cloned().ok_or(NO_ITEM),
        }
    }

    fn add(self, value: Value) -> Result<(), &'static str> {
        match self {
            Self::Field(fields, name) => drop(fields.insert(name, value)),
            Self::Item(items, index) if index == "-" => items.push(value),
            Self::Item(items, index) => items.insert(item(&index, items.len() + 1).ok_or(NO_ITEM)?, value),
        }
        Ok(())
    }

    fn remove(self) -> Result<Value, &'static str> {
        match self {
            Self::Field(fields, name) => fields.remove(&name).ok_or("is not there to be removed"),
            Self::Item(items, index) => item(&index, items.len()).map(|at| items.remove(at)).ok_or(NO_ITEM),
        }
    }

    fn replace(self, value: Value) -> Result<(), &'static str> {
        match self {
            Self::Field(fields, name) => drop(fields.insert(name, value)),
            Self::Item(items, index) => {
                *item(&index, items.len()).and_then(|at| items.get_mut(at)).ok_or(NO_ITEM)? = value;
            }
        }
        Ok(())
    }
}

/// The place that an index means in a list of `len` items: `01` is 1, and -1 the last.
fn item(index: &str, len: usize) -> Option<usize> {
    let index: i64 = index.parse().ok()?;
    let from_end = if index < 0 { i64::try_from(len).ok()? } else { 0 };
    usize::try_from(index.checked_add(from_end)?).ok().filter(|at| *at < len)
}

/// Whether two values are the same, numbers by what they are worth.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => same(a, b),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(patch: Value) -> Result<Value, JsonPatchError> {
        let mut document = json!({"a": [1, 2, 3], "o": {"x/y": "t", "n": 1, "deep": [{"k": 1}]}});
        apply(&mut document, &patch).map(|()| document)
    }

    fn list(operation: Value) -> Value {
        patched(json!([operation])).unwrap()["a"].take()
    }

    #[test]
    fn indices_are_read_as_go_reads_numbers_and_count_from_the_end() {
        assert_eq!(list(json!({"op": "replace", "path": "/a/-1", "value": 9})), json!([1, 2, 9]));
        assert_eq!(list(json!({"op": "replace", "path": "/a/01", "value": 9})), json!([1, 9, 3]));
        assert_eq!(list(json!({"op": "remove", "path": "/a/-3"})), json!([2, 3]));
        assert_eq!(list(json!({"op": "remove", "path": "/a/+0"})), json!([2, 3]));
        assert_eq!(list(json!({"op": "add", "path": "/a/-1", "value": 9})), json!([1, 2, 3, 9]));
        assert_eq!(list(json!({"op": "add", "path": "/a/-4", "value": 9})), json!([9, 1, 2, 3]));
        assert_eq!(list(json!({"op": "add", "path": "/a/-", "value": 9})), json!([1, 2, 3, 9]));
        assert_eq!(list(json!({"op": "add", "path": "/a/00", "value": 9})), json!([9, 1, 2, 3]));
        assert_eq!(list(json!({"op": "move", "from": "/a/-1", "path": "/a/0"})), json!([3, 1, 2]));
        for (op, path) in
            [("add", "/a/-5"), ("add", "/a/4"), ("remove", "/a/3"), ("remove", "/a/-4"), ("replace", "/a/-")]
        {
            let error = patched(json!([{"op": op, "path": path, "value": 0}])).unwrap_err();
            let problem = NO_ITEM;
            assert_eq!(error, JsonPatchError::Pointer { index: 1, path: path.into(), problem }, "{op} {path}");
        }
    }

    #[test]
    fn a_test_compares_numbers_by_value_and_takes_what_is_missing_for_null() {
        for (path, value, holds) in [
            ("/o/n", json!(1.0), true),
            ("/o/n", json!(1.5), false),
            ("/o/n", json!("1"), false),
            ("/o", json!({"n": 1.0, "x/y": "t", "deep": [{"k": 1.0}]}), true),
            ("/o/x~1y", json!("t"), true),
            ("/o/nope", Value::Null, true),
            ("/o/nope", json!(0), false),
            ("/o/n", Value::Null, false),
        ] {
            let result = patched(json!([{"op": "test", "path": path, "value": value}]));
            assert_eq!(result.is_ok(), holds, "{path} {value}");
        }
        assert!(patched(json!([{"op": "test", "path": "/o/nope"}])).is_ok(), "no value is null");
        assert!(patched(json!([{"op": "test", "path": "/nope/x", "value": null}])).is_err(), "nothing to look into");
        assert!(patched(json!([{"op": "test", "path": "/a/9", "value": null}])).is_err(), "an item has to be there");
    }

    #[test]
    fn replace_and_copy_of_a_field_that_is_not_there_are_no_fault_but_remove_and_move_are() {
        assert_eq!(patched(json!([{"op": "replace", "path": "/o/new", "value": 5}])).unwrap()["o"]["new"], 5);
        assert_eq!(
            patched(json!([{"op": "copy", "from": "/o/nope", "path": "/o/new"}])).unwrap()["o"]["new"],
            Value::Null
        );
        assert!(patched(json!([{"op": "remove", "path": "/o/nope"}])).is_err());
        assert!(patched(json!([{"op": "move", "from": "/o/nope", "path": "/o/new"}])).is_err());
    }

    #[test]
    fn what_fails_is_named_by_its_number_and_changes_nothing() {
        let mut document = json!({"a": 1});
        let patch = json!([{"op": "add", "path": "/b", "value": 2}, {"op": "remove", "path": "/nope"}]);
        let error = apply(&mut document, &patch).unwrap_err();
        assert_eq!(error.to_string(), "operation 2: \"/nope\" is not there to be removed");
        assert_eq!(document, json!({"a": 1}));
        let words = |patch: Value| patched(patch).unwrap_err().to_string();
        assert_eq!(words(json!({"op": "add"})), "it is no list of operations with op and path");
        assert!(words(json!([{"op": "put", "path": "/a"}])).starts_with("operation 1: there is no op \"put\""));
        assert_eq!(words(json!([{"op": "add"}])), "operation 1: it has no path, or one that is no text");
        assert_eq!(words(json!([{"op": "add", "path": "a"}])), "operation 1: \"a\" does not begin with a slash");
        assert_eq!(
            words(json!([{"op": "test", "path": "/a/0", "value": 2}])),
            "operation 1: the test of \"/a/0\" failed"
        );
        assert_eq!(patched(Value::Null).unwrap()["a"], json!([1, 2, 3]));
    }
}
