//! How often the container runtime is asked for what, how often it refuses, and how long it takes, under the names that a
//! kubelet has for its operations.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::histogram::{Counters, Histograms, OPERATIONS};
use crate::host::clock::Instant;
use crate::runtime::{
    CgroupDriver, ContainerConfig, ContainerRecord, ContainerRuntime, Credential, ExecOutput, ImageFileSystem,
    ImageRecord, LogOptions, PodNetwork, Process, Result, RuntimeEvent, RuntimeFeatures, RuntimeVersion, SandboxConfig,
    StoredImage, streaming,
};

/// All operations by their names.
#[derive(Debug)]
pub struct Operations {
    /// How long they took. Their counts are how often they were done.
    pub times: Histograms<1>,
    /// How often they failed.
    pub errors: Counters<1>,
}

impl Default for Operations {
    fn default() -> Self {
        Self { times: Histograms::new(OPERATIONS), errors: Counters::default() }
    }
}

impl Operations {
    fn note(&self, name: &'static str, took: Duration, failed: bool) {
        self.times.time([name.into()], took);
        if failed {
            self.errors.count([name.into()]);
        }
    }
}

/// A runtime of which everything that is asked is counted.
pub struct Counted {
    inner: Arc<dyn ContainerRuntime>,
    operations: Arc<Operations>,
}

impl Counted {
    /// Counts what is asked of `inner` in `operations`.
    pub fn new(inner: Arc<dyn ContainerRuntime>, operations: Arc<Operations>) -> Self {
        Self { inner, operations }
    }

    async fn count<T>(&self, name: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let started = Instant::now();
        let result = call.await;
        self.operations.note(name, started.elapsed(), result.is_err());
        result
    }
}

#[async_trait]
impl ContainerRuntime for Counted {
    async fn version(&self) -> Result<RuntimeVersion> {
        self.count("version", self.inner.version()).await
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        self.inner.cgroup_driver().await
    }

    fn needs_sandbox(&self) -> bool {
        self.inner.needs_sandbox()
    }

    async fn list(&self, owner: &str) -> Result<Vec<ContainerRecord>> {
        self.count("list_containers", self.inner.list(owner)).await
    }

    async fn inspect(&self, id: &str) -> Result<ContainerRecord> {
        self.count("container_status", self.inner.inspect(id)).await
    }

    async fn create_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.count("run_podsandbox", self.inner.create_sandbox(config)).await
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String> {
        self.count("create_container", self.inner.create_container(config)).await
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.count("start_container", self.inner.start(id)).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        self.count("stop_container", self.inner.stop(id, grace)).await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.count("remove_container", self.inner.remove(id)).await
    }

    async fn finish(&self) {
        self.inner.finish().await;
    }

    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecOutput> {
        self.count("exec_sync", self.inner.exec(id, command, limit)).await
    }

    async fn log_tail(&self, id: &str, lines: usize) -> Result<Vec<String>> {
        self.inner.log_tail(id, lines).await
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.inner.logs(id, options).await
    }

    async fn log_path(&self, id: &str) -> Result<Option<String>> {
        self.inner.log_path(id).await
    }

    async fn reopen_log(&self, id: &str) -> Result<bool> {
        self.count("reopen_container_log", self.inner.reopen_log(id)).await
    }

    async fn events(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>> {
        self.inner.events(owner).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageRecord>> {
        self.count("image_status", self.inner.image(reference)).await
    }

    async fn pull(
        &self,
        reference: &str,
        credential: Option<&Credential>,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<ImageRecord> {
        self.count("pull_image", self.inner.pull(reference, credential, progress)).await
    }

    fn streaming(&self) -> Option<&dyn streaming::Streaming> {
        self.inner.streaming()
    }

    async fn images(&self) -> Result<Vec<StoredImage>> {
        self.count("list_images", self.inner.images()).await
    }

    async fn pod_network(&self) -> Result<PodNetwork> {
        self.count("status", self.inner.pod_network()).await
    }

    async fn features(&self) -> Result<RuntimeFeatures> {
        self.inner.features().await
    }

    async fn image_file_system(&self) -> Result<Option<ImageFileSystem>> {
        self.count("image_fs_info", self.inner.image_file_system()).await
    }

    async fn process(&self, id: &str) -> Result<Process> {
        self.inner.process(id).await
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        self.count("remove_image", self.inner.remove_image(reference)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RuntimeError;
    use crate::testing::runtime::FakeRuntime;

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_of_the_runtime_is_counted_with_its_failures() {
        let (fake, operations) = (FakeRuntime::new().with_image("x:1"), Arc::new(Operations::default()));
        fake.fail_nth("image", 2, RuntimeError::Refused { call: "image".into(), message: "no".into() });
        let counted = Counted::new(Arc::new(fake), Arc::clone(&operations));
        assert!(counted.image("x:1").await.is_ok() && counted.image("x:1").await.is_err());
        counted.list("o").await.unwrap();
        let (times, errors) = (operations.times.all(), operations.errors.all());
        let names: Vec<_> = times.iter().map(|(labels, _)| labels[0].as_ref()).collect();
        assert_eq!(names, ["image_status", "list_containers"]);
        assert_eq!(
            (times[0].1.count, times[0].1.within[0], errors.as_slice()),
            (2, 2, [(["image_status".into()], 1)].as_slice())
        );
    }
}
