//! Writing documents as kubeadm prints them.

use serde::Serialize;

/// A value that cannot be written as YAML.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// It is not even JSON: a map key that is no string, for instance.
    #[error("cannot turn the value into JSON")]
    Json(#[from] serde_json::Error),
    /// The writer refused it.
    #[error("cannot write the value as YAML")]
    Yaml(#[from] serde_saphyr::ser_error::Error),
}

/// `value` as one YAML document in block style with sorted keys, list items level with their key, and quotes around
/// every string that Go would read as something else (`y`, `on`, `1_000`, `0x1F`, `12:30`). Ends in a newline.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, EmitError> {
    let value = serde_json::to_value(value)?;
    let options = serde_saphyr::ser_options! {
        indent_step: 2,
        compact_list_indent: true,
        // Folding would break long arguments over lines; only texts of several lines become blocks.
        folded_wrap_chars: usize::MAX,
        prefer_block_scalars: false,
    };
    Ok(serde_saphyr::to_string_with_options(&value, options)?)
}
