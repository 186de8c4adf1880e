//! From the parser's events to a [`Node`]: scalars typed, aliases and merge keys resolved, repeated keys found.
//!
//! Two ways of reading, which differ in what is written twice. Strict, as kubeadm reads its configuration: a repeated
//! key is an error. Lenient, as a kubelet reads manifests: it is YAML made into JSON, where the last one counts.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::node::{Entry, Kind, MAX_DEPTH, Node, Position, Segment};
use super::scalar::{self, Scalar};
use super::{Document, YamlError};

/// Values of one document, those that aliases stand for included. No Kubernetes object comes near.
const MAX_NODES: usize = 250_000;
/// Bytes of texts that aliases may multiply.
const MAX_COPIED: usize = 32 * 1024 * 1024;

/// A key that stands twice in one map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// The field.
    pub path: Vec<Segment>,
    /// The key that counts: the later one.
    pub at: Position,
    /// The key that does not.
    pub before: Position,
}

/// What became of one document.
pub(super) struct Composed {
    pub node: Node,
    /// Keys that stand twice, in the order of the file; none after strict reading.
    pub repeated: Vec<Repeated>,
}

/// Composes the first document of `source`.
pub(super) fn compose(source: &Document, strict: bool) -> Result<Composed, YamlError> {
    let options = granit_parser::options! {
        emit_comments: false,
        // As libyaml has it, by which Go reads.
        block_scalar_eof_without_line_feed: true,
    };
    let events = Parser::new_from_str_with_options(&source.text, options);
    let mut composer = Composer {
        source,
        events,
        strict,
        anchors: HashMap::new(),
        path: Vec::new(),
        nodes: 0,
        copied: 0,
        repeated: Vec::new(),
    };
    let node = composer.document()?;
    Ok(Composed { node, repeated: composer.repeated })
}

/// A map that is being composed.
#[derive(Default)]
struct Map {
    entries: Vec<Entry>,
    /// Where in `entries` each key is, and whether it was written there itself, not merged into it.
    places: HashMap<String, (usize, bool)>,
}

impl Map {
    /// Puts an entry in the place of the one with its key, if there is one.
    fn put(&mut self, entry: Entry, written: bool) {
        match self.places.get_mut(&entry.key) {
            Some((place, own)) => {
                *own = written;
                if let Some(before) = self.entries.get_mut(*place) {
                    *before = entry;
                }
            }
            None => {
                self.places.insert(entry.key.clone(), (self.entries.len(), written));
                self.entries.push(entry);
            }
        }
    }
}

/// What an anchor names; nothing while its value is still being composed.
type Anchored = Option<Node>;
type Next<'a> = (Event<'a>, Span);

struct Composer<'a, I> {
    source: &'a Document,
    events: I,
    strict: bool,
    anchors: HashMap<usize, Anchored>,
    path: Vec<Segment>,
    nodes: usize,
    copied: usize,
    repeated: Vec<Repeated>,
}

impl<'a, I: Iterator<Item = Result<Next<'a>, ScanError>>> Composer<'a, I> {
    fn document(&mut self) -> Result<Node, YamlError> {
        loop {
            match self.next()? {
                (Event::DocumentStart(..), _) => break,
                (Event::StreamEnd, span) => return Ok(Node::new(self.position(&span.start), Kind::Null)),
                _ => {}
            }
        }
        let first = self.next()?;
        let node = self.node(first, 0)?;
        // What follows the first document is not even looked at by Go.
        while self.strict {
            match self.next()? {
                (Event::StreamEnd, _) => break,
                (Event::DocumentStart(..), span) => {
                    return self.fail(&span.start, "a second document begins here; only one is allowed");
                }
                _ => {}
            }
        }
        Ok(node)
    }

    fn next(&mut self) -> Result<Next<'a>, YamlError> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.error(&error)),
            None => self.fail(&Marker::new(0, 1, 0), "the text ends in the middle of something"),
        }
    }

    fn node(&mut self, (event, span): Next<'a>, depth: usize) -> Result<Node, YamlError> {
        let start = span.start;
        self.count(1, &start)?;
        if depth > MAX_DEPTH {
            return self.too_deep(&start);
        }
        let at = self.position(&start);
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_deref(), &start)?, anchor),
            Event::Alias(anchor) => (self.alias(anchor, &start, depth)?, 0),
            Event::SequenceStart(_, anchor, _) => {
                self.anchors.insert(anchor, None);
                (Node::new(at, Kind::List(self.list(depth)?)), anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                self.anchors.insert(anchor, None);
                (Node::new(at, Kind::Map(self.map(depth)?)), anchor)
            }
            _ => return self.fail(&start, "a value is missing here"),
        };
        // 0 is no anchor.
        if anchor != 0 {
            // The copy counts like an alias: anchors within anchors multiply what is held.
            let size = node.size();
            self.copied = self.copied.saturating_add(size.bytes);
            self.count(size.nodes, &start)?;
            self.anchors.insert(anchor, Some(node.clone()));
        }
        Ok(node)
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: &Marker) -> Result<Node, YamlError> {
        let value = self.typed(text, style, tag, at)?;
        let Some(kind) = value.kind() else { return self.fail(at, "this number has no end") };
        let raw = matches!(kind, Kind::Bool(_) | Kind::Number(_)).then(|| text.to_owned());
        Ok(Node { raw, ..Node::new(self.position(at), self.binary(text, tag, at)?.unwrap_or(kind)) })
    }

    /// The type of a scalar: its tag's, text in quotes and blocks, and what its spelling says else.
    fn typed<'t>(
        &self,
        text: &'t str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: &Marker,
    ) -> Result<Scalar<'t>, YamlError> {
        let Some(tag) = tag else {
            return Ok(if style == ScalarStyle::Plain { scalar::plain(text) } else { Scalar::Text(text) });
        };
        let suffix = tag.core_suffix().unwrap_or_default();
        scalar::tagged(suffix, text)
            .map_or_else(|| self.fail(at, &format!("{text:?} is no value of the type {suffix}")), Ok)
    }

    /// What `!!binary` holds.
    fn binary(&self, text: &str, tag: Option<&Tag>, at: &Marker) -> Result<Option<Kind>, YamlError> {
        if tag.is_none_or(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() != Some("binary")) {
            return Ok(None);
        }
        let packed: String = text.split_whitespace().collect();
        match STANDARD.decode(packed) {
            Ok(bytes) => Ok(Some(Kind::String(String::from_utf8_lossy(&bytes).into_owned()))),
            Err(_) => self.fail(at, "this is not base64"),
        }
    }

    fn alias(&mut self, anchor: usize, at: &Marker, depth: usize) -> Result<Node, YamlError> {
        let Some(Some(node)) = self.anchors.get(&anchor) else {
            return self.fail(at, "this alias stands within what it stands for");
        };
        let size = node.size();
        let node = Node { at: self.position(at), ..node.clone() };
        if depth.saturating_add(size.depth) > MAX_DEPTH {
            return self.too_deep(at);
        }
        self.copied = self.copied.saturating_add(size.bytes);
        self.count(size.nodes, at)?;
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                next => {
                    self.path.push(Segment::Index(items.len()));
                    items.push(self.node(next, depth.saturating_add(1))?);
                    self.path.pop();
                }
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, YamlError> {
        let mut map = Map::default();
        loop {
            let (event, span) = self.next()?;
            let start = span.start;
            if matches!(event, Event::MappingEnd) {
                return Ok(map.entries);
            }
            if is_merge(&event) {
                let value = self.next()?;
                let value = self.node(value, depth)?;
                self.merge(&mut map, value)?;
                continue;
            }
            let key = self.key((event, span), depth)?;
            self.path.push(Segment::Key(key.clone()));
            let value = self.next()?;
            let node = self.node(value, depth.saturating_add(1))?;
            self.written(&mut map, Entry { key, at: self.position(&start), node })?;
            self.path.pop();
        }
    }

    /// The text of a key: to Go it has a type first, so that `yes` is `true`; strictly read, it stays as it is written. A list
    /// or a map is no key in JSON, and nothing is none in Go.
    fn key(&mut self, (event, span): Next<'a>, depth: usize) -> Result<String, YamlError> {
        let (start, style) = (span.start, "a key must be a text, a number or a boolean");
        if let (true, Event::Scalar(text, _, 0, None)) = (self.strict, &event) {
            return Ok(text.to_string());
        }
        if let Event::Scalar(text, style_of, 0, tag) = &event {
            let value = self.typed(text, *style_of, tag.as_deref(), &start)?;
            return value.key().map_or_else(|| self.fail(&start, style), Ok);
        }
        match self.node((event, span), depth.saturating_add(1))?.kind {
            Kind::String(text) => Ok(text),
            Kind::Number(number) => Ok(number.to_string()),
            Kind::Bool(value) => Ok(value.to_string()),
            _ => self.fail(&start, style),
        }
    }

    /// Adds an entry that is written in the map itself: it comes before one that is merged into it.
    fn written(&mut self, map: &mut Map, entry: Entry) -> Result<(), YamlError> {
        if let Some((place, true)) = map.places.get(&entry.key) {
            if self.strict {
                let problem = format!("{:?} is written twice in the same map", entry.key);
                return Err(at(entry.at, problem));
            }
            let before = map.entries.get(*place).map_or(entry.at, |before| before.at);
            self.repeated.push(Repeated { path: self.path.clone(), at: entry.at, before });
        }
        map.put(entry, true);
        Ok(())
    }

    /// Merges `value` into a map: a map, or a list of maps of which the first comes before the others.
    ///
    /// To Go it is one more thing that is written at this place: it also replaces what stands above it. Strictly read, what
    /// is written in the map itself counts, wherever it stands.
    fn merge(&mut self, map: &mut Map, value: Node) -> Result<(), YamlError> {
        let place = value.at;
        let maps = match value.kind {
            Kind::Map(entries) => vec![entries],
            Kind::List(items) => {
                let maps = items.into_iter().rev().map(|item| match item.kind {
                    Kind::Map(entries) => Ok(entries),
                    _ => Err(at(item.at, WRONG_MERGE.to_owned())),
                });
                maps.collect::<Result<_, _>>()?
            }
            _ => return Err(at(place, WRONG_MERGE.to_owned())),
        };
        for entry in maps.into_iter().flatten() {
            let own = map.places.get(&entry.key).is_some_and(|(_, written)| *written);
            if !(self.strict && own) {
                map.put(entry, false);
            }
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: &Marker) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES || self.copied > MAX_COPIED {
            return self.fail(at, "this document has too many values, those that aliases stand for included");
        }
        Ok(())
    }

    fn too_deep<T>(&self, at: &Marker) -> Result<T, YamlError> {
        self.fail(at, &format!("nested deeper than {MAX_DEPTH} levels"))
    }

    fn fail<T>(&self, marker: &Marker, problem: &str) -> Result<T, YamlError> {
        Err(at(self.position(marker), problem.to_owned()))
    }

    fn position(&self, marker: &Marker) -> Position {
        Position {
            line: self.source.line.saturating_add(marker.line().max(1)).saturating_sub(1),
            column: marker.col().saturating_add(1),
        }
    }

    /// The parser's message without the place, which [`YamlError`] says itself.
    fn error(&self, error: &ScanError) -> YamlError {
        let problem = match error.kind() {
            ErrorKind::UnknownAnchor => Cow::Borrowed("alias references unknown anchor"),
            _ => Cow::Owned(error.info()),
        };
        at(self.position(error.marker()), problem.lines().next().unwrap_or("invalid YAML").to_owned())
    }
}

const WRONG_MERGE: &str = "a merge key (<<) takes a map or a list of maps";

fn at(place: Position, problem: String) -> YamlError {
    YamlError { line: place.line, column: place.column, path: String::new(), problem }
}

/// `<<`, but for one in quotes or with another tag.
fn is_merge(event: &Event<'_>) -> bool {
    match event {
        Event::Scalar(text, style, _, tag) if text == "<<" => match tag {
            None => *style == ScalarStyle::Plain,
            Some(tag) => tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() == Some("merge"),
        },
        _ => false,
    }
}

/// How much a value holds.
pub(super) struct Size {
    pub nodes: usize,
    pub bytes: usize,
    pub depth: usize,
}

impl Node {
    /// Values, bytes of text and levels.
    pub(super) fn size(&self) -> Size {
        let mut size = Size { nodes: 1, bytes: 0, depth: 0 };
        let mut add = |node: &Node, bytes: usize| {
            let inner = node.size();
            size.nodes = size.nodes.saturating_add(inner.nodes);
            size.bytes = size.bytes.saturating_add(inner.bytes).saturating_add(bytes);
            size.depth = size.depth.max(inner.depth.saturating_add(1));
        };
        match &self.kind {
            Kind::List(nodes) => nodes.iter().for_each(|node| add(node, 0)),
            Kind::Map(entries) => entries.iter().for_each(|entry| add(&entry.node, entry.key.len())),
            Kind::String(text) => size.bytes = text.len(),
            _ => {}
        }
        size
    }
}
