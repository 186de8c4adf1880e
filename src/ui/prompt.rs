//! Questions.

use std::io::{IsTerminal, stderr, stdin};

use dialoguer::Input;

use super::UiError;

/// Asks `question` on the terminal; `y` and `yes` are yes, everything else is no, as with kubeadm.
///
/// `otherwise` says how to do without a person (`pass --force to go on without asking`): it is what the error says
/// where no terminal is. Blocks its thread.
pub fn confirm(question: &str, otherwise: &str) -> Result<bool, UiError> {
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        return Err(UiError::NoTerminal { question: question.to_owned(), otherwise: otherwise.to_owned() });
    }
    // A line of input rather than dialoguer's yes-or-no prompt: that one hides the cursor, and Ctrl-C would leave it
    // so.
    let answer = Input::<String>::new().with_prompt(format!("{question} [y/N]")).allow_empty(true).interact_text();
    match answer {
        Ok(answer) => Ok(means_yes(&answer)),
        Err(dialoguer::Error::IO(source)) => Err(UiError::Prompt { question: question.to_owned(), source }),
    }
}

fn means_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_y_and_yes_are_yes() {
        for (answer, yes) in [("y", true), ("YES", true), (" y ", true), ("", false), ("n", false), ("yep", false)] {
            assert_eq!(means_yes(answer), yes, "{answer:?}");
        }
    }
}
