//! Private keys: made, loaded, never shown.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, ECDH_P521};
use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::der_parser::asn1_rs::{Any, FromDer, OctetString, Sequence};

use super::inspect;
use crate::config::spec::KeyAlgorithm;

/// A private key and the PEM text it stands in. It has no Debug, no Display and no Serialize, so it shows up nowhere.
///
/// A new key stands in kubeadm's form, PKCS#1 for RSA and SEC1 for ECDSA: kubeadm reads no ECDSA key in another one when it
/// downloads certificates. The text of a loaded key is the file's own.
pub struct PrivateKey {
    pair: KeyPair,
    pem: Vec<u8>,
}

/// A key that cannot be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No PEM block of a plain private key.
    #[error("no unencrypted PEM private key")]
    NotFound(#[source] rustls_pki_types::pem::Error),
    /// A key of a kind that is not known here.
    #[error("neither an RSA key of 2048 bits or more nor an ECDSA key on P-256, P-384 or P-521")]
    Unknown(#[source] rcgen::Error),
    /// The library could not make one.
    #[error("the key library failed")]
    Generate(#[source] rcgen::Error),
    /// The library made one that cannot be written in kubeadm's form.
    #[error("the key library made a key that is neither an RSA nor an ECDSA key")]
    Form,
    /// A thread that made keys died.
    #[error("a thread that made keys died")]
    Thread,
}

impl PrivateKey {
    /// Makes one.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        let pair = match algorithm {
            KeyAlgorithm::Rsa2048 => rsa(RsaKeySize::_2048),
            KeyAlgorithm::Rsa3072 => rsa(RsaKeySize::_3072),
            KeyAlgorithm::Rsa4096 => rsa(RsaKeySize::_4096),
            KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        }
        .map_err(KeyError::Generate)?;
        let pem = traditional(&PrivatePkcs8KeyDer::from(pair.serialized_der())).ok_or(KeyError::Form)?.into_bytes();
        Ok(Self { pair, pem })
    }

    /// Makes `count` of them; RSA keys on all processors, for they take long.
    pub(super) fn generate_many(algorithm: KeyAlgorithm, count: usize) -> Result<Vec<Self>, KeyError> {
        if matches!(algorithm, KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384) {
            return (0..count).map(|_| Self::generate(algorithm)).collect();
        }
        let workers = thread::available_parallelism().map_or(1, usize::from).min(count);
        let taken = AtomicUsize::new(0);
        let work = || {
            let mut keys = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < count {
                keys.push(Self::generate(algorithm)?);
            }
            Ok(keys)
        };
        thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let mut keys = Vec::with_capacity(count);
            for handle in handles {
                keys.extend(handle.join().map_err(|_| KeyError::Thread)??);
            }
            Ok(keys)
        })
    }

    /// Reads the first private key of a PEM file: PKCS#8, PKCS#1 or SEC1; other blocks such as `EC PARAMETERS` are
    /// passed over.
    pub fn load(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(KeyError::NotFound)?;
        let pair = KeyPair::try_from(&der).map_err(KeyError::Unknown)?;
        Ok(Self { pair, pem: pem.to_vec() })
    }

    /// The text to write into a file or a kubeconfig.
    pub(crate) fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The public key as PKIX PEM (`PUBLIC KEY`).
    pub(super) fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// The public key as the DER of a SubjectPublicKeyInfo.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// The bare public key: a point, or a PKCS#1 `RSAPublicKey`.
    pub(super) fn public_raw(&self) -> &[u8] {
        self.pair.public_key_raw()
    }

    /// Whether this is an Ed25519 key.
    pub(super) fn is_ed25519(&self) -> bool {
        self.pair.is_compatible(&rcgen::PKCS_ED25519)
    }

    /// The key as the certificate library takes it.
    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

/// The text of a private key in kubeadm's form where it is a PKCS#8 key of RSA or ECDSA; None where it is in that form
/// already, is of another kind, or is no private key.
pub fn in_kubeadms_form(pem: &[u8]) -> Option<String> {
    match PrivateKeyDer::from_pem_slice(pem).ok()? {
        PrivateKeyDer::Pkcs8(key) => traditional(&key),
        _ => None,
    }
}

/// A PKCS#8 key as OpenSSL's older forms have it: PKCS#1 for RSA, SEC1 with its curve's name for ECDSA.
fn traditional(key: &PrivatePkcs8KeyDer<'_>) -> Option<String> {
    let der = key.secret_pkcs8_der();
    let on_a_curve = [&ECDH_P256, &ECDH_P384, &ECDH_P521]
        .into_iter()
        .find_map(|curve| agreement::PrivateKey::from_private_key_der(curve, der).ok());
    if let Some(key) = on_a_curve {
        let sec1: EcPrivateKeyRfc5915Der<'_> = key.as_der().ok()?;
        return Some(inspect::pem("EC PRIVATE KEY", sec1.as_ref()));
    }
    let (_, whole) = Sequence::from_der(der).ok()?;
    // version, algorithm, and the key itself in an OCTET STRING (RFC 5208).
    let (rest, _) = Any::from_der(&whole.content).ok()?;
    let (rest, algorithm) = Sequence::from_der(rest).ok()?;
    let (_, kind) = Any::from_der(&algorithm.content).ok()?;
    let (_, key) = OctetString::from_der(rest).ok()?;
    let rsa = kind.oid().ok()? == x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
    rsa.then(|| inspect::pem("RSA PRIVATE KEY", key.as_ref()))
}
