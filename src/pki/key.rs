//! Private keys: made, loaded, never shown.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{KeyPair, PublicKeyData, RsaKeySize};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::spec::KeyAlgorithm;

/// A private key and the PEM text it stands in. It has no Debug, no Display and no Serialize, so it shows up nowhere.
///
/// The text of a loaded key is the file's own: kubeadm writes PKCS#1 and SEC1 keys, and those would come back from the
/// key library under a label that does not fit them.
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
    /// A thread that made keys died.
    #[error("a thread that made keys died")]
    Thread,
}

impl PrivateKey {
    /// Makes one; written as PKCS#8, which every component reads.
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
        let pem = pair.serialize_pem().into_bytes();
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
    pub(super) fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The public key as PKIX PEM (`PUBLIC KEY`).
    pub(super) fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// The public key as the DER of a SubjectPublicKeyInfo.
    pub(super) fn public_der(&self) -> Vec<u8> {
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
