//! Docker Engine (API 1.41 and newer), seen through its HTTP API, with dockershim's names and labels; and podman (4.3 and
//! newer) through the socket on which it speaks the same.

mod address;
pub mod build;
mod calls;
mod exec;
mod known;
mod linger;
mod logs;
mod podman;
mod progress;
mod raw;
mod record;
mod session;
mod spec;

use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error as BollardError;
use futures::stream::BoxStream;
use tokio::sync::OnceCell;

use super::*;
use crate::host::environment;
use address::Address;
use podman::Engine;

/// How long Docker may take to answer a call that does not wait for a container.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// A Docker daemon.
///
/// Nothing is kept open between calls, so that one value outlives every restart of the daemon.
pub struct Docker {
    address: Address,
    client: OnceCell<(bollard::Docker, Engine)>,
    /// The lowest OOM score adjustment that containers may have, None without a limit.
    oom_score_floor: Option<i64>,
    /// Containers as they were last looked at.
    known: known::Known,
    /// Whether the address is that of `DOCKER_HOST`.
    by_environment: bool,
}

impl Docker {
    /// Points at a daemon: `unix:///run/docker.sock`, a path, or `tcp://host:2375` (no TLS). None means `DOCKER_HOST`,
    /// else `/var/run/docker.sock`.
    ///
    /// Whether somebody answers there shows in the first call ([`ContainerRuntime::version`]): an agent may well start
    /// before its runtime does.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] for an address that cannot be one.
    pub fn connect(host: Option<&str>) -> Result<Self> {
        let from_environment = environment::docker_host();
        let address = Address::parse(host.or(from_environment.as_deref()).unwrap_or(address::DEFAULT))?;
        // A daemon elsewhere has rights of its own, which nothing here says anything of.
        let oom_score_floor = if address.is_local() { oom::floor() } else { None };
        let by_environment = host.is_none() && from_environment.is_some();
        let known = known::Known::default();
        Ok(Self { address, client: OnceCell::new(), oom_score_floor, known, by_environment })
    }

    /// The address, as a user would write it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The client, made at the first use and told the daemon's API version.
    async fn client(&self) -> Result<&bollard::Docker> {
        self.connection().await.map(|(client, _)| client)
    }

    /// Who answers.
    async fn engine(&self) -> Result<Engine> {
        self.connection().await.map(|(_, engine)| *engine)
    }

    async fn connection(&self) -> Result<&(bollard::Docker, Engine)> {
        let connect = async {
            let client = self.address.client(CALL_LIMIT)?.negotiate_version().await?;
            let engine = Engine::of(&client.version().await?);
            Ok((client, engine))
        };
        let connection = self.client.get_or_try_init(|| connect).await;
        connection.map_err(|error| {
            // The client looks for the socket itself, and wraps no error of the system's then.
            let is_missing = matches!(error, BollardError::SocketNotFoundError(_));
            match self.error("connect to docker", "docker", error) {
                RuntimeError::Unreachable { source, .. } => self.unreachable(is_missing, source),
                other => other,
            }
        })
    }

    /// That nothing answers, and why.
    fn unreachable(&self, is_missing: bool, source: Box<dyn std::error::Error + Send + Sync>) -> RuntimeError {
        let why = if is_missing { Silence::Missing } else { Silence::of(&*source) };
        let source = NoAnswer { why, by_environment: self.by_environment, source }.into();
        RuntimeError::Unreachable { address: self.address(), source }
    }

    /// Turns the client's error into the trait's: `call` is what was being done, `what` the thing it was done to.
    fn error(&self, call: &str, what: &str, error: BollardError) -> RuntimeError {
        translate(&self.address(), call, what, self.as_docker(error))
    }

    /// An error as Docker would answer it.
    fn as_docker(&self, error: BollardError) -> BollardError {
        if self.is_podman() { podman::as_docker(error) } else { error }
    }

    /// Whether podman has answered before.
    fn is_podman(&self) -> bool {
        self.client.get().is_some_and(|(_, engine)| *engine == Engine::Podman)
    }

    /// An OOM score adjustment this machine allows.
    fn allowed_oom_score_adj(&self, wanted: i64) -> i64 {
        oom::allowed(self.oom_score_floor, wanted)
    }
}

/// [`Docker::error`] for what outlives a call.
fn translate(address: &str, call: &str, what: &str, error: BollardError) -> RuntimeError {
    match error {
        BollardError::DockerResponseServerError { status_code: 404, .. } => {
            RuntimeError::NotFound { what: what.to_owned() }
        }
        BollardError::DockerResponseServerError { status_code: 409, message } => RuntimeError::Conflict { message },
        BollardError::DockerResponseServerError { message, .. } => {
            RuntimeError::Refused { call: call.to_owned(), message: message.trim().to_owned() }
        }
        BollardError::RequestTimeoutError => RuntimeError::Timeout { call: call.to_owned(), limit: CALL_LIMIT },
        BollardError::SocketNotFoundError(_)
        | BollardError::HyperLegacyError { .. }
        | BollardError::HyperResponseError { .. }
        | BollardError::IOError { .. } => {
            RuntimeError::Unreachable { address: address.to_owned(), source: Box::new(error) }
        }
        other => RuntimeError::Refused { call: call.to_owned(), message: other.to_string() },
    }
}

#[async_trait]
impl ContainerRuntime for Docker {
    async fn version(&self) -> Result<RuntimeVersion> {
        self.get_version().await
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        self.get_cgroup_driver().await
    }

    async fn list(&self, owner: &str) -> Result<Vec<ContainerRecord>> {
        self.list_containers(owner).await
    }

    async fn inspect(&self, id: &str) -> Result<ContainerRecord> {
        Ok(record::container(&self.inspect_container(id).await?))
    }

    async fn create_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        // As dockershim has it: the engine's containers are of one kind.
        if !["", "docker"].contains(&config.runtime_handler.as_str()) {
            let message = format!("RuntimeHandler {:?} not supported", config.runtime_handler);
            return Err(RuntimeError::Refused { call: format!("create sandbox {}", config.name), message });
        }
        let config =
            SandboxConfig { oom_score_adj: self.allowed_oom_score_adj(config.oom_score_adj), ..config.clone() };
        self.create(&config.name, &config.labels, spec::sandbox(&config)).await
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String> {
        let mut config = config.clone();
        config.resources.oom_score_adj = self.allowed_oom_score_adj(config.resources.oom_score_adj);
        self.create(&config.name, &config.labels, spec::container(&config)?).await
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.start_container(id).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        self.stop_container(id, grace).await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.remove_container(id).await
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
        Ok(self.inspect_container(id).await?.log_path.filter(|path| !path.is_empty()))
    }

    async fn events(&self, owner: &str) -> Result<BoxStream<'static, Result<RuntimeEvent>>> {
        self.subscribe(owner).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageRecord>> {
        self.inspect_image(reference).await
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

#[cfg(test)]
mod tests;
