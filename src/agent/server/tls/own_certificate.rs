//! The certificate the agent serves with where none is configured: made by itself for itself, in the kubelet's files.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::sign::CertifiedKey;
use tracing::{debug, info};

use crate::agent::context::Context;
use crate::host::fs::{self, FsError};
use crate::pki::{PkiError, San, inspect, serving_pair};

/// How long it is valid, as the kubelet's.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// One that has less time left is replaced.
const LEFT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    /// It cannot be made.
    #[error("cannot make it")]
    Make(#[from] PkiError),
    /// It cannot be kept.
    #[error("cannot keep it")]
    Keep(#[from] FsError),
    /// It cannot be used.
    #[error("cannot use it")]
    Use(#[from] super::TlsError),
}

/// Whom it is for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The node's name.
    pub node: String,
    /// The node's addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl Subject {
    /// The node of this agent.
    pub fn of(context: &Context) -> Self {
        let chosen = context.options.node.ips.iter().copied().filter(|ip| !ip.is_unspecified());
        let found = context.facts.host_ip.as_deref().and_then(|address| address.parse().ok());
        let served = context.options.server.listen.map(|at| at.ip()).filter(|ip| !ip.is_unspecified());
        let node = context.options.node_name.clone();
        Self { node, addresses: chosen.chain(found).chain(served).collect() }
    }

    fn sans(&self) -> Vec<San> {
        let names = [San::Dns(self.node.clone())].into_iter();
        names.chain(self.addresses.iter().copied().map(San::Ip)).collect()
    }
}

/// The certificate in `dir`, recreated where there is none that can be used for long enough.
pub fn ensure(dir: &Path, subject: &Subject) -> Result<Arc<CertifiedKey>, OwnCertificateError> {
    let [certificate, key] = ["kubelet.crt", "kubelet.key"].map(|name| dir.join(name));
    let now = Timestamp::now();
    match (is_good(&certificate, now), super::load(&certificate, &key)) {
        (true, Ok(found)) => return Ok(found),
        (good, found) => debug!(good, usable = found.is_ok(), "the certificate to serve with is made anew"),
    }
    let made = serving_pair(&subject.node, subject.sans(), VALIDITY, now)?;
    fs::make_dirs(dir, 0o755)?;
    let file = |path: &PathBuf, content: &[u8], mode| fs::write_file(path, content, mode);
    // The key first: a certificate without its key is of no use, and recreated.
    file(&key, &made.key, 0o600)?;
    file(&certificate, made.certificate.as_bytes(), 0o644)?;
    info!(file = %certificate.display(), node = subject.node, "made a certificate to serve with");
    Ok(super::load(&certificate, &key)?)
}

fn is_good(file: &Path, now: Timestamp) -> bool {
    let pem = std::fs::read(file).unwrap_or_default();
    let found = inspect::read(&pem).unwrap_or_default().into_iter().next();
    found.is_some_and(|found| found.not_before <= now && found.not_after.duration_since(now) > LEFT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_for_the_node_and_made_anew_when_it_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let subject = Subject { node: "cp1".into(), addresses: BTreeSet::from([address]) };
        ensure(&pki, &subject).unwrap();
        let pem = || std::fs::read(pki.join("kubelet.crt")).unwrap();
        let first = pem();
        let read = inspect::read(&first).unwrap();
        let [leaf, authority] = read.as_slice() else { panic!("a certificate and its authority") };
        assert!(leaf.common_name.as_ref().unwrap().starts_with("cp1@") && leaf.is_signed_by(authority));
        assert_eq!(leaf.sans, [San::Dns("cp1".into()), San::Ip(address)]);
        let mode = std::fs::metadata(pki.join("kubelet.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        ensure(&pki, &subject).unwrap();
        assert_eq!(pem(), first, "a restarted agent keeps it");
        assert!(!is_good(&pki.join("kubelet.crt"), Timestamp::now() + SignedDuration::from_hours(24 * 340)));
        std::fs::remove_file(pki.join("kubelet.key")).unwrap();
        ensure(&pki, &subject).unwrap();
        assert_ne!(pem(), first);
    }
}
