//! Questions.

use std::io::{self, BufRead, IsTerminal, stderr, stdin};

use dialoguer::Input;

use super::UiError;

/// Asks `question` on the terminal; `y` and `yes` are yes, everything else is no, as with kubeadm.
///
/// `otherwise` says how to do without a person (`pass --force to go on without asking`): it is what the error says
/// where no terminal is. Blocks its thread.
pub fn confirm(question: &str, otherwise: &str) -> Result<bool, UiError> {
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        let none = || UiError::NoTerminal { question: question.to_owned(), otherwise: otherwise.to_owned() };
        return piped(&mut stdin().lock())
            .map_err(|source| UiError::Prompt { question: question.to_owned(), source })?
            .ok_or_else(none);
    }
    // A line of input rather than dialoguer's yes-or-no prompt: that one hides the cursor, and Ctrl-C would leave it
    // so.
    let answer = Input::<String>::new().with_prompt(format!("{question} [y/N]")).allow_empty(true).interact_text();
    match answer {
        Ok(answer) => Ok(means_yes(&answer)),
        Err(dialoguer::Error::IO(source)) => Err(UiError::Prompt { question: question.to_owned(), source }),
    }
}

/// The answer that a script has written (`yes | kubeboot reset`); None where it has written none.
fn piped(input: &mut impl BufRead) -> io::Result<Option<bool>> {
    let mut line = String::new();
    Ok((input.read_line(&mut line)? > 0).then(|| means_yes(&line)))
}

fn means_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_answers_with_a_line_and_the_end_of_input_is_no_answer() {
        for (input, answer) in
            [("y\n", Some(true)), ("yes", Some(true)), ("n\n", Some(false)), ("\n", Some(false)), ("", None)]
        {
            assert_eq!(piped(&mut input.as_bytes()).unwrap(), answer, "{input:?}");
        }
    }

    #[test]
    fn only_y_and_yes_are_yes() {
        for (answer, yes) in [("y", true), ("YES", true), (" y ", true), ("", false), ("n", false), ("yep", false)] {
            assert_eq!(means_yes(answer), yes, "{answer:?}");
        }
    }
}
