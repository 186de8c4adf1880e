//! What can be wrong with flags and files.

use std::path::PathBuf;

/// Why the agent cannot start with these flags and this file.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The configuration file is not valid. Each problem says file, line and field.
    #[error("{} is no valid KubeletConfiguration:\n{}", file.display(), indented(problems))]
    Config {
        /// The file.
        file: PathBuf,
        /// All problems.
        problems: Vec<String>,
    },
    /// A setting has an impossible value.
    #[error("{setting} is {value:?}: {problem}")]
    Value {
        /// Flag or field.
        setting: String,
        /// As given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting that may hold a secret has an impossible value, which is not shown.
    #[error("{setting}: {problem}")]
    Hidden {
        /// Flag or field.
        setting: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A flag that no kubelet has.
    #[error("--{name}: no kubelet has this flag")]
    UnknownFlag {
        /// As given, without dashes before it.
        name: String,
    },
    /// Nothing says where manifests are.
    #[error(
        "no static pods configured: set staticPodPath or staticPodURL in the file named by --config, or pass \
         --pod-manifest-path DIR or --manifest-url URL"
    )]
    NoSource,
}

fn indented(problems: &[String]) -> String {
    problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n")
}

/// The value of a flag, where it is given and says anything.
pub(super) fn checked<T>(
    flag: &str,
    given: &Option<String>,
    check: impl Fn(&str) -> Result<Option<T>, String>,
) -> Result<Option<T>, OptionsError> {
    let Some(text) = given else { return Ok(None) };
    check(text).map_err(|problem| wrong(flag, text, problem))
}

/// A fault of a setting.
pub(super) fn wrong(setting: &str, value: &str, problem: String) -> OptionsError {
    OptionsError::Value { setting: setting.to_owned(), value: value.to_owned(), problem }
}

/// A text that says something.
pub(super) fn not_empty(value: &Option<String>) -> Option<String> {
    value.clone().filter(|v| !v.is_empty())
}
