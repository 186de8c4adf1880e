//! Bootstrap tokens: `id.secret`.

use std::fmt;
use std::str::FromStr;

/// A bootstrap token. Its secret half is in neither Debug nor Display.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    whole: String,
}

/// A text that is no token; it is not repeated, for most of it may be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a bootstrap token: six characters of a-z and 0-9, a dot, and sixteen more")]
pub struct TokenError;

/// Length of the public half.
const ID: usize = 6;
/// Length of the secret half.
const SECRET: usize = 16;

impl Token {
    /// The public half.
    pub fn id(&self) -> &str {
        &self.whole[..ID]
    }

    /// The secret half.
    pub fn secret(&self) -> &str {
        &self.whole[ID + 1..]
    }

    /// The whole of it, as a client shows it to the API server.
    pub fn reveal(&self) -> &str {
        &self.whole
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let half = |half: &str, length| {
            half.len() == length && half.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match text.split_once('.') {
            Some((id, secret)) if half(id, ID) && half(secret, SECRET) => Ok(Self { whole: text.to_owned() }),
            _ => Err(TokenError),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.***)", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_two_halves_and_hides_one() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!((token.id(), token.secret()), ("abcdef", "0123456789abcdef"));
        assert_eq!(format!("{token:?}"), "Token(abcdef.***)");
    }

    #[test]
    fn anything_else_is_refused_without_being_repeated() {
        for text in [
            "",
            "abcdef",
            "abcdef.",
            "abcde.0123456789abcdef",
            "Abcdef.0123456789abcdef",
            "abcdef.0123456789abcde\u{e9}",
        ] {
            let error = text.parse::<Token>().unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }
}
