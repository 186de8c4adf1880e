//! Writing documents as kubeadm prints them.

use serde::Serialize;
use serde_json::Value;

use super::YamlError;
use super::node::path_to_string;
use super::second::{difference, to_confirmed_value};

/// A value that cannot be written as YAML.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// It is not even JSON: a map key that is no string, for instance.
    #[error("cannot turn the value into JSON")]
    Json(#[from] serde_json::Error),
    /// The writer refused it.
    #[error("cannot write the value as YAML")]
    Yaml(#[from] serde_saphyr::ser_error::Error),
    /// Two readers of what was written do not agree on it.
    #[error("the YAML that was made cannot be relied on, and was not used")]
    Doubtful(#[from] YamlError),
    /// They agree on something else than what was to be written.
    #[error("the YAML that was made says something else at {0:?}, and was not used")]
    Changed(String),
}

/// `value` as one YAML document in block style with sorted keys, list items level with their key, and quotes around
/// every string that Go would read as something else (`y`, `on`, `1_000`, `0x1F`, `12:30`). Ends in a newline. Two readers
/// have found `value` in it.
///
/// # Errors
/// A value that JSON cannot hold, or that the readers do not find.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, EmitError> {
    let value = serde_json::to_value(value)?;
    let options = serde_saphyr::ser_options! {
        indent_step: 2,
        compact_list_indent: true,
        // Folding would break long arguments over lines; only texts of several lines become blocks.
        folded_wrap_chars: usize::MAX,
        prefer_block_scalars: false,
    };
    let text = serde_saphyr::to_string_with_options(&value, options)?;
    read_back(&text, &value)?;
    Ok(text)
}

/// Looks whether `text` says `value`.
fn read_back(text: &str, value: &Value) -> Result<(), EmitError> {
    match difference(value, &to_confirmed_value(text)?) {
        None => Ok(()),
        Some((path, _)) => Err(EmitError::Changed(path_to_string(&path))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_say_what_was_meant_is_not_written() {
        let value = json!({"a": {"b": ["on", 1]}});
        read_back("a: {b: ['on', 1]}", &value).unwrap();
        let doubtful = read_back("a: {b: [on, 1]}", &value).unwrap_err();
        assert!(matches!(&doubtful, EmitError::Doubtful(error) if error.path == "a.b[0]"), "{doubtful:?}");
        let changed = read_back("a: {b: ['on', 2]}", &value).unwrap_err();
        assert!(matches!(&changed, EmitError::Changed(path) if path == "a.b[1]"), "{changed:?}");
    }
}
