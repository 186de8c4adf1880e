//! Progress, prompts, tables and `-o text|json|yaml`.

pub mod log;
mod output;

pub use output::{Output, UiError, error_text, print, print_value};
