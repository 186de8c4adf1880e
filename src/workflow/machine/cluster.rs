//! What the workflows do through the API server of this node. Behind a trait, so that they are tested without a cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::Cause;
use crate::cluster::admin::ensure_cluster_admins;
use crate::cluster::apply::{Applied, Target};
use crate::cluster::object::Object;
use crate::cluster::version;
use crate::cluster::{ClusterError, answers, client_of};
use crate::config::ClusterSpec;
use crate::host::Paths;

/// The cluster of this node: where its kubeconfigs are, and how its API server is reached.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// Where files are.
    pub paths: &'a Paths,
    /// The configuration.
    pub spec: &'a ClusterSpec,
}

/// The API server of this node.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Grants the administrators of admin.conf their rights; returns whether they had not got them yet.
    async fn ensure_admins(&self, site: Site<'_>, limit: Duration) -> Result<bool, Cause>;

    /// Writes objects side by side, those with an owner last; returns what became of each, in order. Safe to repeat.
    async fn apply(&self, site: Site<'_>, objects: &[Object]) -> Result<Vec<Applied>, Cause>;

    /// What there is of an object, found by its kind and name; None where there is none.
    async fn get(&self, site: Site<'_>, object: &Object) -> Result<Option<Value>, Cause>;

    /// Removes an object, if it is there.
    async fn remove(&self, site: Site<'_>, object: &Object) -> Result<(), Cause>;

    /// Whether the object could be made: all is done but that.
    async fn would_make(&self, site: Site<'_>, object: &Object) -> Result<(), Cause>;

    /// The API server's own metrics, in Prometheus' text format.
    async fn metrics(&self, site: Site<'_>) -> Result<String, Cause>;

    /// The nodes that have this label; an empty one stands for all nodes.
    async fn list_nodes(&self, site: Site<'_>, label: &str) -> Result<Vec<Value>, Cause>;

    /// The version that a component of this node reports of itself: the API server, or what serves metrics at `metrics`
    /// (`https://127.0.0.1:10257`).
    async fn version(&self, site: Site<'_>, metrics: Option<&str>) -> Result<String, Cause>;

    /// How the API server is asked over and over whether it answers an administrator, on a connection that stays; None where
    /// it cannot be.
    fn ping<'a>(&'a self, _: Site<'a>) -> Option<Ping<'a>> {
        None
    }
}

/// Asks once.
pub type Ping<'a> = Box<dyn Fn() -> BoxFuture<'a, bool> + Send + Sync + 'a>;

/// The API server of this node, with an administrator's kubeconfig.
#[derive(Debug, Default)]
pub struct AdminApi {
    /// The kubeconfig; None is admin.conf.
    pub kubeconfig: Option<PathBuf>,
}

impl AdminApi {
    async fn with<T>(
        &self,
        Site { paths, spec }: Site<'_>,
        what: impl AsyncFnOnce(Target<'_>) -> Result<T, ClusterError>,
    ) -> Result<T, Cause> {
        let path = self.kubeconfig.clone().unwrap_or_else(|| paths.kubeconfig("admin.conf"));
        let (client, endpoint) = (client_of(&path, spec).await?, format!("https://{}", spec.local_endpoint()));
        Ok(what(Target { client, endpoint: &endpoint, limit: spec.timeouts.kubernetes_api_call }).await?)
    }
}

#[async_trait]
impl Cluster for AdminApi {
    async fn ensure_admins(&self, site: Site<'_>, limit: Duration) -> Result<bool, Cause> {
        Ok(ensure_cluster_admins(site.paths, site.spec, limit).await?)
    }

    async fn apply(&self, site: Site<'_>, objects: &[Object]) -> Result<Vec<Applied>, Cause> {
        self.with(site, async |target| target.apply(objects).await).await
    }

    async fn get(&self, site: Site<'_>, object: &Object) -> Result<Option<Value>, Cause> {
        self.with(site, async |target| target.get(object).await).await
    }

    async fn remove(&self, site: Site<'_>, object: &Object) -> Result<(), Cause> {
        self.with(site, async |target| target.remove(object).await).await
    }

    async fn would_make(&self, site: Site<'_>, object: &Object) -> Result<(), Cause> {
        self.with(site, async |target| target.would_make(object).await).await
    }

    async fn metrics(&self, site: Site<'_>) -> Result<String, Cause> {
        self.with(site, async |target| target.metrics().await).await
    }

    async fn list_nodes(&self, site: Site<'_>, label: &str) -> Result<Vec<Value>, Cause> {
        self.with(site, async |target| target.list_nodes(label).await).await
    }

    async fn version(&self, site: Site<'_>, metrics: Option<&str>) -> Result<String, Cause> {
        let path = self.kubeconfig.clone().unwrap_or_else(|| site.paths.kubeconfig("admin.conf"));
        match metrics {
            // A client of its own: a connection that stays may be one to the process before.
            None => Ok(version::of_api_server(&client_of(&path, site.spec).await?).await?),
            Some(address) => {
                version::of_component(&path, address).await?.ok_or_else(|| "its metrics do not say".into())
            }
        }
    }

    fn ping<'a>(&'a self, Site { paths, spec }: Site<'a>) -> Option<Ping<'a>> {
        let path = self.kubeconfig.clone().unwrap_or_else(|| paths.kubeconfig("admin.conf"));
        let (path, client) = (Arc::new(path), Arc::new(OnceCell::new()));
        Some(Box::new(move || {
            let (path, client) = (Arc::clone(&path), Arc::clone(&client));
            let asked = async move {
                match client.get_or_try_init(|| client_of(&path, spec)).await {
                    Ok(client) => answers(client).await,
                    Err(_) => false,
                }
            };
            asked.boxed()
        }))
    }
}

/// A cluster and how it is reached: what is asked of it needs nothing else.
#[derive(Clone, Copy)]
pub struct Api<'a> {
    /// What is asked.
    pub cluster: &'a dyn Cluster,
    /// How.
    pub site: Site<'a>,
}
