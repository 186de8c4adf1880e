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
use super::check::{dial_error, is_refusal};
use super::http::{USER_AGENT, bracketed};
use crate::agent::wording;
use crate::error::{causes, deepest};

/// What is read of an answer; a real one has two bytes.
const ANSWER_LIMIT: usize = 10 * 1024;

/// Asks for the health of `service` (empty: of the server). Only `SERVING` is a success. `limit` is sent to the server;
/// keeping it is the caller's.
pub(super) async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Outcome {
    let channel = match connect(host, port).await {
        Ok(channel) => channel,
        Err(outcome) => return outcome,
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(ANSWER_LIMIT);
    let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
    request.set_timeout(limit);
    match client.check(request).await.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Outcome::Success { warning: None },
        Ok(other) => failure(format!("service unhealthy (responded with {:?})", other.as_str_name())),
        Err(status) if is_late(&status) => failure(late(limit)),
        Err(status) if status.code() == Code::Unimplemented => {
            let why = "this server does not implement the grpc health protocol (grpc.health.v1.Health)";
            failure(format!("error: {why}: {}", status.message()))
        }
        Err(status) => failure(format!("error: health rpc probe failed: rpc error: {}", words(&status))),
    }
}

/// What is said of a server that does not answer in time.
pub(super) fn late(limit: Duration) -> String {
    format!("timeout: health rpc did not complete within {}", wording::span(limit))
}

async fn connect(host: &str, port: u16) -> Result<Channel, Outcome> {
    let unusable =
        |error: tonic::transport::Error| Outcome::Error { message: format!("{host:?}: {}", deepest(&error)) };
    let endpoint = Endpoint::from_shared(format!("http://{}:{port}", bracketed(host))).map_err(unusable)?;
    let endpoint = endpoint.user_agent(USER_AGENT.as_str()).map_err(unusable)?;
    endpoint.connect().await.map_err(|error| match io_error(&error) {
        Some(io) => {
            Outcome::Failure { message: unconnected(host, port, &dial_error(host, port, io)), refused: is_refusal(io) }
        }
        None => failure(unconnected(host, port, &deepest(&error))),
    })
}

fn unconnected(host: &str, port: u16, why: &str) -> String {
    format!("error: failed to connect service at \"{}:{port}\": {why}", bracketed(host))
}

fn failure(message: String) -> Outcome {
    Outcome::Failure { message, refused: false }
}

/// Who notices first that the time is up, server or client, says it in another way.
fn is_late(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || causes(Some(status)).any(|cause| cause.is::<TimeoutExpired>())
}

/// The code, and what the server or the connection said of it.
fn words(status: &Status) -> String {
    let message = status.message().trim();
    let why = status.source().map(deepest).unwrap_or_default();
    let text = if why.is_empty() || message == why { message.to_owned() } else { format!("{message} ({why})") };
    format!("code = {:?} desc = {text}", status.code())
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    causes(Some(error)).find_map(|cause| cause.downcast_ref())
}
