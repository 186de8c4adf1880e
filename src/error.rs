//! Errors as they are printed and asked.

use std::error::Error;
use std::io;

/// An error with everything that caused it, in one line; what only repeats its cause says it once.
pub fn chain(error: &dyn Error) -> String {
    let mut words = vec![error.to_string()];
    words.extend(causes(error.source()).map(ToString::to_string));
    words.dedup();
    words.join(": ")
}

/// The last cause, which alone says what happened.
pub fn deepest(error: &dyn Error) -> String {
    causes(error.source()).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether an ordinary user tried what only root may.
pub fn is_denied(error: &(dyn Error + 'static)) -> bool {
    causes(Some(error)).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

/// An error and its causes, the outermost first.
pub fn causes<'a>(first: Option<&'a (dyn Error + 'static)>) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(first, |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_and_one_that_only_repeats_the_next_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Step(&'static str, #[source] Option<Box<Step>>);
        let inner = Step("refused", Some(Box::new(Step("refused", None))));
        let outer = Step("cannot connect", Some(Box::new(inner)));
        assert_eq!(chain(&outer), "cannot connect: refused");
        assert_eq!(deepest(&outer), "refused");
        assert!(!is_denied(&outer) && is_denied(&io::Error::from(io::ErrorKind::PermissionDenied)));
    }
}
