//! Volumes of a pod as a whole: made before anything else of it, removed once it has ended.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Volume;
use tracing::warn;

use super::super::Worker;
use super::super::action::Plan;
use super::Failure;
use crate::agent::container::prepare::PrepareError;
use crate::agent::objects::store::ObjectScope;
use crate::agent::pod::StaticPod;
use crate::agent::volumes::{self, Inputs};
use crate::agent::wording;
use crate::error::chain;

impl Worker {
    /// Makes the volumes of a pod that has none of its containers yet, as the kubelet does before its sandbox and its images:
    /// a pod that waits for a config map has no address, and pulls nothing.
    pub(super) async fn mount_volumes(&self, pod: &Arc<StaticPod>) -> Result<(), Failure> {
        if pod.spec.volumes.as_ref().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        let objects = self.context.objects.objects(self.context.api.as_deref(), pod, ObjectScope::Files).await;
        let objects = objects.map_err(|why| Failure::new("ContainerCreating", wording::NOT_MOUNTED.with(&[&why])))?;
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(pod));
        let made = tokio::task::spawn_blocking(move || {
            let (root, inputs) = (&context.options.root_dir, Inputs { facts: &context.facts, objects: &objects });
            context.objects.alone(&pod, || {
                volumes::claim(root, &pod.uid)?;
                let mut made = |volume: &Volume, took, well| {
                    let result = if well { "success" } else { "fail-unknown" };
                    let labels = [volumes::plugin(volume), "volume_mount", result, "false"].map(Into::into);
                    context.metrics.storage.time(labels, took);
                };
                volumes::prepare_each(&pod, root, &inputs, &mut made).map_err(PrepareError::from)
            })
        });
        match made.await {
            Ok(made) => made.map_err(Failure::from),
            Err(crash) => Err(Failure::new("ContainerCreating", crash.to_string())),
        }
    }

    /// Removes the volumes of a pod that has ended, once nothing of it runs. They are tried once: what stays goes with the pod.
    pub(in crate::agent::worker) async fn release_volumes(&mut self, plan: &Plan) {
        let Some((pod, _)) = self.pod.as_ref().filter(|_| self.wanted && plan.finished.is_some()) else {
            self.released = false;
            return;
        };
        let mut own = self.seen.instances.values().filter(|one| one.record.name.uid == pod.uid);
        if self.released || own.any(|one| one.is_running() && !one.record.is_sandbox) {
            return;
        }
        self.released = true;
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(pod));
        let removal = tokio::task::spawn_blocking(move || {
            let remove = || volumes::remove_volumes(&context.options.root_dir, &pod.uid);
            if let Err(error) = context.objects.alone(&pod, remove) {
                warn!(pod = %pod.key, error = chain(&error), "volumes of a pod that has ended stay until it goes");
            }
        });
        let _ = removal.await;
    }
}
