//! Clients of the API server out of kubeconfigs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::{Value, json};
use tower::{BoxError, ServiceBuilder};

use super::read::{Fields, Kubeconfig, data_in, text_in, unusable};
use crate::pki::error::Problem;
use crate::pki::verifier::Verifier;

/// A kubeconfig that gives no client.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there, or closed to this process.
    #[error("it cannot be read")]
    File(#[source] io::Error),
    /// What is in it.
    #[error("it {0}")]
    Content(Problem),
    /// What it comes to.
    #[error(transparent)]
    Settings(#[from] kube::config::KubeconfigError),
}

impl From<Problem> for ReadError {
    fn from(problem: Problem) -> Self {
        Self::Content(problem)
    }
}

/// The kubeconfigs at `paths` as one, the way kubectl merges those of `$KUBECONFIG`. Files that are not there are passed
/// over as long as there is one.
///
/// # Errors
/// Files that cannot be read, or all of them missing.
pub fn read(paths: &[impl AsRef<Path>]) -> Result<Kubeconfig, ReadError> {
    let mut whole: Option<Kubeconfig> = None;
    let mut missing = None;
    for path in paths {
        let path: &Path = path.as_ref();
        let content = match std::fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing = missing.or(Some(error));
                continue;
            }
            Err(error) => return Err(ReadError::File(error)),
        };
        let mut config = Kubeconfig::parse(&content).map_err(ReadError::Content)?;
        config.make_absolute(path.parent().unwrap_or(Path::new("/")));
        match &mut whole {
            Some(whole) => whole.merge(config),
            None => whole = Some(config),
        }
    }
    let missing = || ReadError::File(missing.unwrap_or_else(|| io::ErrorKind::NotFound.into()));
    whole.ok_or_else(missing)
}

/// The cluster and the user of the current context, in a form in which the client library takes them for what kubectl
/// does.
///
/// # Errors
/// A context or a cluster that is not there, fields of another type than they have.
pub fn plain(config: &Kubeconfig) -> Result<kube::config::Kubeconfig, ReadError> {
    let plain = || {
        let current = config.current()?;
        let cluster = said(current.cluster, &["certificate-authority-data"])?;
        let mut user = match current.user {
            Some(user) => said(user, &["client-certificate-data", "client-key-data"])?,
            None => Fields::new(),
        };
        one_token(&mut user)?;
        let mut context = json!({ "cluster": "current", "user": "current" });
        if !current.namespace.is_empty() {
            context["namespace"] = current.namespace.into();
        }
        let config = json!({
            "current-context": "current",
            "clusters": [{ "name": "current", "cluster": cluster }],
            "contexts": [{ "name": "current", "context": context }],
            "users": [{ "name": "current", "user": user }],
        });
        // The library's words may repeat a value, and values here may be keys.
        serde_json::from_value(config)
            .map_err(|_| unusable("its cluster or its user has a field of another type than it should be".into()))
    };
    plain().map_err(ReadError::Content)
}

/// The settings of a client with the credentials of the current context.
///
/// # Errors
/// Those of [`plain`], and files named in it that cannot be read.
pub async fn settings(config: &Kubeconfig) -> Result<Config, ReadError> {
    Ok(Config::from_custom_kubeconfig(plain(config)?, &KubeConfigOptions::default()).await?)
}

/// A client that takes the servers that Go's clients take ([`Verifier`]).
///
/// # Errors
/// Certificates and keys that are none, a proxy.
pub fn connect(config: Config) -> Result<Client, kube::Error> {
    let is_checked = config.cluster_url.scheme_str() == Some("https") && !config.accept_invalid_certs;
    let verifier = match &config.root_cert {
        _ if !is_checked || config.proxy_url.is_some() => None,
        Some(roots) => Verifier::new(roots).ok(),
        None => Verifier::of_machine().ok(),
    };
    let Some(verifier) = verifier else { return Client::try_from(config) };
    let mut tls = config.rustls_client_config()?;
    tls.dangerous().set_certificate_verifier(Arc::new(verifier));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().map_err(kube::client::RustlsTlsError::InvalidServerName);
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name.map_err(kube::Error::RustlsTls)?));
    }
    let mut connector = TimeoutConnector::new(https.enable_http1().wrap_connector(tcp));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http = hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// The fields that say something, with data in one line.
fn said(fields: &Fields, data: &[&str]) -> Result<Fields, Problem> {
    let mut said: Fields = fields
        .iter()
        .filter(|(_, value)| !value.is_null() && **value != "")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for name in data {
        if let Some(bytes) = data_in(fields, name)? {
            said.insert((*name).to_owned(), STANDARD.encode(bytes).into());
        }
    }
    Ok(said)
}

/// Leaves one of a token and a file with one: kubectl sends the file's, as long as there is one in it.
fn one_token(user: &mut Fields) -> Result<(), Problem> {
    if let (Some(_), Some(file)) = (text_in(user, "token")?, text_in(user, "tokenFile")?) {
        let has_one = std::fs::read(file).is_ok_and(|token| !token.trim_ascii().is_empty());
        user.remove(if has_one { "token" } else { "tokenFile" });
    }
    Ok(())
}

/// The user's fields in a form that other kubeconfigs can hold.
///
/// # Errors
/// Data that is not base64.
pub fn user_fields(user: &Fields) -> Result<Value, Problem> {
    said(user, &["client-certificate-data", "client-key-data"]).map(Value::Object)
}
