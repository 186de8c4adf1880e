//! Bytes to an object: JSON or YAML, the first document, a v1 Pod.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;

use super::PodError;
use crate::yaml;

/// A file of this size or more is refused, as by the kubelet.
pub const MANIFEST_LIMIT: usize = 10 * 1024 * 1024;

/// An object and what was odd about its file.
pub(super) struct Decoded {
    pub value: Value,
    /// The text of the object, for error messages.
    pub text: String,
    pub warnings: Vec<String>,
}

/// Reads one object. A file whose first character is `{` is JSON, every other is YAML.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, PodError> {
    if bytes.len() >= MANIFEST_LIMIT {
        return Err(PodError::TooLarge { size: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PodError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let decoded = if text.trim_start().starts_with('{') { json(text)? } else { yaml(text)? };
    check_kind(&decoded.value)?;
    Ok(decoded)
}

fn json(text: &str) -> Result<Decoded, PodError> {
    let value = serde_json::from_str(text).map_err(|e| PodError::Syntax { message: e.to_string() })?;
    Ok(Decoded { value, text: text.to_owned(), warnings: vec![] })
}

fn yaml(text: &str) -> Result<Decoded, PodError> {
    let syntax = |e: yaml::YamlError| PodError::Syntax { message: e.to_string() };
    let mut documents = yaml::documents(text).map_err(syntax)?.into_iter();
    let first = documents.next().ok_or(PodError::Empty)?;
    let value = yaml::to_value(&first.text).map_err(syntax)?;
    // A separator at the end begins a document with nothing in it.
    let more = documents.any(|document| !yaml::to_value(&document.text).is_ok_and(|value| value.is_null()));
    let warnings = if more { vec!["only the first document of the file is used".to_owned()] } else { vec![] };
    Ok(Decoded { value, text: first.text, warnings })
}

fn check_kind(value: &Value) -> Result<(), PodError> {
    if value.is_null() {
        return Err(PodError::Empty);
    }
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("none").to_owned();
    let (kind, api_version) = (field("kind"), field("apiVersion"));
    if kind == "Pod" && api_version == "v1" { Ok(()) } else { Err(PodError::Kind { kind, api_version }) }
}

/// The typed pod of an object. JSON is YAML, so the YAML reader can say where in `text` a wrong type is.
pub(super) fn typed(value: &Value, text: &str) -> Result<Pod, PodError> {
    Pod::deserialize(value).map_err(|plain| {
        let located = yaml::from_str::<Pod>(text).err();
        PodError::Shape { message: located.map_or_else(|| plain.to_string(), |error| error.to_string()) }
    })
}
