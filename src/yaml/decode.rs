//! From a [`Node`] into a type, with errors that know the field and the place.
//!
//! Null decodes as Go's encoding/json decodes it: a field of a struct is absent then, and an item of a list or a value of
//! a map has the zero value of its type.
//!
//! The type's own serde derive is the table of known fields. Where a file has several faults, decoding is tried again
//! without the faulty part ([`Node::decode_all`]), so that all of them come out at once.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
};
use serde::de::{Unexpected, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::YamlError;
use super::node::{Entry, Kind, Node, Position, Segment, path_to_string};
use super::words::{nearest, shorten};

/// More faults than a user reads at once.
const MAX_FAULTS: usize = 100;

/// One fault of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeError {
    /// What is wrong.
    pub problem: Problem,
    /// The field.
    pub path: Vec<Segment>,
    /// Where it is; None only until the error has left the value it is about.
    pub at: Option<Position>,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// No field of this name; the type knows these.
    UnknownField(String, &'static [&'static str]),
    /// A field that must be there is not.
    Missing(&'static str),
    /// A value of another type: what it is, and what it must be.
    Mismatch(String, String),
    /// A word that is none of these.
    UnknownWord(String, &'static [&'static str]),
    /// Anything else.
    Invalid(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField(name, known) => match nearest(name, known) {
                Some(likely) => write!(f, "unknown field; did you mean {likely}?"),
                None => write!(f, "unknown field; known are {}", known.join(", ")),
            },
            Self::Missing(field) => write!(f, "the field {field:?} is missing"),
            Self::Mismatch(found, expected) => {
                write!(f, "expected {expected}, found {found}")?;
                let quotable = found.starts_with("the number") || found.starts_with("the boolean");
                if quotable && expected == "a string" { f.write_str("; put it in quotes") } else { Ok(()) }
            }
            Self::UnknownWord(word, known) => write!(f, "{word:?} is none of {}", known.join(", ")),
            Self::Invalid(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", path_to_string(&self.path), self.problem)
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for YamlError {
    fn from(error: DecodeError) -> Self {
        let at = error.at.unwrap_or(Position { line: 1, column: 1 });
        let (path, problem) = (path_to_string(&error.path), shorten(&error.problem.to_string()));
        Self { line: at.line, column: at.column, path, problem }
    }
}

impl DecodeError {
    fn new(problem: Problem) -> Self {
        Self { problem, path: Vec::new(), at: None }
    }

    /// Notes where the error is, if nothing deeper has.
    fn at(mut self, at: Position) -> Self {
        self.at.get_or_insert(at);
        self
    }

    fn below(mut self, segment: Segment) -> Self {
        self.path.insert(0, segment);
        self
    }
}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Problem::Invalid(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Problem::Mismatch(found.to_string(), in_words(&expected.to_string())))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownField(name.to_owned(), known))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownWord(word.to_owned(), known))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::Missing(field))
    }
}

/// What serde calls a type, in words that a user knows.
fn in_words(expected: &str) -> String {
    match expected {
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        other if other.starts_with("struct ") => "a map of fields",
        other => other,
    }
    .to_owned()
}

impl Node {
    /// Decodes into `T`.
    ///
    /// # Errors
    /// The first fault.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        T::deserialize(Decoder { node: self, inner: false }).map_err(|error| error.at(self.at))
    }

    /// Decodes into `T`, passing over what is faulty, and tells every fault. What was passed over has its default.
    pub fn decode_all<T: DeserializeOwned + Default>(&mut self) -> (T, Vec<DecodeError>) {
        let mut faults: Vec<DecodeError> = Vec::new();
        for _ in 0..MAX_FAULTS {
            let error = match self.decode() {
                Ok(value) => return (value, faults),
                Err(error) => error,
            };
            let consequence = match &error.problem {
                Problem::Missing(field) => self.lost(&error.path, field) || misspelt(&faults, &error.path, field),
                _ => false,
            };
            let passed = self.pass_over(&error.path);
            if !consequence {
                faults.push(error);
            }
            if !passed {
                break;
            }
        }
        (T::default(), faults)
    }

    fn child_mut(&mut self, segment: &Segment) -> Option<&mut Node> {
        match (segment, &mut self.kind) {
            (Segment::Key(key), Kind::Map(entries)) => {
                entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.node)
            }
            (Segment::Index(index), Kind::List(nodes)) => nodes.get_mut(*index),
            _ => None,
        }
    }

    /// Marks the value at `path` as faulty; false when that is the whole document.
    fn pass_over(&mut self, path: &[Segment]) -> bool {
        let target = path.iter().try_fold(&mut *self, |node, segment| node.child_mut(segment));
        match target {
            Some(node) if !path.is_empty() && !node.skipped => {
                node.skipped = true;
                true
            }
            _ => false,
        }
    }

    /// Whether `field` of the map at `path` is missing only because it was passed over.
    fn lost(&mut self, path: &[Segment], field: &str) -> bool {
        let map = path.iter().try_fold(&mut *self, |node, segment| node.child_mut(segment));
        map.and_then(|map| map.get(field)).is_some_and(|node| node.skipped)
    }
}

/// Whether `field` of the map at `path` is missing because it was written with a slip that has been reported.
fn misspelt(faults: &[DecodeError], path: &[Segment], field: &str) -> bool {
    faults.iter().any(|fault| match (&fault.problem, fault.path.split_last()) {
        (Problem::UnknownField(name, known), Some((_, above))) => above == path && nearest(name, known) == Some(field),
        _ => false,
    })
}

/// Feeds a node to serde.
struct Decoder<'a> {
    node: &'a Node,
    /// Whether it is a value of something, not the document itself: of a document there must be one.
    inner: bool,
}

impl<'a, 'de> Decoder<'a> {
    fn inner(node: &'a Node) -> Self {
        Self { node, inner: true }
    }

    fn is_zero(&self) -> bool {
        self.inner && self.node.kind == Kind::Null
    }

    /// Says of a mismatch what was really there, in the file's own spelling.
    fn reported<T>(&self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        result.map_err(|mut error| {
            if let (Problem::Mismatch(found, _), true, None) = (&mut error.problem, error.path.is_empty(), error.at) {
                *found = self.node.describe();
            }
            error.at(self.node.at)
        })
    }

    fn map<V: Visitor<'de>>(self, visitor: V, drop_nulls: bool) -> Result<V::Value, DecodeError> {
        let entries = match &self.node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null if self.inner => &[],
            _ => return self.any(visitor),
        };
        let unwanted = |node: &Node| node.skipped || (drop_nulls && node.kind == Kind::Null);
        let entries = entries.iter().filter(|entry| !unwanted(&entry.node)).collect::<Vec<_>>();
        self.reported(visitor.visit_map(Entries { entries: entries.into_iter(), current: None }))
    }

    fn any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
            },
            Kind::String(text) => visitor.visit_str(text),
            Kind::List(nodes) => {
                let nodes = nodes.iter().enumerate().filter(|(_, node)| !node.skipped).collect::<Vec<_>>();
                visitor.visit_seq(Items(nodes.into_iter()))
            }
            Kind::Map(_) => return self.map(visitor, false),
        };
        self.reported(result)
    }
}

/// The zero values of Go's types.
macro_rules! zero_for_null {
    ($($method:ident => $visit:ident($zero:expr);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            if self.is_zero() { visitor.$visit($zero) } else { self.any(visitor) }
        })*
    };
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = DecodeError;

    zero_for_null! {
        deserialize_bool => visit_bool(false);
        deserialize_i8 => visit_i64(0);
        deserialize_i16 => visit_i64(0);
        deserialize_i32 => visit_i64(0);
        deserialize_i64 => visit_i64(0);
        deserialize_u8 => visit_u64(0);
        deserialize_u16 => visit_u64(0);
        deserialize_u32 => visit_u64(0);
        deserialize_u64 => visit_u64(0);
        deserialize_f32 => visit_f64(0.0);
        deserialize_f64 => visit_f64(0.0);
        deserialize_str => visit_str("");
        deserialize_string => visit_str("");
        deserialize_seq => visit_seq(Items(Vec::new().into_iter()));
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.map(visitor, false)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &str, visitor: V) -> Result<V::Value, DecodeError> {
        if name == "Quantity" {
            // `cpu: 1` is a quantity to Go, though the type holds a string: it is read from what the JSON says.
            let text = match &self.node.kind {
                Kind::Number(number) => Some(number.to_string()),
                Kind::String(text) => Some(text.trim().to_owned()),
                Kind::Null => Some("0".to_owned()),
                _ => None,
            };
            if let Some(text) = text {
                return visitor.visit_newtype_struct(StrDeserializer::new(&text));
            }
        }
        let result = visitor.visit_newtype_struct(self);
        if name != "Secret" {
            return result;
        }
        // What was written in the place of a secret may be one.
        result.map_err(|mut error| {
            if let Problem::Mismatch(found, _) = &mut error.problem {
                *found = "something else".into();
            }
            error
        })
    }

    /// A null field of a struct is an absent one, as in Go.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.node.kind {
            // A list would otherwise be taken for the fields in order.
            Kind::List(_) => self.reported(Err(de::Error::invalid_type(Unexpected::Seq, &visitor))),
            _ => self.map(visitor, true),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match &self.node.kind {
            Kind::String(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            Kind::Map(entries) if entries.len() == 1 => visitor.visit_enum(Variant(&entries[0])),
            _ => Err(de::Error::invalid_type(Unexpected::Other("value"), &"a string")),
        };
        self.reported(result)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a>(std::vec::IntoIter<(usize, &'a Node)>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.0.next() else { return Ok(None) };
        let item = seed.deserialize(Decoder::inner(node));
        item.map(Some).map_err(|error| error.at(node.at).below(Segment::Index(index)))
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<&'a Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        self.current = self.entries.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<DecodeError>::new(&entry.key));
        key.map(Some).map_err(|error| error.at(entry.at).below(Segment::Key(entry.key.clone())))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.current else { return Err(de::Error::custom("a value without a key")) };
        let value = seed.deserialize(Decoder::inner(&entry.node));
        value.map_err(|error| error.at(entry.node.at).below(Segment::Key(entry.key.clone())))
    }
}

/// `{Name: data}`.
struct Variant<'a>(&'a Entry);

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = DecodeError;
    type Variant = Decoder<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Decoder<'a>), DecodeError> {
        let name = seed.deserialize(StrDeserializer::<DecodeError>::new(&self.0.key))?;
        Ok((name, Decoder::inner(&self.0.node)))
    }
}

impl<'de> VariantAccess<'de> for Decoder<'_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Err(de::Error::custom("this word takes no value"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, DecodeError> {
        self.map(visitor, true)
    }
}
