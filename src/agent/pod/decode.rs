//! Bytes to an object: JSON or YAML, the first document.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;

use super::{Place, PodError};
use crate::yaml::{self, Document, Node, shorten};

/// A manifest of this size or more is refused, as by the kubelet.
pub const MANIFEST_LIMIT: usize = 10 * 1024 * 1024;

/// An object and what was odd about its file.
pub(super) struct Decoded {
    pub value: Value,
    /// The text of the object, for error messages.
    document: Document,
    pub warnings: Vec<String>,
}

/// Reads one object. What begins with `{` is JSON, everything else is YAML.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, PodError> {
    if bytes.len() >= MANIFEST_LIMIT {
        return Err(PodError::TooLarge { size: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PodError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let decoded = if text.trim_start().starts_with('{') { json(text)? } else { yaml(text)? };
    if decoded.value.is_null() { Err(PodError::Empty) } else { Ok(decoded) }
}

fn json(text: &str) -> Result<Decoded, PodError> {
    let value = serde_json::from_str(text).map_err(|e| PodError::Syntax { message: shorten(&e.to_string()) })?;
    Ok(Decoded { value, document: Document { line: 1, text: text.to_owned() }, warnings: vec![] })
}

fn yaml(text: &str) -> Result<Decoded, PodError> {
    let syntax = |e: yaml::YamlError| PodError::Syntax { message: shorten(&e.to_string()) };
    let mut documents = yaml::documents(text).map_err(syntax)?.into_iter();
    let document = documents.next().ok_or(PodError::Empty)?;
    let value = Node::parse(&document).map_err(syntax)?.to_value();
    // A separator at the end begins a document with nothing in it.
    let more = documents.any(|document| !Node::parse(&document).is_ok_and(|node| node.to_value().is_null()));
    let warnings = if more { vec!["only the first document is used".to_owned()] } else { vec![] };
    Ok(Decoded { value, document, warnings })
}

impl Decoded {
    /// The typed pod of the object. JSON is YAML, so the YAML reader can say where a wrong type is.
    pub(super) fn typed(&self) -> Result<Pod, PodError> {
        typed(&self.value).map_err(|plain| {
            let located = Node::parse(&self.document).ok().and_then(|node| node.decode::<Pod>().err());
            located.map_or(plain, |error| PodError::Shape { message: yaml::YamlError::from(error).to_string() })
        })
    }
}

/// The typed pod of an object.
pub(super) fn typed(value: &Value) -> Result<Pod, PodError> {
    Pod::deserialize(value).map_err(|error| PodError::Shape { message: shorten(&error.to_string()) })
}

/// The words of `kind` and `apiVersion`.
pub(super) fn kind(value: &Value) -> (String, String) {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("none").chars().take(80).collect();
    (field("kind"), field("apiVersion"))
}

/// Refuses everything but a v1 Pod.
pub(super) fn check_kind(value: &Value, place: Place<'_>) -> Result<(), PodError> {
    let (kind, api_version) = kind(value);
    if kind == "Pod" && api_version == "v1" {
        return Ok(());
    }
    let (from, wanted) = match place {
        Place::File(_) => ("manifest file", "Pod"),
        Place::Url(_) => ("URL", "Pod or PodList"),
    };
    Err(PodError::Kind { kind, api_version, from, wanted })
}
