//! Where the daemon listens.

use std::fmt;
use std::time::Duration;

use crate::runtime::{Result, RuntimeError};

/// Docker's own default.
pub const DEFAULT: &str = "unix:///var/run/docker.sock";

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket's path.
    Unix(String),
    /// `host:port`, plain HTTP.
    Tcp(String),
}

impl Address {
    /// Reads what `DOCKER_HOST` may hold; a path alone is a socket.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim_end_matches('/');
        let after = |scheme: &str| text.strip_prefix(scheme).filter(|rest| !rest.is_empty()).map(str::to_owned);
        if text.starts_with('/') {
            return Ok(Self::Unix(text.to_owned()));
        }
        if let Some(path) = after("unix://") {
            return Ok(Self::Unix(path));
        }
        if let Some(host) = after("tcp://").or_else(|| after("http://")) {
            return Ok(Self::Tcp(host));
        }
        Err(RuntimeError::Refused {
            call: "connect to docker".into(),
            message: format!(
                "{text:?} is no address: use unix:///path/to/docker.sock or tcp://host:port (DOCKER_HOST)"
            ),
        })
    }

    /// Whether the daemon runs on this machine, as far as the address tells.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// A client that waits `limit` for the head of an answer.
    pub fn client(&self, limit: Duration) -> std::result::Result<bollard::Docker, bollard::errors::Error> {
        let seconds = limit.as_secs();
        match self {
            Self::Unix(path) => bollard::Docker::connect_with_unix(path, seconds, bollard::API_DEFAULT_VERSION),
            Self::Tcp(host) => {
                bollard::Docker::connect_with_http(&format!("tcp://{host}"), seconds, bollard::API_DEFAULT_VERSION)
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}
