//! Certificates that the agent asks of the cluster, by the requests a kubelet makes: its client certificate, the first
//! one and its renewals, and what its own API serves with.
//!
//! They are kept as a kubelet keeps them: each in a file of its own with its key, and a link to the current one. The
//! kubeconfig names the link, or still holds the certificate that the node was given first.

pub mod client;
mod request;
pub mod server;
pub mod store;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::pki::inspect::Certificate;

/// The certificate that the agent's own API serves with, where it is asked of the cluster (`serverTLSBootstrap`): None
/// until it is approved, and another one each time it is renewed.
pub struct Serving {
    current: watch::Sender<Option<Arc<CertifiedKey>>>,
}

impl Default for Serving {
    fn default() -> Self {
        Self { current: watch::Sender::new(None) }
    }
}

impl Serving {
    /// The certificate as it changes.
    pub fn certificates(&self) -> watch::Receiver<Option<Arc<CertifiedKey>>> {
        self.current.subscribe()
    }

    /// From now on this is served with.
    pub fn set(&self, certificate: Arc<CertifiedKey>) {
        self.current.send_replace(Some(certificate));
    }
}

/// When a certificate is renewed: after 70 to 90 % of its validity, `at` being where between the two (0 to 1). Nodes
/// that were made together do not all ask at once.
pub fn renewal(certificate: &Certificate, at: f64) -> Timestamp {
    let (from, to) = (certificate.not_before, certificate.not_after);
    let share = 0.7 + 0.2 * at.clamp(0.0, 1.0);
    let validity = to.duration_since(from).as_secs_f64();
    let after = SignedDuration::try_from_secs_f64(validity * share).unwrap_or(SignedDuration::ZERO);
    from.checked_add(after).unwrap_or(to)
}

/// Whether it is valid at `now`.
pub fn is_valid(certificate: &Certificate, now: Timestamp) -> bool {
    (certificate.not_before..certificate.not_after).contains(&now)
}

#[cfg(test)]
mod tests;
