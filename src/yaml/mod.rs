//! Documents in and out, as Kubernetes reads them. The only module that knows a YAML crate.
//!
//! Reading: text -> [`documents`] -> [`Node`] (scalars typed as Go types them, every value with its place in the file)
//! -> a type, or a [`serde_json::Value`]. A duplicate key is an error but for [`Node::parse_lenient`], an unknown field
//! where the type says so.
//!
//! Writing: [`to_string`] sorts keys and quotes every string that Go would read as something else. What it has written,
//! and what templates give, is read by two readers, which have to agree ([`to_confirmed_value`]).

mod compose;
mod decode;
mod documents;
mod emit;
mod node;
mod scalar;
mod second;
mod words;

use serde::de::DeserializeOwned;

pub use compose::Repeated;
pub use decode::{DecodeError, Problem};
pub use documents::{Document, documents};
pub use emit::{EmitError, to_string};
pub use node::{Entry, Kind, Located, Node, Position, Segment, path_from_str, path_to_string};
pub use second::{confirmed, to_confirmed_value};
pub(crate) use words::{nearest, shorten};

/// A text that is no YAML, or not of the wanted shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {}{problem}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct YamlError {
    /// Line in the text, from 1.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// The field, such as `spec.containers[0].name`; empty for errors of syntax and of the document as a whole.
    pub path: String,
    /// What is wrong and, where it is known, what to write instead.
    pub problem: String,
}

/// Reads the one document in `text`. Field types are as strict as Go's: a bare `1.36` is no string.
///
/// # Errors
/// Syntax, duplicate keys, more than one document, and what `T` refuses.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    Node::parse(&documents::only(text)?)?.decode().map_err(YamlError::from)
}

/// Reads the one document in `text` as JSON; an empty text is null.
///
/// # Errors
/// Syntax, duplicate keys, more than one document.
pub fn to_value(text: &str) -> Result<serde_json::Value, YamlError> {
    Ok(Node::parse(&documents::only(text)?)?.to_value())
}

/// Reads the first document in `text` as JSON, as a kubelet reads manifests ([`Node::parse_lenient`]); an empty text is
/// null.
///
/// # Errors
/// Syntax.
pub fn to_value_lenient(text: &str) -> Result<serde_json::Value, YamlError> {
    let none = || Document { line: 1, text: String::new() };
    let first = documents(text)?.into_iter().next().unwrap_or_else(none);
    Ok(Node::parse_lenient(&first)?.0.to_value())
}

#[cfg(test)]
mod tests;
