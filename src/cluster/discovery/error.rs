//! What can go wrong on the way to a cluster, each with what to do.

use std::path::PathBuf;
use std::time::Duration;

use super::jws::JwsError;
use super::kubeconfig::KubeconfigError;
use crate::config::spec::CaPin;
use crate::pki::inspect::InspectError;

/// What fetching cluster-info ran into.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No server answers, or not in HTTPS.
    #[error("no API server answers")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its certificate is not one of the CA's.
    #[error("its certificate is not of this cluster's CA")]
    Stranger(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// By this machine's clock the certificate has expired, or is not valid yet.
    #[error("by this machine's clock its certificate is not valid: see whether the clock is right (date)")]
    Clock(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no cluster-info.
    #[error("it has no config map cluster-info in kube-public")]
    Missing,
    /// It cannot be read without credentials.
    #[error("it lets nobody read kube-public/cluster-info without credentials")]
    Forbidden,
    /// Anything else it answered.
    #[error("it answers {code}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The address or the CA makes no client.
    #[error("no client can be made for it")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl FetchError {
    pub(super) fn at(self, server: &str) -> DiscoveryError {
        DiscoveryError::Fetch { server: server.to_owned(), source: self }
    }
}

/// Why a cluster was not found, or is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// cluster-info could not be fetched.
    #[error("cannot fetch cluster-info from {server}")]
    Fetch {
        /// URL.
        server: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// There is no kubeconfig in it.
    #[error("cluster-info of {server} holds no kubeconfig")]
    NoKubeconfig {
        /// URL.
        server: String,
    },
    /// It is not signed with this token.
    #[error(
        "cluster-info is not signed with token {id}: it is unknown to the cluster or has expired{}; make a new one on \
         the control plane with `kubeboot token create --print-join-command`",
        others(signed)
    )]
    NotSigned {
        /// The token's public half.
        id: String,
        /// Those that have signed.
        signed: Vec<String>,
    },
    /// The signature is none of the token's.
    #[error("the signature of cluster-info with token {id} is not good")]
    Signature {
        /// The token's public half.
        id: String,
        /// Why.
        #[source]
        source: JwsError,
    },
    /// The kubeconfig in it makes no sense.
    #[error("the kubeconfig in cluster-info of {server} cannot be used")]
    Kubeconfig {
        /// URL.
        server: String,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// The CA in it makes no sense.
    #[error("the CA in cluster-info of {server} cannot be read")]
    Authority {
        /// URL.
        server: String,
        /// Why.
        #[source]
        source: InspectError,
    },
    /// Another CA than the one that is pinned.
    #[error(
        "the cluster's CA is {}, which none of --discovery-token-ca-cert-hash is ({}): this is another cluster, or \
         somebody between here and there answers in its place",
        list(found),
        list(pins)
    )]
    NotPinned {
        /// What the server has.
        found: Vec<CaPin>,
        /// What was asked for.
        pins: Vec<CaPin>,
    },
    /// The server that proved itself says something else.
    #[error("cluster-info of {server} is another when it is fetched with the CA that it names: do not trust it")]
    Changed {
        /// URL.
        server: String,
    },
    /// The discovery file cannot be read or fetched.
    #[error("cannot read the discovery file {}", path.display())]
    File {
        /// A path or a URL.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The discovery file makes no sense.
    #[error("the discovery file {} cannot be used", path.display())]
    FileContent {
        /// A path or a URL.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// Time is up.
    #[error("the cluster was not found within {} s", limit.as_secs())]
    Timeout {
        /// How long was tried.
        limit: Duration,
        /// What the last try ran into.
        #[source]
        last: Option<Box<DiscoveryError>>,
    },
}

impl DiscoveryError {
    /// Whether trying again can change nothing, or must not be done.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => {
                matches!(source, FetchError::Stranger(_) | FetchError::Clock(_) | FetchError::Client(_))
            }
            // The controller manager may not have come to signing yet.
            Self::NoKubeconfig { .. } | Self::NotSigned { .. } => false,
            _ => true,
        }
    }
}

fn list(pins: &[CaPin]) -> String {
    pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn others(signed: &[String]) -> String {
    match signed.is_empty() {
        true => String::new(),
        false => format!(" (it is signed with {})", signed.join(", ")),
    }
}
