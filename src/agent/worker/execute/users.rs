//! What only some runtimes can: pods with users of their own, and mounts that are read-only all the way down.

use std::sync::Arc;

use super::{Failure, runtime_failure};
use crate::agent::container::config;
use crate::agent::pod::StaticPod;
use crate::agent::volumes;
use crate::agent::worker::Worker;
use crate::error::chain;
use crate::runtime::{RuntimeError, RuntimeFeatures, UserRange};

/// The kubelet's words for a pod that is to have its own users where it cannot.
const CANNOT: &str = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";

impl Worker {
    /// The users that a pod's sandbox is made with; None for the machine's. A pod that asks for its own never runs without.
    pub(super) async fn own_users(
        &self,
        pod: &Arc<StaticPod>,
    ) -> Result<Option<UserRange>, (Failure, Option<RuntimeError>)> {
        if pod.spec.host_users != Some(false) {
            return Ok(None);
        }
        let refused = |message: String| (Failure::new("FailedCreatePodSandBox", message), None);
        let features = self.context.runtime.features().await;
        let features = features.map_err(|error| (runtime_failure("FailedCreatePodSandBox", &error), Some(error)))?;
        if !features.user_namespaces {
            return Err(refused(CANNOT.to_owned()));
        }
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(pod));
        let give = move || {
            let options = &context.options;
            volumes::claim(&options.root_dir, &pod.uid)?;
            volumes::users::give(&options.root_dir, &pod.uid, options.node.max_pods)
        };
        match tokio::task::spawn_blocking(give).await {
            Ok(given) => given.map(Some).map_err(|error| refused(chain(&error))),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// Asks once what the runtime can, if that makes a difference to what the pod's status says.
    pub(in crate::agent::worker) async fn learn_features(&mut self) {
        let Some((pod, _)) = self.pod.as_ref().filter(|_| self.features.is_none() && !self.suspended) else { return };
        let mut mounts = pod.containers().flat_map(|(_, container)| container.volume_mounts.iter().flatten());
        if mounts.any(|mount| mount.recursive_read_only.is_some()) {
            self.features = self.context.runtime.features().await.ok();
        }
    }

    /// What the runtime can, if that makes a difference to a container; nothing where it does not say.
    pub(super) async fn features_for(&self, pod: &StaticPod, name: &str) -> RuntimeFeatures {
        let container = pod.container(name);
        if container.is_none_or(|container| !config::asks_for_features(pod, container)) {
            return RuntimeFeatures::default();
        }
        self.context.runtime.features().await.unwrap_or_default()
    }
}
