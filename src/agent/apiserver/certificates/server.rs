//! The serving certificate (`serverTLSBootstrap`). The cluster approves none of these by itself: an administrator does,
//! or an approver that knows the nodes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{info, warn};

use super::client::until;
use super::request::{RequestedCertificate, ask};
use super::store::{Pair, Store};
use super::{Serving, is_valid, renewal};
use crate::agent::apiserver::ApiServer;
use crate::agent::apiserver::registered::NodeState;
use crate::agent::backoff::{Steps, fraction};
use crate::agent::counters::Metrics;
use crate::agent::options::AgentOptions;
use crate::error::chain;
use crate::pki::San;

/// How long to wait after a refusal.
const RETRY: Steps = Steps { initial: Duration::from_secs(2), cap: Duration::from_secs(120) };

/// What it takes to have a serving certificate.
pub struct Parts {
    /// What the agent was started with.
    pub options: Arc<AgentOptions>,
    /// Whom it is asked of, where the agent has an API server.
    pub api: Option<Arc<ApiServer>>,
    /// The addresses that are served under.
    pub addresses: Vec<String>,
    /// The Node, which has to be registered.
    pub node: Arc<NodeState>,
    /// Where it goes.
    pub serving: Arc<Serving>,
    /// Where failures are counted.
    pub metrics: Arc<Metrics>,
}

/// Asks for the serving certificate, serves with it, and renews it until the agent ends. Needs an API server, and the
/// Node: a request is approved by who knows the node.
pub async fn keep(parts: Parts) {
    let node = parts.options.node.clone();
    let Some(api) = parts.api.clone().filter(|_| node.server_tls_bootstrap) else { return };
    let store = Store::server(&node.cert_dir);
    let sans = sans(&parts);
    let mut failures = 0_u32;
    loop {
        let current = match store.current() {
            Ok(current) => current.filter(|pair| is_for(pair, &sans)),
            Err(error) => {
                warn!(error = chain(&error), "the serving certificate is asked for anew");
                None
            }
        };
        let mut used_since = None;
        if let Some(pair) = current.filter(|pair| is_valid(&pair.certificate, Timestamp::now())) {
            if let Some(certified) = pair.certified() {
                info!(until = %pair.certificate.not_after, "serving with a certificate of the cluster");
                parts.serving.set(Arc::new(certified));
            }
            used_since = Some(pair.certificate.not_before);
            until(renewal(&pair.certificate, fraction())).await;
        }
        let mut clients = api.clients();
        // Both live as long as the agent.
        let _ = parts.node.identities().wait_for(Option::is_some).await;
        let client = clients.wait_for(Option::is_some).await.ok().and_then(|client| client.clone());
        let Some(client) = client else { return };
        let wanted = RequestedCertificate { node: &parts.options.node_name, sans: sans.clone(), key: None };
        let kept = match ask(&client, wanted).await {
            Ok(pair) => store.keep(&pair, Timestamp::now()).map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        match kept {
            Ok(()) => {
                failures = 0;
                if let Some(since) = used_since {
                    let age = Timestamp::now().duration_since(since);
                    parts.metrics.server_rotation.observe(age.as_secs_f64());
                }
            }
            Err(error) => {
                parts.metrics.server_certificate_errors.count();
                failures = failures.saturating_add(1);
                warn!(error, "there is no serving certificate yet");
                sleep(RETRY.spread(failures)).await;
            }
        }
    }
}

/// What the node serves under: its Node's host name and addresses.
fn sans(parts: &Parts) -> Vec<San> {
    let name = San::Dns(parts.options.node_name.clone());
    let addresses = parts.addresses.iter().filter_map(|address| address.parse().ok()).map(San::Ip);
    std::iter::once(name).chain(addresses).collect()
}

/// Whether a certificate has all these names, and so need not be asked for.
fn is_for(pair: &Pair, sans: &[San]) -> bool {
    sans.iter().all(|san| pair.certificate.sans.contains(san))
}
