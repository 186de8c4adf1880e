//! Bootstrap tokens: what a node shows while it has no certificate yet.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

/// What a token may be used for.
pub const USAGES: [&str; 2] = ["signing", "authentication"];

/// The group of nodes that join with a token, kubeadm's default for `groups`.
pub const NODE_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// How long a token lives by default.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// `abcdef.0123456789abcdef`: a public id, and a secret. Nothing prints the secret but [`Self::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: String,
}

/// A token that is none, or that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form. What was given may be nearly a secret, so it is not shown.
    #[error("not a bootstrap token; write 6 characters, a dot and 16 characters of a-z and 0-9")]
    Form,
    /// Neither a token nor an id. Not shown for the same reason.
    #[error("not the id of a bootstrap token; write its 6 characters of a-z and 0-9, or the whole token")]
    Id,
    /// A usage that is none.
    #[error("{0:?} is no usage of bootstrap tokens; there are {known}", known = USAGES.join(", "))]
    Usage(String),
    /// A group that tokens may not give.
    #[error("{0:?} is not a group of bootstrap tokens; it begins with system:bootstrappers:")]
    Group(String),
    /// Groups without any member.
    #[error("groups need the usage authentication; add it or leave them out")]
    IdleGroups,
    /// No random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl Token {
    /// A new one, from the operating system's random source.
    ///
    /// # Errors
    /// The source does not answer.
    pub fn generate() -> Result<Self, TokenError> {
        Ok(Self { id: random_text(ID_LENGTH)?, secret: random_text(SECRET_LENGTH)? })
    }

    /// The part that may be shown.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The part that may not.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The whole token, to be shown only where the user asked for it.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (id, secret) = text.split_once('.').ok_or(TokenError::Form)?;
        match is_plain(id, ID_LENGTH) && is_plain(secret, SECRET_LENGTH) {
            true => Ok(Self { id: id.to_owned(), secret: secret.to_owned() }),
            false => Err(TokenError::Form),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// The id in `text`, which is an id or a whole token.
///
/// # Errors
/// `text` is neither.
pub fn token_id(text: &str) -> Result<String, TokenError> {
    match is_plain(text, ID_LENGTH) {
        true => Ok(text.to_owned()),
        false => text.parse::<Token>().map(|token| token.id).map_err(|_| TokenError::Id),
    }
}

/// How long a token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever: a `ttl` of 0.
    Endless,
    /// So long from when its Secret is made.
    For(Duration),
    /// Until then.
    Until(Timestamp),
}

impl Lifetime {
    /// The lifetime that a `ttl` means.
    pub fn from_ttl(ttl: Duration) -> Self {
        if ttl.is_zero() { Self::Endless } else { Self::For(ttl) }
    }

    /// When a token ends that is made at `now`; None for never, as for a time that no clock reaches.
    pub fn end(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Endless => None,
            Self::For(ttl) => now.checked_add(ttl).ok(),
            Self::Until(end) => Some(end),
        }
    }
}

/// A token and what the cluster is to know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    /// The token.
    pub token: Token,
    /// For people; may be empty.
    pub description: String,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// What it is for, of [`USAGES`].
    pub usages: Vec<String>,
    /// Groups of who shows it.
    pub groups: Vec<String>,
}

impl BootstrapToken {
    /// `token` with kubeadm's defaults: 24 h, every usage, the group of joining nodes.
    pub fn new(token: Token) -> Self {
        Self {
            token,
            description: String::new(),
            lifetime: Lifetime::For(DEFAULT_TTL),
            usages: USAGES.map(str::to_owned).to_vec(),
            groups: vec![NODE_GROUP.to_owned()],
        }
    }

    /// Checks usages and groups.
    ///
    /// # Errors
    /// What is wrong with the first that is.
    pub fn check(&self) -> Result<(), TokenError> {
        if let Some(usage) = self.usages.iter().find(|usage| !USAGES.contains(&usage.as_str())) {
            return Err(TokenError::Usage(usage.clone()));
        }
        if let Some(group) = self.groups.iter().find(|group| !is_group(group)) {
            return Err(TokenError::Group(group.clone()));
        }
        match self.groups.is_empty() || self.usages.iter().any(|usage| usage == "authentication") {
            true => Ok(()),
            false => Err(TokenError::IdleGroups),
        }
    }
}

/// Whether the API server takes `text` for a group of a bootstrap token.
pub fn is_group(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-';
    text.strip_prefix("system:bootstrappers:")
        .is_some_and(|name| (1..=256).contains(&name.len()) && name.bytes().all(allowed) && !name.ends_with([':', '-']))
}

fn is_plain(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| ALPHABET.contains(&b))
}

fn random_text(length: usize) -> Result<String, TokenError> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 32];
    while text.len() < length {
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TokenError::Random)?;
        // 252 is the last multiple of 36 in a byte: what lies above it would make some letters likelier than others.
        let letters = bytes.iter().filter(|byte| **byte < 252).map(|byte| char::from(ALPHABET[usize::from(byte % 36)]));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_kubeadm_takes_for_a_token_is_one() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!((token.id(), token.secret()), ("abcdef", "0123456789abcdef"));
        assert_eq!(token.reveal(), "abcdef.0123456789abcdef");
        for text in [
            "",
            "abcdef",
            ".0123456789abcdef",
            "abcdef.",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdef0",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcde-",
            "abcdef.0123456789abcdef\n",
            "abcde.f0123456789abcdef",
            "äbcde.0123456789abcdef",
        ] {
            assert_eq!(text.parse::<Token>(), Err(TokenError::Form), "{text:?}");
        }
    }

    #[test]
    fn an_id_may_stand_for_a_token() {
        for text in ["abcdef", "abcdef.0123456789abcdef"] {
            assert_eq!(token_id(text).as_deref(), Ok("abcdef"));
        }
        for text in ["abcde", "abcdefg", "abcdef.", "ABCDEF", "abcdef.0123456789abcde"] {
            assert_eq!(token_id(text), Err(TokenError::Id), "{text}");
        }
    }

    #[test]
    fn generated_tokens_are_tokens_of_every_letter_and_no_two_alike() {
        let tokens: Vec<_> = (0..200).map(|_| Token::generate().unwrap()).collect();
        let texts: BTreeSet<_> = tokens.iter().map(Token::reveal).collect();
        assert_eq!(texts.len(), tokens.len());
        assert!(texts.iter().all(|text| text.parse::<Token>().is_ok()));
        // 4400 letters: one of 36 is missing once in 10^52 runs.
        let letters: BTreeSet<u8> = texts.iter().flat_map(|text| text.bytes()).filter(|b| *b != b'.').collect();
        assert_eq!(letters.len(), ALPHABET.len());
    }

    #[test]
    fn nothing_prints_a_secret() {
        let token = BootstrapToken::new("abcdef.0123456789abcdef".parse().unwrap());
        let shown = format!("{token:?} {:?} {}", token.token, "abcdef.0123456789abcde".parse::<Token>().unwrap_err());
        assert!(shown.contains("abcdef") && !shown.contains("0123456789"), "{shown}");
    }

    #[test]
    fn usages_and_groups_are_checked() {
        let check = |usages: &[&str], groups: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            let token = BootstrapToken::new("abcdef.0123456789abcdef".parse().unwrap());
            BootstrapToken { usages: texts(usages), groups: texts(groups), ..token }.check()
        };
        assert_eq!(check(&USAGES, &[NODE_GROUP]), Ok(()));
        assert_eq!(check(&["signing"], &[]), Ok(()));
        assert_eq!(check(&[], &[]), Ok(()));
        assert_eq!(check(&["signing"], &[NODE_GROUP]), Err(TokenError::IdleGroups));
        assert_eq!(check(&["sign"], &[]), Err(TokenError::Usage("sign".into())));
        for group in ["system:masters", "system:bootstrappers:", "system:bootstrappers:A", "system:bootstrappers:a-"] {
            assert_eq!(check(&USAGES, &[group]), Err(TokenError::Group(group.into())));
        }
    }

    #[test]
    fn a_lifetime_ends_when_it_says() {
        let now: Timestamp = "2026-01-02T15:04:05Z".parse().unwrap();
        let end = |lifetime: Lifetime| lifetime.end(now).map(|end| end.to_string());
        assert_eq!(end(Lifetime::from_ttl(DEFAULT_TTL)).as_deref(), Some("2026-01-03T15:04:05Z"));
        assert_eq!(end(Lifetime::from_ttl(Duration::ZERO)), None);
        assert_eq!(end(Lifetime::Until(now)).as_deref(), Some("2026-01-02T15:04:05Z"));
        assert_eq!(end(Lifetime::For(Duration::MAX)), None);
    }

    proptest! {
        #[test]
        fn a_text_is_a_token_when_the_pattern_of_kubeadm_fits(text in "[a-z0-9.]{0,30}|[a-z0-9]{6}\\.[a-z0-9]{16}") {
            let fits = text.len() == 23 && text.matches('.').count() == 1 && text.find('.') == Some(6);
            prop_assert_eq!(text.parse::<Token>().is_ok(), fits);
        }
    }
}
