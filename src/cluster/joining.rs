//! What a node that joins may read of the cluster with a bootstrap token, as kubeadm's roles allow it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, Client};
use serde_json::Value;

use super::ClusterError;
use super::client::{Attempt, CONNECT_TIMEOUT, READ_TIMEOUT};
use crate::pki::Kubeconfig;
use crate::pki::client::{ReadError, connect, settings};
use crate::release::{KubernetesVersion, kubelet_config_map};
use crate::yaml;

const NAMESPACE: &str = "kube-system";
/// The config map of the cluster's settings, and its key for ClusterConfiguration.
const KUBEADM_CONFIG: (&str, &str) = ("kubeadm-config", "ClusterConfiguration");
/// The key of the kubelets' settings in their config map.
const KUBELET_KEY: &str = "kubelet";

/// What a cluster says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterFacts {
    /// `kubernetesVersion`.
    pub version: KubernetesVersion,
    /// The KubeletConfiguration of its nodes.
    pub kubelet_config: Value,
}

/// A cluster that cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// The kubeconfig makes no client.
    #[error("the credentials for the cluster cannot be used")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API server does not do as asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A config map that says nothing.
    #[error("the config map {NAMESPACE}/{name} of the cluster has no usable {key}")]
    Content {
        /// Which one.
        name: String,
        /// Which key.
        key: &'static str,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// There is no config map with the kubelets' settings, or it may not be read.
    #[error(
        "the config map {NAMESPACE}/{name} cannot be read: upload the kubelets' settings on a control-plane node with \
         `kubeboot init phase upload-config kubelet`"
    )]
    NoKubeletConfig {
        /// Which one.
        name: String,
    },
}

/// Reads with one set of credentials.
pub struct Reader {
    client: Client,
    endpoint: String,
    limit: Duration,
}

impl Reader {
    /// `kubeconfig` is its text; each question may take `limit`.
    ///
    /// # Errors
    /// A kubeconfig that cannot be used.
    pub async fn new(kubeconfig: &str, limit: Duration) -> Result<Self, JoiningError> {
        let read = Kubeconfig::parse(kubeconfig.as_bytes());
        let read = read.map_err(|problem| JoiningError::Credentials(ReadError::from(problem).into()))?;
        let mut config = settings(&read).await.map_err(|e| JoiningError::Credentials(e.into()))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        config.default_retry = false;
        let endpoint = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = connect(config).map_err(|e| JoiningError::Credentials(e.into()))?;
        Ok(Self { client, endpoint, limit })
    }

    /// The version of the control plane and the kubelets' settings.
    ///
    /// # Errors
    /// Config maps that cannot be read or make no sense.
    pub async fn facts(&self) -> Result<ClusterFacts, JoiningError> {
        let (name, key) = KUBEADM_CONFIG;
        let map = self.config_map(name).await?;
        let cluster = map.ok_or(JoiningError::Content { name: name.into(), key, source: None })?;
        let version = content(&cluster, name, key)?["kubernetesVersion"].as_str().unwrap_or_default().to_owned();
        let unread = |e: crate::release::VersionError| JoiningError::Content {
            name: name.into(),
            key: "kubernetesVersion",
            source: Some(e.into()),
        };
        let version: KubernetesVersion = version.parse().map_err(unread)?;
        Ok(ClusterFacts { kubelet_config: self.kubelet_config(&version).await?, version })
    }

    async fn kubelet_config(&self, version: &KubernetesVersion) -> Result<Value, JoiningError> {
        let name = kubelet_config_map(version);
        match self.config_map(&name).await? {
            Some(map) => content(&map, &name, KUBELET_KEY),
            None => Err(JoiningError::NoKubeletConfig { name }),
        }
    }

    /// None where it is not there, or a joining node is not allowed to see whether it is.
    async fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, JoiningError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        let what = format!("read the config map {NAMESPACE}/{name}");
        let get = || async {
            match maps.get_opt(name).await {
                Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
                done => done,
            }
        };
        Ok(self.attempt(&what).retry(get).await?)
    }

    /// Whether there is a node of this name that is Ready.
    ///
    /// # Errors
    /// An API server that does not say.
    pub async fn has_ready_node(&self, name: &str) -> Result<bool, JoiningError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let what = format!("look for a node {name}");
        let node = self.attempt(&what).retry(|| nodes.get_opt(name)).await?;
        let conditions = node.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    }

    fn attempt<'a>(&'a self, what: &'a str) -> Attempt<'a> {
        Attempt { what, endpoint: &self.endpoint, limit: self.limit }
    }
}

/// The document under a key of a config map.
fn content(map: &ConfigMap, name: &str, key: &'static str) -> Result<Value, JoiningError> {
    let fail = |source| JoiningError::Content { name: name.to_owned(), key, source };
    let text = map.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| fail(None))?;
    let value: Value = yaml::to_value(text).map_err(|error| fail(Some(error.into())))?;
    if value.is_object() { Ok(value) } else { Err(fail(None)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(key: &str, text: &str) -> ConfigMap {
        ConfigMap { data: Some([(key.to_owned(), text.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn a_config_map_holds_a_document_under_its_key_or_is_named() {
        let value = content(&map("kubelet", "maxPods: 7\n"), "kubelet-config", "kubelet").unwrap();
        assert_eq!(value["maxPods"], 7);
        for bad in [map("other", "a: 1"), map("kubelet", "just text"), map("kubelet", "a: [")] {
            let error = content(&bad, "kubelet-config", "kubelet").unwrap_err();
            assert_eq!(
                error.to_string(),
                "the config map kube-system/kubelet-config of the cluster has no usable kubelet"
            );
        }
    }
}
