//! Makes one check of a target.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use tokio::net::TcpStream;

use super::{Checker, Outcome, Target, grpc, http, tls};
use crate::runtime::{ContainerRuntime, RuntimeError};

/// The checker that opens sockets and runs commands. One serves a whole agent.
pub struct Prober {
    runtime: Arc<dyn ContainerRuntime>,
    tls: Result<Arc<ClientConfig>, rustls::Error>,
}

impl Prober {
    /// A prober that runs exec probes through `runtime`.
    pub fn new(runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self { runtime, tls: tls::client_config() }
    }

    async fn http(&self, place: http::Place, headers: &[(String, String)]) -> Outcome {
        match &self.tls {
            Ok(tls) => http::get(tls, place, headers).await,
            Err(error) => Outcome::Error { message: format!("cannot speak TLS: {error}") },
        }
    }

    async fn exec(&self, container: &str, command: &[String], limit: Duration) -> Outcome {
        match self.runtime.exec(container, command, limit).await {
            Ok(output) if output.exit_code == 0 => Outcome::Success { warning: None },
            Ok(output) => {
                let text = output.output.trim();
                let message = format!("{} exited with code {}: {text}", command.join(" "), output.exit_code);
                Outcome::Failure { message: message.trim_end_matches([':', ' ']).to_owned(), refused: false }
            }
            Err(RuntimeError::Timeout { limit, .. }) => late(limit),
            Err(error) => Outcome::Error { message: error.to_string() },
        }
    }
}

#[async_trait]
impl Checker for Prober {
    async fn check(&self, target: &Target, limit: Duration) -> Outcome {
        let outcome = async {
            match target {
                Target::Unresolvable(why) => Outcome::Error { message: why.clone() },
                Target::Exec { container, command } => self.exec(container, command, limit).await,
                Target::Tcp { host, port } => match TcpStream::connect((host.as_str(), *port)).await {
                    Ok(_) => Outcome::Success { warning: None },
                    Err(error) => cannot_connect(host, *port, &error),
                },
                Target::Http { tls, host, port, path, headers } => {
                    let place = http::Place { tls: *tls, host: host.clone(), port: *port, path: path.clone() };
                    self.http(place, headers).await
                }
                Target::Grpc { host, port, service } => grpc::check(host, *port, service, limit).await,
            }
        };
        // The runtime keeps an exec's limit itself, so that it can end the process; this one is for a runtime that
        // hangs.
        let slack = if matches!(target, Target::Exec { .. }) { Duration::from_secs(1) } else { Duration::ZERO };
        tokio::time::timeout(limit.saturating_add(slack), outcome).await.unwrap_or_else(|_| late(limit))
    }
}

pub(super) fn late(limit: Duration) -> Outcome {
    Outcome::Failure { message: format!("no answer within {limit:?}"), refused: false }
}

pub(super) fn cannot_connect(host: &str, port: u16, error: &io::Error) -> Outcome {
    let host = http::bracketed(host);
    let refused = error.kind() == io::ErrorKind::ConnectionRefused;
    let why = if refused { "connection refused".to_owned() } else { error.to_string() };
    Outcome::Failure { message: format!("cannot connect to {host}:{port}: {why}"), refused }
}
