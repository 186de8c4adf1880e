//! A client out of a kubeconfig.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context as Digest, SHA256};
use http::HeaderValue;
use http::header::USER_AGENT;
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tracing::warn;

use super::requests::{Counting, Requests};
use crate::agent::apiserver::certificates::client::choose;
use crate::agent::apiserver::certificates::store::{Pair, Store, StoreError};
use crate::host::Paths;
use crate::host::tree::{HostTree, NoRecord};
use crate::pki::client::{self, ReadError};
use crate::pki::{PkiError, client_pair};

/// A server answers at once or is not there; a load balancer may hang.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An API server has something to say on a watch each minute; a connection on which it has not is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// How the agent calls itself. An API server takes what is before the slash for the field manager of what it writes, and
/// audit rules and flow schemas look for a node's `kubelet`.
const AGENT: &str = concat!("kubelet/v", env!("CARGO_PKG_VERSION"), " (linux) kubeboot");

/// Why a kubeconfig gives no client.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It, or a file it names, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no kubeconfig, or one that says too little.
    #[error("cannot use {} to reach the API server", path.display())]
    Kubeconfig {
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<ReadError>,
    },
    /// Its certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] PkiError),
    /// Certificates that were renewed cannot be read, or not kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it says gives no client.
    #[error("cannot use {} to reach the API server", path.display())]
    Client {
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What a kubeconfig comes to.
pub struct Credentials {
    /// The client.
    pub client: Client,
    /// The server's URL, as the kubeconfig has it: perhaps that of a load balancer.
    pub server: String,
    /// Hash of all that went into it.
    pub digest: Vec<u8>,
    /// The files that went into it.
    pub files: Vec<PathBuf>,
    /// When its certificate has expired, if it has.
    pub expired: Option<Timestamp>,
}

impl Credentials {
    /// Reads `path`; None where there is no such file. With a `store` the certificate is the store's or the kubeconfig's
    /// own, whichever lasts longer, and is in the store then. What the client is asked for is counted in `requests`.
    ///
    /// Proxies are not used, and exec plugins not run: a node has a certificate, and its API server is a neighbour.
    pub async fn load(
        path: &Path,
        store: Option<&Store>,
        requests: &Arc<Requests>,
    ) -> Result<Option<Self>, CredentialsError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CredentialsError::Read { path: path.to_owned(), source }),
        };
        let fail = |source: ReadError| CredentialsError::Kubeconfig { path: path.to_owned(), source: source.into() };
        let mut kubeconfig = client::read(&[path]).and_then(|read| client::plain(&read)).map_err(fail)?;
        let mut expired = None;
        if let Some(store) = store
            && let Some(pair) = stored(path, &text, store)?
        {
            expired = Some(pair.certificate.not_after).filter(|end| *end <= Timestamp::now());
            point(&mut kubeconfig, &store.current_path());
        }
        let mut files = vec![path.to_owned()];
        let mut digest = Digest::new(&SHA256);
        digest.update(&text);
        for file in named(&kubeconfig) {
            let content = std::fs::read(&file);
            digest.update(&content.map_err(|source| CredentialsError::Read { path: file.clone(), source })?);
            files.push(file);
        }
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|e| fail(e.into()))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        config.proxy_url = None;
        config.default_retry = false;
        config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let host = config.cluster_url.authority().map_or("", |host| host.as_str()).into();
        let client = client::connect(config)
            .map_err(|source| CredentialsError::Client { path: path.to_owned(), source: source.into() })?;
        let send = tower::service_fn(move |request| {
            let client = client.clone();
            async move { client.send(request).await }
        });
        let client = Client::new(Counting::new(send, host, Arc::clone(requests)), namespace);
        Ok(Some(Self { client, server, digest: digest.finish().as_ref().to_vec(), files, expired }))
    }
}

/// The pair to use, which is in the store then; None for a kubeconfig with other means.
fn stored(path: &Path, text: &[u8], store: &Store) -> Result<Option<Pair>, CredentialsError> {
    let now = Timestamp::now();
    let kept = match store.current() {
        Ok(kept) => kept,
        // Half a file is no reason to be without one that is whole.
        Err(StoreError::NoPair { path }) => {
            warn!(path = %path.display(), "it holds no certificate with its key");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let held = match client_pair(path, text, &HostTree::new(Paths::new("/"), NoRecord)) {
        Ok(held) => held.and_then(|(chain, key)| Pair::new(&chain, &key)),
        Err(_) if kept.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    let chosen = choose(held, kept.clone(), now);
    if let Some(pair) = chosen.as_ref().filter(|pair| Some(*pair) != kept.as_ref()) {
        store.keep(pair, now)?;
    }
    Ok(chosen)
}

/// Makes every user one with the certificate and the key in `file`: a node's kubeconfig has one.
fn point(kubeconfig: &mut Kubeconfig, file: &Path) {
    let file = Some(file.display().to_string());
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        (user.client_certificate, user.client_key) = (file.clone(), file.clone());
        (user.client_certificate_data, user.client_key_data) = (None, None);
    }
}

/// The files a kubeconfig names.
fn named(kubeconfig: &Kubeconfig) -> Vec<PathBuf> {
    let users = kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    let users = users.flat_map(|user| [&user.client_certificate, &user.client_key, &user.token_file]);
    let clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
    let mut files: Vec<PathBuf> = users
        .chain(clusters.map(|cluster| &cluster.certificate_authority))
        .filter_map(|file| file.as_ref().filter(|file| !file.is_empty()).map(PathBuf::from))
        .collect();
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::write_file;

    const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        clusters: [{name: c, cluster: {server: 'https://balancer:6443', proxy-url: 'http://proxy:1'}}]\n\
        users: [{name: u, user: {tokenFile: token}}]\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n";

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_no_error_and_one_that_is_wrong_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.conf");
        assert!(Credentials::load(&path, None, &Arc::default()).await.unwrap().is_none());
        write_file(&path, b"kind: Nothing\nclusters: 7\n", 0o600).unwrap();
        let error = Credentials::load(&path, None, &Arc::default()).await.err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot use {}", path.display())), "{error}");
        write_file(&path, KUBECONFIG.as_bytes(), 0o600).unwrap();
        let error = Credentials::load(&path, None, &Arc::default()).await.err().unwrap().to_string();
        assert_eq!(error, format!("cannot read {}", dir.path().join("token").display()));
    }

    #[tokio::test]
    async fn an_api_server_is_asked_by_a_kubelet() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.conf");
        let kubeconfig = KUBECONFIG.replace("https://balancer:6443", &format!("http://{server}"));
        write_file(&path, kubeconfig.as_bytes(), 0o600).unwrap();
        write_file(&dir.path().join("token"), b"abc", 0o600).unwrap();
        let requests = Arc::new(Requests::default());
        let client = Credentials::load(&path, None, &requests).await.unwrap().unwrap().client;
        let asked = tokio::spawn(async move { client.apiserver_version().await.map(drop) });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
        assert!(head.contains("\r\nuser-agent: kubelet/v"), "{head}");
        stream.write_all(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert!(asked.await.unwrap().is_err());
        let host = server.to_string();
        assert_eq!(requests.results.all(), [(["500".into(), "GET".into(), host.clone().into()], 1)]);
        let times = requests.times.all();
        assert_eq!((times.len(), &times[0].0, times[0].1.count), (1, &["GET".into(), host.into()], 1));
    }

    #[tokio::test]
    async fn another_content_of_any_file_makes_another_client() {
        let dir = tempfile::tempdir().unwrap();
        let (path, token) = (dir.path().join("kubelet.conf"), dir.path().join("token"));
        write_file(&path, KUBECONFIG.as_bytes(), 0o600).unwrap();
        write_file(&token, b"abc", 0o600).unwrap();
        let digest = async || Credentials::load(&path, None, &Arc::default()).await.unwrap().unwrap().digest;
        let first = digest().await;
        assert_eq!(first, digest().await);
        write_file(&token, b"abd", 0o600).unwrap();
        assert_ne!(first, digest().await);
        let found = Credentials::load(&path, None, &Arc::default()).await.unwrap().unwrap();
        assert_eq!((found.server.as_str(), found.files), ("https://balancer:6443/", vec![path, token]));
    }
}
