//! Lifecycle hooks of containers: what runs right after a start (`postStart`) and before a stop (`preStop`).
//!
//! A hook has no time limit of its own. A `postStart` hook holds back the pod's further starts, a `preStop` hook lives on
//! the grace period of what it precedes; both limits are the worker's business, not this room's.

mod http;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerPort, LifecycleHandler};
use rustls::ClientConfig;

use super::probe::{self, HttpGet};
use crate::host::clock;
use crate::runtime::{ContainerRuntime, RuntimeError};

/// What a command may take that has no limit: longer than any caller waits, short enough for every clock.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// What is kept of a failing command's output.
const SHOWN: usize = 200;

/// Which of the two hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// Right after the start.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Run this in the container, not in a shell; exit code 0 is a success.
    Exec(Vec<String>),
    /// GET this; any status is a success.
    Http(HttpGet),
    /// Wait this long.
    Sleep(Duration),
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It says nothing that could be done.
    #[error("the hook cannot be run: {0}")]
    Unusable(String),
    /// The command ended badly.
    #[error("{command} exited with code {code}{}{output}", if output.is_empty() { "" } else { ": " })]
    Exit {
        /// The command.
        command: String,
        /// Its exit code.
        code: i64,
        /// The beginning of its output.
        output: String,
    },
    /// The command could not be run.
    #[error("the command could not be run in the container")]
    Runtime(#[source] RuntimeError),
    /// No server answered.
    #[error("{0}")]
    Http(String),
    /// The pod has no address that could be asked.
    #[error("the pod has no address to send the request to")]
    NoAddress,
    /// The grace period was over.
    #[error("abandoned after {} s, when the grace period was over", .0.as_secs())]
    Abandoned(Duration),
}

/// Where a hook runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The runtime's id of the container.
    pub container: String,
    /// Address of the pod, this machine's for one on its network; None while it has none.
    pub address: Option<String>,
}

impl Hook {
    /// Reads a hook; a port name is looked up among the container's ports.
    ///
    /// # Errors
    /// [`HookError::Unusable`] for a handler without or with more than one action, and for `tcpSocket`, which Kubernetes
    /// has given up.
    pub fn of(handler: &LifecycleHandler, ports: &[ContainerPort]) -> Result<Self, HookError> {
        let unusable = |why: &str| Err(HookError::Unusable(why.to_owned()));
        match (&handler.exec, &handler.http_get, &handler.sleep) {
            (Some(exec), None, None) => match exec.command.clone().unwrap_or_default() {
                command if command.is_empty() => unusable("exec has no command"),
                command => Ok(Self::Exec(command)),
            },
            (None, Some(get), None) => Ok(Self::Http(HttpGet::of(get, ports).map_err(HookError::Unusable)?)),
            (None, None, Some(sleep)) => Ok(Self::Sleep(clock::seconds(sleep.seconds))),
            (None, None, None) if handler.tcp_socket.is_some() => unusable("tcpSocket is not supported in hooks"),
            (None, None, None) => unusable("it has none of exec, httpGet and sleep"),
            _ => unusable("it has more than one of exec, httpGet and sleep"),
        }
    }

    /// Reads a hook out of the annotations it is kept in, both JSON: the handler and the container's ports.
    ///
    /// # Errors
    /// As [`Hook::of`], and for what is no JSON.
    pub fn of_json(handler: &str, ports: Option<&str>) -> Result<Self, HookError> {
        let bad = |error: serde_json::Error| HookError::Unusable(error.to_string());
        let handler: LifecycleHandler = serde_json::from_str(handler).map_err(bad)?;
        let ports: Vec<ContainerPort> = ports.map_or(Ok(vec![]), serde_json::from_str).map_err(bad)?;
        Self::of(&handler, &ports)
    }
}

/// Runs hooks.
pub struct Runner {
    runtime: Arc<dyn ContainerRuntime>,
    tls: Result<Arc<ClientConfig>, rustls::Error>,
}

impl Runner {
    /// A runner whose commands go through `runtime`.
    pub fn new(runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self { runtime, tls: probe::client_config() }
    }

    /// Runs a hook to its end, for `limit` at most.
    ///
    /// # Errors
    /// See [`HookError`].
    pub async fn run(&self, hook: &Hook, place: &Place, limit: Option<Duration>) -> Result<(), HookError> {
        let limit = limit.unwrap_or(NO_LIMIT);
        let done = async {
            match hook {
                Hook::Sleep(time) => {
                    tokio::time::sleep(*time).await;
                    Ok(())
                }
                Hook::Exec(command) => self.exec(command.clone(), place.container.clone()).await,
                Hook::Http(get) => self.get(get, place.address.as_deref()).await,
            }
        };
        tokio::time::timeout(limit, done).await.unwrap_or(Err(HookError::Abandoned(limit)))
    }

    /// A command goes on when it is no more waited for: it has what is left of its container's life, as with a kubelet.
    async fn exec(&self, command: Vec<String>, container: String) -> Result<(), HookError> {
        let runtime = Arc::clone(&self.runtime);
        let shown = command.join(" ");
        let running = tokio::spawn(async move { runtime.exec(&container, &command, NO_LIMIT).await });
        match running.await {
            Ok(Ok(output)) if output.exit_code == 0 => Ok(()),
            Ok(Ok(output)) => Err(HookError::Exit {
                command: shown,
                code: output.exit_code,
                output: output.output.trim().chars().take(SHOWN).collect(),
            }),
            Ok(Err(RuntimeError::Timeout { limit, .. })) => Err(HookError::Abandoned(limit)),
            Ok(Err(error)) => Err(HookError::Runtime(error)),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Nothing but the agent's own end cuts it off.
                Err(_) => Err(HookError::Abandoned(Duration::ZERO)),
            },
        }
    }

    async fn get(&self, get: &HttpGet, address: Option<&str>) -> Result<(), HookError> {
        let tls = self.tls.as_ref().map_err(|error| HookError::Http(format!("cannot speak TLS: {error}")))?;
        let host = get.host.as_deref().or(address).ok_or(HookError::NoAddress)?;
        http::get(tls, get, host).await
    }
}

#[cfg(test)]
mod tests;
