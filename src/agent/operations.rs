//! How often the container runtime is asked for what, how often it refuses, and how long it takes, under the names that a
//! kubelet has for its operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::host::clock::Instant;
use crate::runtime::{
    CgroupDriver, ContainerConfig, ContainerRecord, ContainerRuntime, Credential, ExecOutput, ImageRecord, LogOptions,
    PodNetwork, Process, Result, RuntimeEvent, RuntimeFeatures, RuntimeVersion, SandboxConfig, StoredImage, streaming,
};

/// Upper bounds of the buckets in seconds: the kubelet's, 5 ms and then two and a half times as much each.
pub const BUCKETS: [f64; 14] = [
    0.005,
    0.0125,
    0.03125,
    0.078_125,
    0.195_312_5,
    0.488_281_25,
    1.220_703_125,
    3.051_757_812_5,
    7.629_394_531_25,
    19.073_486_328_125,
    47.683_715_820_312_5,
    119.209_289_550_781_25,
    298.023_223_876_953_1,
    745.058_059_692_382_8,
];
/// The operation that looks at everything there is.
pub const LIST: &str = "list_containers";

/// What is counted of one operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Operation {
    /// How often it was done.
    pub count: u64,
    /// How often it failed.
    pub errors: u64,
    /// How often it took no longer than each of [`BUCKETS`].
    pub within: [u64; BUCKETS.len()],
    /// How long it took in all, in seconds.
    pub seconds: f64,
}

/// All operations by their names.
#[derive(Debug, Default)]
pub struct Operations(Mutex<BTreeMap<&'static str, Operation>>);

impl Operations {
    /// What was counted so far.
    pub fn all(&self) -> BTreeMap<&'static str, Operation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, name: &'static str, took: Duration, failed: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = all.entry(name).or_default();
        let seconds = took.as_secs_f64();
        operation.count = operation.count.saturating_add(1);
        operation.errors = operation.errors.saturating_add(u64::from(failed));
        operation.seconds += seconds;
        for (count, bound) in operation.within.iter_mut().zip(BUCKETS) {
            *count = count.saturating_add(u64::from(seconds <= bound));
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
        let begun = Instant::now();
        let result = call.await;
        self.operations.note(name, begun.elapsed(), result.is_err());
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
        self.count(LIST, self.inner.list(owner)).await
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
        let all = operations.all();
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), ["image_status", LIST]);
        let image = &all["image_status"];
        assert_eq!((image.count, image.errors, image.within[0]), (2, 1, 2));
        operations.note(LIST, Duration::from_secs(1), false);
        assert_eq!((operations.all()[LIST].within[5], operations.all()[LIST].within[6]), (1, 2));
    }
}
