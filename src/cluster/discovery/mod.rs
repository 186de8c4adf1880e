//! How a machine that wants to join finds the cluster and learns whom to trust: by a bootstrap token and pins of the
//! CA, or by a file that was handed over.
//!
//! The checks are pure functions of what was fetched; [`Source`] is the thin edge that fetches.

mod error;
mod fetch;
mod file;
pub mod jws;
pub mod kubeconfig;
pub mod pins;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::bootstrap_token::Token;
use crate::config::spec::CaPin;
pub use error::{DiscoveryError, FetchError};
pub use fetch::ApiServer;
pub use file::{FileSource, by_file};
use kubeconfig::ClusterInfo;

/// The key of the kubeconfig in the config map kube-public/cluster-info.
const KUBECONFIG: &str = "kubeconfig";
/// What the keys of the signatures begin with; the token's public half follows.
const SIGNATURE: &str = "jws-kubeconfig-";
/// kubeadm's pause between two tries.
const INTERVAL: Duration = Duration::from_secs(5);

/// The data of kube-public/cluster-info.
pub type Data = BTreeMap<String, String>;

/// Fetches cluster-info.
#[async_trait]
pub trait Source: Send + Sync {
    /// The data of kube-public/cluster-info, without any credentials; the server has to show a certificate of `ca`
    /// (PEM), or any at all where that is None.
    async fn cluster_info(&self, server: &str, ca: Option<&[u8]>) -> Result<Data, FetchError>;
}

/// What discovery by token works from.
#[derive(Debug, Clone)]
pub struct ByToken {
    /// `host:port` of an API server.
    pub endpoint: String,
    /// The token that cluster-info is signed with.
    pub token: Token,
    /// The CA's public key has to be one of these; with none, the token alone vouches for it.
    pub pins: Vec<CaPin>,
    /// How long the whole may take.
    pub limit: Duration,
}

/// Finds the cluster by a token, as kubeadm does: cluster-info is fetched from a server that is not trusted yet, its
/// signature and the pins say whether the CA in it is the cluster's, and then it is fetched again from a server that
/// has to prove itself to that CA.
///
/// `waiting` hears of every try that has to be repeated.
///
/// # Errors
/// [`DiscoveryError`]; what cannot be trusted is never tried again.
pub async fn by_token(
    source: &dyn Source,
    order: &ByToken,
    waiting: &(dyn Fn(&DiscoveryError) + Sync),
) -> Result<ClusterInfo, DiscoveryError> {
    let server = format!("https://{}", order.endpoint);
    let tries = Tries { deadline: Instant::now() + order.limit, limit: order.limit, waiting };
    let (text, info) = tries
        .repeat(|| async {
            let data = source.cluster_info(&server, None).await.map_err(|e| e.at(&server))?;
            verify(&data, order)
        })
        .await?;
    tries
        .repeat(|| async {
            let data = source.cluster_info(&server, Some(&info.ca)).await.map_err(|e| e.at(&server))?;
            match data.get(KUBECONFIG) == Some(&text) {
                true => Ok(()),
                false => Err(DiscoveryError::Changed { server: server.clone() }),
            }
        })
        .await?;
    Ok(info)
}

/// What a fetched cluster-info says, if it is signed with the token and its CA is pinned.
fn verify(data: &Data, order: &ByToken) -> Result<(String, ClusterInfo), DiscoveryError> {
    let server = || format!("https://{}", order.endpoint);
    let no_kubeconfig = || DiscoveryError::NoKubeconfig { server: server() };
    let text = data.get(KUBECONFIG).filter(|text| !text.is_empty()).ok_or_else(no_kubeconfig)?;
    let id = order.token.id();
    let Some(signature) = data.get(&format!("{SIGNATURE}{id}")).filter(|text| !text.is_empty()) else {
        let signed: Vec<String> =
            data.keys().filter_map(|key| key.strip_prefix(SIGNATURE)).map(str::to_owned).collect();
        return Err(DiscoveryError::NotSigned { id: id.to_owned(), signed });
    };
    jws::verify(signature, text.as_bytes(), &order.token)
        .map_err(|source| DiscoveryError::Signature { id: id.to_owned(), source })?;
    let info = ClusterInfo::parse(text).map_err(|source| DiscoveryError::Kubeconfig { server: server(), source })?;
    let found = pins::of_pem(&info.ca).map_err(|source| DiscoveryError::Authority { server: server(), source })?;
    if !order.pins.is_empty() && !found.iter().any(|pin| order.pins.contains(pin)) {
        return Err(DiscoveryError::NotPinned { found, pins: order.pins.clone() });
    }
    Ok((text.clone(), info))
}

/// Tries again and again, up to a deadline.
struct Tries<'a> {
    deadline: Instant,
    limit: Duration,
    waiting: &'a (dyn Fn(&DiscoveryError) + Sync),
}

impl Tries<'_> {
    /// A server that is not there yet, or that has not signed yet, sends no event when it is: there is a pause between
    /// two tries.
    async fn repeat<T, F>(&self, mut once: impl FnMut() -> F) -> Result<T, DiscoveryError>
    where
        F: Future<Output = Result<T, DiscoveryError>>,
    {
        let mut last = None;
        loop {
            let error = match timeout_at(self.deadline, once()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if error.is_final() => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => return Err(self.late(last)),
            };
            (self.waiting)(&error);
            if Instant::now() + INTERVAL >= self.deadline {
                return Err(self.late(Some(error)));
            }
            last = Some(error);
            sleep(INTERVAL).await;
        }
    }

    fn late(&self, last: Option<DiscoveryError>) -> DiscoveryError {
        DiscoveryError::Timeout { limit: self.limit, last: last.map(Box::new) }
    }
}
