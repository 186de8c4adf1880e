//! The key that uploaded certificates are encrypted with.

use std::fmt;
use std::str::FromStr;

const LENGTH: usize = 32;

/// An AES-256 key, written as 64 hexadecimal digits. Nothing prints it but [`Self::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; LENGTH]);

/// A text that is no such key, or no random numbers to make one of. What was given may be nearly a key, so it is not
/// shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateKeyError {
    /// Not of the form.
    #[error("not a key; write the 64 hexadecimal digits of 32 bytes")]
    Form,
    /// The random source does not answer.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl CertificateKey {
    /// A new one, from the operating system's random source.
    ///
    /// # Errors
    /// The source does not answer.
    pub fn generate() -> Result<Self, CertificateKeyError> {
        let mut bytes = [0; LENGTH];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CertificateKeyError::Random)?;
        Ok(Self(bytes))
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// Its hexadecimal digits, to be shown only where the user asked for them.
    pub fn reveal(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for CertificateKey {
    type Err = CertificateKeyError;

    fn from_str(text: &str) -> Result<Self, CertificateKeyError> {
        if text.len() != 2 * LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(CertificateKeyError::Form);
        }
        let mut bytes = [0; LENGTH];
        for (byte, at) in bytes.iter_mut().zip((0..text.len()).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| CertificateKeyError::Form)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_digits_and_nothing_shows_it_unasked() {
        let text = "0a1B".repeat(16);
        let key: CertificateKey = text.parse().unwrap();
        assert_eq!((key.bytes()[1], key.reveal()), (0x1b, text.to_lowercase()));
        assert_eq!(format!("{key:?}"), "CertificateKey");
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('B', "g"), &"é".repeat(32)] {
            assert_eq!(wrong.parse::<CertificateKey>(), Err(CertificateKeyError::Form));
        }
    }

    #[test]
    fn no_two_are_alike() {
        assert_ne!(CertificateKey::generate().unwrap(), CertificateKey::generate().unwrap());
    }
}
