//! The signature beside cluster-info: a detached JSON Web Signature, HMAC-SHA256 keyed with the secret half of a
//! bootstrap token (RFC 7515, appendix F; `pkg/controller/bootstrap/jws.go` of Kubernetes makes it).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::config::bootstrap_token::Token;

/// A signature that says nothing about the content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not `header..signature`.
    #[error("it is no detached signature: two dots with nothing between them are missing")]
    Shape,
    /// One of its parts is no base64url, or the header no JSON.
    #[error("its {part} cannot be read")]
    Part {
        /// `header` or `signature`.
        part: &'static str,
    },
    /// Another algorithm than the one the token is made for.
    #[error("it is made with {algorithm:?}, not with HS256")]
    Algorithm {
        /// The header's `alg`.
        algorithm: String,
    },
    /// Made with another token.
    #[error("it is made with token {id:?}")]
    OtherToken {
        /// The header's `kid`.
        id: String,
    },
    /// The content is not what was signed, or the secret is not what it was signed with.
    #[error("it does not fit: the secret half of the token is wrong, or somebody has changed the content")]
    Mismatch,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Whether `signature` is the one that the owner of `token` makes for `content`.
///
/// # Errors
/// [`JwsError`]; nothing of the secret is in it.
pub fn verify(signature: &str, content: &[u8], token: &Token) -> Result<(), JwsError> {
    verify_with(signature, content, token.id(), token.secret())
}

fn verify_with(signature: &str, content: &[u8], id: &str, secret: &str) -> Result<(), JwsError> {
    let (encoded, rest) = signature.split_once('.').ok_or(JwsError::Shape)?;
    let mac = rest.strip_prefix('.').filter(|mac| !mac.contains('.')).ok_or(JwsError::Shape)?;
    let decode = |text, part| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Part { part });
    let header: Header =
        serde_json::from_slice(&decode(encoded, "header")?).map_err(|_| JwsError::Part { part: "header" })?;
    if header.alg != "HS256" {
        return Err(JwsError::Algorithm { algorithm: header.alg });
    }
    if header.kid != id {
        return Err(JwsError::OtherToken { id: header.kid });
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = format!("{encoded}.{}", URL_SAFE_NO_PAD.encode(content));
    // Compares in constant time.
    hmac::verify(&key, signed.as_bytes(), &decode(mac, "signature")?).map_err(|_| JwsError::Mismatch)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What Kubernetes' controller puts beside cluster-info.
    pub fn sign(content: &[u8], token: &Token) -> String {
        sign_with(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id()), content, token)
    }

    fn sign_with(header: &str, content: &[u8], token: &Token) -> String {
        let header = URL_SAFE_NO_PAD.encode(header);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret().as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
    }

    fn token() -> Token {
        "abcdef.0123456789abcdef".parse().unwrap()
    }

    #[test]
    fn a_signature_fits_its_own_content_and_token_only() {
        let signature = sign(b"content", &token());
        verify(&signature, b"content", &token()).unwrap();
        assert_eq!(verify(&signature, b"content ", &token()), Err(JwsError::Mismatch));
        let other: Token = "abcdef.0123456789abcdee".parse().unwrap();
        assert_eq!(verify(&signature, b"content", &other), Err(JwsError::Mismatch));
        let other: Token = "ghijkl.0123456789abcdef".parse().unwrap();
        assert_eq!(verify(&signature, b"content", &other), Err(JwsError::OtherToken { id: "abcdef".into() }));
    }

    #[test]
    fn what_kubernetes_itself_signed_fits() {
        // The vector of pkg/controller/bootstrap/jws_test.go; its secret is no token's.
        let content = b"Hello from the other side. I must have called a thousand times.";
        let signature = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        verify_with(signature, content, "joshua", "my voice is my passcode").unwrap();
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        let none = sign_with(r#"{"alg":"none","kid":"abcdef"}"#, b"x", &token());
        assert_eq!(verify(&none, b"x", &token()), Err(JwsError::Algorithm { algorithm: "none".into() }));
        for text in ["", "a", "a.b.c", "a..b.c", "a.b"] {
            assert_eq!(verify(text, b"x", &token()), Err(JwsError::Shape), "{text:?}");
        }
        assert_eq!(verify("!..x", b"x", &token()), Err(JwsError::Part { part: "header" }));
        assert_eq!(verify("e30..x", b"x", &token()), Err(JwsError::Part { part: "header" }), "no alg, no kid");
        let header = sign(b"x", &token()).split_once("..").unwrap().0.to_owned();
        assert_eq!(verify(&format!("{header}..="), b"x", &token()), Err(JwsError::Part { part: "signature" }));
        assert_eq!(verify(&format!("{header}.."), b"x", &token()), Err(JwsError::Mismatch), "an empty signature");
    }
}
