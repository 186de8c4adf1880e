//! An API server reached with a kubeconfig of the user's, wherever that says it is.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::ClusterError;
use super::client::{CONNECT_TIMEOUT, READ_TIMEOUT};
use crate::pki::inspect::Certificate;

/// The API server of a kubeconfig's current context.
pub struct Remote {
    /// With the kubeconfig's credentials.
    pub client: Client,
    /// `https://host:port`.
    pub server: String,
    /// The CA that it trusts, PEM; empty when it trusts the machine's.
    pub authority: String,
}

impl Remote {
    /// Reads the kubeconfig; does not connect yet.
    ///
    /// # Errors
    /// A kubeconfig that is missing or cannot be used.
    pub async fn open(path: &Path) -> Result<Self, ClusterError> {
        let fail = |source| ClusterError::Kubeconfig { path: path.to_owned(), source };
        let kubeconfig = Kubeconfig::read_from(path).map_err(fail)?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(fail)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.default_retry = false;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let authority = config.root_cert.iter().flatten();
        let authority = authority.filter_map(|der| Certificate::parse(der).ok()).map(|one| one.pem()).collect();
        let client = Client::try_from(config)
            .map_err(|source| ClusterError::Client { path: path.to_owned(), source: source.into() })?;
        Ok(Self { client, server, authority })
    }

    /// `host:port`.
    pub fn endpoint(&self) -> &str {
        self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest)
    }
}

/// Which kubeconfig is used where none is named: the first there is of `$KUBECONFIG` (`~/.kube/config` when that is not
/// set) and `admin`, as kubeadm looks for it.
pub fn find_kubeconfig(admin: PathBuf) -> PathBuf {
    let (list, home) = (env::var_os("KUBECONFIG"), env::var_os("HOME"));
    first_of(list.as_deref(), home.as_deref(), admin, &|path| path.exists())
}

fn first_of(list: Option<&OsStr>, home: Option<&OsStr>, admin: PathBuf, exists: &dyn Fn(&Path) -> bool) -> PathBuf {
    let mut candidates: Vec<PathBuf> = match list.filter(|list| !list.is_empty()) {
        Some(list) => env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => home.map(|home| Path::new(home).join(".kube/config")).into_iter().collect(),
    };
    candidates.push(admin);
    candidates.iter().find(|path| exists(path)).unwrap_or(&candidates[0]).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_looked_for_where_kubeadm_looks() {
        let find = |list: Option<&str>, home: Option<&str>, there: &[&str]| {
            let exists = |path: &Path| there.iter().any(|one| Path::new(one) == path);
            first_of(list.map(OsStr::new), home.map(OsStr::new), PathBuf::from("/admin"), &exists)
        };
        assert_eq!(find(Some("/a:/b"), Some("/root"), &["/b", "/admin"]), Path::new("/b"));
        assert_eq!(find(Some("/a::/b"), Some("/root"), &["/root/.kube/config", "/admin"]), Path::new("/admin"));
        assert_eq!(find(None, Some("/root"), &["/root/.kube/config", "/admin"]), Path::new("/root/.kube/config"));
        assert_eq!(find(Some(""), Some("/root"), &["/admin"]), Path::new("/admin"));
        assert_eq!(find(None, None, &[]), Path::new("/admin"));
        assert_eq!(find(Some("/a"), None, &[]), Path::new("/a"), "an error then names what the user set");
    }

    #[tokio::test]
    async fn a_kubeconfig_says_where_the_server_is_and_whom_to_trust() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let ca = include_str!("discovery/fixtures/ca.crt");
        crate::host::fs::write_file(&dir.path().join("ca.crt"), ca.as_bytes(), 0o644).unwrap();
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: c, cluster: {server: \
                    'https://balancer:6443', certificate-authority: ca.crt}}]\nusers: [{name: u, user: {}}]\n\
                    contexts: [{name: a, context: {cluster: c, user: u}}]\n";
        crate::host::fs::write_file(&path, text.as_bytes(), 0o600).unwrap();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let remote = Remote::open(&path).await.unwrap();
        assert_eq!((remote.server.as_str(), remote.endpoint()), ("https://balancer:6443", "balancer:6443"));
        let pin = include_str!("discovery/fixtures/ca.pin").trim();
        let pins = super::super::discovery::pins::of_pem(remote.authority.as_bytes()).unwrap();
        assert_eq!(pins[0].to_string(), pin);
        let error = Remote::open(Path::new("/nonexistent")).await.err().unwrap();
        assert_eq!(error.to_string(), "cannot use /nonexistent to reach the API server");
    }
}
