//! A document as a tree in which every value knows where it was written.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{Location, Spanned};

use super::{Document, YamlError};

/// Deeper than any Kubernetes object nests, and far from the end of a thread's stack, of which each level takes 40 KiB in a
/// build without optimisation.
const MAX_DEPTH: usize = 32;

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
        if document.text.trim().is_empty() {
            return Ok(Self::new(Position { line: document.line, column: 1 }, Kind::Null));
        }
        let options = serde_saphyr::options! {
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
            legacy_octal_numbers: true,
            with_snippet: false,
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        };
        match serde_saphyr::from_str_with_options::<Spanned<RawKind>>(&document.text, options) {
            Ok(raw) => Ok(Source(document).node(raw)),
            Err(error) => Err(Source(document).error(&error)),
        }
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

/// How Go spells a boolean, each also with a capital and in capitals.
const BOOLEANS: &[&str] = &["y", "yes", "true", "on", "n", "no", "false", "off"];

/// Whether `text` is a boolean to the parser, which does not mind the case of any letter, and a word to Go.
fn is_no_boolean(text: Option<&str>) -> bool {
    let Some(text) = text else { return false };
    let lower = text.to_ascii_lowercase();
    let capital = lower.get(..1).unwrap_or_default().to_uppercase() + lower.get(1..).unwrap_or_default();
    let exact = text == lower || text == capital || text == text.to_ascii_uppercase();
    BOOLEANS.contains(&lower.as_str()) && !exact
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

/// A value before its position is known to be one in the stream.
enum RawKind {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Spanned<RawKind>>),
    Map(Vec<(Spanned<String>, Spanned<RawKind>)>),
}

/// Turns what the parser gives into nodes.
struct Source<'a>(&'a Document);

impl Source<'_> {
    fn node(&self, raw: Spanned<RawKind>) -> Node {
        let spelt = matches!(raw.value, RawKind::Bool(_) | RawKind::Number(_)).then(|| self.slice(raw.defined));
        let kind = match raw.value {
            RawKind::Null => Kind::Null,
            RawKind::Bool(_) if spelt.as_ref().is_some_and(|text| is_no_boolean(text.as_deref())) => {
                Kind::String(spelt.clone().flatten().unwrap_or_default())
            }
            RawKind::Bool(value) => Kind::Bool(value),
            RawKind::Number(number) => Kind::Number(number),
            RawKind::String(text) => Kind::String(text),
            RawKind::List(items) => Kind::List(items.into_iter().map(|item| self.node(item)).collect()),
            RawKind::Map(pairs) => Kind::Map(pairs.into_iter().map(|(key, value)| self.entry(key, value)).collect()),
        };
        Node { at: self.position(raw.referenced), kind, raw: spelt.flatten(), skipped: false }
    }

    fn entry(&self, key: Spanned<String>, value: Spanned<RawKind>) -> Entry {
        Entry { at: self.position(key.referenced), key: key.value, node: self.node(value) }
    }

    fn slice(&self, location: Location) -> Option<String> {
        let span = location.span();
        let (start, length) = (span.byte_offset()? as usize, span.byte_len()? as usize);
        let text = self.0.text.get(start..start + length)?.trim();
        (!text.is_empty() && !text.contains('\n')).then(|| text.to_owned())
    }

    fn position(&self, location: Location) -> Position {
        Position {
            line: self.0.line + (location.line().max(1) as usize) - 1,
            column: location.column().max(1) as usize,
        }
    }

    fn error(&self, error: &serde_saphyr::Error) -> YamlError {
        let at = error.location().map_or(Position { line: self.0.line, column: 1 }, |location| self.position(location));
        YamlError { line: at.line, column: at.column, path: String::new(), problem: wording(error) }
    }
}

/// The parser's message without the place, which [`YamlError`] says itself.
fn wording(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key:?} is written twice in the same map"),
        Error::Eof { .. } => "the text ends in the middle of something".into(),
        other => {
            let text = other.render();
            let text = text.split(" at line ").next().unwrap_or(&text);
            text.lines().next().unwrap_or("invalid YAML").to_owned()
        }
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<RawKind, E> {
        Ok(RawKind::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<RawKind, E> {
        Ok(RawKind::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<RawKind, E> {
        // Go writes 1e3 into its JSON as 1000, which then fits an integer field.
        if value.fract() == 0.0 && value.abs() < 9e15 {
            return Ok(RawKind::Number((value as i64).into()));
        }
        Number::from_f64(value).map(RawKind::Number).ok_or_else(|| E::custom("this number has no end"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawKind, E> {
        Ok(RawKind::String(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<RawKind, E> {
        Ok(RawKind::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawKind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(RawKind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawKind, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(RawKind::Map(map))
    }
}
