//! What `join` asks of others: where the cluster is and whom to trust, what its kubelets are set to, whether the node's name is
//! free. Behind a trait, so that the workflow is tested without a cluster.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::Cause;
use crate::cluster::discovery::kubeconfig::{ClusterInfo, with_token, with_user};
use crate::cluster::discovery::{ApiServer, ByToken, DiscoveryError, FileSource, by_file, by_token};
use crate::cluster::joining::{self, Reader};
use crate::config::spec::{Discovery, JoinSpec, KubeconfigSource};
use crate::error::chain;
use crate::event::Reporter;
use crate::release::KubernetesVersion;

/// kubeadm's name for the cluster in a kubelet's kubeconfig.
const CLUSTER_NAME: &str = "kubernetes";

/// The text of a kubeconfig with credentials; nothing shows it by accident.
#[derive(Clone)]
pub struct Credentials(String);

impl Credentials {
    /// Keeps `kubeconfig` from sight.
    pub fn new(kubeconfig: impl Into<String>) -> Self {
        Self(kubeconfig.into())
    }

    /// The text, for who has to have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A kubeconfig with credentials, and the CA in it.
#[derive(Clone)]
pub struct Access {
    /// The kubeconfig; it holds credentials.
    pub kubeconfig: Credentials,
    /// PEM.
    pub ca: Vec<u8>,
}

/// What is known of the cluster.
#[derive(Clone)]
pub struct Found {
    /// The kubeconfig for the TLS bootstrap; None where the kubelet has its own already.
    pub bootstrap: Option<Credentials>,
    /// The cluster's CA, PEM.
    pub ca: Vec<u8>,
    /// The version of its control plane.
    pub version: KubernetesVersion,
    /// Its KubeletConfiguration.
    pub kubelet_config: Value,
}

/// What `join` asks of others.
#[async_trait]
pub trait Joining: Send + Sync {
    /// Finds the cluster and returns the credentials to bootstrap with.
    async fn discover(&self, spec: &JoinSpec, reporter: &dyn Reporter) -> Result<Access, Cause>;

    /// The version of the control plane and the kubelets' settings.
    async fn read(&self, kubeconfig: &Credentials, limit: Duration) -> Result<joining::ClusterFacts, Cause>;

    /// Whether there is a node of this name that is Ready.
    async fn has_ready_node(&self, kubeconfig: &Credentials, name: &str, limit: Duration) -> Result<bool, Cause>;

    /// Asks the kubelet at `url` whether it is healthy.
    async fn kubelet_health(&self, url: &str) -> Result<(), Cause>;
}

/// The real cluster and the real kubelet.
pub struct Real;

#[async_trait]
impl Joining for Real {
    async fn discover(&self, spec: &JoinSpec, reporter: &dyn Reporter) -> Result<Access, Cause> {
        let waiting = |error: &DiscoveryError| {
            reporter.note("preflight", format!("{}; trying again", chain(error)));
        };
        let limit = spec.timeouts.discovery;
        let (info, user) = match &spec.discovery {
            Discovery::Token(wanted) => {
                let order = ByToken {
                    endpoint: wanted.endpoint.to_string(),
                    token: wanted.token.clone(),
                    pins: wanted.pins.clone(),
                    limit,
                };
                (by_token(&ApiServer, &order, &waiting).await?, None)
            }
            Discovery::File(source) => {
                let source = match source {
                    KubeconfigSource::Path(path) => FileSource::Path(std::path::absolute(path)?),
                    KubeconfigSource::Url(url) => FileSource::Url(url.clone()),
                };
                let handed = by_file(&ApiServer, &source, limit, &waiting).await?;
                (handed.info, handed.user)
            }
        };
        let text = match (user, &spec.tls_bootstrap_token) {
            (Some((name, credentials)), _) => with_user(&info, CLUSTER_NAME, &name, &credentials)?,
            (None, Some(token)) => with_token(&info, CLUSTER_NAME, token)?,
            (None, None) => return Err(Box::new(NoCredentials)),
        };
        let ClusterInfo { ca, .. } = info;
        Ok(Access { kubeconfig: Credentials::new(text), ca })
    }

    async fn read(&self, kubeconfig: &Credentials, limit: Duration) -> Result<joining::ClusterFacts, Cause> {
        Ok(Reader::new(kubeconfig.expose(), limit).await?.facts().await?)
    }

    async fn has_ready_node(&self, kubeconfig: &Credentials, name: &str, limit: Duration) -> Result<bool, Cause> {
        Ok(Reader::new(kubeconfig.expose(), limit).await?.has_ready_node(name).await?)
    }

    async fn kubelet_health(&self, url: &str) -> Result<(), Cause> {
        // Nothing between this machine and itself.
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(client.get(url).send().await?.error_for_status().map(drop)?)
    }
}

/// A discovery file without credentials, and no token either.
#[derive(Debug, thiserror::Error)]
#[error("the discovery file holds no credentials: give a token with --tls-bootstrap-token")]
struct NoCredentials;
