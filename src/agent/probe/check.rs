//! Makes one check of a target.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use tokio::net::TcpStream;

use super::{Checker, Outcome, Route, Target, grpc, http, tls};
use crate::agent::wording;
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

    async fn http(&self, place: http::Place, headers: &[(String, String)], route: Option<&Route>) -> Outcome {
        match &self.tls {
            Ok(tls) => http::get(tls, place, headers, route).await,
            Err(error) => Outcome::Error { message: format!("cannot speak TLS: {error}") },
        }
    }

    async fn exec(&self, container: &str, command: &[String], limit: Duration) -> Outcome {
        match self.runtime.exec(container, command, limit).await {
            Ok(output) if output.exit_code == 0 => Outcome::Success { warning: None },
            Ok(output) => {
                // The kubelet says what the command said; where that is nothing, its exit code says more than that.
                let message = match output.output.trim() {
                    "" => format!("{:?} exited with code {}", command.join(" "), output.exit_code),
                    text => text.to_owned(),
                };
                Outcome::Failure { message, refused: false }
            }
            Err(RuntimeError::Timeout { limit, .. }) => command_late(command, limit),
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
                    self.http(place, headers, None).await
                }
                Target::Grpc { host, port, service } => grpc::check(host, *port, service, limit).await,
            }
        };
        // The runtime keeps an exec's limit itself, so that it can end the process; this one is for a runtime that
        // hangs.
        let slack = if matches!(target, Target::Exec { .. }) { Duration::from_secs(1) } else { Duration::ZERO };
        tokio::time::timeout(limit.saturating_add(slack), outcome).await.unwrap_or_else(|_| late(target, limit))
    }

    async fn check_by(&self, route: &Route, target: &Target, limit: Duration) -> Outcome {
        let Target::Http { tls, host, port, path, headers } = target else { return self.check(target, limit).await };
        if route.is_over() {
            return self.check(target, limit).await;
        }
        let outcome = async {
            let (_turn, listens) = route.take().await;
            if !listens {
                return Outcome::Failure { message: "it does not listen yet".to_owned(), refused: true };
            }
            let place = http::Place { tls: *tls, host: host.clone(), port: *port, path: path.clone() };
            let outcome = self.http(place, headers, Some(route)).await;
            match route.both_listen().await {
                true => outcome,
                false => Outcome::Failure { message: "it does not listen any more".to_owned(), refused: true },
            }
        };
        tokio::time::timeout(limit, outcome).await.unwrap_or_else(|_| late(target, limit))
    }
}

/// A check that was not answered in time, in the words that a kubelet's probers have for it.
fn late(target: &Target, limit: Duration) -> Outcome {
    let message = match target {
        Target::Exec { command, .. } => return command_late(command, limit),
        Target::Tcp { host, port } => format!("dial tcp {}:{port}: i/o timeout", http::bracketed(host)),
        Target::Http { tls, host, port, path, .. } => {
            let place = http::Place { tls: *tls, host: host.clone(), port: *port, path: path.clone() };
            http::failed(&place, "context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        }
        Target::Grpc { .. } => grpc::late(limit),
        Target::Unresolvable(why) => why.clone(),
    };
    Outcome::Failure { message, refused: false }
}

fn command_late(command: &[String], limit: Duration) -> Outcome {
    let message = format!("command timed out: {:?} timed out after {}", command.join(" "), wording::span(limit));
    Outcome::Failure { message, refused: false }
}

fn cannot_connect(host: &str, port: u16, error: &io::Error) -> Outcome {
    Outcome::Failure { message: dial_error(host, port, error), refused: is_refusal(error) }
}

/// Whether nothing listens there.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// A connection that cannot be made, as Go says it: `dial tcp 10.0.0.1:80: connect: connection refused`.
pub(super) fn dial_error(host: &str, port: u16, error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    let why = match text.split_once(" (os error ") {
        Some((why, _)) => format!("connect: {why}"),
        None => text,
    };
    format!("dial tcp {}:{port}: {why}", http::bracketed(host))
}
