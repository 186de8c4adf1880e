//! A runtime that speaks CRI (containerd, CRI-O) at its unix socket, with the kubelet's labels and annotations.
//!
//! In CRI a container lives in a sandbox always, a sandbox is made and started in one call, and the log is a file below
//! /var/log/pods that the runtime writes and the agent rotates.

mod calls;
mod events;
mod exec;
mod images;
mod known;
mod logs;
mod machine;
mod proto;
mod record;
pub(crate) mod rpc;
mod sandboxes;
mod spec;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use super::*;
use rpc::{CALL, Rpc};
pub use sandboxes::{Sandbox, Sandboxes};

/// Package names of the API, newest first. Kubelets before 1.26 and their runtimes know the second one.
const PACKAGES: [&str; 2] = ["runtime.v1", "runtime.v1alpha2"];

/// Calls that a runtime must not be left in the middle of: whether their callers are gone or not, their answers are waited
/// for. containerd ends what a call has begun when its client goes, a network plugin too, and a plugin that was killed half
/// way through taking a network away finds nothing to take away the next time.
const CHANGES: [&str; 6] =
    ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "CreateContainer", "StartContainer", "RemoveContainer"];

/// A runtime behind a socket.
///
/// Nothing is connected before the first call, and a connection that was lost comes back with the next one.
#[derive(Clone)]
pub struct Cri(Arc<Shared>);

struct Shared {
    rpc: Rpc,
    /// Which version of the API is spoken, and with whom.
    spoken: OnceCell<(&'static str, RuntimeVersion)>,
    /// The lowest OOM score adjustment that containers may have, None without a limit.
    oom_score_floor: Option<i64>,
    /// Containers as they were last looked at.
    known: known::Known,
    /// The changes under way.
    changes: TaskTracker,
}

impl Cri {
    /// Points at a `unix://` URL. Whether somebody answers there shows in the first call.
    ///
    /// # Errors
    /// [`RuntimeError::Unreachable`] for an address that cannot be one.
    pub fn new(address: &str) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            rpc: Rpc::new(address)?,
            spoken: OnceCell::new(),
            oom_score_floor: oom::floor(),
            known: known::Known::default(),
            changes: TaskTracker::new(),
        })))
    }

    /// Connects to `address`, a `unix://` URL, in the newest version of the API that it speaks.
    ///
    /// # Errors
    /// No one answers there, or no one that speaks CRI.
    pub async fn connect(address: &str) -> Result<Self> {
        let cri = Self::new(address)?;
        cri.spoken().await?;
        Ok(cri)
    }

    /// The URL.
    pub fn address(&self) -> &str {
        self.0.rpc.address()
    }

    /// Which version of the API is spoken, and with whom.
    async fn spoken(&self) -> Result<&(&'static str, RuntimeVersion)> {
        self.0.spoken.get_or_try_init(|| self.negotiate()).await
    }

    async fn negotiate(&self) -> Result<(&'static str, RuntimeVersion)> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Unreachable {
            address: self.address().to_owned(),
            source,
        };
        for package in PACKAGES {
            let question = proto::VersionRequest { version: "0.1.0".to_owned() };
            let path = format!("/{package}.RuntimeService/Version");
            match self.0.rpc.unary::<_, proto::VersionResponse>(&path, question, Some(rpc::CONNECT)).await {
                Ok(answer) => {
                    let version = RuntimeVersion {
                        name: answer.runtime_name,
                        version: answer.runtime_version,
                        api_version: answer.runtime_api_version,
                    };
                    return Ok((package, version));
                }
                Err(status) if status.code() == Code::Unimplemented => {}
                Err(status) => return Err(unreachable(rpc::cause(&status))),
            }
        }
        Err(unreachable("it does not speak CRI: is its plugin cri disabled?".into()))
    }

    /// A call of the runtime service, within the usual limit.
    async fn call<Q, A>(&self, method: &str, question: Q) -> std::result::Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_within("RuntimeService", method, question, Some(CALL)).await
    }

    async fn call_within<Q, A>(
        &self,
        service: &str,
        method: &str,
        question: Q,
        limit: Option<Duration>,
    ) -> std::result::Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let package = self.spoken().await.map_err(|error| Status::from_error(Box::new(error)))?.0;
        let path = format!("/{package}.{service}/{method}");
        if !CHANGES.contains(&method) {
            return self.0.rpc.unary(&path, question, limit).await;
        }
        let rpc = self.0.rpc.clone();
        let change = self.0.changes.spawn(async move { rpc.unary(&path, question, limit).await });
        change.await.unwrap_or_else(|error| Err(Status::from_error(Box::new(error))))
    }

    /// [`Rpc::error`].
    fn error(&self, call: &str, what: &str, status: Status) -> RuntimeError {
        self.0.rpc.error(call, what, status)
    }

    /// An OOM score adjustment this machine allows.
    fn allowed_oom_score_adj(&self, wanted: i64) -> i64 {
        oom::allowed(self.0.oom_score_floor, wanted)
    }

    /// What the API calls this runtime.
    fn scheme(&self) -> &'static str {
        match self.0.spoken.get() {
            Some((_, version)) if version.name == "cri-o" => "cri-o",
            _ => "containerd",
        }
    }

    /// Whether it is containerd, whose own services at the same socket say more.
    async fn is_containerd(&self) -> Result<bool> {
        Ok(self.spoken().await?.1.name == "containerd")
    }
}

#[async_trait]
impl ContainerRuntime for Cri {
    async fn version(&self) -> Result<RuntimeVersion> {
        self.get_version().await
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        self.get_cgroup_driver().await
    }

    fn needs_sandbox(&self) -> bool {
        true
    }

    async fn list(&self, owner: &str) -> Result<Vec<ContainerRecord>> {
        self.list_all(owner).await
    }

    async fn inspect(&self, id: &str) -> Result<ContainerRecord> {
        self.look_at(id).await
    }

    async fn create_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.run_sandbox(config).await
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String> {
        self.make_container(config).await
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.start_container(id).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        self.stop_container(id, grace).await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.remove_any(id).await
    }

    async fn finish(&self) {
        self.0.changes.close();
        self.0.changes.wait().await;
        self.0.changes.reopen();
    }

    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecOutput> {
        self.exec_limited(id, command, limit).await
    }

    async fn log_tail(&self, id: &str, lines: usize) -> Result<Vec<String>> {
        self.last_log_lines(id, lines).await
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.read_log(id, options).await
    }

    async fn log_path(&self, id: &str) -> Result<Option<String>> {
        let path = self.container_status(id).await?.log_path;
        Ok(Some(path).filter(|path| !path.is_empty()))
    }

    async fn reopen_log(&self, id: &str) -> Result<bool> {
        let question = proto::ById { id: id.to_owned() };
        let done = self.call::<_, proto::Empty>("ReopenContainerLog", question).await;
        done.map_err(|status| self.error("reopen the log of a container", &format!("container {id}"), status))?;
        Ok(true)
    }

    async fn events(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>> {
        self.subscribe(owner).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageRecord>> {
        self.image_status(reference).await
    }

    async fn images(&self) -> Result<Vec<StoredImage>> {
        self.list_images().await
    }

    async fn pull(
        &self,
        reference: &str,
        credential: Option<&Credential>,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<ImageRecord> {
        self.pull_image(reference, credential, progress).await
    }

    fn streaming(&self) -> Option<&dyn streaming::Streaming> {
        Some(self)
    }

    async fn pod_network(&self) -> Result<PodNetwork> {
        self.network_of_pods().await
    }

    async fn features(&self) -> Result<RuntimeFeatures> {
        self.get_features().await
    }

    async fn image_file_system(&self) -> Result<Option<ImageFileSystem>> {
        self.get_image_file_system().await
    }

    async fn process(&self, id: &str) -> Result<Process> {
        self.main_process(id).await
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        self.delete_image(reference).await
    }
}
