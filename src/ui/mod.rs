//! Progress, prompts, tables and `-o text|json|yaml`.

pub mod log;
mod color;
mod lines;
mod output;
mod prompt;
mod table;
mod terminal;

use std::io::{IsTerminal, stderr, stdout};
use std::sync::Arc;

use crate::event::Reporter;
use crate::host::environment;

pub use color::colored_diff;
pub use lines::{JsonLines, Plain};
pub use output::{Output, UiError, error_text, print, print_bytes, print_value};
pub use prompt::confirm;
pub use table::table;
pub use terminal::Terminal;

/// Who shows the events of a command: live lines where a person watches, plain lines anywhere else, JSON lines or YAML
/// documents on request.
pub fn reporter(output: Output) -> Arc<dyn Reporter> {
    match output {
        Output::Json => Arc::new(JsonLines::json(stdout())),
        Output::Yaml => Arc::new(JsonLines::yaml(stdout())),
        Output::Text if watched() => Arc::new(Terminal::stderr()),
        Output::Text => Arc::new(Plain::new(stdout())),
    }
}

/// Whether a person watches: bars go to stderr, but a redirected stdout asks for lines to keep.
fn watched() -> bool {
    let dumb = environment::terminal().is_none_or(|term| term == "dumb");
    stdout().is_terminal() && stderr().is_terminal() && !dumb
}
