//! A pod in the protobuf form of `k8s.io/api/core/v1`, which Go's `v1.Pod#Unmarshal` reads.
//!
//! The pod's JSON is walked by a table of messages ([`TABLE`]), for the JSON has the names and the table the numbers. A
//! field that is not set is left out, where Go writes a zero for some; both are read as the same pod. `apiVersion` and
//! `kind` are in no protobuf message of Kubernetes.

use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Pod;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::Value;

/// The messages that a pod consists of, of Kubernetes 1.36: `Message: field=NUMBER:KIND ...`, without a kind for text. A
/// field without a name is a message whose fields stand among those of the one around it.
const TABLE: &str = include_str!("fields.txt");

static MESSAGES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| read(TABLE));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// In JSON.
    name: &'static str,
    number: u32,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
    Bool,
    /// RFC 3339 in JSON, seconds since 1970 here.
    Time,
    Quantity,
    IntOrString,
    /// Any JSON, as it is.
    Json,
    /// Names with texts.
    Texts,
    /// Names with quantities.
    Quantities,
    Message(&'static str),
}

/// Reads the table; what is no row of it is left out, which a test forbids.
fn read(table: &'static str) -> HashMap<&'static str, Vec<Field>> {
    let mut messages: HashMap<&'static str, Vec<Field>> = HashMap::new();
    let mut current = "";
    for word in table.split_ascii_whitespace() {
        match word.strip_suffix(':') {
            Some(name) => current = name,
            None => messages.entry(current).or_default().extend(field(word)),
        }
    }
    messages
}

fn field(word: &'static str) -> Option<Field> {
    let (name, rest) = word.split_once('=')?;
    let (number, kind) = rest.split_once(':').unwrap_or((rest, ""));
    let kind = match kind {
        "" => Kind::Text,
        "int" => Kind::Int,
        "bool" => Kind::Bool,
        "time" => Kind::Time,
        "quantity" => Kind::Quantity,
        "intstr" => Kind::IntOrString,
        "json" => Kind::Json,
        "texts" => Kind::Texts,
        "quantities" => Kind::Quantities,
        message => Kind::Message(message),
    };
    Some(Field { name, number: number.parse().ok()?, kind })
}

/// The bytes of a pod.
///
/// # Errors
/// It has no JSON, which no pod is without.
pub fn pod(pod: &Pod) -> Result<Vec<u8>, serde_json::Error> {
    Ok(message("Pod", &serde_json::to_value(pod)?))
}

fn message(name: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for field in MESSAGES.get(name).into_iter().flatten() {
        match if field.name.is_empty() { value } else { &value[field.name] } {
            Value::Null => {}
            Value::Array(items) => items.iter().for_each(|item| put(field, item, &mut out)),
            one => put(field, one, &mut out),
        }
    }
    out
}

/// Adds one value of a field.
fn put(field: &Field, value: &Value, out: &mut Vec<u8>) {
    let number = field.number;
    match field.kind {
        Kind::Text => bytes(number, value.as_str().unwrap_or_default().as_bytes(), out),
        Kind::Int => varint(number, value.as_i64().unwrap_or_default(), out),
        Kind::Bool => varint(number, i64::from(value.as_bool().unwrap_or_default()), out),
        Kind::Time => bytes(number, &time(value), out),
        Kind::Quantity => bytes(number, &quantity(value), out),
        Kind::IntOrString => bytes(number, &int_or_string(value), out),
        Kind::Json => bytes(number, &with(|inner| bytes(1, value.to_string().as_bytes(), inner)), out),
        Kind::Texts => entries(number, value, |value| value.as_str().unwrap_or_default().into(), out),
        Kind::Quantities => entries(number, value, quantity, out),
        Kind::Message(name) => bytes(number, &message(name, value), out),
    }
}

fn time(value: &Value) -> Vec<u8> {
    let moment = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).unwrap_or_default();
    with(|inner| varint(1, moment.as_second(), inner))
}

fn quantity(value: &Value) -> Vec<u8> {
    with(|inner| bytes(1, value.as_str().unwrap_or_default().as_bytes(), inner))
}

fn int_or_string(value: &Value) -> Vec<u8> {
    with(|inner| match value.as_str() {
        None => varint(2, value.as_i64().unwrap_or_default(), inner),
        Some(text) => {
            varint(1, 1, inner);
            bytes(3, text.as_bytes(), inner);
        }
    })
}

fn entries(number: u32, map: &Value, of: impl Fn(&Value) -> Vec<u8>, out: &mut Vec<u8>) {
    for (name, value) in map.as_object().into_iter().flatten() {
        let entry = |inner: &mut Vec<u8>| {
            bytes(1, name.as_bytes(), inner);
            bytes(2, &of(value), inner);
        };
        bytes(number, &with(entry), out);
    }
}

fn with(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn varint(number: u32, value: i64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value.cast_unsigned(), out);
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
