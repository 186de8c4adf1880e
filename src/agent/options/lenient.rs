//! A KubeletConfiguration as a kubelet reads it at its second try: of a key that stands twice the last one counts.

use serde_json::Value;

use crate::yaml::{Document, Entry, Kind, Node, Position, YamlError};

/// Parses a document, strictly if that can be, else with the last of repeated keys; and says in what it is wrong. Values
/// that could only be read the second way have no places but the document's.
///
/// # Errors
/// What is no YAML, whatever is made of repeated keys.
pub(super) fn parse(document: &Document) -> Result<(Node, Vec<YamlError>), YamlError> {
    let strict = match Node::parse(document) {
        Ok(node) => return Ok((node, vec![])),
        Err(error) => error,
    };
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Value>(&document.text, options) {
        Ok(value) => Ok((node(value, Position { line: document.line, column: 1 }), vec![strict])),
        Err(_) => Err(strict),
    }
}

fn node(value: Value, at: Position) -> Node {
    let entry = |(key, value)| Entry { key, at, node: node(value, at) };
    let kind = match value {
        Value::Null => Kind::Null,
        Value::Bool(value) => Kind::Bool(value),
        Value::Number(number) => Kind::Number(number),
        Value::String(text) => Kind::String(text),
        Value::Array(items) => Kind::List(items.into_iter().map(|item| node(item, at)).collect()),
        Value::Object(fields) => Kind::Map(fields.into_iter().map(entry).collect()),
    };
    Node::new(at, kind)
}
