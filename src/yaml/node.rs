//! A document as a tree in which every value knows where it was written.

use std::fmt;

use serde_json::{Number, Value};

use super::compose::{Repeated, compose};
use super::{Document, YamlError};

/// Deeper than any Kubernetes object nests, and far from the end of a thread's stack.
pub(super) const MAX_DEPTH: usize = 32;

/// A place in the file, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Into a map.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// Reads `a.b[0].c`; keys that hold dots or brackets themselves have no such form.
pub fn path_from_str(text: &str) -> Vec<Segment> {
    let parts = text.split(['.', '[']).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
            Some(index) => Segment::Index(index),
            None => Segment::Key(part.to_owned()),
        })
        .collect()
}

/// `a.b[0].c`.
pub fn path_to_string(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => text.push_str(&format!(".{key}")),
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// A value and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value begins.
    pub at: Position,
    /// The value.
    pub kind: Kind,
    /// A number or boolean as it was spelt.
    pub(super) raw: Option<String>,
    /// Found faulty: decoding passes over it, so that one fault does not hide the next.
    pub(super) skipped: bool,
}

/// The value of a [`Node`].
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `yes`, `on`, ...
    Bool(bool),
    /// A number.
    Number(Number),
    /// Anything else, or anything in quotes.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub at: Position,
    /// The value.
    pub node: Node,
}

impl Node {
    /// Parses one document; positions are those in the stream it was cut from.
    ///
    /// # Errors
    /// Syntax, duplicate keys, and what no Kubernetes object has: nesting past 32 levels, numbers without end.
    pub fn parse(document: &Document) -> Result<Self, YamlError> {
        Ok(compose(document, true)?.node)
    }

    /// Parses one document as a kubelet reads manifests: of a key that stands twice in a map the last one counts, a merge
    /// key also replaces what stands above it, and what follows `...` is not read. The repeated keys come out as well.
    ///
    /// # Errors
    /// Those of [`Node::parse`] but duplicate keys.
    pub fn parse_lenient(document: &Document) -> Result<(Self, Vec<Repeated>), YamlError> {
        let composed = compose(document, false)?;
        Ok((composed.node, composed.repeated))
    }

    /// JSON that was read as such, without places; None where it nests past 32 levels.
    pub fn from_json(value: &Value) -> Option<Self> {
        Self::from_json_at(value, 0)
    }

    fn from_json_at(value: &Value, depth: usize) -> Option<Self> {
        let below = |value: &Value| Self::from_json_at(value, depth.saturating_add(1));
        let place = Position { line: 1, column: 1 };
        let kind = match value {
            _ if depth > MAX_DEPTH => return None,
            Value::Null => Kind::Null,
            Value::Bool(value) => Kind::Bool(*value),
            Value::Number(number) => Kind::Number(number.clone()),
            Value::String(text) => Kind::String(text.clone()),
            Value::Array(items) => Kind::List(items.iter().map(below).collect::<Option<_>>()?),
            Value::Object(fields) => {
                let entries =
                    fields.iter().map(|(key, value)| Some(Entry { key: key.clone(), at: place, node: below(value)? }));
                Kind::Map(entries.collect::<Option<_>>()?)
            }
        };
        Some(Self::new(place, kind))
    }

    /// A value that was not parsed but made, for the place `at`.
    pub fn new(at: Position, kind: Kind) -> Self {
        Self { at, kind, raw: None, skipped: false }
    }

    /// The value under `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value without positions.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::String(text) => Value::String(text.clone()),
            Kind::List(nodes) => nodes.iter().map(Self::to_value).collect(),
            Kind::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.node.to_value())).collect(),
        }
    }

    /// The value in words, for messages: `the number 1.36`.
    pub fn describe(&self) -> String {
        let spelt = |value: &dyn fmt::Display| self.raw.clone().unwrap_or_else(|| value.to_string());
        match &self.kind {
            Kind::Null => "nothing".into(),
            Kind::Bool(value) => format!("the boolean {}", spelt(value)),
            Kind::Number(number) => format!("the number {}", spelt(number)),
            Kind::String(text) => format!("the text {text:?}"),
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a map".into(),
        }
    }

    /// Where `path` is, and the path as the file has it: the indexes of `path` count only what decoding did not pass
    /// over. None where the file has no such field.
    pub fn locate(&self, path: &[Segment]) -> Option<Located> {
        let mut found = Located { at: self.at, path: Vec::new(), faulty: self.skipped };
        let mut node = self;
        for segment in path {
            let (real, at, next) = node.step(segment)?;
            found.path.push(real);
            (found.at, found.faulty) = (at, found.faulty || next.skipped);
            node = next;
        }
        Some(found)
    }

    fn step(&self, segment: &Segment) -> Option<(Segment, Position, &Node)> {
        match (segment, &self.kind) {
            (Segment::Key(key), Kind::Map(entries)) => {
                let entry = entries.iter().find(|entry| entry.key == *key)?;
                let at = if matches!(entry.node.kind, Kind::Map(_) | Kind::List(_)) { entry.at } else { entry.node.at };
                Some((segment.clone(), at, &entry.node))
            }
            (Segment::Index(index), Kind::List(nodes)) => {
                let (real, node) = nodes.iter().enumerate().filter(|(_, node)| !node.skipped).nth(*index)?;
                Some((Segment::Index(real), node.at, node))
            }
            _ => None,
        }
    }
}

/// What [`Node::locate`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// Where it is: the key of a map or list, the value of anything else.
    pub at: Position,
    /// The path with the indexes of the file.
    pub path: Vec<Segment>,
    /// Whether decoding passed over it, so that it has been complained of already.
    pub faulty: bool,
}
