//! Client certificates. A client may present any in the handshake; whether one is good is asked here, so that a stranger
//! gets an answer in HTTP, as by the kubelet.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use tracing::warn;

use super::User;
use crate::pki::inspect::Certificate;

/// What a file was when it was read.
type Stamp = Option<(SystemTime, u64)>;

/// Who may sign client certificates: a file, read again whenever it has changed.
pub struct ClientAuthorities {
    file: PathBuf,
    read: Mutex<(Stamp, Option<Arc<dyn ClientCertVerifier>>)>,
}

impl ClientAuthorities {
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), read: Mutex::default() }
    }

    /// Whose a certificate is; what comes behind it leads to the authority.
    pub fn user(&self, presented: &[CertificateDer<'static>]) -> Result<User, String> {
        let (own, chain) = presented.split_first().ok_or("no certificate")?;
        let verifier = self.verifier().ok_or("no authorities")?;
        verifier.verify_client_cert(own, chain, UnixTime::now()).map_err(|error| error.to_string())?;
        let certificate = Certificate::parse(own).map_err(|error| error.to_string())?;
        let name =
            certificate.common_name.filter(|name| !name.is_empty()).ok_or("a certificate without a common name")?;
        Ok(User::new(&name, certificate.organizations))
    }

    /// Of the file as it is now; where it cannot be used, as it was.
    fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = std::fs::metadata(&self.file).ok().and_then(|file| Some((file.modified().ok()?, file.len())));
        if stamp.is_none() || read.0 != stamp {
            match load(&self.file) {
                Ok(verifier) => *read = (stamp, Some(verifier)),
                Err(error) => warn!(file = %self.file.display(), error, "cannot read the authorities of clients"),
            }
        }
        read.1.clone()
    }
}

fn load(file: &Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|error| error.to_string())
}

/// Whether a file can be used.
pub fn check(file: &Path) -> Result<(), String> {
    load(file).map(drop)
}
