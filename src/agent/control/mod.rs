//! The control socket: who connects and asks gets the health report, once or with each change.
//!
//! One JSON line is the request, such as `{"version":1,"request":"report"}`. The answers are JSON lines too:
//!
//! | request | answer |
//! |---|---|
//! | `report` | one [`HealthReport`](crate::agent::report::HealthReport) |
//! | `watch` | the present one, then each that follows |
//! | `pods` | one [`PodList`] |
//! | `events` | every [`Event`](crate::agent::events::Event) that is kept, oldest first, one a line |
//! | `watch-events` | these, then each that follows |
//! | `restart`, with the UID of a pod in `uid` | an empty object: it is being stopped, and started again then |
//! | `upgrade` | an empty object: what carries upgrades out looks whether one has been ordered |
//! | `logs`, with the fields of a [`LogRequest`] in `log` | an empty object, and behind it the log as it is |
//!
//! A request that cannot be answered gets `{"error":"..."}` and the end.

pub mod restart;
pub mod expect;
pub mod report;
mod client;
pub mod log;
mod server;

pub use crate::host::socket::Listener;
pub use client::{ControlSocket, Log, events, logs, look_for_upgrade, pods, report, restart, watch};
pub use server::{bind, serve};

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use super::events::Recorder;
use crate::agent::control::log::{LogError, LogRequest};
use crate::agent::control::report::PodReport;
use crate::runtime;

/// The protocol's version. A missing one in a request means 1.
pub const VERSION: u32 = 1;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    #[serde(default = "first_version")]
    version: u32,
    request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<LogRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
}

/// Every pod that is wanted or still being stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PodList {
    /// By namespace and name.
    pub pods: Vec<PodView>,
}

/// A pod in the API's terms and in the agent's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodView {
    /// As the API would show it.
    pub pod: Pod,
    /// As the agent reports it.
    pub report: PodReport,
}

/// What the socket answers from, besides the reports.
#[async_trait]
pub trait AgentView: Send + Sync {
    /// Every pod that is wanted or still being stopped.
    fn pods(&self) -> PodList;

    /// What happened.
    fn events(&self) -> &Recorder;

    /// A container's log.
    async fn logs(&self, wanted: &LogRequest) -> Result<BoxStream<'static, runtime::Result<Bytes>>, LogError>;

    /// Has who carries upgrades out look for one that was ordered; returns whether there is somebody.
    fn look_for_upgrade(&self) -> bool;

    /// Stops a pod and starts it again; returns whether there is one of this UID.
    fn restart(&self, uid: &str) -> bool;
}

/// What a client gets that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    error: String,
}

fn first_version() -> u32 {
    1
}

/// What can go wrong on the control socket, on either side.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No one answers.
    #[error("no agent answers at {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What connecting to it said.
        #[source]
        source: io::Error,
    },
    /// The socket belongs to another user.
    #[error("may not talk to the agent at {}: run this as root", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// What connecting to it said.
        #[source]
        source: io::Error,
    },
    /// The agent did not take the request.
    #[error("the agent at {} refused: {message}", socket.display())]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// The agent's words.
        message: String,
    },
    /// What came is no answer to what was asked; most likely the agent is of another version.
    #[error("the agent at {} sent something that is no answer; is it of another version?", socket.display())]
    Malformed {
        /// The socket.
        socket: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The connection broke off.
    #[error("lost the connection to the agent at {}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent already listens on the socket that is to be served.
    #[error("another agent listens at {}: stop it first, or choose another --control-socket", socket.display())]
    InUse {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen at {}", socket.display())]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
