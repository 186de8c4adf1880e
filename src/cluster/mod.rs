//! Objects written to the API server.

pub mod addons;
pub mod admin;
pub mod apply;
pub mod bootstrap;
pub mod bootstrap_token;
mod client;
pub mod joining;
pub mod discovery;
pub mod join_command;
pub mod remote;
pub mod tokens;
pub mod upload_certs;
pub mod identity;
pub mod metrics;

pub mod node;
pub mod object;
pub mod rbac;
pub mod upload_config;
pub mod version;

use std::path::PathBuf;
use std::time::Duration;

pub use client::{answers, client, client_of};

use crate::pki::client::ReadError;

/// Where the cluster's own objects are.
pub const SYSTEM: &str = "kube-system";
/// As whom objects are written.
const FIELD_MANAGER: &str = "kubeboot";

/// An API server that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig cannot be used.
    #[error("cannot use {} to reach the API server", path.display())]
    Kubeconfig {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// No client can be made of it.
    #[error("cannot make a client of {}", path.display())]
    Client {
        /// The kubeconfig.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server at the endpoint is not the one of the kubeconfig.
    #[error(
        "the server at {endpoint} has no certificate of this cluster's CA: does another API server use the address?"
    )]
    Stranger {
        /// Where.
        endpoint: String,
        /// What is wrong with its certificate.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server refuses, and would the next time.
    #[error("the API server at {endpoint} refuses to {what}")]
    Refused {
        /// Where.
        endpoint: String,
        /// What was tried.
        what: String,
        /// Its words.
        #[source]
        source: Box<kube::Error>,
    },
    /// A component shows no metrics to the administrator.
    #[error("{endpoint} shows no metrics")]
    Metrics {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It did not work in time.
    #[error("cannot {what} at {endpoint} within {} s", limit.as_secs())]
    Timeout {
        /// Where.
        endpoint: String,
        /// What was tried.
        what: String,
        /// How long.
        limit: Duration,
        /// How the last try ended, None when not even one did.
        #[source]
        last: Option<Box<kube::Error>>,
    },
}
