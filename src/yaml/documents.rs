//! Cutting a stream into documents, as Kubernetes does it: at lines that begin with `---`.

use super::YamlError;

/// One document of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The line of the stream that the first line of `text` is, from 1.
    pub line: usize,
    /// The document, without the separators around it.
    pub text: String,
}

/// Cuts `stream` (YAML or JSON, with or without a byte order mark) into its documents. Documents of nothing but blank
/// lines and comments, before the first separator or after the last for instance, are left out.
///
/// # Errors
/// None today; a stream that cannot be cut may become one.
pub fn documents(stream: &str) -> Result<Vec<Document>, YamlError> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let mut found = Vec::new();
    let mut current = Document { line: 1, text: String::new() };
    for (index, line) in stream.split_inclusive('\n').enumerate() {
        match after_separator(line) {
            None => current.text.push_str(line),
            Some(rest) => {
                // What follows `---` on its line belongs to the new document, in its own column.
                let text = format!("   {rest}");
                found.push(std::mem::replace(&mut current, Document { line: index + 1, text }));
            }
        }
    }
    found.push(current);
    found.retain(|document| !document.is_blank());
    Ok(found)
}

/// The single document of `text`, an empty one when there is none.
pub(super) fn only(text: &str) -> Result<Document, YamlError> {
    let mut found = documents(text)?.into_iter();
    let first = found.next().unwrap_or(Document { line: 1, text: String::new() });
    match found.next() {
        None => Ok(first),
        Some(second) => Err(YamlError {
            line: second.line,
            column: 1,
            path: String::new(),
            problem: "a second document begins here; only one is allowed".into(),
        }),
    }
}

impl Document {
    /// Whether there is nothing but white space, comments and directives.
    fn is_blank(&self) -> bool {
        self.text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(['#', '%']) || line == "...")
    }
}

/// What follows the three dashes, if `line` is a separator.
fn after_separator(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("---")?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(rest)
}
