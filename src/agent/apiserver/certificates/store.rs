//! Certificates with their keys in files, as a kubelet keeps them: `NAME-2026-01-31-12-00-00.pem` each, and
//! `NAME-current.pem`, a link to the one that is used.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::host::fs::{FsError, make_dirs, read_if_exists, sync_dir, write_file};
use crate::pki::PrivateKey;
use crate::pki::inspect::{self, Certificate};

/// Why a pair cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// A file does not hold a certificate and its key.
    #[error("{} does not hold a certificate and its key", path.display())]
    NoPair {
        /// The file, or where the pair came from.
        path: PathBuf,
    },
}

/// A certificate with its chain and its key, as one PEM text. It holds a key, hence no Debug.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// What is written into the file.
    pub pem: Vec<u8>,
    /// The certificate.
    pub certificate: Certificate,
}

impl Pair {
    /// Puts both into one text; None where they do not belong together.
    pub fn new(chain: &[u8], key: &[u8]) -> Option<Self> {
        let certificate = inspect::read(chain).ok()?.into_iter().next()?;
        if !certificate.is_for(&PrivateKey::load(key).ok()?) {
            return None;
        }
        let mut pem = chain.to_vec();
        if !pem.ends_with(b"\n") {
            pem.push(b'\n');
        }
        pem.extend_from_slice(key);
        Some(Self { pem, certificate })
    }

    /// A text that holds both already.
    pub fn read(pem: &[u8]) -> Option<Self> {
        let certificate = inspect::read(pem).ok()?.into_iter().next()?;
        certificate.is_for(&PrivateKey::load(pem).ok()?).then(|| Self { pem: pem.to_vec(), certificate })
    }

    /// For a TLS server.
    pub fn certified(&self) -> Option<rustls::sign::CertifiedKey> {
        let chain = CertificateDer::pem_slice_iter(&self.pem).collect::<Result<Vec<_>, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_slice(&self.pem).ok()?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok()?;
        Some(rustls::sign::CertifiedKey::new(chain, key))
    }
}

/// The pairs of one name in a directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    name: &'static str,
}

impl Store {
    /// The node's client certificates in `dir`.
    pub fn client(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), name: "kubelet-client" }
    }

    /// Its serving certificates.
    pub fn server(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), name: "kubelet-server" }
    }

    /// The link to the pair that is used.
    pub fn current_path(&self) -> PathBuf {
        self.dir.join(format!("{}-current.pem", self.name))
    }

    /// Where the key of a first request is until it is answered.
    pub fn pending_key(&self) -> PathBuf {
        self.dir.join(format!("{}.key.tmp", self.name))
    }

    /// Makes the directory, so that it can be watched.
    pub fn prepare(&self) -> Result<(), StoreError> {
        make_dirs(&self.dir, 0o755)?;
        Ok(())
    }

    /// The pair that is used; None where there is none.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn current(&self) -> Result<Option<Pair>, StoreError> {
        let path = self.current_path();
        let Some(pem) = read_if_exists(&path)? else { return Ok(None) };
        Pair::read(&pem).map(Some).ok_or(StoreError::NoPair { path })
    }

    /// Keeps a pair, which is the one that is used from now on.
    pub fn keep(&self, pair: &Pair, now: Timestamp) -> Result<(), StoreError> {
        self.prepare()?;
        let stamp = now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d-%H-%M-%S");
        let path = self.dir.join(format!("{}-{stamp}.pem", self.name));
        write_file(&path, &pair.pem, 0o600)?;
        let (current, beside) = (self.current_path(), self.dir.join(format!("{}-updated.pem", self.name)));
        let linked = remove(&beside).and_then(|()| symlink(&path, &beside)).and_then(|()| {
            // A link is replaced in one step, like a file.
            std::fs::rename(&beside, &current)
        });
        linked.map_err(|source| FsError::new("link", current, source))?;
        Ok(sync_dir(&self.dir)?)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
