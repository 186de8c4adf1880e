//! Flags of `kubeboot agent` about its own API, the kubelet's.

use std::path::PathBuf;

use clap::ArgAction;

use crate::agent::options::ServerFlags;

/// See the module.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// Serve the kubelet's API [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "API options")]
    enable_server: Option<bool>,
    /// Port of the kubelet's API, 0 for none [default: 10250 where there is an API server, else 0]
    #[arg(long, value_name = "PORT", help_heading = "API options")]
    port: Option<u16>,
    /// Certificate to serve with [default: one of the agent's own]
    #[arg(long, value_name = "FILE", help_heading = "API options")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", help_heading = "API options")]
    pub tls_private_key_file: Option<PathBuf>,
    /// VersionTLS12 or VersionTLS13 [default: VersionTLS12]
    #[arg(long, value_name = "VERSION", help_heading = "API options")]
    tls_min_version: Option<String>,
    /// Cipher suites of TLS 1.2 [default: all that are safe]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append, help_heading = "API options")]
    tls_cipher_suites: Vec<String>,
    /// Let in who says nothing of himself [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "API options")]
    anonymous_auth: Option<bool>,
    /// Authorities of client certificates
    #[arg(long, value_name = "FILE", help_heading = "API options")]
    pub client_ca_file: Option<PathBuf>,
    /// Ask the API server whose a token is [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "API options")]
    authentication_token_webhook: Option<bool>,
    /// How long it is believed [default: 2m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "API options")]
    authentication_token_webhook_cache_ttl: Option<String>,
    /// AlwaysAllow, or Webhook to ask the API server [default: Webhook]
    #[arg(long, value_name = "MODE", help_heading = "API options")]
    authorization_mode: Option<String>,
    /// How long it is believed that somebody may do something [default: 5m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "API options")]
    authorization_webhook_cache_authorized_ttl: Option<String>,
    /// How long it is believed that somebody may not [default: 30s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "API options")]
    authorization_webhook_cache_unauthorized_ttl: Option<String>,
    /// Serve logs, commands and streams of containers [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "API options")]
    enable_debugging_handlers: Option<bool>,
    /// How long a stream may be silent [default: 4h]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "API options")]
    streaming_connection_idle_timeout: Option<String>,
}

impl From<ServerArgs> for ServerFlags {
    fn from(args: ServerArgs) -> Self {
        Self {
            enable_server: args.enable_server,
            port: args.port,
            tls_cert_file: args.tls_cert_file,
            tls_private_key_file: args.tls_private_key_file,
            tls_min_version: args.tls_min_version,
            tls_cipher_suites: args.tls_cipher_suites,
            anonymous_auth: args.anonymous_auth,
            client_ca_file: args.client_ca_file,
            token_webhook: args.authentication_token_webhook,
            token_webhook_ttl: args.authentication_token_webhook_cache_ttl,
            authorization_mode: args.authorization_mode,
            authorized_ttl: args.authorization_webhook_cache_authorized_ttl,
            unauthorized_ttl: args.authorization_webhook_cache_unauthorized_ttl,
            debugging_handlers: args.enable_debugging_handlers,
            idle_timeout: args.streaming_connection_idle_timeout,
        }
    }
}
