//! The one place where an error meets the user.

use std::fmt;

use crate::ui;

/// What to do where there is no kubeconfig to be used.
pub const NO_KUBECONFIG: &str = "run this as root on a control-plane node, where /etc/kubernetes/admin.conf is, or name a \
                                 kubeconfig with --kubeconfig (or KUBECONFIG)";

/// What to do next, attached to an error with `.context(Hint::new("..."))` and printed below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint(String);

impl Hint {
    /// A hint: one sentence or command, lower case.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints `error` to stderr: what failed, then each cause on its own line, then the hint.
///
/// Errors are printed here and nowhere else. A command that has an exit code of its own for a failure calls this and
/// returns the code.
pub fn report(error: &anyhow::Error) {
    ui::error_text(&render(error));
}

fn render(error: &anyhow::Error) -> String {
    let hint = error.downcast_ref::<Hint>().map(Hint::to_string);
    let mut text = String::new();
    let mut before = String::new();
    for cause in error.chain() {
        let words = cause.to_string();
        // Some libraries repeat their cause in their own words; said once is enough.
        if Some(&words) == hint.as_ref() || before.contains(&words) {
            continue;
        }
        text.push_str(if text.is_empty() { "error: " } else { "  cause: " });
        text.push_str(words.trim_end());
        text.push('\n');
        before = words;
    }
    if let Some(hint) = hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_is_printed_with_its_causes_and_then_what_to_do() {
        let error: anyhow::Error = Err::<(), _>(anyhow!("no space left"))
            .context("cannot write /etc/x")
            .context(Hint::new("free some space and run the same command again"))
            .context("phase certs failed")
            .unwrap_err();
        assert_eq!(
            render(&error),
            "error: phase certs failed\n  cause: cannot write /etc/x\n  cause: no space left\n\
             hint: free some space and run the same command again\n"
        );
    }

    #[test]
    fn a_cause_that_its_error_has_quoted_is_not_repeated() {
        let error = anyhow!("refused").context("service error: refused");
        assert_eq!(render(&error), "error: service error: refused\n");
    }
}
