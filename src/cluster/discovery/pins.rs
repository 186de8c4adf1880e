//! Pins of a cluster's CA: `sha256:` and the digest of its public key, as `openssl` and kubeadm reckon it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

use crate::pki::inspect::{self, InspectError};

/// SHA-256 over the DER of a SubjectPublicKeyInfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// A text that is no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no CA hash: sha256: and 64 hexadecimal digits, as `kubeboot token create --print-join-command` prints it"
)]
pub struct PinError {
    /// What was given.
    pub text: String,
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let error = || PinError { text: text.to_owned() };
        let (format, hex) = text.trim().split_once(':').ok_or_else(error)?;
        if !format.eq_ignore_ascii_case("sha256") || hex.len() != 64 || !hex.is_ascii() {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The pins of the certificates in a PEM text, in its order; at least one.
///
/// # Errors
/// A text without a certificate.
pub fn of_pem(pem: &[u8]) -> Result<Vec<Pin>, InspectError> {
    let pin = |certificate: inspect::Certificate| {
        let digest = digest::digest(&digest::SHA256, &certificate.public_key_der());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Pin(bytes)
    };
    Ok(inspect::read(pem)?.into_iter().map(pin).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl req -x509 -newkey ec`, its pin with `openssl x509 -pubkey | openssl pkey -pubin -outform der |
    /// openssl dgst -sha256`.
    const CERTIFICATE: &[u8] = include_bytes!("fixtures/ca.crt");
    const PIN: &str = include_str!("fixtures/ca.pin");

    #[test]
    fn the_pin_of_a_certificate_is_what_openssl_reckons() {
        assert_eq!(of_pem(CERTIFICATE).unwrap(), [PIN.trim().parse::<Pin>().unwrap()]);
        assert_eq!(of_pem(CERTIFICATE).unwrap()[0].to_string(), PIN.trim());
    }

    #[test]
    fn anything_but_a_sha256_is_refused() {
        for text in ["", "sha256:", "sha1:00", &PIN.replace("sha256", "sha512"), &PIN.replace(':', ":+"), "00"] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
        assert!(PIN.to_uppercase().trim().parse::<Pin>().is_ok());
    }
}
