//! A second opinion on what is about to be written: the strict reader of this room and `serde_yaml` (libyaml) have to find
//! the same in it, for a component reads it with a third.

use serde_json::{Number, Value};

use super::node::{Node, Position, Segment, path_to_string};
use super::words::shorten;
use super::{Document, YamlError, documents};

/// Reads the one document in `text` as JSON; an empty text is null.
///
/// # Errors
/// Those of [`super::to_value`], and a value that two readers do not find the same. Of it no more is said than its path
/// and what kinds of value it was taken for: it may be a secret.
pub fn to_confirmed_value(text: &str) -> Result<Value, YamlError> {
    confirmed(&documents::only(text)?)
}

/// Reads a document as JSON, as [`to_confirmed_value`] does.
///
/// # Errors
/// Those of [`Node::parse`], and a value that two readers do not find the same.
pub fn confirmed(document: &Document) -> Result<Value, YamlError> {
    confirmed_by(document, |text| serde_yaml::from_str(text).map_err(|error| error.to_string()))
}

fn confirmed_by(document: &Document, second: impl Fn(&str) -> Result<Value, String>) -> Result<Value, YamlError> {
    let node = Node::parse(document)?;
    let value = node.to_value();
    // libyaml has no word for a document without anything in it.
    if value.is_null() && document.text.trim().is_empty() {
        return Ok(value);
    }
    let (path, problem) = match second(&document.text) {
        Err(problem) => (vec![], format!("one reader of YAML can read this and another cannot: {problem}")),
        Ok(other) => match difference(&value, &other) {
            None => return Ok(value),
            Some(found) => found,
        },
    };
    let at = node.locate(&path).map_or(Position { line: document.line, column: 1 }, |located| located.at);
    let (path, problem) = (path_to_string(&path), shorten(&problem));
    Err(YamlError { line: at.line, column: at.column, path, problem })
}

/// Where two values differ first, and how.
pub(super) fn difference(one: &Value, other: &Value) -> Option<(Vec<Segment>, String)> {
    let below = |segment: Segment, one: &Value, other: &Value| {
        difference(one, other).map(|(path, problem)| ([vec![segment], path].concat(), problem))
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let lone = one.keys().find(|key| !other.contains_key(*key));
            match lone.or_else(|| other.keys().find(|key| !one.contains_key(*key))) {
                Some(key) => Some((
                    vec![Segment::Key(key.clone())],
                    "two readers of YAML disagree on whether it is there".into(),
                )),
                None => one.iter().find_map(|(key, value)| below(Segment::Key(key.clone()), value, other.get(key)?)),
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs.into_iter().find_map(|(index, (one, other))| below(Segment::Index(index), one, other))
        }
        (Value::Number(one), Value::Number(other)) if is_same(one, other) => None,
        (one, other) if one == other => None,
        (one, other) => {
            let [one, other] = [kind(one), kind(other)];
            let problem = match one == other {
                true => format!("two readers of YAML take it for {one}, and not for the same"),
                false => format!("one reader of YAML takes it for {one}, another for {other}; put it in quotes"),
            };
            Some((vec![], problem))
        }
    }
}

/// `1e3` is a whole number to one reader and a fraction to another, and the same for both.
fn is_same(one: &Number, other: &Number) -> bool {
    one == other || ((one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_two_readers_take_for_different_things_is_refused_by_place_and_without_its_value() {
        for (text, expected) in [
            (
                "a: {b: 1}\nc:\n- x\n- yes\n",
                "line 4, column 3: c[1]: one reader of YAML takes it for a boolean, another for a text",
            ),
            ("spec:\n  port: 1_000\n", "line 2, column 9: spec.port: one reader of YAML takes it for a number"),
            ("mode: 0644\n", "line 1, column 7: mode: "),
            ("a: on\nb: s3cret\n", "line 1, column 4: a: one reader"),
        ] {
            let error = to_confirmed_value(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("s3cret") && !error.contains("0644"), "{error}");
        }
        for text in
            ["", "a: [1, 1.5, 1e3, 'yes', ~]\nb: {c: \"\\u00e9\"}\n", "[18446744073709551615, -9223372036854775808]"]
        {
            assert_eq!(to_confirmed_value(text).unwrap(), super::super::to_value(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn a_second_reader_that_finds_something_else_or_nothing_is_believed() {
        let document = Document { line: 3, text: "token: s3cret\nlist: [{a: 1}]\n".into() };
        let with = |other: Result<Value, String>| confirmed_by(&document, |_| other.clone()).map_err(|e| e.to_string());
        let right = json!({"token": "s3cret", "list": [{"a": 1}]});
        assert_eq!(with(Ok(right.clone())), Ok(right));
        for (other, expected) in [
            (
                json!({"token": "s3cre", "list": [{"a": 1}]}),
                "line 3, column 8: token: two readers of YAML take it for a text, and not for the same",
            ),
            (
                json!({"token": "s3cret", "list": [{"a": 2}]}),
                "line 4, column 12: list[0].a: two readers of YAML take it for a number",
            ),
            (json!({"token": "s3cret", "list": []}), "line 4, column 1: list: two readers of YAML take it for a list"),
            (json!({"token": "s3cret"}), "list: two readers of YAML disagree on whether it is there"),
            (json!({"token": "s3cret", "list": [{"a": 1}], "more": 1}), "line 3, column 1: more: two readers"),
            (json!(null), "line 3, column 1: one reader of YAML takes it for a map, another for nothing"),
        ] {
            let error = with(Ok(other)).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cre"), "{error}");
        }
        let error = with(Err("did not find expected key".into())).unwrap_err();
        assert_eq!(
            error,
            "line 3, column 1: one reader of YAML can read this and another cannot: did not find expected key"
        );
    }
}
