//! `/configz`: the configuration the agent follows, as a whole `KubeletConfiguration` in which no field is missing that a
//! kubelet would print: tools read it, change a field and write it back as `--config`.
//!
//! What the agent follows is as it follows it, whether flags or files said so. What means nothing to it is as the files
//! have it, else as a kubelet takes it by default. Both are in the table of options ([`table`]).

use ::http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::http::{Body, respond};
use crate::agent::options::AgentOptions;
use crate::agent::options::table::{self, Field};

/// The answer.
pub fn answer(options: &AgentOptions) -> Response<Body> {
    respond(StatusCode::OK, "application/json", json!({ "kubeletconfig": effective(options) }).to_string())
}

fn effective(options: &AgentOptions) -> Value {
    let mut fields = Map::new();
    fields.insert("apiVersion".to_owned(), json!("kubelet.config.k8s.io/v1beta1"));
    fields.insert("kind".to_owned(), json!("KubeletConfiguration"));
    // The table takes the place of an option as one that can be written to.
    let mut shown = options.clone();
    for (field, row) in table::fields() {
        let value = match row.shown(&mut shown) {
            // What nothing was said of stays as it is written.
            Value::Null if !field.name.contains('.') => by_default(field, options),
            value => value,
        };
        place(&mut fields, field.name, value);
    }
    fields.into()
}

/// What is written in a field, over its default.
fn by_default(field: &Field, options: &AgentOptions) -> Value {
    // The table is checked by a test: there is no default that is no JSON.
    let default = serde_json::from_str(field.default).unwrap_or(Value::Null);
    let written = options.written.get(field.name).filter(|written| says_something(field, written)).cloned();
    laid_over(default, written.unwrap_or(Value::Null))
}

/// Whether what is written in a field is no word for its default.
fn says_something(field: &Field, written: &Value) -> bool {
    let is_zero = written == &json!(0) && field.zero_is_default;
    !(is_zero || matches!(written.as_str(), Some("" | "0" | "0s")))
}

/// What is written in a field, over its default: only parts of `logging` are taken one by one.
fn laid_over(default: Value, written: Value) -> Value {
    match (default, written) {
        (default, Value::Null) => default,
        (Value::Object(mut below), Value::Object(above)) if below.contains_key("flushFrequency") => {
            below.extend(above);
            below.into()
        }
        (_, written) => written,
    }
}

/// Puts a value at its path, the maps it is in being made. A value that is null is left out, and those maps are not.
fn place(fields: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        Some((name, below)) => {
            if let Value::Object(inner) = fields.entry(name).or_insert_with(|| json!({})) {
                place(inner, below, value);
            }
        }
        None if value.is_null() => {}
        None => {
            fields.insert(path.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests;
