//! The rules as data, the workers under tokio's paused clock, and the prober against a server of its own.

mod check;
mod grpc;
mod rules;
mod spec;
mod workers;

use k8s_openapi::api::core::v1::Container;

use super::Outcome;

fn container(json: serde_json::Value) -> Container {
    serde_json::from_value(json).unwrap()
}

fn success() -> Outcome {
    Outcome::Success { warning: None }
}

fn failure(message: &str) -> Outcome {
    Outcome::Failure { message: message.into(), refused: false }
}

fn error(message: &str) -> Outcome {
    Outcome::Error { message: message.into() }
}
