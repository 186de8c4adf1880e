//! The little of the Container Runtime Interface that `join` and `reset` need on a node with a real kubelet: whether
//! the runtime answers, and taking the kubelet's pod sandboxes away.
//!
//! Messages are those fields of `k8s.io/cri-api`'s `api.proto` that are used here; both versions of the API have them
//! under the same numbers.

use std::time::Duration;

use async_trait::async_trait;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::{Result, RuntimeError};

/// Newest first. Kubelets before 1.26 and their runtimes know the second one.
const SERVICES: [&str; 2] = ["runtime.v1.RuntimeService", "runtime.v1alpha2.RuntimeService"];
/// A runtime on this machine answers at once or is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// Stopping a sandbox takes its network down, which a plugin may make long.
const CALL: Duration = Duration::from_secs(60);

/// A pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id of it.
    pub id: String,
    /// `namespace/name` of the pod.
    pub pod: String,
}

/// What `join` and `reset` ask of a runtime that a kubelet uses.
#[async_trait]
pub trait Sandboxes: Send + Sync {
    /// Name and version (`containerd 1.6.20`).
    async fn version(&self) -> Result<String>;

    /// Whether it knows the call RuntimeConfig, with which newer kubelets ask for its cgroup driver.
    async fn has_runtime_config(&self) -> Result<bool>;

    /// Every sandbox.
    async fn list(&self) -> Result<Vec<Sandbox>>;

    /// Stops and removes a sandbox with the containers in it; that it is gone already is fine.
    async fn remove(&self, id: &str) -> Result<()>;
}

/// A runtime behind a socket.
pub struct Cri {
    address: String,
    channel: Channel,
    service: &'static str,
}

#[derive(Clone, PartialEq, Message)]
struct VersionRequest {
    #[prost(string, tag = "1")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct ById {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

impl Cri {
    /// Connects to `address`, a `unix://` URL, in the newest version of the API that it speaks.
    ///
    /// # Errors
    /// Nobody answers there, or nobody that speaks CRI.
    pub async fn connect(address: &str) -> Result<Self> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Unreachable {
            address: address.to_owned(),
            source,
        };
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|e| unreachable(e.into()))?;
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(CALL);
        let channel = timeout(CONNECT, endpoint.connect()).await.map_err(|e| unreachable(e.into()))?;
        let channel = channel.map_err(|e| unreachable(e.into()))?;
        let mut cri = Self { address: address.to_owned(), channel, service: SERVICES[0] };
        for service in SERVICES {
            cri.service = service;
            match cri.call::<_, VersionResponse>("Version", VersionRequest { version: "0.1.0".into() }).await {
                Ok(_) => return Ok(cri),
                Err(status) if status.code() == Code::Unimplemented => {}
                Err(status) => return Err(unreachable(status.into())),
            }
        }
        Err(unreachable("it does not speak CRI: is its plugin cri disabled?".into()))
    }

    async fn call<Q, A>(&self, method: &str, question: Q) -> std::result::Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = format!("/{}/{method}", self.service);
        let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = client.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    fn refused(&self, call: &str, status: &Status) -> RuntimeError {
        let message = format!("{} ({:?})", status.message(), status.code());
        RuntimeError::Refused { call: format!("{call} at {}", self.address), message }
    }
}

#[async_trait]
impl Sandboxes for Cri {
    async fn version(&self) -> Result<String> {
        let question = VersionRequest { version: "0.1.0".into() };
        let answer: VersionResponse =
            self.call("Version", question).await.map_err(|status| self.refused("ask for the version", &status))?;
        Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
    }

    async fn has_runtime_config(&self) -> Result<bool> {
        match self.call::<_, Empty>("RuntimeConfig", Empty {}).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::Unimplemented => Ok(false),
            Err(status) => Err(self.refused("ask for the configuration", &status)),
        }
    }

    async fn list(&self) -> Result<Vec<Sandbox>> {
        let answer: ListResponse = self
            .call("ListPodSandbox", Empty {})
            .await
            .map_err(|status| self.refused("list pod sandboxes", &status))?;
        let sandbox = |one: PodSandbox| {
            let Metadata { name, namespace } = one.metadata.unwrap_or_default();
            Sandbox { id: one.id, pod: format!("{namespace}/{name}") }
        };
        Ok(answer.items.into_iter().map(sandbox).collect())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        for (method, call) in [("StopPodSandbox", "stop pod sandbox"), ("RemovePodSandbox", "remove pod sandbox")] {
            match self.call::<_, Empty>(method, ById { pod_sandbox_id: id.to_owned() }).await {
                Err(status) if status.code() == Code::NotFound => return Ok(()),
                done => done.map(drop).map_err(|status| self.refused(&format!("{call} {id}"), &status))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let error = Cri::connect("unix:///nonexistent/cri.sock").await.err().unwrap();
        assert_eq!(error.to_string(), "cannot reach the container runtime at unix:///nonexistent/cri.sock");
    }

    #[tokio::test]
    async fn somebody_who_does_not_speak_it_is_no_runtime() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = tokio::net::UnixListener::bind(&path).unwrap();
        let closes = async {
            loop {
                drop(socket.accept().await);
            }
        };
        let address = format!("unix://{}", path.display());
        let error = tokio::select! {
            result = Cri::connect(&address) => result.err().unwrap(),
            () = closes => unreachable!(),
        };
        assert!(matches!(error, RuntimeError::Unreachable { .. }), "{error}");
    }
}
