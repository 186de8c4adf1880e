//! Pulling the images that `init` needs while certificates are made.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::ClusterSpec;
use crate::event::{Event, Reporter};
use crate::manifests;
use crate::runtime::images::{ImagesError, ensure_images};
use crate::runtime::{ContainerRuntime, RuntimeError};

/// The images without which the node does not come up.
pub fn needed(spec: &ClusterSpec) -> Vec<String> {
    manifests::images(spec).into_iter().filter(|image| !image.optional).map(|image| image.reference).collect()
}

/// Images on their way; dropping this stops the pulls.
pub struct Pulls {
    pulls: JoinHandle<Result<Vec<String>, ImagesError>>,
    /// Whether any is being pulled: as a rule all of them are there.
    pulling: watch::Receiver<bool>,
}

/// Passes events on, and notices that an image is being pulled.
struct Noticing {
    reporter: Arc<dyn Reporter>,
    pulling: watch::Sender<bool>,
}

impl Reporter for Noticing {
    fn event(&self, event: Event) {
        if matches!(event, Event::Pull { .. }) {
            self.pulling.send_if_modified(|pulling| !std::mem::replace(pulling, true));
        }
        self.reporter.event(event);
    }
}

impl Pulls {
    /// Starts pulling those that `spec` needs and its pull policy asks for.
    pub fn start(runtime: Arc<dyn ContainerRuntime>, spec: &ClusterSpec, reporter: Arc<dyn Reporter>) -> Self {
        let (references, policy) = (needed(spec), spec.node.image_pull_policy);
        let (sender, pulling) = watch::channel(false);
        let noticing = Noticing { reporter, pulling: sender };
        Self {
            pulls: tokio::spawn(async move { ensure_images(&*runtime, &references, policy, &noticing).await }),
            pulling,
        }
    }

    /// Waits until all are there; `waits` is called once where that takes a pull.
    pub async fn wait(mut self, waits: impl FnOnce()) -> Result<(), ImagesError> {
        // What `wait_for` returns holds a lock that the next event would wait for.
        let is_pulled = async { self.pulling.wait_for(|pulling| *pulling).await.is_ok() };
        let done = tokio::select! {
            biased;
            done = &mut self.pulls => Some(done),
            true = is_pulled => None,
        };
        let done = match done {
            Some(done) => done,
            None => {
                waits();
                (&mut self.pulls).await
            }
        };
        match done {
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
        self.pulls.abort();
    }
}
