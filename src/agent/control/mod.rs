//! The control socket: who connects and asks gets the health report, once or with each change.
//!
//! One JSON line is the request: `{"version":1,"request":"report"}` or `{"version":1,"request":"watch"}`. The answer is
//! one [`HealthReport`](crate::agent::report::HealthReport) a line: one and the end, or the present one and then each
//! that follows. A request that cannot be answered gets `{"error":"..."}` and the end.

mod client;
mod server;

pub use client::{ControlSocket, report, watch};
pub use server::{Listener, bind, serve};

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The protocol's version. A missing one in a request means 1.
pub const VERSION: u32 = 1;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    #[serde(default = "first_version")]
    version: u32,
    request: String,
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
    /// Nobody answers.
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
    /// What came is no report; most likely the agent is of another version.
    #[error("the agent at {} sent something that is no health report", socket.display())]
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
