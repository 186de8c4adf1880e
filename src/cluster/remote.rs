//! An API server reached with a kubeconfig of the user's, wherever that says it is.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kube::Client;

use super::ClusterError;
use super::client::{CONNECT_TIMEOUT, READ_TIMEOUT};
use crate::host::environment;
use crate::pki::client::{connect, read, settings};
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
    /// Reads the kubeconfigs, merged as kubectl merges them; does not connect yet.
    ///
    /// # Errors
    /// Kubeconfigs that are missing or cannot be used.
    pub async fn open(paths: &[PathBuf]) -> Result<Self, ClusterError> {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let path = PathBuf::from(names.join(":"));
        let fail = |source| ClusterError::Kubeconfig { path: path.clone(), source };
        let kubeconfig = read(paths).map_err(fail)?;
        let mut config = settings(&kubeconfig).await.map_err(fail)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.default_retry = false;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let authority = config.root_cert.iter().flatten();
        let authority = authority.filter_map(|der| Certificate::parse(der).ok()).map(|one| one.pem()).collect();
        let client =
            connect(config).map_err(|source| ClusterError::Client { path: path.clone(), source: source.into() })?;
        Ok(Self { client, server, authority })
    }

    /// `host:port`.
    pub fn endpoint(&self) -> &str {
        self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest)
    }
}

/// Which kubeconfigs are used where none is named: those of `$KUBECONFIG` (`~/.kube/config` when that is not set) that
/// are there, and `admin` where there is none of them. kubeadm takes the first alone, kubectl all of them: what the first
/// one says counts in either case.
pub fn find_kubeconfigs(admin: PathBuf) -> Vec<PathBuf> {
    let (list, home) = (environment::kubeconfigs(), environment::home());
    all_of(list.as_deref(), home.as_deref().map(Path::as_os_str), admin, &|path| path.exists())
}

fn all_of(list: Option<&OsStr>, home: Option<&OsStr>, admin: PathBuf, exists: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let candidates: Vec<PathBuf> = match list.filter(|list| !list.is_empty()) {
        Some(list) => env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => home.map(|home| Path::new(home).join(".kube/config")).into_iter().collect(),
    };
    let there: Vec<PathBuf> = candidates.iter().filter(|path| exists(path)).cloned().collect();
    match (there.is_empty(), exists(&admin)) {
        (false, _) => there,
        (true, true) => vec![admin],
        // An error then names what the user has set.
        (true, false) => vec![candidates.into_iter().next().unwrap_or(admin)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_looked_for_where_kubeadm_looks() {
        let find = |list: Option<&str>, home: Option<&str>, there: &[&str]| {
            let exists = |path: &Path| there.iter().any(|one| Path::new(one) == path);
            let found = all_of(list.map(OsStr::new), home.map(OsStr::new), PathBuf::from("/admin"), &exists);
            found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(find(Some("/a:/none:/b"), Some("/root"), &["/b", "/a", "/admin"]), "/a /b");
        assert_eq!(find(Some("/a:/b"), Some("/root"), &["/b", "/admin"]), "/b");
        assert_eq!(find(Some("/a::/b"), Some("/root"), &["/root/.kube/config", "/admin"]), "/admin");
        assert_eq!(find(None, Some("/root"), &["/root/.kube/config", "/admin"]), "/root/.kube/config");
        assert_eq!(find(Some(""), Some("/root"), &["/admin"]), "/admin");
        assert_eq!(find(None, None, &[]), "/admin");
        assert_eq!(find(Some("/a"), None, &[]), "/a", "an error then names what the user set");
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
        let remote = Remote::open(&[path]).await.unwrap();
        assert_eq!((remote.server.as_str(), remote.endpoint()), ("https://balancer:6443", "balancer:6443"));
        let pin = include_str!("discovery/fixtures/ca.pin").trim();
        let pins = super::super::discovery::pins::of_pem(remote.authority.as_bytes()).unwrap();
        assert_eq!(pins[0].to_string(), pin);
        let error = Remote::open(&[PathBuf::from("/nonexistent")]).await.err().unwrap();
        assert_eq!(error.to_string(), "cannot use /nonexistent to reach the API server");
    }

    #[tokio::test]
    async fn several_kubeconfigs_are_one_and_an_empty_current_context_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            crate::host::fs::write_file(&path, text.as_bytes(), 0o600).unwrap();
            path
        };
        let first = put("a", "current-context: ''\nclusters: [{name: c, cluster: {server: 'https://first:6443'}}]\n");
        let second = put(
            "b",
            "current-context: x\nclusters: [{name: c, cluster: {server: 'https://second:6443'}}]\n\
             contexts: [{name: x, context: {cluster: c}}]\n---\ncurrent-context: y\nclusters: 7\n",
        );
        let missing = dir.path().join("none");
        let kubeconfig = read(&[missing, first, second]).unwrap();
        let config = settings(&kubeconfig).await.unwrap();
        assert_eq!(config.cluster_url, "https://first:6443/");
    }
}
