//! `grpc` as the kubelet makes it: `Check` of `grpc.health.v1.Health` in plain text, one connection a question.

use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, TimeoutExpired};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Outcome;
use super::check::{cannot_connect, late};
use super::http::{USER_AGENT, bracketed};

/// What is read of an answer; a real one has two bytes.
const ANSWER_LIMIT: usize = 10 * 1024;

/// Asks for the health of `service` (empty: of the server). Only `SERVING` is a success. `limit` is told to the server;
/// keeping it is the caller's.
pub(super) async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Outcome {
    let channel = match connect(host, port).await {
        Ok(channel) => channel,
        Err(outcome) => return outcome,
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(ANSWER_LIMIT);
    let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
    request.set_timeout(limit);
    let of = if service.is_empty() { "the server".to_owned() } else { format!("service {service:?}") };
    match client.check(request).await.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Outcome::Success { warning: None },
        Ok(other) => failure(format!("{of} is not serving, it answered {}", other.as_str_name())),
        Err(status) if is_late(&status) => late(limit),
        Err(status) => failure(format!("asking for the health of {of} failed: {}", words(&status))),
    }
}

async fn connect(host: &str, port: u16) -> Result<Channel, Outcome> {
    let unusable =
        |error: tonic::transport::Error| Outcome::Error { message: format!("{host:?}: {}", deepest(&error)) };
    let endpoint = Endpoint::from_shared(format!("http://{}:{port}", bracketed(host))).map_err(unusable)?;
    let endpoint = endpoint.user_agent(USER_AGENT.as_str()).map_err(unusable)?;
    endpoint.connect().await.map_err(|error| match io_error(&error) {
        Some(io) => cannot_connect(host, port, io),
        None => failure(format!("cannot speak gRPC with {}:{port}: {}", bracketed(host), deepest(&error))),
    })
}

fn failure(message: String) -> Outcome {
    Outcome::Failure { message, refused: false }
}

/// Who notices first that the time is up, server or client, says it in another way.
fn is_late(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || causes(status).any(|cause| cause.is::<TimeoutExpired>())
}

/// The code, and what the server or the connection said of it.
fn words(status: &Status) -> String {
    let message = status.message().trim();
    let why = status.source().map(deepest).unwrap_or_default();
    let text = if why.is_empty() || message == why { message.to_owned() } else { format!("{message} ({why})") };
    format!("{:?}: {text}", status.code()).trim_end_matches([':', ' ']).to_owned()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The cause of all, which alone says something.
fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
