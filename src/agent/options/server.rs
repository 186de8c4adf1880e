//! The agent's own API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The kubelet's port.
pub const PORT: u16 = 10250;

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Everybody who is let in, everything.
    AlwaysAllow,
    /// What the API server says (`SubjectAccessReview`).
    Webhook,
}

/// The agent's own API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where it is served; None: nowhere.
    pub listen: Option<SocketAddr>,
    /// Certificate and key to serve with; None: one of the agent's own, or one the cluster signs.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether TLS 1.2 is refused; `tlsMinVersion: VersionTLS13`.
    pub only_tls13: bool,
    /// Names of the cipher suites of TLS 1.2 that are taken, empty for all; `tlsCipherSuites`.
    pub cipher_suites: Vec<String>,
    /// Whether who says nothing of himself is let in; `authentication.anonymous.enabled`.
    pub anonymous: bool,
    /// Authorities of client certificates; `authentication.x509.clientCAFile`.
    pub client_ca: Option<PathBuf>,
    /// Whether the API server is asked whose a token is; `authentication.webhook.enabled`.
    pub tokens: bool,
    /// How long it is believed.
    pub token_ttl: Duration,
    /// `authorization.mode`.
    pub authorization: Authorization,
    /// How long it is believed that somebody may do something,
    pub allowed_ttl: Duration,
    /// or may not.
    pub denied_ttl: Duration,
    /// Whether there are logs, streams and commands; `enableDebuggingHandlers`.
    pub debugging: bool,
    /// Whether `/logs/` shows the machine's; `enableSystemLogHandler`.
    pub system_logs: bool,
    /// How long a stream may be silent; `streamingConnectionIdleTimeout`.
    pub idle: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: None,
            certificate: None,
            only_tls13: false,
            cipher_suites: Vec::new(),
            anonymous: false,
            client_ca: None,
            tokens: true,
            token_ttl: Duration::from_secs(120),
            authorization: Authorization::Webhook,
            allowed_ttl: Duration::from_secs(300),
            denied_ttl: Duration::from_secs(30),
            debugging: true,
            system_logs: true,
            idle: Duration::from_secs(4 * 3600),
        }
    }
}
