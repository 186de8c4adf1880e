//! Clients, tries and deadlines.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use kube::{Client, Config};
use rustls::CertificateError;
use tokio::time::{Instant, sleep, timeout_at};

use super::ClusterError;
use crate::config::ClusterSpec;
use crate::host::Paths;
use crate::pki::client::{connect, read, settings};

/// A server on this machine answers at once or is not there.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than an API server takes for any single write, even while etcd elects.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause after the first failed try; it grows by half each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// kubeadm's interval: no pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A client with the credentials of a kubeconfig (`super-admin.conf`) for the API server of this very node, whatever
/// server the kubeconfig names: a load balancer knows nothing of a node that is only just coming up.
///
/// # Errors
/// A kubeconfig that is missing or cannot be used.
pub async fn client(paths: &Paths, spec: &ClusterSpec, file: &str) -> Result<Client, ClusterError> {
    client_of(&paths.kubeconfig(file), spec).await
}

/// The same with a kubeconfig by its path.
///
/// # Errors
/// Those of [`client`].
pub async fn client_of(path: &Path, spec: &ClusterSpec) -> Result<Client, ClusterError> {
    let config = config(path, spec).await?;
    connect(config).map_err(|source| ClusterError::Client { path: path.to_owned(), source: source.into() })
}

/// A client for another server of this very node, whatever its certificate: of the credentials of the kubeconfig it gets the
/// certificate alone, which is of no use to others.
pub(super) async fn client_at(path: &Path, address: &str) -> Result<Client, ClusterError> {
    let mut config = config_for(path, address).await?;
    config.accept_invalid_certs = true;
    let user = &mut config.auth_info;
    (user.token, user.token_file, user.username, user.password) = (None, None, None, None);
    (user.exec, user.auth_provider) = (None, None);
    connect(config).map_err(|source| ClusterError::Client { path: path.to_owned(), source: source.into() })
}

async fn config(path: &Path, spec: &ClusterSpec) -> Result<Config, ClusterError> {
    config_for(path, &format!("https://{}", spec.local_endpoint())).await
}

async fn config_for(path: &Path, server: &str) -> Result<Config, ClusterError> {
    let fail = |source| ClusterError::Kubeconfig { path: path.to_owned(), source };
    let mut kubeconfig = read(&[path]).map_err(fail)?;
    kubeconfig.go_to(server).map_err(|problem| fail(problem.into()))?;
    let mut config = settings(&kubeconfig).await.map_err(fail)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // Nothing between this machine and itself.
    config.proxy_url = None;
    // Tries are made here, where they are counted against the deadline.
    config.default_retry = false;
    Ok(config)
}

/// Whether the API server answers a question that it has to ask its etcd, one time: for an object that there is or is not.
pub async fn answers(client: &Client) -> bool {
    let request = http::Request::get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").body(Vec::new());
    let Ok(request) = request else { return false };
    match client.request_text(request).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) => status.code == 404,
        Err(_) => false,
    }
}

/// What is done, where, and how long it may take.
pub(super) struct Attempt<'a> {
    pub what: &'a str,
    pub endpoint: &'a str,
    pub limit: Duration,
}

impl Attempt<'_> {
    /// Tries until it works, until it never will, or until the time is up.
    ///
    /// The API server has no event for "now I would": between tries is a pause, short at first.
    pub async fn retry<T, F>(&self, mut once: impl FnMut() -> F) -> Result<T, ClusterError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let deadline = Instant::now() + self.limit;
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            match timeout_at(deadline, once()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if is_stranger(&error) => {
                    return Err(ClusterError::Stranger { endpoint: self.endpoint.to_owned(), source: error.into() });
                }
                Ok(Err(error)) if is_final(&error) => return Err(self.refused(error)),
                Ok(Err(error)) => {
                    tracing::debug!(endpoint = self.endpoint, %error, "cannot {} yet", self.what);
                    last = Some(Box::new(error));
                }
                Err(_) => return Err(self.timeout(last)),
            }
            if Instant::now() + pause >= deadline {
                return Err(self.timeout(last));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    fn refused(&self, error: kube::Error) -> ClusterError {
        let (endpoint, what) = (self.endpoint.to_owned(), self.what.to_owned());
        ClusterError::Refused { endpoint, what, source: error.into() }
    }

    fn timeout(&self, last: Option<Box<kube::Error>>) -> ClusterError {
        let (endpoint, what) = (self.endpoint.to_owned(), self.what.to_owned());
        ClusterError::Timeout { endpoint, what, limit: self.limit, last }
    }
}

/// Whether the same request will be answered the same way for ever. Forbidden is not among these: an API server that
/// has only just started says so until its own roles are there.
fn is_final(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    // An API server makes its namespaces only once it runs.
    let namespace = status.details.as_ref().is_some_and(|details| details.kind == "namespaces");
    matches!(status.code, 400 | 401 | 405 | 415 | 422) || (status.code == 404 && !namespace)
}

/// Whether the server's certificate was refused.
fn is_stranger(error: &(dyn Error + 'static)) -> bool {
    refused_certificate(error).is_some()
}

/// What is wrong with the server's certificate, if that is what went wrong.
pub(super) fn refused_certificate<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(reason)) = error.downcast_ref() {
        return Some(reason);
    }
    // An io::Error hands out what it wraps by `get_ref` only; its source is the source of that.
    if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return refused_certificate(inner);
    }
    error.source().and_then(refused_certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_client_goes_to_this_node_whatever_the_kubeconfig_names() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut spec = testing::spec();
        spec.node.advertise_address = "fd00::5".parse().unwrap();
        let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
                          clusters: [{name: c, cluster: {server: 'https://balancer:6443', proxy-url: 'http://p:1'}}]\n\
                          users: [{name: u, user: {}}]\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n";
        let path = paths.kubeconfig("super-admin.conf");
        crate::host::fs::make_dirs(path.parent().unwrap(), 0o755).unwrap();
        crate::host::fs::write_file(&path, kubeconfig.as_bytes(), 0o600).unwrap();
        let config = config(&path, &spec).await.unwrap();
        assert_eq!(config.cluster_url, "https://[fd00::5]:6443/");
        assert_eq!(config.proxy_url, None);
        assert!(config.read_timeout.is_some() && config.connect_timeout.is_some());
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_missing_is_named() {
        let error =
            config(&Paths::new("/nonexistent").kubeconfig("super-admin.conf"), &testing::spec()).await.unwrap_err();
        let expected = "cannot use /nonexistent/etc/kubernetes/super-admin.conf to reach the API server";
        assert_eq!(error.to_string(), expected);
    }
}
