//! Flags and fields about the agent's own API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::agent::options::agent_options::AgentOptions;
use crate::agent::options::error::{OptionsError, checked, not_empty, wrong};
use crate::agent::options::given::ServerFlags;
use crate::agent::options::kubelet_config::KubeletConfiguration;
use crate::agent::options::server::{Authorization, PORT, ServerOptions};
use crate::agent::options::values;

/// Fills in `options.server`; whether there is an API server is known by now.
///
/// The API is served where there is an API server to ask, where a port was asked for, or where it is open to everybody
/// who is let in. An agent without any of that opens no port.
pub(super) fn follow(
    options: &mut AgentOptions,
    flags: &ServerFlags,
    address: Option<IpAddr>,
    file: &KubeletConfiguration,
) -> Result<(), OptionsError> {
    let has_api_server = options.node.kubeconfig.is_some();
    let server = &mut options.server;
    follow_tls(server, flags, file)?;
    let chosen = follow_authorization(server, flags, file)?;
    follow_authentication(server, flags, file)?;
    let asked = flags.port.or(file.port);
    let on = flags.enable_server.or(file.enable_server).unwrap_or(true);
    let port = asked.unwrap_or(PORT);
    let open = chosen == Some(Authorization::AlwaysAllow);
    if !on || port == 0 || !(has_api_server || asked.is_some() || open) {
        return Ok(());
    }
    let needs = [
        (server.tokens, "authentication.webhook.enabled: false"),
        (server.authorization == Authorization::Webhook, "authorization.mode: AlwaysAllow"),
    ];
    let needs: Vec<&str> = needs.into_iter().filter_map(|(needed, cure)| needed.then_some(cure)).collect();
    if !has_api_server && !needs.is_empty() {
        if asked.is_none() {
            return Ok(());
        }
        let problem = format!(
            "no client for the API server, which tokens or rights of users are asked of: give --kubeconfig, or set {}",
            needs.join(" and ")
        );
        return Err(wrong("port", &port.to_string(), problem));
    }
    server.listen = Some(SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port));
    Ok(())
}

fn path(flag: &Option<PathBuf>, field: &Option<String>) -> Option<PathBuf> {
    let flag = flag.clone().filter(|path| !path.as_os_str().is_empty());
    flag.or_else(|| not_empty(field).map(PathBuf::from))
}

fn follow_tls(
    server: &mut ServerOptions,
    flags: &ServerFlags,
    file: &KubeletConfiguration,
) -> Result<(), OptionsError> {
    let certificate = path(&flags.tls_cert_file, &file.tls_cert_file);
    let key = path(&flags.tls_private_key_file, &file.tls_private_key_file);
    server.certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            let problem = "tlsCertFile and tlsPrivateKeyFile need each other".to_owned();
            return Err(wrong("tlsCertFile", &one.display().to_string(), problem));
        }
    };
    let version = not_empty(&flags.tls_min_version).or_else(|| not_empty(&file.tls_min_version));
    server.only_tls13 = match version.as_deref() {
        None | Some("VersionTLS10" | "VersionTLS11" | "VersionTLS12") => false,
        Some("VersionTLS13") => true,
        Some(other) => {
            let problem = "must be VersionTLS10, VersionTLS11, VersionTLS12 or VersionTLS13".to_owned();
            return Err(wrong("tlsMinVersion", other, problem));
        }
    };
    Ok(())
}

/// Returns what was chosen, None where nothing says it.
fn follow_authorization(
    server: &mut ServerOptions,
    flags: &ServerFlags,
    file: &KubeletConfiguration,
) -> Result<Option<Authorization>, OptionsError> {
    let field = file.authorization.clone().unwrap_or_default();
    let mode = not_empty(&flags.authorization_mode).or_else(|| not_empty(&field.mode));
    let chosen = match mode.as_deref() {
        None => None,
        Some("AlwaysAllow") => Some(Authorization::AlwaysAllow),
        Some("Webhook") => Some(Authorization::Webhook),
        Some(other) => {
            return Err(wrong("authorization.mode", other, "must be AlwaysAllow or Webhook".to_owned()));
        }
    };
    server.authorization = chosen.unwrap_or(server.authorization);
    let webhook = field.webhook.unwrap_or_default();
    let flag = "--authorization-webhook-cache-authorized-ttl";
    let allowed = checked(flag, &flags.authorized_ttl, values::duration)?;
    server.allowed_ttl = allowed.or(webhook.cache_authorized_ttl).unwrap_or(server.allowed_ttl);
    let flag = "--authorization-webhook-cache-unauthorized-ttl";
    let denied = checked(flag, &flags.unauthorized_ttl, values::duration)?;
    server.denied_ttl = denied.or(webhook.cache_unauthorized_ttl).unwrap_or(server.denied_ttl);
    Ok(chosen)
}

fn follow_authentication(
    server: &mut ServerOptions,
    flags: &ServerFlags,
    file: &KubeletConfiguration,
) -> Result<(), OptionsError> {
    let field = file.authentication.clone().unwrap_or_default();
    let anonymous = field.anonymous.and_then(|anonymous| anonymous.enabled);
    server.anonymous = flags.anonymous_auth.or(anonymous).unwrap_or(server.anonymous);
    server.client_ca = path(&flags.client_ca_file, &field.x509.and_then(|x509| x509.client_ca_file));
    let webhook = field.webhook.unwrap_or_default();
    server.tokens = flags.token_webhook.or(webhook.enabled).unwrap_or(server.tokens);
    let ttl = checked("--authentication-token-webhook-cache-ttl", &flags.token_webhook_ttl, values::duration)?;
    server.token_ttl = ttl.or(webhook.cache_ttl).unwrap_or(server.token_ttl);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::options::{ConfigFile, Flags, NodeFlags, Resolved, resolve};

    fn with(server: ServerFlags, kubeconfig: bool, body: &str) -> Result<Resolved, OptionsError> {
        let node = NodeFlags { kubeconfig: kubeconfig.then(|| "/k".into()), ..NodeFlags::default() };
        resolved(&Flags { server, node, ..Flags::default() }, body)
    }

    fn resolved(flags: &Flags, body: &str) -> Result<Resolved, OptionsError> {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /m\n";
        let file = ConfigFile::main("/var/lib/kubelet/config.yaml".into(), format!("{head}{body}"));
        resolve(flags, &[file], "cp1")
    }

    fn listens(server: ServerFlags, kubeconfig: bool, body: &str) -> Option<String> {
        with(server, kubeconfig, body).unwrap().options.server.listen.map(|at| at.to_string())
    }

    const OPEN: &str = "authentication: {webhook: {enabled: false}}\nauthorization: {mode: AlwaysAllow}\n";

    #[test]
    fn a_port_is_opened_where_there_is_an_api_server_or_somebody_asks_for_it() {
        let none = ServerFlags::default;
        let port = |port| ServerFlags { port: Some(port), ..none() };
        let on = Some("0.0.0.0:10250".to_owned());
        assert_eq!(listens(none(), false, ""), None);
        assert_eq!(listens(none(), true, ""), on);
        assert_eq!(listens(none(), false, OPEN), on);
        assert_eq!(listens(none(), true, "address: 10.0.0.1\nport: 99\n").as_deref(), Some("10.0.0.1:99"));
        assert_eq!(listens(port(0), true, ""), None);
        assert_eq!(listens(port(7), false, OPEN).as_deref(), Some("0.0.0.0:7"));
        assert_eq!(listens(none(), true, "enableServer: false\n"), None);
        let webhook = "authorization: {mode: Webhook}\n";
        assert_eq!(listens(none(), false, webhook), None, "init's own file, and no kubeconfig yet");
        for (flags, body) in [(port(10250), ""), (none(), "port: 10250\n")] {
            let error = with(flags, false, body).unwrap_err().to_string();
            assert!(error.starts_with("port is \"10250\": no client for the API server"), "{error}");
        }
    }

    #[test]
    fn the_file_says_who_is_let_in_and_flags_go_before_it() {
        let body = "authentication:\n  anonymous: {enabled: true}\n  webhook: {enabled: false, cacheTTL: 10s}\n  \
                    x509: {clientCAFile: pki/ca.crt}\nauthorization:\n  mode: AlwaysAllow\n  webhook: \
                    {cacheAuthorizedTTL: 1s, cacheUnauthorizedTTL: 2s}\nenableDebuggingHandlers: false\n\
                    streamingConnectionIdleTimeout: 5m\ntlsMinVersion: VersionTLS13\ntlsCertFile: a\n\
                    tlsPrivateKeyFile: /b\ntlsCipherSuites: [X]\n";
        let found = with(ServerFlags::default(), true, body).unwrap().options.server;
        let expected = ServerOptions {
            listen: found.listen,
            certificate: Some(("/var/lib/kubelet/a".into(), "/b".into())),
            only_tls13: true,
            cipher_suites: vec!["X".into()],
            anonymous: true,
            client_ca: Some("pki/ca.crt".into()),
            tokens: false,
            token_ttl: Duration::from_secs(10),
            authorization: Authorization::AlwaysAllow,
            allowed_ttl: Duration::from_secs(1),
            denied_ttl: Duration::from_secs(2),
            debugging: false,
            system_logs: true,
            idle: Duration::from_secs(300),
        };
        assert_eq!(found.client_ca.as_deref(), Some(std::path::Path::new("/var/lib/kubelet/pki/ca.crt")));
        assert_eq!(ServerOptions { client_ca: expected.client_ca.clone(), ..found }, expected);
        let flags = ServerFlags {
            anonymous_auth: Some(false),
            token_webhook: Some(true),
            authorization_mode: Some("Webhook".into()),
            client_ca_file: Some("/ca".into()),
            ..ServerFlags::default()
        };
        let node = NodeFlags { kubeconfig: Some("/k".into()), ..NodeFlags::default() };
        let idle = Flags::read([("streaming-connection-idle-timeout", "1h")]).unwrap();
        let found = resolved(&Flags { server: flags, node, ..idle }, body).unwrap().options.server;
        assert!(!found.anonymous && found.tokens && found.authorization == Authorization::Webhook);
        assert_eq!((found.client_ca, found.idle), (Some("/ca".into()), Duration::from_secs(3600)));
        for body in ["tlsCertFile: /a\n", "tlsMinVersion: TLS13\n", "authorization: {mode: RBAC}\n"] {
            assert!(with(ServerFlags::default(), true, body).is_err(), "{body}");
        }
    }
}
