//! TLS for probes: as in the kubelet no certificate is verified, but the server has to hold the key of the
//! certificate it shows.

use std::sync::Arc;

use rustls::{ClientConfig, Error};

/// The one configuration of all HTTPS checks.
///
/// # Errors
/// When the provider supports none of the TLS versions, which the one that is linked does.
pub(in crate::agent) fn client_config() -> Result<Arc<ClientConfig>, Error> {
    crate::host::tls::any_server().map(Arc::new)
}
