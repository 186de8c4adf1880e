//! Pulling the images that `init` needs while certificates are made.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::config::ClusterSpec;
use crate::event::Reporter;
use crate::release;
use crate::runtime::images::{ImagesError, ensure_images};
use crate::runtime::{ContainerRuntime, RuntimeError};

/// The images without which the node does not come up.
pub fn needed(spec: &ClusterSpec) -> Vec<String> {
    release::images(spec).into_iter().filter(|image| !image.optional).map(|image| image.reference).collect()
}

/// Images on their way; dropping this stops the pulls.
pub struct Pulls(JoinHandle<Result<Vec<String>, ImagesError>>);

impl Pulls {
    /// Starts pulling those that `spec` needs and its pull policy asks for.
    pub fn start(runtime: Arc<dyn ContainerRuntime>, spec: &ClusterSpec, reporter: Arc<dyn Reporter>) -> Self {
        let (references, policy) = (needed(spec), spec.node.image_pull_policy);
        Self(tokio::spawn(async move { ensure_images(&*runtime, &references, policy, &*reporter).await }))
    }

    /// Waits until all are there.
    pub async fn wait(mut self) -> Result<(), ImagesError> {
        match (&mut self.0).await {
            Ok(result) => result.map(drop),
            Err(error) => Err(ImagesError::Runtime(RuntimeError::Refused {
                call: "pull images".into(),
                message: error.to_string(),
            })),
        }
    }
}

impl Drop for Pulls {
    fn drop(&mut self) {
        self.0.abort();
    }
}
