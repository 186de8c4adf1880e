//! Colours, where a person watches and wants them.

use std::io::{IsTerminal, stdout};

use crate::host::environment;

const RESET: &str = "\x1b[0m";
/// What a line of a unified diff begins with, and how it is shown. The first that fits counts.
const LINES: &[(&str, &str)] =
    &[("--- ", "\x1b[1m"), ("+++ ", "\x1b[1m"), ("@@ ", "\x1b[36m"), ("-", "\x1b[31m"), ("+", "\x1b[32m")];

/// A unified diff as it is printed to stdout: coloured on a terminal, unless `NO_COLOR` is set.
pub fn colored_diff(text: &str) -> String {
    let dumb = environment::terminal().is_none_or(|term| term == "dumb");
    paint(text, stdout().is_terminal() && !dumb && !environment::no_color())
}

fn paint(text: &str, colored: bool) -> String {
    if !colored {
        return text.to_owned();
    }
    let line = |line: &str| match LINES.iter().find(|(start, _)| line.starts_with(start)) {
        Some((_, color)) => format!("{color}{}{RESET}\n", line.trim_end_matches('\n')),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_coloured_line_by_line_or_left_as_it_is() {
        let text = "--- a\n+++ b\n@@ -1 +1 @@\n same\n-old\n+new\n";
        assert_eq!(paint(text, false), text);
        let colored = paint(text, true);
        assert_eq!(
            colored,
            "\x1b[1m--- a\x1b[0m\n\x1b[1m+++ b\x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n same\n\x1b[31m-old\x1b[0m\n\x1b[32m+new\x1b[0m\n"
        );
    }
}
