//! Bytes to an object: JSON or YAML, the first document, read as leniently as a kubelet reads a manifest.
//!
//! A kubelet makes YAML into JSON and decodes that with Go's encoding/json. What that accepts, and what it makes of it:
//!
//! | written | read |
//! |---|---|
//! | a key twice in one map | the last one; a warning names it |
//! | a merge key | its fields, which also replace those above it |
//! | `yes`, `0x1F`, `017`, `1_000`, `8080.0`, `1.8e4` | a boolean, 31, 15, 1000, 8080, 18000 |
//! | null in a struct | no such field |
//! | null as an item of a list or a value of a map | `""`, 0, or a struct without fields |
//! | `""` where Go's type cannot tell it from absent | absent (see [`super::empties`]) |
//! | a number as a quantity | the quantity; null is 0 |
//! | a number or a boolean as a text | an error |
//! | `kind` and `apiVersion` in capitals | as they are meant; any other key is unknown then |
//! | a byte order mark, UTF-16 with one, CRLF, tabs between words | as without |
//! | documents after the first | not at all; a warning says so |
//!
//! What begins with `{` is JSON and nothing else: neither YAML's flow style nor 8080.0 for a whole number. With a byte order
//! mark in front it is YAML again.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{Place, PodError};
use crate::yaml::{self, Document, Node, Repeated, YamlError, path_to_string, shorten};

/// A manifest of this size or more is refused, as by the kubelet.
pub const MANIFEST_LIMIT: usize = 10 * 1024 * 1024;
/// Warnings of one kind; more are not read.
const REPORTED: usize = 10;

/// An object and what was odd about its file.
pub(super) struct Decoded {
    pub value: Value,
    /// The same with the places of the file, as far as they are known.
    pub node: Node,
    pub warnings: Vec<String>,
}

/// Reads one object.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, PodError> {
    if bytes.len() >= MANIFEST_LIMIT {
        return Err(PodError::TooLarge { size: bytes.len() });
    }
    let (text, marked) = text(bytes)?;
    let decoded = if !marked && text.trim_start().starts_with('{') { json(&text)? } else { yaml(&text)? };
    if decoded.value.is_null() { Err(PodError::Empty) } else { Ok(decoded) }
}

/// The text of a file and whether a byte order mark stood before it, which also says what UTF-16 is.
fn text(bytes: &[u8]) -> Result<(Cow<'_, str>, bool), PodError> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let text: Result<String, _> = char::decode_utf16(units.iter().copied().map(unit)).collect();
        text.ok().filter(|_| rest.is_empty()).ok_or(PodError::NotText)
    };
    Ok(match bytes {
        [0xff, 0xfe, rest @ ..] => (Cow::Owned(wide(rest, u16::from_le_bytes)?), true),
        [0xfe, 0xff, rest @ ..] => (Cow::Owned(wide(rest, u16::from_be_bytes)?), true),
        _ => {
            let text = std::str::from_utf8(bytes).map_err(|_| PodError::NotText)?;
            let bare = text.strip_prefix('\u{feff}');
            (Cow::Borrowed(bare.unwrap_or(text)), bare.is_some())
        }
    })
}

fn json(text: &str) -> Result<Decoded, PodError> {
    let syntax = |message: String| PodError::Syntax { message: shorten(&message) };
    let value: Value = serde_json::from_str(text).map_err(|e| syntax(e.to_string()))?;
    // JSON is YAML, so the reader of YAML can say which keys stand twice, and where everything is.
    let document = Document { line: 1, text: text.to_owned() };
    let placed = Node::parse_lenient(&document).ok();
    let warnings = placed.as_ref().map_or_else(Vec::new, |(_, repeated)| twice(repeated));
    // Where the two differ, in numbers such as 8080.0, it is JSON.
    let same = placed.map(|(node, _)| node).filter(|node| node.to_value() == value);
    let node = same.or_else(|| Node::from_json(&value)).ok_or_else(|| syntax("nested too deeply".to_owned()))?;
    Ok(Decoded { value, node, warnings })
}

fn yaml(text: &str) -> Result<Decoded, PodError> {
    let syntax = |e: YamlError| PodError::Syntax { message: shorten(&e.to_string()) };
    let mut documents = yaml::documents(text).map_err(syntax)?.into_iter();
    let document = documents.next().ok_or(PodError::Empty)?;
    let (node, repeated) = Node::parse_lenient(&document).map_err(syntax)?;
    let mut warnings = twice(&repeated);
    // A separator at the end begins a document with nothing in it.
    let empty = |document: &Document| Node::parse_lenient(document).is_ok_and(|(node, _)| node.to_value().is_null());
    if !documents.all(|document| empty(&document)) {
        warnings.push("only the first document is used".to_owned());
    }
    Ok(Decoded { value: node.to_value(), node, warnings })
}

/// One sentence for each key that stands twice.
fn twice(repeated: &[Repeated]) -> Vec<String> {
    let reported = repeated.iter().take(REPORTED).map(|one| {
        let (field, at, before) = (path_to_string(&one.path), one.at.line, one.before.line);
        shorten(&format!("\"{field}\" is written twice: line {at} counts, line {before} does not"))
    });
    let more = repeated.len().saturating_sub(REPORTED);
    reported.chain((more > 0).then(|| format!("and {more} more fields are written twice"))).collect()
}

impl Decoded {
    /// The typed pod of the object.
    pub(super) fn typed(&self) -> Result<Pod, PodError> {
        typed(&self.node)
    }
}

/// The typed pod of an object.
pub(super) fn typed(node: &Node) -> Result<Pod, PodError> {
    node.decode().map_err(|error| PodError::Shape { message: YamlError::from(error).to_string() })
}

/// The words of `kind` and `apiVersion`, whose keys may be written in any case.
pub(super) fn kind(value: &Value) -> (String, String) {
    let field = |name: &str| {
        let fields = value.as_object().into_iter().flatten().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        // The keys are sorted, and the last one counts: that in small letters, if there is one.
        let text = fields.filter_map(|(_, value)| value.as_str()).next_back().unwrap_or("none");
        text.chars().take(80).collect()
    };
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

#[cfg(test)]
mod tests;
