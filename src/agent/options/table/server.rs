//! Options of the agent's own API.

use serde_json::json;

use super::print;
use super::row::{OptionRow, duration, joint, path, switch, texts};
use crate::agent::options::flag_value::Kind;
use crate::agent::options::server::Authorization;

pub(super) static ROWS: &[OptionRow] = &[
    joint(
        Kind::Bool,
        |flags, given| flags.server.enable_server = given.boolean(),
        |options| json!(Some(true).filter(|_| options.server.listen.is_some())),
    )
    .flag("enable-server", "true")
    .help("BOOL", "Serve the kubelet's API")
    .field("enableServer", "true"),
    joint(
        Kind::Port,
        |flags, given| flags.server.port = given.port(),
        |options| json!(options.server.listen.map(|at| at.port())),
    )
    .flag("port", "10250")
    .help("PORT", "Port of the kubelet's API, 0 for none")
    .otherwise("10250 where there is an API server, else 0")
    .field("port", "10250"),
    path(
        |flags| &mut flags.server.tls_cert_file,
        |options| print::some_path(options.server.certificate.as_ref().map(|(certificate, _)| certificate)),
    )
    .flag("tls-cert-file", "")
    .help("FILE", "Certificate to serve with")
    .otherwise("one of the agent's own")
    .path_field("tlsCertFile", "null"),
    path(
        |flags| &mut flags.server.tls_private_key_file,
        |options| print::some_path(options.server.certificate.as_ref().map(|(_, key)| key)),
    )
    .flag("tls-private-key-file", "")
    .help("FILE", "Its key")
    .path_field("tlsPrivateKeyFile", "null"),
    joint(
        Kind::Text,
        |flags, given| flags.server.tls_min_version = given.text(),
        |options| json!(Some("VersionTLS13").filter(|_| options.server.only_tls13)),
    )
    .flag("tls-min-version", "")
    .help("VERSION", "VersionTLS12 or VersionTLS13")
    .otherwise("VersionTLS12")
    .field("tlsMinVersion", "null"),
    texts(|options| &mut options.server.cipher_suites, |text| Ok(text.to_owned()))
        .flag("tls-cipher-suites", "[]")
        .help("NAMES", "Cipher suites of TLS 1.2")
        .otherwise("all that are safe")
        .field("tlsCipherSuites", "null"),
    joint(
        Kind::Bool,
        |flags, given| flags.server.anonymous_auth = given.boolean(),
        |options| json!(options.server.anonymous),
    )
    .flag("anonymous-auth", "false")
    .help("BOOL", "Let in who says nothing of himself")
    .field("authentication.anonymous.enabled", "false"),
    path(|flags| &mut flags.server.client_ca_file, |options| print::some_path(options.server.client_ca.as_ref()))
        .flag("client-ca-file", "")
        .help("FILE", "Authorities of client certificates")
        .path_field("authentication.x509.clientCAFile", "null"),
    joint(
        Kind::Bool,
        |flags, given| flags.server.token_webhook = given.boolean(),
        |options| json!(options.server.tokens),
    )
    .flag("authentication-token-webhook", "true")
    .help("BOOL", "Ask the API server whose a token is")
    .field("authentication.webhook.enabled", "true"),
    joint(
        Kind::Duration,
        |flags, given| flags.server.token_webhook_ttl = given.text(),
        |options| print::duration(options.server.token_ttl),
    )
    .flag("authentication-token-webhook-cache-ttl", "2m0s")
    .help("DURATION", "How long it is believed")
    .field("authentication.webhook.cacheTTL", r#""2m0s""#),
    joint(
        Kind::Text,
        |flags, given| flags.server.authorization_mode = given.text(),
        |options| match options.server.authorization {
            Authorization::AlwaysAllow => json!("AlwaysAllow"),
            Authorization::Webhook => json!("Webhook"),
        },
    )
    .flag("authorization-mode", "Webhook")
    .help("MODE", "AlwaysAllow, or Webhook to ask the API server")
    .field("authorization.mode", r#""Webhook""#),
    joint(
        Kind::Duration,
        |flags, given| flags.server.authorized_ttl = given.text(),
        |options| print::duration(options.server.allowed_ttl),
    )
    .flag("authorization-webhook-cache-authorized-ttl", "5m0s")
    .help("DURATION", "How long it is believed that somebody may do something")
    .field("authorization.webhook.cacheAuthorizedTTL", r#""5m0s""#),
    joint(
        Kind::Duration,
        |flags, given| flags.server.unauthorized_ttl = given.text(),
        |options| print::duration(options.server.denied_ttl),
    )
    .flag("authorization-webhook-cache-unauthorized-ttl", "30s")
    .help("DURATION", "How long it is believed that somebody may not")
    .field("authorization.webhook.cacheUnauthorizedTTL", r#""30s""#),
    switch(|options| &mut options.server.debugging)
        .flag("enable-debugging-handlers", "true")
        .help("BOOL", "Serve logs, commands and streams of containers")
        .field("enableDebuggingHandlers", "true"),
    duration(|options| &mut options.server.idle)
        .flag("streaming-connection-idle-timeout", "4h0m0s")
        .help("DURATION", "How long a stream may be silent")
        .field("streamingConnectionIdleTimeout", r#""4h0m0s""#),
    switch(|options| &mut options.server.system_logs)
        .field("enableSystemLogHandler", "true")
        .about("Serve the machine's /var/log below /logs/"),
];
