//! The class of runtime that a pod asks for.

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;

use super::Failure;
use crate::agent::apiserver::call::within_limit;
use crate::agent::pod::StaticPod;
use crate::agent::worker::Worker;
use crate::error::chain;

impl Worker {
    /// The runtime's handler for the pod's `runtimeClassName`, empty for its own choice. As with a kubelet, classes are
    /// objects of an API server: without one the field means nothing.
    ///
    /// # Errors
    /// There is no such class, or no API server to ask.
    pub(super) async fn runtime_handler(&self, pod: &StaticPod) -> Result<String, Failure> {
        let class = pod.spec.runtime_class_name.as_deref().filter(|name| !name.is_empty());
        let (Some(class), Some(api)) = (class, &self.context.api) else { return Ok(String::new()) };
        let failed = |why: String| Failure::new("CreatePodSandboxError", why);
        let client = api.client().ok_or_else(|| {
            failed(format!("failed to lookup RuntimeClass {class}: there are no credentials for the API server yet"))
        })?;
        match within_limit(Api::<RuntimeClass>::all(client).get_opt(class)).await {
            Ok(Some(found)) => Ok(found.handler),
            Ok(None) => Err(failed(format!("runtimeclass.node.k8s.io {class:?} not found"))),
            Err(error) => Err(failed(format!("failed to lookup RuntimeClass {class}: {}", chain(&error)))),
        }
    }
}
