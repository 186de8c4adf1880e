//! Certificates that the agent asks of the cluster.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;

/// The certificate that the agent's own API serves with, where it is asked of the cluster (`serverTLSBootstrap`): None
/// until somebody has approved it, and another one each time it is renewed.
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
