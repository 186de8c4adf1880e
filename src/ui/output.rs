//! What a command was asked for, on stdout.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::terminal::suspended;
use crate::yaml;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// What can go wrong when talking to the user.
#[derive(Debug, thiserror::Error)]
pub enum UiError {
    /// stdout took no more.
    #[error("cannot write to stdout")]
    Write(#[source] io::Error),
    /// A value has no such form.
    #[error("cannot print the result as {format}")]
    Encode {
        /// `json` or `yaml`.
        format: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A question needs a person.
    #[error("cannot ask \"{question}\": this is no terminal; {otherwise}")]
    NoTerminal {
        /// The question.
        question: String,
        /// What to do instead: `pass --force to go on without asking`.
        otherwise: String,
    },
    /// The terminal failed during a question.
    #[error("cannot read the answer to \"{question}\"")]
    Prompt {
        /// The question.
        question: String,
        /// What the terminal said.
        #[source]
        source: io::Error,
    },
}

/// Writes `text`, which carries its own line breaks, to stdout. That the reader has gone (`| head`) is no error.
pub fn print(text: &str) -> Result<(), UiError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(UiError::Write(e)),
        _ => Ok(()),
    }
}

/// Writes `bytes` to stdout as they are. Returns whether stdout still has a reader.
pub fn print_bytes(bytes: &[u8]) -> Result<bool, UiError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(UiError::Write(e)),
    }
}

/// Writes `text` to stderr: errors only, everything else is a log line or an event.
pub fn error_text(text: &str) {
    // A closed stderr cannot be reported anywhere.
    let _ = suspended(|| io::stderr().lock().write_all(text.as_bytes()));
}

/// Prints `value` as JSON (indented) or YAML; as [`Output::Text`] it is YAML, which reads best.
pub fn print_value<T: Serialize>(output: Output, value: &T) -> Result<(), UiError> {
    print(&encode(output, value)?)
}

fn encode<T: Serialize>(output: Output, value: &T) -> Result<String, UiError> {
    match output {
        Output::Json => serde_json::to_string_pretty(value)
            .map(|text| text + "\n")
            .map_err(|e| UiError::Encode { format: "json", source: e.into() }),
        Output::Yaml | Output::Text => {
            yaml::to_string(value).map_err(|e| UiError::Encode { format: "yaml", source: e.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_printed_in_the_form_asked_for() {
        let value = serde_json::json!({"name": "etcd", "ready": true});
        assert_eq!(encode(Output::Json, &value).unwrap(), "{\n  \"name\": \"etcd\",\n  \"ready\": true\n}\n");
        assert_eq!(encode(Output::Yaml, &value).unwrap(), "name: etcd\nready: true\n");
    }
}
