//! What `join` and `reset` need of the runtime of a node with a real kubelet: whether it answers, and taking the
//! kubelet's pod sandboxes away.

use async_trait::async_trait;
use tonic::{Code, Status};

use super::{Cri, proto};
use crate::runtime::{Result, RuntimeError};

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

impl Cri {
    fn refused(&self, call: &str, status: &Status) -> RuntimeError {
        let message = format!("{} ({:?})", status.message(), status.code());
        RuntimeError::Refused { call: format!("{call} at {}", self.address()), message }
    }
}

#[async_trait]
impl Sandboxes for Cri {
    async fn version(&self) -> Result<String> {
        let version = self.get_version().await?;
        Ok(format!("{} {}", version.name, version.version))
    }

    async fn has_runtime_config(&self) -> Result<bool> {
        match self.call::<_, proto::Empty>("RuntimeConfig", proto::Empty {}).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::Unimplemented => Ok(false),
            Err(status) => Err(self.refused("ask for the configuration", &status)),
        }
    }

    async fn list(&self) -> Result<Vec<Sandbox>> {
        let answer: proto::ListPodSandboxResponse = self
            .call("ListPodSandbox", proto::Empty {})
            .await
            .map_err(|status| self.refused("list pod sandboxes", &status))?;
        let sandbox = |one: proto::PodSandbox| {
            let metadata = one.metadata.unwrap_or_default();
            Sandbox { id: one.id, pod: format!("{}/{}", metadata.namespace, metadata.name) }
        };
        Ok(answer.items.into_iter().map(sandbox).collect())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.remove_sandbox(id).await
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let error = Cri::connect("unix:///nonexistent/cri.sock").await.err().unwrap();
        assert_eq!(error.to_string(), "cannot reach the container runtime at unix:///nonexistent/cri.sock");
        let away = Cri::new("unix:///nonexistent/cri.sock").unwrap().list_all("owner").await.unwrap_err();
        for error in [error, away] {
            assert_eq!(error.source().unwrap().to_string(), "No such file or directory (os error 2)");
            assert!(error.source().unwrap().source().is_none());
        }
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
