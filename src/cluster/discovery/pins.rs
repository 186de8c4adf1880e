//! Pins of a cluster's CA: `sha256:` and the digest of its public key, as `openssl` and kubeadm reckon it.

use aws_lc_rs::digest;

use crate::config::spec::CaPin;
use crate::pki::inspect::{self, InspectError};

/// The pins of the certificates in a PEM text, in its order; at least one.
///
/// # Errors
/// A text without a certificate.
pub fn of_pem(pem: &[u8]) -> Result<Vec<CaPin>, InspectError> {
    let pin = |certificate: inspect::Certificate| {
        let digest = digest::digest(&digest::SHA256, &certificate.public_key_der());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        CaPin(bytes)
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
        assert_eq!(of_pem(CERTIFICATE).unwrap(), [PIN.trim().parse::<CaPin>().unwrap()]);
        assert_eq!(of_pem(CERTIFICATE).unwrap()[0].to_string(), PIN.trim());
    }
}
