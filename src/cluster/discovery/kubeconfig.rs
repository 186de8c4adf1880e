//! What a kubeconfig says of a cluster, and the one that a kubelet bootstraps itself with.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::bootstrap_token::Token;
use crate::pki::{Kubeconfig, Problem, data_in, text_in};
use crate::yaml::{self, EmitError};

/// kubeadm's name for the user of a token.
const TOKEN_USER: &str = "tls-bootstrap-token-user";

/// A kubeconfig that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// No YAML, or not of that shape.
    #[error("it {0}")]
    Read(Problem),
    /// No cluster in it, or not the one its context names.
    #[error("it names no cluster")]
    NoCluster,
    /// The cluster has no server.
    #[error("its cluster has no server")]
    NoServer,
    /// The cluster has no CA.
    #[error("its cluster has no certificate-authority-data")]
    NoAuthority,
    /// A file it names.
    #[error("cannot read {}", path.display())]
    File {
        /// Which one.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A cluster as a kubeconfig describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// URL of the API server.
    pub server: String,
    /// The CA, PEM.
    pub ca: Vec<u8>,
    /// `tls-server-name`, where the certificate is for another name than the server's.
    pub tls_server_name: Option<String>,
}

impl ClusterInfo {
    /// Reads the cluster of the current context, else the first; the CA has to be inside.
    ///
    /// # Errors
    /// A text that says nothing of a cluster and its CA.
    pub fn parse(text: &str) -> Result<Self, KubeconfigError> {
        Self::of(&read(text)?)
    }

    /// The same of a kubeconfig that was read before; a CA in a file beside it is read.
    pub(super) fn of(config: &Kubeconfig) -> Result<Self, KubeconfigError> {
        let cluster = config.cluster().ok_or(KubeconfigError::NoCluster)?;
        let text = |name| text_in(cluster, name).map_err(KubeconfigError::Read);
        let server = text("server")?.ok_or(KubeconfigError::NoServer)?.to_owned();
        let data = data_in(cluster, "certificate-authority-data").map_err(KubeconfigError::Read)?;
        let ca = match (data, text("certificate-authority")?) {
            (Some(data), _) => data,
            (None, Some(path)) => std::fs::read(path)
                .map_err(|source| KubeconfigError::File { path: Path::new(path).to_owned(), source })?,
            (None, None) => return Err(KubeconfigError::NoAuthority),
        };
        Ok(Self { server, ca, tls_server_name: text("tls-server-name")?.map(str::to_owned) })
    }
}

pub(super) fn read(text: &str) -> Result<Kubeconfig, KubeconfigError> {
    Kubeconfig::parse(text.as_bytes()).map_err(KubeconfigError::Read)
}

/// The kubeconfig `bootstrap-kubelet.conf`: with `token` the kubelet asks for its first certificate.
///
/// # Errors
/// None for what [`ClusterInfo::parse`] read.
pub fn with_token(info: &ClusterInfo, cluster_name: &str, token: &Token) -> Result<String, EmitError> {
    with_user(info, cluster_name, TOKEN_USER, &json!({ "token": token.reveal() }))
}

/// The same with a user's credentials (`users[].user`).
///
/// # Errors
/// Credentials that are no YAML.
pub fn with_user(info: &ClusterInfo, cluster_name: &str, user: &str, credentials: &Value) -> Result<String, EmitError> {
    let context = format!("{user}@{cluster_name}");
    let mut cluster = json!({ "certificate-authority-data": STANDARD.encode(&info.ca), "server": info.server });
    if let Some(name) = &info.tls_server_name {
        cluster["tls-server-name"] = json!(name);
    }
    yaml::to_string(&json!({
        "apiVersion": "v1",
        "clusters": [{ "cluster": cluster, "name": cluster_name }],
        "contexts": [{ "context": { "cluster": cluster_name, "user": user }, "name": context }],
        "current-context": context,
        "kind": "Config",
        "users": [{ "name": user, "user": credentials }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: ''\n  cluster:\n    server: https://10.0.0.5:6443\n    \
                        certificate-authority-data: Q0E=\n";

    #[test]
    fn cluster_info_has_no_context_and_its_one_cluster_counts() {
        let info = ClusterInfo::parse(TEXT).unwrap();
        assert_eq!((info.server.as_str(), info.ca.as_slice()), ("https://10.0.0.5:6443", &b"CA"[..]));
    }

    #[test]
    fn a_context_chooses_its_cluster() {
        let text = "current-context: b\nclusters:\n- {name: a, cluster: {server: 'https://a', certificate-authority-data: Q0E=}}\n\
                    - {name: b, cluster: {server: 'https://b', certificate-authority-data: Q0E=}}\n\
                    contexts:\n- {name: b, context: {cluster: b, user: u}}\n";
        assert_eq!(ClusterInfo::parse(text).unwrap().server, "https://b");
    }

    #[test]
    fn data_may_be_broken_into_lines_and_a_second_document_is_not_read() {
        let broken = TEXT.replace("Q0E=", "|\n      Q0\n      E=\n") + "---\nclusters: 7\n";
        assert_eq!(ClusterInfo::parse(&broken).unwrap().ca, b"CA");
        let quoted = TEXT.replace("Q0E=", "\"Q0E=\\n\"");
        assert_eq!(ClusterInfo::parse(&quoted).unwrap().ca, b"CA");
    }

    #[test]
    fn what_is_missing_is_named() {
        let words = |text: &str| ClusterInfo::parse(text).unwrap_err().to_string();
        assert_eq!(words("clusters: []"), "it names no cluster");
        assert_eq!(
            words("clusters: [{name: a, cluster: {certificate-authority-data: Q0E=}}]"),
            "its cluster has no server"
        );
        assert!(words("clusters: [{name: a, cluster: {server: 'https://a'}}]").contains("certificate-authority-data"));
        assert!(words(&TEXT.replace("Q0E=", "'?'")).contains("not base64"));
        assert_eq!(words("[]"), "it is no usable kubeconfig (it is no object)");
    }

    #[test]
    fn the_kubelets_first_kubeconfig_is_kubeadms() {
        let token = "abcdef.0123456789abcdef".parse().unwrap();
        let text = with_token(&ClusterInfo::parse(TEXT).unwrap(), "kubernetes", &token).unwrap();
        insta::assert_snapshot!(text, @r"
        apiVersion: v1
        clusters:
        - cluster:
            certificate-authority-data: Q0E=
            server: https://10.0.0.5:6443
          name: kubernetes
        contexts:
        - context:
            cluster: kubernetes
            user: tls-bootstrap-token-user
          name: tls-bootstrap-token-user@kubernetes
        current-context: tls-bootstrap-token-user@kubernetes
        kind: Config
        users:
        - name: tls-bootstrap-token-user
          user:
            token: abcdef.0123456789abcdef
        ");
    }
}
