//! Who sees which certificates are in use: the real one connects.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::cluster::identity::is_known;
use crate::config::ClusterSpec;
use crate::host::Paths;
use crate::host::tls;
use crate::pki::inspect::Certificate;
use crate::workflow::machine::Cause;

/// How long a server on this machine may take to shake hands.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// Sees which certificates are in use.
#[async_trait]
pub trait LiveCertificates: Send + Sync {
    /// The certificate that the server at `address` shows.
    async fn served(&self, address: SocketAddr) -> Result<Certificate, Cause>;

    /// Whether the API server takes the user of the kubeconfig `file` for who it is.
    async fn known(&self, spec: &ClusterSpec, file: &str) -> Result<(), Cause>;
}

/// Connects to the servers of this machine.
pub struct Here(pub Paths);

#[async_trait]
impl LiveCertificates for Here {
    async fn served(&self, address: SocketAddr) -> Result<Certificate, Cause> {
        Ok(Certificate::parse(&tls::served(address, HANDSHAKE_LIMIT).await?)?)
    }

    async fn known(&self, spec: &ClusterSpec, file: &str) -> Result<(), Cause> {
        Ok(is_known(&self.0, spec, file, spec.timeouts.kubernetes_api_call).await?)
    }
}
